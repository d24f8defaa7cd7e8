"""`-o -`: the result on stdout, byte for byte that of the file, and nothing else there."""

import subprocess
import sys
from pathlib import Path

import pytest

from ovtool.cli.errors import run

LABELS = "a.png,cow,apple\nb.jpg,cow\n"


@pytest.fixture
def labelled(desk, photos):
    """labels.csv and maps.safetensors on the desk, and the options for the folder of the images."""
    Path("labels.csv").write_text(LABELS)
    images = ["--images", str(photos)]
    assert run(["cam", "--labels", "labels.csv", *images, "-o", "maps.safetensors"]) == 0
    return images


@pytest.mark.parametrize(
    "line, file",
    [
        (["cam", "--labels", "labels.csv"], "file.safetensors"),
        (["refine", "maps.safetensors", "--apply", "pamr"], "file.json"),
        (["refine", "maps.safetensors", "--apply", "pamr", "--format", "coco"], "file.json"),
        (
            ["refine", "maps.safetensors", "--apply", "pamr", "--format", "safetensors"],
            "file.safetensors",
        ),
    ],
    ids=["cam", "refine", "coco", "safetensors"],
)
def test_stdout_gets_the_bytes_of_the_file(line, file, labelled, capfdbinary):
    assert run([*line, *labelled, "-o", file]) == 0
    before = sorted(Path().iterdir())
    capfdbinary.readouterr()
    assert run([*line, *labelled, "-o", "-", "--json"]) == 0
    said = capfdbinary.readouterr()
    assert said.out == Path(file).read_bytes()
    assert b"standard output" in said.err
    assert sorted(Path().iterdir()) == before


def test_a_format_for_a_name_without_an_ending(labelled):
    line = ["refine", "maps.safetensors", "--apply", "pamr", *labelled]
    assert run([*line, "-o", "a.safetensors"]) == 0
    assert run([*line, "-o", "plain", "--format", "safetensors"]) == 0
    assert Path("plain").read_bytes() == Path("a.safetensors").read_bytes()
    assert run([*line, "--format", "safetensors"]) == 0
    assert Path("maps.refined.safetensors").read_bytes() == Path("a.safetensors").read_bytes()


def test_a_format_and_an_ending_that_disagree(labelled, fails):
    line = ["refine", "maps.safetensors", "--apply", "pamr", *labelled]
    said = fails(2, *line, "-o", "x.json", "--format", "safetensors")
    assert said == (
        "-o x.json ends as coco does, not safetensors; leave out --format, or change the name"
    )
    assert "give --format" in fails(2, *line, "-o", "x")


@pytest.mark.parametrize(
    "line",
    [
        ["cam", "--labels", "labels.csv", "--method", "matching"],
        ["tune-prompts", "maps.safetensors", "--kind", "background"],
        ["train-pacl", "--captions", "said.json"],
        ["train-proposer", "said.json"],
        ["train-segmenter", "said.json"],
    ],
    ids=lambda line: line[0],
)
def test_a_training_needs_a_file(line, labelled, fails):
    said = fails(2, *line, *labelled, "-o", "-")
    assert said == (
        "a training keeps a curve and a checkpoint beside its output; name a file in place of -"
    )


def test_the_step_prompts_needs_a_place_for_its_generator(labelled, fails):
    line = ["refine", "maps.safetensors", "--apply", "prompts", "--refine-weight", "0", *labelled]
    assert "name it with --save-generator" in fails(2, *line, "-o", "-")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
def test_a_terminal_gets_no_bytes(labelled):
    import os
    import pty

    master, slave = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "ovtool", "cam", "--labels", "labels.csv", *labelled, "-o", "-"],
        stdout=slave,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    os.close(slave)
    os.close(master)
    assert done.returncode == 2
    assert "which a terminal cannot show" in done.stderr
