"""`ovtool train-proposer` by its arguments and on files."""

import inspect
import json
from pathlib import Path

import pytest

from ovtool.cli import cheap_checks
from ovtool.cli.errors import run
from ovtool.datasets import collage_files, registry
from ovtool.formats import coco, tensors
from ovtool.settings import option
from ovtool.settings.proposer import ProposerTraining
from ovtool.settings.shared import Compute, Run
from ovtool.stages import train_proposer as stage
from ovtool.training.run import Outputs, Trained

stage_run = stage.run


@pytest.fixture
def parsed(monkeypatch):
    """What the command hands to the stage."""
    seen = {}

    def record(truth, training, **options):
        seen.update(options, truth=truth, training=training)
        return Trained(
            Outputs(Path("p.safetensors"), Path("p.png")),
            parameters={"network": 1},
            counts={"images": 1, "held_out": 0, "names": 1},
            steps=1,
            last={"loss": 1.0},
            notes={"backbone": None},
        )

    monkeypatch.setattr(stage, "run", record)
    monkeypatch.setattr(cheap_checks, "check", lambda values: None)  # its files are not there
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
    fields = {
        "architecture": ("--arch", "swin-base"),
        "targets": ("--targets", "instances"),
        "queries": ("--queries", 7),
        "steps": ("--steps", 8),
        "epochs": ("--epochs", 1.5),
        "batch_size": ("--batch-size", 9),
        "lr": ("--lr", 0.5),
        "weight_decay": ("--weight-decay", 0.125),
        "crop_size": ("--crop-size", 96),
        "exif": ("--exif", "stored"),
        "warmup": ("--warmup", 3),
        "templates": ("--templates", "one"),
        "class_weight": ("--class-weight", 0.25),
        "held_out": ("--held-out", 0.25),
        "validate_every": ("--validate-every", 11),
        "save_every": ("--save-every", 12),
        "seed": ("--seed", 13),
        "loader_workers": ("--loader-workers", 2),
    }
    compute = {
        "model": ("--model", "tiny"),
        "device": ("--device", "cpu"),
        "precision": ("--precision", "bfloat16"),
        "threads": ("--threads", 3),
    }
    others = {
        "out": ("-o", Path("p.safetensors")),
        "images": ("--images", Path("i")),
    }
    given = {**fields, **compute, **others}
    line = [str(part) for pair in given.values() for part in pair]
    flags = ["--resume", "--overwrite", "--dry-run"]
    assert run(["train-proposer", "truth.json", *line, *flags]) == 0
    del parsed["progress"]
    assert parsed == {
        "truth": "truth.json",
        "training": ProposerTraining(**{name: value for name, (_, value) in fields.items()}),
        "compute": Compute(**{name: value for name, (_, value) in compute.items()}),
        "run": Run(resume=True, overwrite=True, dry_run=True),
        **{name: value for name, (_, value) in others.items()},
    }
    assert set(fields) == set(option.fields(ProposerTraining))


def test_old_flags_answer_with_the_new_ones(fails):
    line = ("train-proposer", "truth.json", "-o", "p.safetensors")
    assert "--lr" in fails(2, *line, "--rate", 0.1)
    assert "--loader-workers" in fails(2, *line, "--workers", 2)


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
    assert found["out"] == "p.safetensors" and found["last"]["step"] == 2
    assert "backbone from random weights; 4 images of" in said.err
    assert tensors.read_header(desk / "p.safetensors")["kind"] == "proposer"
    assert run(["info", "p.safetensors"]) == 0
    line = ["propose", str(pictures.images), "--proposer", "p.safetensors", "-o", "o.json"]
    assert (
        run([*line, "--model", "tiny", "--save-embeddings", "e.safetensors", "--device", "cpu"])
        == 0
    )
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


def test_a_dry_run_says_what_would_be_written(desk, pictures, capsys):
    line = ["train-proposer", str(pictures.semantic), "--images", str(pictures.images), "--json"]
    line += ["-o", "p.safetensors", "--arch", "tiny", "--model", "tiny", "--templates", "one"]
    assert run([*line, "--epochs", "16", "--dry-run"]) == 0
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == "would train for 2 steps, and write p.safetensors, p.png"
    plan = json.loads(said.out)
    assert (plan["images"], plan["steps"], plan["is_plan"]) == (4, 2, True)
    assert plan["parameters"]["network"] > 3_000_000 and not list(desk.glob("p.*"))


def test_bad_requests_are_one_line(desk, pictures, fails):
    line = ("train-proposer", pictures.semantic, "-o", "p.safetensors")
    assert "needs --images DIR" in fails(2, *line)
    assert "no such folder: gone" in fails(1, *line, "--images", "gone")
    said = fails(2, "train-proposer", "collage:moon", "-o", "p.safetensors")
    assert "collage has no split 'moon'" in said
    coco.write(coco.Dataset({}, (), (), ()), desk / "empty.json")
    said = fails(
        1, "train-proposer", "empty.json", "--images", pictures.images, "-o", "p.safetensors"
    )
    assert said.startswith("no image of the truth has a mask")
    assert "--arch" in fails(2, *line, "--arch", "vgg")
