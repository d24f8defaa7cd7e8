"""`ovtool train-proposer` by its arguments and on files."""

import inspect
import json
from pathlib import Path

import pytest

from ovtool.cli.errors import run
from ovtool.datasets import collage_files, registry
from ovtool.formats import coco, tensors
from ovtool.stages import train_proposer as stage

stage_run = stage.run


@pytest.fixture
def parsed(monkeypatch):
    """What the command hands to the stage."""
    seen = {}

    def record(truth, **options):
        seen.update(options, truth=truth)
        return {
            "is_first": True, "backbone": None, "parameters": 1, "images": 1, "held_out": 0,
            "names": 1, "last": {"loss": 1.0}, "output": "p", "curve": "p.png",
        }  # fmt: skip

    monkeypatch.setattr(stage, "run", record)
    return seen


def test_the_command_and_its_function_have_the_same_defaults(parsed):
    assert run(["train-proposer", "truth.json", "-o", "p.safetensors"]) == 0
    del parsed["progress"]
    own = inspect.signature(stage_run).parameters.items()
    expected = {name: p.default for name, p in own if p.default is not p.empty}
    del expected["progress"]
    given = {"truth": "truth.json", "out": Path("p.safetensors")}
    assert parsed == expected | given


def test_every_option_reaches_the_function(parsed):
    arguments = {
        "out": ("-o", Path("p.safetensors")),
        "images": ("--images", Path("i")),
        "model": ("--model", "tiny"),
        "device": ("--device", "cpu"),
        "precision": ("--precision", "bfloat16"),
        "architecture": ("--arch", "swin-base"),
        "targets": ("--targets", "instances"),
        "queries": ("--queries", 7),
        "steps": ("--steps", 8),
        "batch_size": ("--batch-size", 9),
        "rate": ("--rate", 0.5),
        "side": ("--crop-size", 96),
        "warmup": ("--warmup", 3),
        "templates": ("--templates", "one"),
        "class_weight": ("--class-weight", 0.25),
        "held_out_share": ("--held-out", 0.25),
        "validate_every": ("--validate-every", 11),
        "save_every": ("--save-every", 12),
        "seed": ("--seed", 13),
        "workers": ("--workers", 2),
    }
    line = [str(part) for pair in arguments.values() for part in pair]
    assert run(["train-proposer", "truth.json", *line, "--resume", "--overwrite"]) == 0
    del parsed["progress"]
    expected = {name: value for name, (_, value) in arguments.items()}
    assert parsed == expected | {"truth": "truth.json", "resume": True, "overwrite": True}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Four pictures of the collage world."""
    folder = tmp_path_factory.mktemp("collage")
    collage_files.make(collage_files.CollageSpec("demo", 4, 1, 64), folder)
    return registry.collage_in(folder, "demo")


def test_from_masks_to_proposals_with_embeddings(desk, pictures, capsys):
    line = ["train-proposer", str(pictures.semantic), "--images", str(pictures.images)]
    line += ["-o", "p.safetensors", "--arch", "tiny", "--queries", "12", "--steps", "2"]
    line += ["--batch-size", "2", "--crop-size", "64", "--held-out", "0", "--templates", "one"]
    assert run([*line, "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["output"] == "p.safetensors" and found["last"]["step"] == 2
    assert "backbone from random weights; 4 images of" in said.err
    assert tensors.read_header(desk / "p.safetensors")["kind"] == "proposer"
    assert run(["info", "p.safetensors"]) == 0
    line = ["propose", str(pictures.images), "--proposer", "p.safetensors", "-o", "o.json"]
    assert run([*line, "--model", "tiny", "--embeddings", "e.safetensors", "--device", "cpu"]) == 0
    dataset = coco.read(desk / "o.json")
    header, kept = tensors.load(desk / "e.safetensors", "proposals")
    assert header["model"] == "tiny" and kept["embeddings"].shape[0] == len(dataset.annotations)
    measured = [
        "evaluate",
        "o.json",
        "--ground-truth",
        str(pictures.instances),
        "--metric",
        "recall",
    ]
    assert run(measured) == 0


def test_bad_requests_are_one_line(desk, pictures, fails):
    line = ("train-proposer", pictures.semantic, "-o", "p.safetensors")
    assert "needs --images DIR" in fails(2, *line)
    assert "no folder gone" in fails(1, *line, "--images", "gone")
    said = fails(2, "train-proposer", "collage:moon", "-o", "p.safetensors")
    assert "collage has no split 'moon'" in said
    coco.write(coco.Dataset({}, (), (), ()), desk / "empty.json")
    said = fails(
        1, "train-proposer", "empty.json", "--images", pictures.images, "-o", "p.safetensors"
    )
    assert said.startswith("no picture of the truth has a mask")
    assert "--arch" in fails(2, *line, "--arch", "vgg")
