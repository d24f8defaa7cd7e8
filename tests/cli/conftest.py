"""What the tests of commands over pictures share: a desk to work on, and small pictures."""

import numpy as np
import pytest
from PIL import Image

from ovtool.cli.errors import run


@pytest.fixture(scope="session")
def text_cache(tmp_path_factory):
    """One cache for all tests, so that the same words are embedded once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def desk(tmp_path, monkeypatch, text_cache):
    """An empty current folder; the model is the bundled one, and nothing else is in the cache."""
    monkeypatch.setenv("OVTOOL_CACHE", str(text_cache))
    monkeypatch.setenv("OVTOOL_MODEL", "tiny")
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def draw(path, height, width, seed):
    """Saves a picture of a few flat blocks."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (3, 4, 3), np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse.resize((width, height), Image.Resampling.NEAREST).save(path)


@pytest.fixture
def photos(tmp_path):
    """A folder with a.png, b.jpg and deep/c.png."""
    for seed, name in enumerate(("a.png", "b.jpg", "deep/c.png")):
        draw(tmp_path / "photos" / name, 40 + 8 * seed, 64, seed)
    return tmp_path / "photos"


@pytest.fixture
def fails(desk, capsys):
    """Runs a command that must fail: one line on stderr, nothing on stdout, nothing written."""

    def failing(status, *arguments):
        before = sorted(desk.rglob("*"))
        assert run([str(argument) for argument in arguments]) == status
        said = capsys.readouterr()
        assert said.out == ""
        lines = said.err.splitlines()
        assert len(lines) == 1, said.err
        assert lines[0].startswith("error: ")
        assert sorted(desk.rglob("*")) == before
        return lines[0].removeprefix("error: ")

    return failing
