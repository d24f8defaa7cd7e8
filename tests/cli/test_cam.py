"""`ovtool cam` on files, end to end, with the bundled model."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
from ovtool.cams.options import Options

from ovtool.cli.errors import run
from ovtool.formats import cams, tensors
from ovtool.stages import cam as stage
from ovtool.stages.cam import Made

ROOT = Path(__file__).parents[2]


@pytest.fixture
def said(desk, photos):
    """labels.csv on the desk, and the folder of its pictures."""
    Path("labels.csv").write_text("a.png,cow,boat\nb.jpg,cow\ndeep/c.png,boat\n")
    return ["--labels", "labels.csv", "--images", str(photos)]


@pytest.fixture
def parsed(monkeypatch):
    """What the command hands to the stage."""
    seen = {}

    def record(source, **options):
        seen.update(options, source=source)
        return Made("x", "gradcam", 1, 1, 1, is_plan=True)

    monkeypatch.setattr(stage, "run", record)
    return seen


def test_the_defaults_are_those_of_the_function(parsed):
    assert run(["cam", "--labels", "l.csv"]) == 0
    assert parsed["options"] == Options() and parsed["scales"] == (1.0,) and parsed["seed"] == 0
    assert parsed["method"] is None and not parsed["flip"] and not parsed["affinity"]
    how = parsed["how"]
    assert (how.part_size, how.resume, how.overwrite, how.strict) == (256, False, False, False)


def test_every_option_reaches_the_function(parsed):
    given = {
        "background": "sky,wall", "sentence": "one {}", "short_side": 96, "pacl": Path("p"),
        "from_maps": Path("m"), "arch": "timm:x", "generator": "clip", "hidden": 7, "start": "text",
        "save_generator": Path("g"), "similarity": "shifted", "background_weight": 0.75,
        "select": "labels", "label_steps": 5, "batch_size": 3, "epochs": 2.5, "steps": 4, "rate": 0.5,
        "crop_scale": 0.3, "box_threshold": 0.4,
    }  # fmt: skip
    line = [str(part) for name, value in given.items()
            for part in (f"--{name.replace('_', '-')}", value)]  # fmt: skip
    more = [
        "--scales",
        "1,0.5",
        "--flip",
        "--affinity",
        "--fine-tune",
        "--method",
        "pacl",
        "--seed",
        "3",
    ]
    assert run(["cam", "--labels", "l", *line, *more, "-o", "o", "--limit", "2", "--resume"]) == 0
    assert parsed["options"] == Options(**given, fine_tune=True)
    left = {field.name for field in fields(Options)} - given.keys()
    assert left == {"method", "affinity", "fine_tune"}
    assert parsed["scales"] == (1.0, 0.5) and parsed["flip"] and parsed["affinity"]
    assert parsed["method"] == "pacl" and parsed["seed"] == 3 and parsed["limit"] == 2
    assert parsed["out"] == "o" and parsed["how"].resume


def test_labels_become_maps(desk, said, capsys):
    assert run(["cam", *said, "--flip", "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1] == (
        "4 maps of 2 classes on 3 images by gradcam; written: labels.cams.safetensors"
    )
    assert json.loads(shown.out)["maps"] == 4
    found = cams.read(Path("labels.cams.safetensors"))
    assert [one.name for one in found.categories] == ["boat", "cow"] and found.model == "tiny"
    assert found.of(1).shape == (2, 16, 26)
    assert run(["info", "labels.cams.safetensors"]) == 0 and "cams" in capsys.readouterr().out
    assert run(["check", "labels.cams.safetensors"]) == 0


def test_matching_and_its_generator(desk, said, capsys):
    train = ["--method", "matching", "--steps", "2", "--label-steps", "2", "--batch-size", "2"]
    assert run(["cam", *said, *train, "--save-generator", "g.safetensors"]) == 0
    written = capsys.readouterr().err.splitlines()[-1]
    assert written.endswith("written: labels.cams.safetensors, labels.cams.png, g.safetensors")
    header, _ = tensors.load(Path("g.safetensors"), kind="mask-generator")
    assert header["model"] == "tiny" and header["settings"]["similarity"] == "raw"
    trained = ["--method", "matching", "--generator", "g.safetensors"]
    assert run(["cam", *said, *trained, "--affinity", "-o", "again.safetensors"]) == 0
    assert cams.read(Path("again.safetensors")).settings["affinity"] is True


def test_bad_input_is_told_in_one_line(fails, said, photos, desk):
    images = ["--images", photos]
    Path("none.csv").write_text("a.png,\n")
    Path("gone.csv").write_text("gone.png,cow\n")
    Path("one.csv").write_text("a.png,cow\n")
    assert "has a label" in fails(1, "cam", "--labels", "none.csv", *images)
    assert "do not exist, such as" in fails(1, "cam", "--labels", "gone.csv", *images)
    assert "is none of the classes" in fails(1, "cam", *said, "--classes", "cow,dog")
    one = ["--labels", "one.csv", *images]
    assert "has one label only, 'cow'" in fails(2, "cam", *one, "--method", "classifier")
    assert "needs a word to compete" in fails(2, "cam", *one, "--background", "none")
    assert "needs --images DIR" in fails(2, "cam", "--labels", "one.csv")
    assert "no such file: gone.txt" in fails(1, "cam", "--labels", "gone.txt", *images)
    assert "'1,big' is no list of numbers" in fails(2, "cam", *said, "--scales", "1,big")
    assert "name it with -o" in fails(2, "cam", *said, "-o", "-")
    assert "means nothing to --method gradcam" in fails(2, "cam", *said, "--rate", "0.1")
    assert "no such folder of maps" in fails(1, "cam", *said, "--from-maps", "nowhere")
    assert "no network 'timm:none'" in fails(
        2, "cam", *said, "--method", "classifier", "--arch", "timm:none"
    )
    Path("maps").mkdir()
    assert "has no maps for 3 of the 3" in fails(1, "cam", *said, "--from-maps", "maps")


def test_killed_and_resumed_it_writes_the_same_bytes(desk, said):
    program = (
        "import sys; from ovtool.trainers import mask_generator; mask_generator.SAVE_EVERY = 1;"
        "from ovtool.cli.errors import run; sys.exit(run(sys.argv[1:]))"
    )
    train = ["--method", "matching", "--steps", "6", "--label-steps", "2", "--batch-size", "2"]
    line = [sys.executable, "-c", program, "cam", *said, *train]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*line, "-o", "whole.safetensors"], check=True, env=environment)
    process = subprocess.Popen([*line, "-o", "cut.safetensors"], env=environment)
    while not Path("cut.safetensors.checkpoint").exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.returncode == 0:
        pytest.skip("it was done before it could be killed")
    subprocess.run([*line, "-o", "cut.safetensors", "--resume"], check=True, env=environment)
    for ending in ("safetensors", "png"):
        assert Path(f"cut.{ending}").read_bytes() == Path(f"whole.{ending}").read_bytes()
    assert not list(desk.glob("*.checkpoint")) and not list(desk.glob(".*.tmp"))
