#!/usr/bin/env python3
"""Measures the claims of PACL on the collage: alignment, segmentation, coherence, classification.

    scripts/reproduce/pacl.py WORK [--seeds 0,1,2] [--steps 80] [--images 500] [--tested 100] [--only ROW]
    scripts/reproduce/pacl.py WORK --photos PHOTOS --twin FILE

Everything that is made on the way stays in the folder WORK, every figure in WORK/cells.json, and what
is there is not made again: a run that was cut off goes on. Heads are trained by `ovtool train-pacl` on the
captions of `collage:train` (other drawings), all figures are of `collage:test`, in per cent, each image with
its own 20 words; of everything, of objects, and of grounds. mIoU is given over the classes of the truth, and
over those of truth or prediction. Prints Markdown tables: mean over the repetitions of a training (`--seeds`),
which share scenes and test images, and each of them; and differences from the best last block, with the
intervals of the paired bootstrap over images.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pacl_bounds
import pacl_photographs
import photographs
from cells import Cells, Figures, mean_and_seeds, with_interval

from ovtool.datasets import collage_files, registry
from ovtool.datasets.nouns import GROUNDS
from ovtool.models import sources
from ovtool.settings.evaluate import MeanIou
from ovtool.settings.pacl import Pacl
from ovtool.settings.probe import Alignment, Classify, Coherence
from ovtool.settings.segment import Patch
from ovtool.settings.shared import Compute, Run, Source
from ovtool.settings.words import Words
from ovtool.stages import (
    evaluate,
    probe_alignment,
    probe_classify,
    probe_coherence,
    segment,
    train_pacl,
)

BUNDLED = sources.bundled_folder() / "tiny_pacl.safetensors"
TINY = Compute(model="tiny")
BLOCKS = ("clip", "maskclip", "sclip", "clearclip", "naclip")
STRIDES = (16, 8, 4)
CAPTIONED = 1000  # scenes for the bound
# what the bundled head of tiny is trained with (scripts/bundle/train_tiny_pacl.py), but for data and steps
RECIPE: dict[str, Any] = {
    "batch_size": 64,
    "lr": 2e-3,
    "warmup": 10,
    "patch_scale": 20.0,
    "logit_scale": 25.0,
    "nouns": True,
    "noun_weight": 3.0,
    "naming": 6.0,
    "last_block": "naclip+clip",
    "held_out": 0.0,
}
CAPTIONS: dict[str, Any] = {"nouns": False, "naming": 0.0}
HEADS: dict[str, dict[str, Any]] = {  # with a training for every seed
    "head": {},
    "captions alone": CAPTIONS,
    "captions alone, each image pooled by its own": {**CAPTIONS, "pairs": "own"},
}
ABLATED: dict[str, dict[str, Any]] = {  # with one training, of the first seed
    "captions and nouns": {"naming": 0.0},
    "captions and nouns, on tokens of clip": {"naming": 0.0, "last_block": "clip"},
    "head, on tokens of clip": {"last_block": "clip"},
    "head, on tokens of naclip": {"last_block": "naclip"},
}
OVERWRITE = Run(overwrite=True)


@dataclass
class Bench(Cells):
    """The folder that everything lies in, and the figures that are known."""

    images: int
    tested: int
    steps: int

    def data(self, split: str) -> registry.DataSet:
        """A split of the collage, made where it is not there."""
        files = registry.collage_in(self.work / split, split)
        if not registry.is_made(files):
            count = self.images if split == "train" else self.tested
            collage_files.make(collage_files.CollageSpec(split, count, 7), self.work / split)
        return files

    def head(self, name: str, seed: int) -> Path:
        """The file of a head, trained where it is not there."""
        out = self.work / f"{name.replace(', ', '-').replace(' ', '_')}.{seed}.safetensors"
        if not out.exists():
            data = self.data("train")
            own = {**RECIPE, **{**HEADS, **ABLATED}[name]}
            train_pacl.run(
                str(data.captions),
                Pacl(steps=self.steps, seed=seed, **own),
                images=data.images,
                out=out,
                compute=Compute(model="tiny"),
                run=Run(resume=True, overwrite=True),
            )
        return out

    def bounds(self, head: Path | None) -> list[float]:
        """log k - L in nats on each batch of 64 captioned scenes that no training has seen; of a head, or of
        one that begins."""
        folder = self.work / "captioned"
        files = registry.collage_in(folder, "test")
        if not registry.is_made(files):
            collage_files.make(collage_files.CollageSpec("test", CAPTIONED, 8), folder)
        return pacl_bounds.on_batches(head, Pacl(steps=1, **{**RECIPE, **CAPTIONS}), files)

    def segmented(self, name: str, **options: Any) -> Figures:
        """mIoU of `segment --method patch`, and its seconds an image; the masks stay, by the name."""
        data, out = self.data("test"), self.segments(name)
        began = time.perf_counter()
        segment.run(
            data.images,
            Words(classes_per_image=data.classes_per_image),
            Patch(**options),
            out=out,
            run=OVERWRITE,
            compute=Compute(model="tiny"),
        )
        spent = (time.perf_counter() - began) / self.tested
        counted = MeanIou(classes_per_image=data.classes_per_image)
        results = evaluate.run(out, data.semantic, counted)
        rows = [one for one in results["classes"] if one["iou"] is not None]
        parts = {
            "objects": [one["iou"] for one in rows if one["name"] not in GROUNDS],
            "grounds": [one["iou"] for one in rows if one["name"] in GROUNDS],
        }
        apart = {name: statistics.mean(values) for name, values in parts.items()}
        whole = {"all": results["miou"], "union": results["miou_union"]}
        return {**whole, **apart, "seconds_a_picture": round(spent, 3)}

    def segments(self, name: str) -> Path:
        """Where the masks of a way to read patches are."""
        return self.work / f"segments.{name.replace('/', '-')}.json"

    def paired(self, first: str, second: str) -> dict[str, dict[str, float]]:
        """How much higher the masks of the second way are, with intervals."""
        data = self.data("test")
        counted = MeanIou(classes_per_image=data.classes_per_image)
        masks = [self.segments(name) for name in (first, second)]
        compared = evaluate.run(masks[0], str(data.semantic), counted, other=masks[1])
        difference: dict[str, dict[str, float]] = compared["difference"]
        return difference

    def aligned(self, head: Path | None, last_block: str) -> Figures:
        """The shares of patches named right, of the head or of a last block."""
        data = self.data("test")
        results = probe_alignment.run(
            alignment=Alignment(
                classes_per_image=data.classes_per_image,
                last_block=last_block if head is None else "clip",
                pacl="none" if head is None else head,
            ),
            source=Source(coco=data.semantic, images=data.images),
            compute=TINY,
        )
        wanted = (
            (lambda row: row["pacl"]) if head else (lambda row: row["last_block"] == last_block)
        )
        (row,) = [row for row in results["rows"] if wanted(row)]
        return _grouped(row["accuracy"])

    def classified(self, head: Path) -> Figures:
        """Top-1 and mAP of the class token and of the head."""
        data = self.data("test")
        results = probe_classify.run(
            classify=Classify(classes_per_image=data.classes_per_image, pacl=head),
            source=Source(coco=data.semantic, images=data.images),
            compute=TINY,
        )
        figures: Figures = {}
        for row in results["rows"]:
            who = "head" if row["pacl"] else "token"
            for measure in ("top1", "map"):
                grouped = _grouped(row[measure])
                figures |= {f"{who}_{measure}_{name}": value for name, value in grouped.items()}
        return figures

    def coherent(self, head: Path | None) -> Figures:
        """The areas under the ROC curves, within and across images, of every block."""
        data = self.data("test")
        results = probe_coherence.run(
            coherence=Coherence(pacl="none" if head is None else head),
            source=Source(coco=data.semantic, images=data.images),
            compute=TINY,
        )
        return {
            f"{row['name']}, {kind}": row[kind]["auc"]
            for row in results["rows"]
            for kind in probe_coherence.KINDS
            if (row["pacl"] is not None) == (head is not None)
        }


def _grouped(shares: dict[str, float]) -> Figures:
    names = {"all": "all", "things": "objects", "stuff": "grounds"}
    return {name: shares[group] for group, name in names.items()}


Way = tuple[str, list[Path | None], str]  # its name, a head for each seed, a last block without one


def untrained() -> list[Way]:
    """Every last block, and the head that comes with tiny."""
    ways: list[Way] = [(f"last block {block}, no training", [None], block) for block in BLOCKS]
    return [*ways, ("the bundled head", [BUNDLED], "")]


def trained(bench: Bench, names: Sequence[str], seeds: list[int]) -> list[Way]:
    """Heads by their names, of every seed."""
    return [(name, [bench.head(name, seed) for seed in seeds], "") for name in names]


def readings(bench: Bench, ways: Sequence[Way]) -> list[str]:
    """Patch accuracy and mIoU of ways to read patches."""
    rows = [
        "| patches read by | patches named right | objects | grounds | mIoU | of truth or prediction | objects | "
        "grounds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for title, heads, block in ways:
        accuracy, miou = [], []
        for head in heads:
            name = block if head is None else head.stem
            accuracy.append(
                bench.cell(f"alignment/{name}", lambda h=head, b=block: bench.aligned(h, b))
            )
            options = {"last_block": block, "pacl": "none"} if head is None else {"pacl": str(head)}
            miou.append(
                bench.cell(f"miou/{name}", lambda n=name, o=options: bench.segmented(n, **o))
            )
        keys = {
            "accuracy": ("all", "objects", "grounds"),
            "miou": ("all", "union", "objects", "grounds"),
        }
        cells = [mean_and_seeds([one[key] for one in accuracy]) for key in keys["accuracy"]]
        cells += [mean_and_seeds([one[key] for one in miou]) for key in keys["miou"]]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return rows


def classification(bench: Bench, seeds: list[int]) -> list[str]:
    """The class token beside the PACL score."""
    results = []
    for seed in seeds:
        head = bench.head("head", seed)
        results.append(bench.cell(f"classify/{head.stem}", lambda h=head: bench.classified(h)))
    rows = ["| image scored by | top-1 | objects | grounds | mAP |", "|---|---|---|---|---|"]
    for who, title in (("token", "the class token"), ("head", "PACL, compatibility")):
        keys = [f"{who}_top1_{name}" for name in ("all", "objects", "grounds")]
        cells = [mean_and_seeds([one[key] for one in results]) for key in (*keys, f"{who}_map_all")]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return rows


def coherences(bench: Bench, seeds: list[int]) -> list[str]:
    """The ROC areas of the frozen encoder's blocks and of the head."""
    frozen = bench.cell("coherence/none", lambda: bench.coherent(None))
    head = bench.head("head", seeds[0])
    trained = bench.cell(f"coherence/{head.stem}", lambda: bench.coherent(head))
    named = {**frozen, **trained}
    rows = ["| patches of | same image | two images |", "|---|---|---|"]
    for name in dict.fromkeys(key.rpartition(", ")[0] for key in named if ", " in key):
        cells = [mean_and_seeds([named[f"{name}, {kind}"]]) for kind in probe_coherence.KINDS]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def bounds(bench: Bench, seeds: list[int]) -> list[str]:
    """log k - L on captions that no head has learned from, and how much higher it is than at the start."""
    rows = ["| log k - L, nats | at the start | after | difference |", "|---|---|---|---|"]
    start = bench.bounds(None)
    heads = [bench.head("captions alone", seed) for seed in seeds]
    for title, head in [("the bundled head", BUNDLED), *(("captions alone", one) for one in heads)]:
        rows.append(f"| {title} | {pacl_bounds.cells(start, bench.bounds(head))} |")
    return rows


def grids(bench: Bench, seeds: list[int]) -> list[str]:
    """Finer grids at test time: the first seed's head, and the best last block without a head."""
    head = bench.head("head", seeds[0])
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "the head": (head.stem, {"pacl": str(head)}),
        "last block naclip": ("naclip", {"last_block": "naclip", "pacl": "none"}),
    }
    rows = [
        "| patch stride | patches read by | mIoU | objects | grounds | s/image |",
        "|---|---|---|---|---|---|",
    ]
    for stride in STRIDES:
        for title, (stem, options) in ways.items():
            name = f"miou/{stem}" if stride == STRIDES[0] else f"miou/{stem}/stride-{stride}"
            given = {**options, "patch_stride": stride}
            kept = name.removeprefix("miou/")
            results = bench.cell(name, lambda n=kept, o=given: bench.segmented(n, **o))
            cells = [mean_and_seeds([results[key]]) for key in ("all", "objects", "grounds")]
            spent = results["seconds_a_picture"]
            rows.append(f"| {stride} | {title} | {' | '.join(cells)} | {spent:.2f} |")
    return rows


def differences(bench: Bench, seeds: list[int]) -> list[str]:
    """How much higher heads are than the best last block, `naclip`, on the same images."""
    rows = ["| against last block naclip | mIoU | of truth or prediction |", "|---|---|---|"]
    for title, heads, _ in [
        ("the bundled head", [BUNDLED], ""),
        *trained(bench, list(HEADS), seeds),
    ]:
        for head in heads:
            results = bench.paired("naclip", Path(str(head)).stem)
            cells = [with_interval(**results[key]) for key in ("miou", "miou_union")]
            rows.append(f"| {title} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    photographs.add_options(parser)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--images", type=int, default=500, help="of collage:train")
    parser.add_argument("--tested", type=int, default=100, help="of collage:test")
    parser.add_argument("--steps", type=int, default=80, help="of every training")
    parser.add_argument("--only", help="heads whose name contains this text, and their row alone")
    args = parser.parse_args()
    if photographs.print_table(args, pacl_photographs.claims, pacl_photographs.coherence):
        return
    bench = Bench(args.work, args.images, args.tested, args.steps)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    if args.only is not None:
        for names, own in ((HEADS, seeds), (ABLATED, seeds[:1])):
            asked_for = [name for name in names if args.only in name]
            print("\n".join(readings(bench, trained(bench, asked_for, own))), flush=True)
        return
    print("\n".join(readings(bench, [*untrained(), *trained(bench, list(HEADS), seeds)])))
    for table in (differences, classification, coherences, bounds, grids):
        print("\n" + "\n".join(table(bench, seeds)), flush=True)
    print("\n" + "\n".join(readings(bench, trained(bench, list(ABLATED), seeds[:1]))))


if __name__ == "__main__":
    main()
