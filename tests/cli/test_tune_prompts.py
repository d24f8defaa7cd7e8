"""`ovtool tune-prompts` on files, end to end, with the bundled model."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from ovtool.cli import cheap_checks
from ovtool.cli.app import COMMANDS, made
from ovtool.cli.errors import run
from ovtool.cli.tune_prompts import tune_prompts as command
from ovtool.formats import coco, rle, tensors
from ovtool.settings.prompts import BackgroundPrompts, MaskPrompts
from ovtool.settings.shared import Compute, Run
from ovtool.stages import tune_prompts as stage
from ovtool.training.run import Outputs, Trained

ROOT = Path(__file__).parents[2]
stage_run = stage.run


@pytest.fixture
def pairs(desk, photos):
    """pairs.json on the desk: two nouns on each of the three photos."""
    images, entries = [], []
    for n, (name, height) in enumerate((("a.png", 40), ("b.jpg", 48), ("deep/c.png", 56))):
        images.append(coco.Image(n + 1, name, 64, height))
        for k in range(2):
            mask = np.tri(height, 64, 10, bool) if k else ~np.tri(height, 64, -10, bool)
            entries.append(coco.annotation(2 * n + k + 1, n + 1, k + 1, rle.encode(mask), 0.5))
    categories = [coco.Category(1, "cow"), coco.Category(2, "apple")]
    coco.write(coco.Dataset({}, images, entries, categories), desk / "pairs.json")
    return ["pairs.json", "--images", str(photos)]


@pytest.fixture
def parsed(monkeypatch):
    """What the command hands to the stage."""
    seen = {}

    def record(pairs, kind, **options):
        seen.update(options, pairs=pairs, kind=kind)
        counts = {"pairs": 2, "images": 2, "held_out": 0, "nouns": 1, "classes": 1}
        outputs = Outputs(Path("x"), Path("y"))
        return Trained(outputs, {"prompts": 1}, counts, 1, notes={"length": 3}, is_plan=True)

    monkeypatch.setattr(stage, "run", record)
    monkeypatch.setattr(cheap_checks, "check", lambda values: None)  # its files are not there
    return seen


def test_the_command_and_its_function_have_the_same_names_and_defaults(parsed):
    """All but json, which is the command's own, and progress, which is the function's."""
    function = inspect.signature(stage_run).parameters
    named = inspect.signature(command).parameters
    assert [name for name in named if name != "json"] == list(function)[:-1]
    assert all(named[name].default == function[name].default for name in named if name != "json")
    assert run(["tune-prompts", "p.json"]) == 0
    del parsed["progress"]
    expected = {name: p.default for name, p in list(function.items())[:-1]}
    assert parsed == expected | {"pairs": "p.json"}
    assert run(["tune-prompts", "p.json", "--kind", "background"]) == 0
    assert parsed["kind"] == BackgroundPrompts()


TRAINING = {
    "batch_size": ("--batch-size", 9),
    "epochs": ("--epochs", 2.5),
    "steps": ("--steps", 7),
    "lr": ("--lr", 0.5),
    "weight_decay": ("--weight-decay", 0.1),
    "warmup": ("--warmup", 3),
    "held_out": ("--held-out", 0.5),
    "seed": ("--seed", 4),
    "loader_workers": ("--loader-workers", 2),
    "validate_every": ("--validate-every", 3),
    "save_every": ("--save-every", 5),
}
MASK = {
    "recipe": ("--recipe", "ovseg"),
    "train": ("--train", "tower"),
    "depth": ("--depth", 5),
    "loss": ("--loss", "paper"),
    "tower_lr": ("--tower-lr", 0.25),
    "crop_size": ("--crop-size", 96),
}
BACKGROUND = {
    "recipe": ("--recipe", "semples"),
    "generator": ("--generator", Path("g")),
    "push": ("--push", "none"),
    "push_weight": ("--push-weight", 0.5),
    "length": ("--length", 7),
    "init": ("--init", "words"),
    "similarity": ("--similarity", "raw"),
    "words": ("--words", Path("w")),
    "crop_scale": ("--crop-scale", 0.5),
}


@pytest.mark.parametrize("kind, own", [(MaskPrompts, MASK), (BackgroundPrompts, BACKGROUND)])
def test_every_option_reaches_the_function(parsed, kind, own):
    arguments = {**TRAINING, **own}
    others = {
        "--images": "i",
        "-o": "x.safetensors",
        "--model": "tiny",
        "--device": "cpu",
        "--precision": "float32",
        "--threads": "2",
    }
    line = [str(part) for pair in (*arguments.values(), *others.items()) for part in pair]
    line += ["--kind", "mask" if kind is MaskPrompts else "background"]
    flags = ["--resume", "--overwrite", "--update", "--strict", "--dry-run"]
    assert run(["tune-prompts", "p.json", *line, *flags]) == 0
    del parsed["progress"]
    assert parsed == {
        "pairs": "p.json",
        "images": Path("i"),
        "kind": kind(**{name: value for name, (_, value) in arguments.items()}),
        "out": "x.safetensors",
        "compute": Compute(model="tiny", device="cpu", precision="float32", threads=2),
        "run": Run(resume=True, overwrite=True, update=True, strict=True, dry_run=True),
    }
    declared = made(next(row for row in COMMANDS if row.name == "tune-prompts")).params
    own_to_command = ["pairs", "kind", "json", "verbose", "quiet"]
    count = len(TRAINING) + len(MASK) + len(BACKGROUND) - 1  # both have a recipe
    assert len(declared) == count + len(others) + len(flags) + len(own_to_command)


def test_depth_may_be_all(parsed):
    assert run(["tune-prompts", "p.json", "--depth", "all"]) == 0
    assert parsed["kind"].depth == "all"


@pytest.mark.parametrize("kind, flag, value", [
    ("mask", "--push", "text"), ("mask", "--generator", "g.safetensors"), ("mask", "--length", "3"),
    ("background", "--train", "tower"), ("background", "--tower-lr", "0.1"),
    ("background", "--crop-size", "96"), ("background", "--depth", "3"),
])  # fmt: skip
def test_options_of_the_other_kind_are_refused(fails, kind, flag, value):
    other = "background" if kind == "mask" else "mask"
    said = fails(2, "tune-prompts", "p.json", "--kind", kind, flag, value)
    assert said.startswith(f"{flag} belongs to --kind {other}, not to {kind}")


@pytest.mark.parametrize(
    "old, new",
    [("--rate", "--lr"), ("--tower-rate", "--tower-lr"), ("--workers", "--loader-workers")],
)
def test_old_names_of_options_are_answered_with_the_new_ones(fails, old, new):
    assert fails(2, "tune-prompts", "x", old, "1").startswith(f"{old} is now {new}")


def test_prompts_are_written_and_used(desk, photos, pairs, capsys):
    assert run(["tune-prompts", *pairs, "--steps", "2", "--json"]) == 0
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert lines[0] == "trainable parameters: 36,864 of the prompts"  # 3 x 64 x 192
    assert lines[1] == "6 pairs of 2 nouns, 0 more held out, 2 steps"
    assert lines[-1] == "written: pairs.prompts.safetensors, pairs.prompts.png"
    assert json.loads(said.out)["parameters"] == {"prompts": 36864}
    header, _ = tensors.load(Path("pairs.prompts.safetensors"), kind="mask-prompts")
    assert header["model"] == "tiny" and header["settings"]["batch_size"] == 6
    picture = str(photos / "a.png")
    words = ["--classes", "cow,apple", "--method", "two-stage", "--proposer", "regions"]
    prompts = ["--prompts", "pairs.prompts.safetensors"]
    assert run(["segment", picture, *words, *prompts]) == 0
    assert run(["info", "pairs.prompts.safetensors"]) == 0
    assert "mask-prompts" in capsys.readouterr().out
    assert run(["check", "pairs.prompts.safetensors"]) == 0


def test_a_dry_run_says_what_would_be_trained(desk, pairs, capsys):
    both = ["--train", "tower-then-prompts", "--depth", "all", "--dry-run"]
    assert run(["tune-prompts", *pairs, *both]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("trainable parameters: 2,")
    assert lines[0].endswith(" of the tower and 73,728 of the prompts")
    assert lines[-1] == "would write pairs.prompts.safetensors, pairs.prompts.png"
    assert sorted(path.name for path in desk.iterdir()) == ["pairs.json"]


def test_bad_input_is_told_in_one_line(fails, pairs, photos):
    data = json.loads(Path("pairs.json").read_text())
    for name, annotations in (
        ("none", []),
        ("unknown", [{**data["annotations"][0], "category_id": 9}]),
    ):
        Path(f"{name}.json").write_text(json.dumps({**data, "annotations": annotations}))
    images = ["--images", photos]
    assert fails(1, "tune-prompts", "none.json", *images).startswith("none.json has no pairs")
    assert "category_id 9" in fails(1, "tune-prompts", "unknown.json", *images)
    assert "give the folder" in fails(1, "tune-prompts", "pairs.json")
    assert fails(1, "tune-prompts", "gone.json").startswith("no such file: gone.json")
    said = fails(2, "tune-prompts", *pairs, "--model", "RN50/openai")
    assert "RN50 is not a plain vision transformer" in said and "mask prompts" in said
    assert "has 6 blocks" in fails(2, "tune-prompts", *pairs, "--depth", "7")
    assert "--depth 'deep' is not allowed; give one of all or a whole number" in fails(
        2, "tune-prompts", *pairs, "--depth", "deep"
    )
    assert "no folder" in fails(1, "tune-prompts", "pairs.json", "--images", "nowhere")


@pytest.mark.parametrize("train", ["prompts", "tower"])
def test_killed_and_resumed_it_writes_the_same_bytes(pairs, trained_and_resumed, train):
    options = ["--train", train, "--steps", "5", "--batch-size", "3", "--save-every", "1"]
    whole = trained_and_resumed(
        ["tune-prompts", *pairs, *options], ".tower" if train == "tower" else ""
    )
    assert sorted(whole) == ["whole.png", "whole.safetensors"]
