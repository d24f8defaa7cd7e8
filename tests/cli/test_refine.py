"""`ovtool tune-prompts --kind background` and `ovtool refine` on files, end to end, with the bundled model."""

import json
from pathlib import Path

import pytest
import torch

from ovtool.cli.errors import run
from ovtool.formats import cams, coco, tensors
from ovtool.runtime.outcome import Outcome
from ovtool.settings.cam import UNUSED
from ovtool.settings.option import fields
from ovtool.settings.refine import Apply, PromptStep, PseudoMasks
from ovtool.settings.shared import Compute, Run
from ovtool.stages import refine as stage

ROOT = Path(__file__).parents[2]
CATEGORIES = (coco.Category(1, "cow"), coco.Category(2, "apple"))


@pytest.fixture
def maps(desk, photos):
    """cams.safetensors on the desk: two classes on the first photo, one on the others."""
    images, found = [], {}
    for n, (name, height) in enumerate((("a.png", 40), ("b.jpg", 48), ("deep/c.png", 56))):
        ids = (1, 2) if n == 0 else (1 + n % 2,)
        images.append(cams.CamImage(n + 1, name, height, 64, ids))
        random = torch.Generator().manual_seed(n)
        found[n + 1] = torch.rand(len(ids), 5, 8, generator=random)
    cams.write(Path("cams.safetensors"), images, CATEGORIES, found, {"method": "gradcam"})
    return ["cams.safetensors", "--images", str(photos)]


def background(*options):
    return ["--kind", "background", "--steps", "2", "--length", "3", *options]


def test_background_prompts_are_written_and_used(maps, capsys):
    assert run(["tune-prompts", *maps, *background("--json")]) == 0
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert lines[0] == "background prompts of 2 classes, 3 vectors each, from 3 images, 2 steps"
    assert lines[1] in ("similarity: raw", "similarity: shifted")
    assert lines[2].startswith("cow: ") and len(lines[2].split(", ")) == 5
    assert lines[-1] == "written: cams.background.safetensors, cams.background.png"
    told = json.loads(said.out)
    assert told["parameters"] == {"vectors": 768} and len(told["nearest"]["apple"]) == 5
    assert run(["info", "cams.background.safetensors"]) == 0
    assert "background-prompts" in capsys.readouterr().out
    assert run(["check", "cams.background.safetensors"]) == 0
    prompts = ["--background-prompts", "cams.background.safetensors", "--epochs", "1"]
    line = ["refine", *maps, "--apply", "prompts,affinity", *prompts, "-o", "r.safetensors"]
    assert run(line) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "3 images, 4 maps, 0 failed: r.safetensors"
    assert cams.read(Path("r.safetensors")).model == "tiny"
    assert (
        run(["refine", "r.safetensors", *maps[1:], "--apply", "pamr,crf", "--confidence", "0.5"])
        == 0
    )
    assert run(["check", "r.pseudo.json"]) == 0
    names = [each.name for each in coco.read(Path("r.pseudo.json")).categories]
    assert names == ["background", "cow", "apple"]


def test_pseudo_masks_and_their_pictures(maps, capsys):
    pictures = ["--label-maps", "labels", "--overlays", "drawn"]
    assert run(["refine", *maps, *pictures, "-o", "x.json"]) == 0
    assert capsys.readouterr().err.splitlines()[-1].startswith("3 images, ")
    assert Path("labels/deep/c.png").exists() and Path("drawn/a.png").exists()
    assert Path("labels/classes.txt").read_text() == "background\ncow\napple\n"


def test_every_option_reaches_the_function(handed):
    seen = handed(stage, Outcome(coco.Dataset({}, (), (), ()), "x", planned=0))
    assert run(["refine", "c.safetensors"]) == 0
    assert seen == {
        "cams": Path("c.safetensors"), "apply": Apply(), "prompts": PromptStep(), "masks": PseudoMasks(), "images": None,
        "out": None, "format": None, "compute": Compute(), "run": Run(),
    }  # fmt: skip
    steps = Apply(
        recipe="semples",
        apply=("prompts", "affinity", "walk", "sam"), crf="weaktr", walk_on="attention", walk_radius=2,
        walk_doublings=3, walk_beta=4.0, walk_deviation=9.0, box_threshold=0.2, pamr_iterations=5,
        proposals=Path("p"), short_side=64,
    )  # fmt: skip
    prompts = PromptStep(
        recipe="semples",
        background_prompts=Path("b"), generator=Path("g"), refine_weight=0.2, background_weight=0.75,
        similarity="raw", label_steps=3, fit="yes", fit_epochs=2.0, save_generator=Path("s"), lr=0.5,
        epochs=3.0, steps=6, batch_size=5, weight_decay=0.1, warmup=1, save_every=8, seed=4, loader_workers=1,
    )  # fmt: skip
    masks = PseudoMasks(
        background_score="power:2", confidence=0.5, label_maps=Path("l"), overlays=Path("o")
    )
    line = []
    for settings in (steps, prompts, masks):
        for name in fields(type(settings)).keys() - set(UNUSED):
            value = getattr(settings, name)
            text = ",".join(value) if isinstance(value, tuple) else str(value)
            line += [f"--{name.replace('_', '-')}", text]
    assert (
        run(["refine", "c.safetensors", *line, "--images", "i", "--strict", "--workers", "2"]) == 0
    )
    assert (seen["apply"], seen["prompts"], seen["masks"]) == (steps, prompts, masks)
    assert seen["images"] == Path("i") and seen["run"] == Run(strict=True, workers=2)


def test_bad_input_is_told_in_one_line(fails, maps, photos):
    images = ["--images", photos]
    assert fails(1, "refine", "gone.safetensors", *images).startswith("no such file")
    assert "give the folder" in fails(1, "refine", "cams.safetensors")
    assert "no such folder" in fails(1, "refine", "cams.safetensors", "--images", "nowhere")
    assert "end it in .json" in fails(2, "refine", *maps, "-o", "x.png")
    said = fails(2, "refine", *maps, "--apply", "crf,prompts", "--background-prompts", "b")
    assert "prompts makes new maps, which would undo crf" in said
    assert "needs --background-prompts" in fails(2, "refine", *maps, "--apply", "prompts")
    tensors.save(Path("other.safetensors"), {}, {"kind": "pacl"})
    said = fails(2, "refine", "other.safetensors", *images)
    assert said.startswith(
        "other.safetensors holds a PACL head, which ovtool segment --pacl reads; needed here: class"
    )
    assert "holds a PACL head" in fails(
        2, "tune-prompts", "other.safetensors", *images, *background()
    )
    assert "room for 1 to 71" in fails(2, "tune-prompts", *maps, *background("--length", "72"))


@pytest.mark.parametrize(
    "command, checkpoint",
    [
        (["tune-prompts", "--kind", "background", "--steps", "6"], ""),
        (
            ["refine", "--apply", "prompts", "--refine-weight", "0", "--epochs", "6"]
            + ["--background-score", "otsu"],
            ".generator.safetensors",
        ),
    ],
    ids=["tune-prompts", "refine"],
)
def test_killed_and_resumed_it_writes_the_same_bytes(
    desk, maps, trained_and_resumed, command, checkpoint
):
    often = ["--batch-size", "2", "--save-every", "1"]
    trained_and_resumed([command[0], *maps, *command[1:], *often], checkpoint)
    assert not list(desk.glob("*.generator.*"))
