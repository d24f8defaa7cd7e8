"""What the tests of commands over pictures share: a desk to work on, and small pictures."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovtool.cli import cheap_checks
from ovtool.cli.errors import run


@pytest.fixture(scope="session")
def text_cache(tmp_path_factory):
    """One cache for all tests, so that the same words are embedded once."""
    return tmp_path_factory.mktemp("cache")


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def forked(text_cache):
    """Runs a command in a folder, in a process of its own that may be killed; gives its status.

    `forked(folder, arguments, kill_when={...})`: see `forking.py`. The process is forked from one that
    has imported everything, so it starts in no time.
    """
    own = {"OVTOOL_CACHE": str(text_cache), "OVTOOL_MODEL": "tiny", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("forking.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **own, "PYTHONPATH": str(ROOT)},
    )

    def forking(folder, arguments, kill_when=None):
        job = {"folder": str(folder), "arguments": arguments, "kill_when": kill_when}
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    yield forking
    process.stdin.close()
    process.wait(timeout=60)


@pytest.fixture(scope="session")
def content():
    """The bytes of every file below a folder, by name, hidden ones too."""

    def read(folder):
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    return read


@pytest.fixture
def trained_and_resumed(desk, forked, content):
    """Trains by a command, once whole and once killed at its first checkpoint and resumed, and
    compares what the two leave: `OUT.safetensors` and, where there is one, its curve.

    It takes the arguments of the command, and what stands before `.checkpoint` in the name of its checkpoint.
    """

    def compare(arguments, checkpoint=""):
        assert forked(desk, [*arguments, "-o", "whole.safetensors"]) == 0
        cut = [*arguments, "-o", "cut.safetensors"]
        kept = f"cut.safetensors{checkpoint}.checkpoint"
        saved = {"call": "ovtool.training.checkpoints:Checkpoint.save", "exists": kept}
        assert forked(desk, cut, saved | {"after": True}) == -9
        assert (desk / kept).exists() and not (desk / "cut.safetensors").exists()
        assert forked(desk, [*cut, "--resume"]) == 0
        left = content(desk)
        whole = [name for name in left if name.startswith("whole.")]
        for name in whole:
            assert left[f"cut.{name.removeprefix('whole.')}"] == left[name], name
        assert not [name for name in left if name.endswith((".checkpoint", ".tmp"))]
        return whole

    return compare


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


CAPTIONS = {
    "a.png": ["An apple and two dogs", "a dog on grass"],
    "b.jpg": ["There is a photo of a cow"],
    "deep/c.png": ["riding happily"],
}


@pytest.fixture
def captioned(tmp_path):
    """Writes captions, file name to sentences, as a COCO JSON; those of the photos by default."""

    def write(captions=CAPTIONS, path=tmp_path / "said.json"):
        names = {name: number for number, name in enumerate(captions, 1)}
        said = [(names[name], words) for name, several in captions.items() for words in several]
        data = {
            "images": [{"id": number, "file_name": name} for name, number in names.items()],
            "annotations": [
                {"id": id, "image_id": image, "caption": words}
                for id, (image, words) in enumerate(said, 1)
            ],
        }
        path.write_text(json.dumps(data))
        return path

    return write


@pytest.fixture
def mining(desk, photos, captioned):
    """`mine-pairs` over three pictures, two of which have nouns."""
    said = ["--captions", str(captioned()), "--images", str(photos)]
    return ["mine-pairs", *said, "--proposer", "regions"]


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


@pytest.fixture
def handed(monkeypatch, tmp_path):
    """Watches what a command hands to its stage, by the names of the stage's parameters.

    `handed(stage, answer)` puts a stand-in that answers in the place of `stage.run`, and gives the
    dictionary that is filled by each call. The current folder has an image x.jpg.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jpg").touch()

    def watch(stage, answer):
        seen = {}
        own = inspect.signature(stage.run)

        def stand_in(*arguments, **named):
            seen.clear()
            seen.update(own.bind(*arguments, **named).arguments)
            seen.pop("progress", None)
            return answer

        monkeypatch.setattr(stage, "run", stand_in)
        monkeypatch.setattr(cheap_checks, "check", lambda values: None)  # its files are not there
        return seen

    return watch
