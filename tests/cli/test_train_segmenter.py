"""`ovtool train-segmenter` and `ovtool segment --segmenter` by their arguments and on files."""

import inspect
import json
from pathlib import Path

import pytest

from ovtool.cli import cheap_checks
from ovtool.cli.errors import run
from ovtool.datasets import collage_files, registry
from ovtool.formats import coco, tensors
from ovtool.settings import option
from ovtool.settings.segmenter import SegmenterTraining
from ovtool.settings.shared import Compute, Run
from ovtool.stages import train_segmenter as stage
from ovtool.training.run import Outputs, Trained

stage_run = stage.run


@pytest.fixture
def parsed(monkeypatch):
    """What the command hands to the stage."""
    seen = {}

    def record(labels, training, **options):
        seen.update(options, labels=labels, training=training)
        return Trained(
            Outputs(Path("s.safetensors"), Path("s.png")),
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
    assert run(["train-segmenter", "pseudo.json", "-o", "s.safetensors"]) == 0
    del parsed["progress"]
    own = inspect.signature(stage_run).parameters.items()
    expected = {name: p.default for name, p in own if p.default is not p.empty}
    del expected["progress"]
    given = {"labels": "pseudo.json", "out": Path("s.safetensors")}
    assert parsed == expected | given


def test_every_option_reaches_the_function(parsed):
    fields = {
        "architecture": ("--arch", "deeplabv3_resnet101"),
        "steps": ("--steps", 8),
        "epochs": ("--epochs", 1.5),
        "batch_size": ("--batch-size", 9),
        "lr": ("--lr", 0.5),
        "weight_decay": ("--weight-decay", 0.125),
        "crop_size": ("--crop-size", 96),
        "exif": ("--exif", "stored"),
        "warmup": ("--warmup", 3),
        "held_out": ("--held-out", 0.25),
        "validate_every": ("--validate-every", 11),
        "save_every": ("--save-every", 12),
        "seed": ("--seed", 13),
        "loader_workers": ("--loader-workers", 2),
        "short_side": ("--short-side", 128),
    }
    compute = {
        "model": ("--model", "tiny"),
        "device": ("--device", "cpu"),
        "precision": ("--precision", "bfloat16"),
        "threads": ("--threads", 3),
    }
    others = {
        "out": ("-o", Path("s.safetensors")),
        "images": ("--images", Path("i")),
        "validation": ("--validation", "truth.json"),
        "validation_images": ("--validation-images", Path("v")),
    }
    given = {**fields, **compute, **others}
    line = [str(part) for pair in given.values() for part in pair]
    flags = ["--with-background", "--resume", "--overwrite", "--dry-run"]
    assert run(["train-segmenter", "pseudo.json", *line, *flags]) == 0
    del parsed["progress"]
    assert parsed == {
        "labels": "pseudo.json",
        "training": SegmenterTraining(
            with_background=True, **{name: value for name, (_, value) in fields.items()}
        ),
        "compute": Compute(**{name: value for name, (_, value) in compute.items()}),
        "run": Run(resume=True, overwrite=True, dry_run=True),
        **{name: value for name, (_, value) in others.items()},
    }
    assert set(fields) | {"with_background"} == set(option.fields(SegmenterTraining))


def test_old_flags_answer_with_the_new_ones(fails):
    line = ("train-segmenter", "pseudo.json", "-o", "s.safetensors")
    assert "--lr" in fails(2, *line, "--rate", 0.1)
    assert "--loader-workers" in fails(2, *line, "--workers", 2)


def test_the_presets_of_the_crf_are_those_of_the_library():
    from typing import get_args

    from ovtool.methods import dense_crf
    from ovtool.settings import shared

    assert set(get_args(shared.Crf)) == set(dense_crf.PRESETS)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Four pictures of the collage world."""
    folder = tmp_path_factory.mktemp("collage")
    spec = collage_files.CollageSpec("demo", 4, 1, 64, "cooccur")
    collage_files.make(spec, folder)
    return registry.collage_in(folder, "demo")


def test_from_masks_to_a_segmenter_to_masks(desk, pictures, capsys):
    line = ["train-segmenter", str(pictures.instances), "--images", str(pictures.images)]
    line += ["-o", "s.safetensors", "--arch", "clip", "--model", "tiny", "--steps", "2"]
    line += ["--batch-size", "2", "--crop-size", "32", "--short-side", "64", "--held-out", "0"]
    assert run([*line, "--with-background", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["out"] == "s.safetensors" and found["last"]["step"] == 2
    assert "backbone from tiny; 4 images of 21 classes, 0 held out" in said.err
    assert tensors.read_header(desk / "s.safetensors")["fingerprint"]
    assert run(["info", "s.safetensors"]) == 0
    assert run(["check", "s.safetensors"]) == 0
    line = ["segment", str(pictures.images), "--segmenter", "s.safetensors", "-o", "o.json"]
    assert run([*line, "--device", "cpu", "--flip", "--label-maps", "maps"]) == 0
    dataset = coco.read(desk / "o.json")
    assert len(dataset.images) == 4 and len(dataset.categories) == 20
    assert dataset.info["ovtool"]["model"]["name"] == "tiny"
    line = ["evaluate", "o.json", "--ground-truth", str(pictures.instances), "--with-background"]
    assert run(line) == 0


def test_a_dry_run_says_what_would_be_written(desk, pictures, capsys):
    line = ["train-segmenter", str(pictures.instances), "--images", str(pictures.images), "--json"]
    line += ["-o", "s.safetensors", "--arch", "clip", "--model", "tiny", "--with-background"]
    assert run([*line, "--steps", "7", "--held-out", "0.5", "--dry-run"]) == 0
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == "would train for 7 steps, and write s.safetensors, s.png"
    plan = json.loads(said.out)
    assert (plan["images"], plan["held_out"], plan["names"]) == (2, 2, 21)
    assert plan["is_plan"] and plan["backbone"] == "tiny" and not list(desk.glob("s.*"))


def test_bad_requests_are_one_line(desk, pictures, fails):
    line = ("train-segmenter", pictures.instances, "-o", "s.safetensors")
    assert "needs --images DIR" in fails(2, *line)
    assert "no such folder: gone" in fails(1, *line, "--images", "gone")
    said = fails(2, "train-segmenter", "collage:moon", "-o", "s.safetensors")
    assert "collage has no split 'moon'" in said
    dataset = coco.read(pictures.instances)
    coco.write(coco.Dataset({}, dataset.images, (), dataset.categories), desk / "empty.json")
    images = ("--images", pictures.images)
    said = fails(1, "train-segmenter", "empty.json", *images, "-o", "s.safetensors")
    assert said.startswith("empty.json: every pixel is ignored")
    said = fails(2, *line, *images, "--arch", "tiny", "--model", "tiny")
    assert said.startswith("--model is the CLIP under --arch clip")
    assert "--arch" in fails(2, *line, "--arch", "vgg")
    tensors.save(desk / "x.safetensors", {}, {"kind": "pacl"})
    said = fails(2, "segment", pictures.images, "--segmenter", "x.safetensors", "-o", "o.json")
    assert "holds a PACL head, which" in said and "needed here: a segmenter" in said
