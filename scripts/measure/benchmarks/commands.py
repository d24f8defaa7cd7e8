"""Rows on whole commands, start to file: what a user waits for, and the memory that it takes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import images
from benchmarks.measuring import OVTOOL, Setup, command, peak_gigabytes
from benchmarks.table import Row

FEW, MANY = 20, 200  # captioned photographs
REGIONS = 8  # of each
CROP = 224  # pixels a side


def startup(setup: Setup) -> list[Row]:
    """What a command takes before it does anything."""
    ways = {
        "ours": command([*OVTOOL, "--help"]),
        "theirs": command([sys.executable, "-c", "import typer"]),
    }
    cost = setup.medians(ways, 9)
    return [
        Row("help", "`ovtool --help`", cost["ours"], "`import typer`", cost["theirs"], 1 / 3),
    ]


def segment(setup: Setup) -> list[Row]:
    """`segment` on one photograph with each bundled model."""
    photo = images.photo_file(setup.folder)
    models = ("tiny",) if setup.quick else ("tiny", "photo")
    ways = {
        model: command([
            *OVTOOL, "segment", str(photo), "--classes", "person,rocket", "--model", model, "--overwrite",
            "-o", str(setup.folder / "segments.json"),
        ])
        for model in models
    }  # fmt: skip
    ways["imports"] = command([sys.executable, "-c", "import torch, open_clip"])
    ways["torch"] = command([sys.executable, "-c", "import torch"])
    cost = setup.medians(ways, 2 if setup.quick else 5)
    return [
        Row(f"segment-{model}", f"`segment` on a photograph of 640 x 480, `{model}`", cost[model],
            "`import torch, open_clip`", cost["imports"], 1 / 0.6,
            f"{100 * cost['torch'] / cost[model]:.0f} % is `import torch`")
        for model in models
    ]  # fmt: skip


def mining(setup: Setup) -> list[Row]:
    """`mine-pairs` on captioned photographs and their proposals: beside what cannot be done without, and two
    processes beside one thread for all."""
    captions = images.captioned(setup.folder / "mined", MANY)
    proposals = images.proposals(captions, REGIONS)
    ways = {
        "few": _mine(captions, proposals, "photo", "--limit", str(FEW)),
        "imports": command([sys.executable, "-c", "import torch, spacy"]),
        "forwards": _forwards(FEW),
    }
    cost = setup.medians(ways, 3, warm=False)
    two = ("--workers", "2", "--threads", "1", "--part-size", str(MANY // 2))
    many = {
        "two": _mine(captions, proposals, "tiny", *two),
        "one": _mine(captions, proposals, "tiny", "--threads", "1"),
        "start": _mine(captions, proposals, "tiny", "--threads", "1", "--limit", "1"),
    }
    cost |= setup.medians(many, 2, warm=False)
    shared = (
        cost["start"] + (cost["one"] - cost["start"]) / 2
    )  # what two processes would take at best
    of = f"captioned photographs of 640 x 480, {REGIONS} proposals each, crops of {CROP} px"
    return [
        Row("mine-few", f"`mine-pairs` on {FEW} {of}, `photo`, start to file", cost["few"],
            "`import torch, spacy`, and bare forward passes of the crops",
            cost["imports"] + cost["forwards"], 1 / 1.3),
        Row("mine-many", f"`mine-pairs --workers 2` on {MANY} {of}, `tiny`, start to file", cost["two"],
            "the same in one process of one thread", cost["one"], 2,
            f"a start of {cost['start']:.1f} s that is not shared: {cost['one'] / shared:.3g} at most"),
    ]  # fmt: skip


def _mine(captions: Path, proposals: Path, model: str, *options: str) -> Any:
    """The command on a captions file, the images beside it and their proposals."""
    place = ["--images", str(captions.parent / "images"), "--proposals", str(proposals)]
    out = ["--overwrite", "-o", str(captions.parent / "pairs.json")]
    how = ["--model", model, "--crop-size", str(CROP), "--region-features", "crops", *options]
    return command([*OVTOOL, "mine-pairs", "--captions", str(captions), *place, *out, *how])


def _forwards(photos: int) -> Callable[[], Any]:
    """A work: bare passes of the crops of so many photographs through the image tower of `photo`."""
    from ovtool.models import clip as clips

    clip = clips.load("photo")
    model, batch = clip.model, torch.randn(REGIONS, 3, CROP, CROP)
    places = model.visual.positional_embedding  # as many as a crop has; their values cost nothing
    model.visual.positional_embedding = torch.nn.Parameter(
        places[: 1 + (CROP // clip.patch_size) ** 2]
    )

    @torch.inference_mode()
    def work() -> None:
        for _ in range(photos):
            model.encode_image(batch)

    return work


def evaluating(setup: Setup) -> list[Row]:
    """`evaluate` of label maps: a process for all beside one."""
    folder = setup.folder / "maps"
    random = np.random.default_rng(0)
    for side in ("truth", "prediction"):
        (folder / side).mkdir(parents=True)
        names = "\n".join(f"class {number}" for number in range(150)) + "\n"
        (folder / side / "classes.txt").write_text(names)
        for number in range(200):
            coarse = random.integers(0, 150, (15, 20), dtype=np.uint8)
            labels = Image.fromarray(coarse.repeat(32, 0).repeat(32, 1))
            labels.save(folder / side / f"{number:03}.png")
    ways = {"ours": _evaluate(folder), "theirs": _one_by_one(folder)}
    cost = setup.medians(ways, 2)
    return [
        Row("evaluate", "`evaluate` of 200 label maps of 640 x 480, start to figures", cost["ours"],
            "torchmetrics, image after image", cost["theirs"], 1.8)
    ]  # fmt: skip


def _evaluate(folder: Path) -> Any:
    """The command."""
    truth = ["--ground-truth", str(folder / "truth"), "--bootstrap", "0"]
    return command([*OVTOOL, "evaluate", str(folder / "prediction"), *truth])


def _one_by_one(folder: Path) -> Any:
    """A program that sums the confusion matrices of all images."""
    code = "import sys; from reference import masks; masks.of_folder(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return lambda: subprocess.run(
        [sys.executable, "-c", code, str(folder)], check=True, env=environment
    )


def collage(setup: Setup) -> list[Row]:
    """The generator of the collage world."""
    from ovtool.datasets import collage_files

    collage_files.make(collage_files.CollageSpec("test", 64, 1, 128), setup.folder / "warm")
    make = [*OVTOOL, "data", "make", "collage", str(setup.folder / "collage"), "--split", "test"]
    more = ["--count", "1000", "--size", "128", "--workers", "2", "--overwrite"]
    cost = setup.medians({"ours": command([*make, *more])}, 1, warm=False)
    return [
        Row("collage", "`data make collage`, 1,000 images of 128 px, 2 workers", cost["ours"],
            "200 images a second", 5.0, 1)
    ]  # fmt: skip


def memory(setup: Setup) -> list[Row]:
    """Peaks of `segment`."""
    photo, large = images.photo_file(setup.folder), images.photo_file(setup.folder, 2048, 2048)
    names = setup.folder / "words.txt"
    names.write_text("".join(f"word{number}\n" for number in range(847)))
    out = ["--overwrite", "-o", str(setup.folder / "out.json")]
    segmenting = [*OVTOOL, "segment", "--model", "tiny", *out]
    few = [*segmenting, str(photo), "--classes", "teapot,apple"]
    many = [*segmenting, str(large), "--classes-file", str(names)]
    what = "peak memory of `segment`, `tiny`"
    return [
        Row("memory", f"{what}, 2 words, 640 x 480", peak_gigabytes(few), "a limit", 1.5, 1, unit="GB"),
        Row("memory-847", f"{what}, 847 words, 2048 x 2048",
            peak_gigabytes([*many, "--label-maps", str(setup.folder / "maps")]), "a limit", 3.0, 1,
            unit="GB"),
    ]  # fmt: skip
