"""`ovtool cam` on files, end to end, with the bundled model."""

import json
from pathlib import Path

import pytest

from ovtool.cli.errors import run
from ovtool.formats import cams, tensors
from ovtool.settings.cam import (
    UNUSED,
    ClassifierMaps,
    GivenMaps,
    Gradcam,
    LabelMatching,
    PaclMaps,
    Spread,
)
from ovtool.settings.option import fields
from ovtool.settings.shared import Compute, Run
from ovtool.stages import cam as stage
from ovtool.stages.cam import Made

ROOT = Path(__file__).parents[2]


@pytest.fixture
def said(desk, photos):
    """labels.csv on the desk, and the folder of its pictures."""
    Path("labels.csv").write_text("a.png,cow,boat\nb.jpg,cow\ndeep/c.png,boat\n")
    return ["--labels", "labels.csv", "--images", str(photos)]


@pytest.fixture
def parsed(handed):
    """What the command hands to the stage."""
    return handed(stage, Made("x", "gradcam", 1, 1, 1, is_plan=True))


def test_the_defaults_are_those_of_the_function(parsed):
    assert run(["cam", "--labels", "l.csv"]) == 0
    assert parsed == {
        "labels": "l.csv", "method": Gradcam(), "spread": Spread(), "images": None, "classes": None,
        "limit": None, "out": None, "compute": Compute(), "run": Run(),
    }  # fmt: skip


LEARNING = {"steps": 4, "epochs": 2.5, "batch_size": 3, "lr": 0.5, "weight_decay": 0.1, "warmup": 2,
            "save_every": 7, "seed": 3, "loader_workers": 1, "crop_scale": 0.3}  # fmt: skip
SEEN = {"short_side": 96, "scales": (1.0, 0.5)}
METHODS = {
    "classifier": (ClassifierMaps, {"arch": "timm:x", **LEARNING, **SEEN}),
    "gradcam": (Gradcam, {"background": "sky,wall", "sentence": "one {}", **SEEN}),
    "matching": (LabelMatching, {
        "recipe": "semples", "generator": "timm:y", "hidden": 7, "begin": "random", "save_generator": Path("g"),
        "similarity": "shifted", "background_weight": 0.75, "label_steps": 5,
        "background": "sky", **LEARNING, **SEEN,
    }),
    "pacl": (PaclMaps, {"pacl": Path("p"), **SEEN}),
    "maps": (GivenMaps, {"from_maps": Path("m")}),
}  # fmt: skip
SWITCHES = {"flip", "fine_tune"}


@pytest.mark.parametrize("name", METHODS)
def test_every_option_reaches_the_function(parsed, name):
    kind, given = METHODS[name]
    switches = SWITCHES & fields(kind).keys()
    assert given.keys() | switches == fields(kind).keys() - set(UNUSED)
    line = [f"--{switch.replace('_', '-')}" for switch in sorted(switches)]
    for field, value in given.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        line += [f"--{field.replace('_', '-')}", text]
    more = [
        "--affinity",
        "--box-threshold",
        "0.2",
        "--affinity-side",
        "64",
        "-o",
        "o",
        "--limit",
        "2",
        "--workers",
        "2",
        "--shard",
        "3/16",
    ]
    assert run(["cam", "--labels", "l", "--method", name, *line, *more, "--resume"]) == 0
    assert parsed["method"] == kind(**given, **dict.fromkeys(switches, True))
    assert parsed["spread"] == Spread(affinity=True, box_threshold=0.2, affinity_side=64)
    assert (parsed["out"], parsed["limit"], parsed["run"]) == (
        "o",
        2,
        Run(resume=True, workers=2, shard="3/16"),
    )


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
    assert "--scales 'big' is not allowed; give a number" in fails(
        2, "cam", *said, "--scales", "1,big"
    )
    assert "--lr belongs to --method classifier" in fails(2, "cam", *said, "--lr", "0.1")
    assert "--rate is now --lr" in fails(2, "cam", *said, "--rate", "0.1")
    assert "--pacl FILE" in fails(2, "cam", *said, "--method", "pacl")
    assert "no such folder of maps" in fails(1, "cam", *said, "--from-maps", "nowhere")
    assert "no network 'timm:none'" in fails(
        2, "cam", *said, "--method", "classifier", "--arch", "timm:none"
    )
    Path("maps").mkdir()
    assert "has no maps for 3 of the 3" in fails(1, "cam", *said, "--from-maps", "maps")


def test_killed_and_resumed_it_writes_the_same_bytes(said, trained_and_resumed):
    train = ["--method", "matching", "--steps", "6", "--label-steps", "2", "--batch-size", "2"]
    whole = trained_and_resumed(["cam", *said, *train, "--save-every", "1"])
    assert sorted(whole) == ["whole.png", "whole.safetensors"]
