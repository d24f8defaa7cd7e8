"""`ovtool tune-prompts` on files, end to end, with the bundled model."""

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ovtool.cli import tune_prompts as command
from ovtool.cli.errors import run
from ovtool.formats import coco, rle, tensors
from ovtool.stages import tune_prompts as stage
from ovtool.stages.tune_prompts import Tuned

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

    def record(pairs, **options):
        seen.update(options, pairs=pairs)
        return Tuned("x", "y", {"prompts": 1}, 2, 0, 1, 1, is_plan=True)

    monkeypatch.setattr(stage, "run", record)
    return seen


def test_what_is_not_given_is_left_to_the_function(parsed):
    assert run(["tune-prompts", "p.json"]) == 0
    del parsed["progress"]
    own = inspect.signature(stage_run).parameters
    assert parsed.keys() <= own.keys() | {"pairs"}
    assert all(value == own[name].default for name, value in parsed.items() if name != "pairs")


def test_every_option_reaches_the_function(parsed):
    arguments = {
        "images": ("--images", Path("i")),
        "kind": ("--kind", "mask"),
        "train": ("--train", "tower"),
        "depth": ("--depth", 5),
        "loss": ("--loss", "paper"),
        "batch_size": ("--batch-size", 9),
        "epochs": ("--epochs", 2.5),
        "steps": ("--steps", 7),
        "rate": ("--rate", 0.5),
        "tower_rate": ("--tower-rate", 0.25),
        "warmup": ("--warmup", 3),
        "crop_size": ("--crop-size", 96),
        "held_out": ("--held-out", 0.5),
        "model": ("--model", "tiny"),
        "device": ("--device", "cpu"),
        "precision": ("--precision", "float32"),
        "seed": ("--seed", 4),
        "workers": ("--workers", 2),
        "out": ("-o", "x.safetensors"),
    }
    line = [str(part) for pair in arguments.values() for part in pair]
    flags = {"resume": "--resume", "overwrite": "--overwrite", "dry_run": "--dry-run"}
    assert run(["tune-prompts", "p.json", *line, *flags.values()]) == 0
    del parsed["progress"]
    expected = {name: value for name, (_, value) in arguments.items()}
    assert parsed == expected | dict.fromkeys(flags, True) | {"pairs": "p.json"}
    options = inspect.signature(command.tune_prompts).parameters
    of_backgrounds = len(command.OWN["background"])
    # with pairs, and json
    assert len(options) == len(arguments) + len(flags) + 2 + of_backgrounds
    assert run(["tune-prompts", "p.json", "--depth", "all"]) == 0 and parsed["depth"] is None


@pytest.mark.parametrize("kind, flag, value", [
    ("mask", "--push", "text"), ("mask", "--generator", "g.safetensors"), ("mask", "--length", "3"),
    ("background", "--train", "tower"), ("background", "--held-out", "0.1"),
    ("background", "--precision", "bfloat16"), ("background", "--depth", "3"),
])  # fmt: skip
def test_options_of_the_other_kind_are_refused(fails, kind, flag, value):
    other = "background" if kind == "mask" else "mask"
    said = fails(2, "tune-prompts", "p.json", "--kind", kind, flag, value)
    assert said == f"{flag} belongs to --kind {other}: leave it out, or give that kind"


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
    assert "'deep' is neither a number" in fails(2, "tune-prompts", *pairs, "--depth", "deep")
    assert "no folder" in fails(1, "tune-prompts", "pairs.json", "--images", "nowhere")


@pytest.mark.parametrize("train", ["prompts", "tower"])
def test_killed_and_resumed_it_writes_the_same_bytes(desk, pairs, train):
    program = (
        "import sys; from ovtool.trainers import mask_prompts; mask_prompts.SAVE_EVERY = 1;"
        "from ovtool.cli.errors import run; sys.exit(run(sys.argv[1:]))"
    )
    options = ["tune-prompts", *pairs, "--train", train, "--steps", "12", "--batch-size", "3"]
    line = [sys.executable, "-c", program, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*line, "-o", "whole.safetensors"], check=True, env=environment)
    kept = Path(f"cut.safetensors{'.tower' if train == 'tower' else ''}.checkpoint")
    process = subprocess.Popen([*line, "-o", "cut.safetensors"], env=environment)
    while not kept.exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.returncode == 0:
        pytest.skip("it was done before it could be killed")
    subprocess.run([*line, "-o", "cut.safetensors", "--resume"], check=True, env=environment)
    for ending in ("safetensors", "png"):
        assert Path(f"cut.{ending}").read_bytes() == Path(f"whole.{ending}").read_bytes()
    assert not list(desk.glob("*.checkpoint")) and not list(desk.glob(".*.tmp"))
