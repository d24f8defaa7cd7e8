"""What hostile files are made of, and the command line as a user starts it."""

import json

import numpy as np
import pytest
from PIL import Image

from ovtool.cli.errors import run
from ovtool.formats import coco, rle


@pytest.fixture(scope="session")
def text_cache(tmp_path_factory):
    """One cache for all tests, so that the same words are embedded once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def desk(tmp_path, monkeypatch, text_cache):
    """A current folder with two images, images/1.png and images/2.png; the model is the one of drawings."""
    monkeypatch.setenv("OVTOOL_CACHE", str(text_cache))
    monkeypatch.setenv("OVTOOL_MODEL", "tiny")
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        draw(tmp_path / f"images/{number}.png", number)
    return tmp_path


def draw(path, seed):
    """Saves an image of a few flat blocks."""
    path.parent.mkdir(exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    Image.fromarray(coarse).resize((64, 64), Image.Resampling.NEAREST).save(path)


@pytest.fixture
def does(desk, capsys):
    """Runs a command line; its exit status, and what it said on stderr."""

    def command(line, *more):
        status = run([*line.split(), *more])
        said = capsys.readouterr()
        assert "Traceback" not in said.err and "unexpected" not in said.err
        return status, said.err

    return command


@pytest.fixture
def refused(does):
    """Runs a command line that must end in one line with an exit status; that line."""

    def command(line, *more, status=1):
        ended, said = does(line, *more)
        lines = [one for one in said.splitlines() if not one.startswith("warning: ")]
        assert ended == status and len(lines) == 1 and len(lines[0]) < 1000, (ended, said)
        assert lines[0].startswith("error: ") and lines[0].isprintable()
        return lines[0]

    return command


def mask():
    """A mask of a 64 x 64 image."""
    return rle.encode(np.arange(64 * 64).reshape(64, 64) % 9 < 4)


@pytest.fixture
def masks():
    """A COCO JSON of the two images as plain data, to be spoiled."""
    images = [coco.Image(number, f"{number}.png", 64, 64) for number in (1, 2)]
    entries = [coco.annotation(k, k, 1, mask(), 0.5) for k in (1, 2)]
    return coco.document(coco.Dataset({}, images, entries, [coco.Category(1, "cow")]))


@pytest.fixture
def spoiled(desk, masks):
    """Writes that COCO JSON with one value changed, and gives its name."""

    def write(section, key, value):
        masks[section][0][key] = value
        (desk / "x.json").write_text(json.dumps(masks))
        return "x.json"

    return write
