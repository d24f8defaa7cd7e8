"""`ovtool train-pacl` on files, end to end, with the bundled model."""

import inspect
import io
import json
import tarfile
from pathlib import Path

import pytest

from ovtool.cli import cheap_checks
from ovtool.cli.app import COMMANDS, made
from ovtool.cli.errors import run
from ovtool.cli.train_pacl import train_pacl as command
from ovtool.formats import tensors
from ovtool.settings.pacl import Pacl
from ovtool.settings.shared import Compute, Run
from ovtool.stages import train_pacl as stage
from ovtool.training.run import Outputs, Trained

ROOT = Path(__file__).parents[2]
stage_run = stage.run


@pytest.fixture
def spoken(photos, captioned):
    """The photos and their captions, as arguments."""
    return ["--captions", str(captioned()), "--images", str(photos), "--model", "tiny"]


@pytest.fixture
def parsed(monkeypatch):
    """What the command hands to the stage."""
    seen = {}

    def record(captions, pacl, **options):
        seen.update(options, captions=captions, pacl=pacl)
        notes = {"left": {}, "cut": (), "too_long": 0}
        counts = {"images": 2, "held_out": 0, "batch_size": 2}
        outputs = Outputs(Path("x"), Path("y"))
        return Trained(outputs, {"head": 1}, counts, 1, notes=notes, is_plan=True)

    monkeypatch.setattr(stage, "run", record)
    monkeypatch.setattr(cheap_checks, "check", lambda values: None)  # its files are not there
    return seen


def test_the_command_and_its_function_have_the_same_names_and_defaults(parsed):
    """All but json, which is the command's own, and progress, which is the function's."""
    function = inspect.signature(stage_run).parameters
    named = inspect.signature(command).parameters
    assert [name for name in named if name != "json"] == list(function)[:-1]
    assert all(named[name].default == function[name].default for name in named if name != "json")
    assert run(["train-pacl", "--captions", "coco"]) == 0
    del parsed["progress"]
    expected = {name: p.default for name, p in list(function.items())[:-1]}
    assert parsed == expected | {"captions": "coco"}


def test_every_option_reaches_the_function(parsed):
    arguments = {
        "recipe": ("--recipe", "pacl"),
        "batch_size": ("--batch-size", 9),
        "micro_batch": ("--micro-batch", 3),
        "epochs": ("--epochs", 2.5),
        "steps": ("--steps", 7),
        "lr": ("--lr", 0.5),
        "weight_decay": ("--weight-decay", 0.25),
        "warmup": ("--warmup", 3),
        "patch_scale": ("--patch-scale", 1.0),
        "pooling": ("--pooling", "sparse"),
        "logit_scale": ("--logit-scale", 20.0),
        "pairs": ("--pairs", "all"),
        "noun_weight": ("--noun-weight", 0.5),
        "naming": ("--naming", 0.75),
        "templates": ("--templates", "one"),
        "start": ("--start", "random"),
        "last_block": ("--last-block", "naclip"),
        "crop_size": ("--crop-size", 96),
        "window": ("--window", 64),
        "held_out": ("--held-out", 0.5),
        "cache": ("--cache", "off"),
        "seed": ("--seed", 4),
        "loader_workers": ("--loader-workers", 2),
        "validate_every": ("--validate-every", 3),
        "save_every": ("--save-every", 5),
    }
    others = {
        "--captions": "coco",
        "--images": "i",
        "-o": "x.safetensors",
        "--model": "tiny",
        "--device": "cpu",
        "--precision": "float32",
        "--threads": "2",
    }
    line = [str(part) for pair in (*arguments.values(), *others.items()) for part in pair]
    flags = [
        "--learn-scale",
        "--nouns",
        "--resume",
        "--overwrite",
        "--update",
        "--strict",
        "--dry-run",
    ]
    assert run(["train-pacl", *line, *flags]) == 0
    del parsed["progress"]
    expected = {name: value for name, (_, value) in arguments.items()}
    assert parsed == {
        "captions": "coco",
        "images": Path("i"),
        "pacl": Pacl(**expected, learn_scale=True, nouns=True),
        "out": "x.safetensors",
        "compute": Compute(model="tiny", device="cpu", precision="float32", threads=2),
        "run": Run(resume=True, overwrite=True, update=True, strict=True, dry_run=True),
    }
    declared = made(next(row for row in COMMANDS if row.name == "train-pacl")).params
    own = ["json", "verbose", "quiet"]
    assert len(declared) == len(arguments) + len(others) + len(flags) + len(own)


def test_pairs_reach_the_function_without_nouns(parsed):
    assert run(["train-pacl", "--captions", "coco", "--pairs", "own"]) == 0
    assert parsed["pacl"].pairs == "own"


def test_a_head_is_written_and_known(desk, spoken, capsys):
    assert run(["train-pacl", *spoken, "--steps", "2", "--nouns", "--json"]) == 0
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert lines[0] == "trainable parameters: 111,168"  # 3 x (192 x 192 + 192)
    assert lines[1] == "3 images, 0 more held out, 2 steps of 3"
    assert lines[-2].startswith("loss ") and "information at least" in lines[-2]
    assert lines[-1] == "written: said.pacl.safetensors, said.pacl.png"
    assert json.loads(said.out)["parameters"] == {"head": 111168}
    header, _ = tensors.load(Path("said.pacl.safetensors"), kind="pacl")
    assert header["model"] == "tiny" and header["settings"]["window"] == 96
    assert run(["info", "said.pacl.safetensors"]) == 0
    assert "pacl" in capsys.readouterr().out
    assert run(["check", "said.pacl.safetensors"]) == 0


def test_what_is_left_out_is_said(desk, photos, captioned, capsys):
    path = captioned(
        {"a.png": ["a cow " * 100], "b.jpg": ["a cow"], "gone.png": ["x"], "deep/c.png": []}
    )
    line = ["--captions", str(path), "--images", str(photos), "--model", "tiny", "--dry-run"]
    assert run(["train-pacl", *line]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2] == (
        "left out: 1 with no caption, 1 with no image, 1 captions cut at the end of the context"
    )
    assert lines[-1] == "would write said.pacl.safetensors, said.pacl.png"
    assert not list(desk.glob("*.pacl.*"))


def shard(path, photos, size=None):
    """A shard of the photos, cut after so many bytes."""
    with tarfile.open(path, "w") as tar:
        for name in ("a.png", "b.jpg", "deep/c.png"):
            for member, data in (
                (name, (photos / name).read_bytes()),
                (f"{Path(name).with_suffix('')}.txt", b"a cow on grass"),
            ):
                entry = tarfile.TarInfo(member)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    path.write_bytes(path.read_bytes()[:size])
    return path


def test_a_shard_that_ends_in_the_middle_is_told_in_one_line(desk, photos, capsys):
    whole = shard(desk / "0.tar", photos).stat().st_size
    shard(desk / "1.tar", photos)
    shard(desk / "1.tar", photos, whole // 3 + 100)
    line = ["--captions", "{0..1}.tar", "--model", "tiny", "--steps", "2", "--batch-size", "5"]
    assert run(["train-pacl", *line]) == 0
    lines = capsys.readouterr().err.splitlines()
    (warning,) = [line for line in lines if line.startswith("warning: ")]
    assert warning.startswith("warning: 1.tar ends in the middle")
    assert any("1 shards that end in the middle" in line for line in lines)


def test_bad_input_is_told_in_one_line(fails, spoken, photos, captioned, desk):
    one = captioned({"a.png": ["a cow"]}, desk / "one.json")
    images = ["--images", photos, "--model", "tiny"]
    assert fails(2, "train-pacl", "--captions", one, *images).startswith("1 captioned image")
    assert "give 2 or more" in fails(2, "train-pacl", *spoken, "--batch-size", "1")
    assert "needs --images DIR" in fails(2, "train-pacl", "--captions", one)
    assert fails(1, "train-pacl", "--captions", "gone.json", "--images", photos).startswith(
        "no such file: gone.json"
    )
    assert fails(1, "train-pacl", "--captions", "{0..3}.tar").startswith("no such shard: 0.tar")
    assert "--steps N is needed" in fails(
        2, "train-pacl", "--captions", "https://example.org/{0..3}.tar", "--model", "tiny"
    )
    assert "no split 'none'" in fails(2, "train-pacl", "--captions", "collage:none")


def test_killed_and_resumed_it_writes_the_same_bytes(spoken, trained_and_resumed):
    options = ["--steps", "6", "--cache", "off", "--nouns", "--save-every", "1"]
    whole = trained_and_resumed(["train-pacl", *spoken, *options])
    assert sorted(whole) == ["whole.png", "whole.safetensors"]


@pytest.mark.parametrize(
    "old, new",
    [("--rate", "--lr"), ("--decay", "--weight-decay"), ("--workers", "--loader-workers")],
)
def test_old_names_of_options_are_answered_with_the_new_ones(fails, old, new):
    assert fails(2, "train-pacl", "--captions", "x", old, "1").startswith(f"{old} is now {new}")
