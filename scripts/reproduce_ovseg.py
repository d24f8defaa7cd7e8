#!/usr/bin/env python3
"""Measures the claims of OVSeg on the collage: proposals, mined pairs, mask prompts, two stages.

    scripts/reproduce_ovseg.py WORK [--seeds 0,1,2] [--only NAME] [--steps 300] [--images 2000]

Everything that is made on the way stays in the folder WORK, every figure in WORK/cells.json, and what
is there is not made again: a run that was cut off goes on. Training is on `collage:train` (other
drawings), lambda is chosen on `collage:val`, all figures are of `collage:test`, in per cent, each
picture with its own 20 words. Prints one Markdown table: mean over the seeds, and every seed.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovtool.datasets import collage_files, registry
from ovtool.datasets.nouns import GROUNDS, class_names, table
from ovtool.formats import coco
from ovtool.stages import (
    evaluate,
    mapping,
    mine_pairs,
    oracle,
    propose,
    proposers,
    segment,
    tune_prompts,
)

BASE = {noun.name for noun in table() if noun.base} | set(GROUNDS)
LAMBDAS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 1.0)
OVERWRITE = mapping.Run(overwrite=True)
Figures = dict[str, float]


@dataclass(frozen=True)
class Tuning:
    """What is tuned on which pairs: `captions` (mined, by proposals), `captions-truth` (mined, by true
    masks) or `labels` (true masks and names of the base set)."""

    train: str = "prompts"
    pairs: str = "captions"
    depth: int | None = 3

    @property
    def name(self) -> str:
        return f"{self.pairs}-{self.train}-{self.depth or 'all'}"


@dataclass
class Bench:
    """The folder that everything lies in, and the figures that are known."""

    work: Path
    images: int
    steps: int
    batch_size: int
    tower_rate: float
    proposer: str
    cells: dict[str, Figures] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        self.known = self.work / "cells.json"
        if self.known.exists():
            self.cells = json.loads(self.known.read_text())

    def cell(self, name: str, measure: Callable[[], Figures]) -> Figures:
        """A figure by its name, measured where it is not known."""
        if name not in self.cells:
            began = time.perf_counter()
            found = measure()
            self.cells[name] = {**found, "seconds": round(time.perf_counter() - began, 1)}
            self.known.write_text(json.dumps(self.cells, indent=1) + "\n")
            print(f"<!-- {name}: {json.dumps(self.cells[name])} -->", flush=True)
        return self.cells[name]

    def data(self, split: str) -> registry.DataSet:
        """A split of the collage, made where it is not there."""
        folder = self.work / split
        files = registry.collage_in(folder, split)
        if not registry.is_made(files):
            count = self.images if split == "train" else registry.COLLAGE_IMAGES[split]
            collage_files.make(collage_files.CollageSpec(split, count, 7), folder)
        return files

    def proposals(self, split: str) -> tuple[Path, Path | None]:
        """The proposals of a split, and their embeddings where the proposer has them."""
        masks = self.work / f"{split}.proposals.json"
        vectors = self.work / f"{split}.proposals.safetensors"
        has_vectors = self.proposer != "regions"
        if not masks.exists():
            propose.run(
                [str(self.data(split).images)],
                model="tiny",
                proposer=self.proposer,
                embeddings=vectors if has_vectors else None,
                out=str(masks),
                how=mapping.Run(resume=True, overwrite=True),
            )
        return masks, vectors if has_vectors else None

    def pairs(self, kind: str, seed: int) -> Path:
        """The pairs of a kind."""
        out = self.work / f"{kind}.{seed}.pairs.json"
        data = self.data("train")
        if out.exists():
            return out
        if kind == "labels":
            whole = coco.read(data.semantic)
            kept = {each.id for each in whole.categories if each.name in BASE}
            masks = tuple(one for one in whole.annotations if one.category_id in kept)
            named = tuple(each for each in whole.categories if each.id in kept)
            coco.write(coco.Dataset(whole.info, whole.images, masks, named), str(out))
            return out
        masks = self.proposals("train")[0] if kind == "captions" else data.semantic
        mine_pairs.run(
            str(data.captions),
            images=data.images,
            proposals_file=masks,
            model="tiny",
            seed=seed,
            out=str(out),
            how=mapping.Run(resume=True, overwrite=True),
        )
        return out

    def tuned(self, tuning: Tuning, seed: int) -> Path:
        """The file that a tuning leaves."""
        out = self.work / f"{tuning.name}.{seed}.safetensors"
        if not out.exists():
            tune_prompts.run(
                str(self.pairs(tuning.pairs, seed)),
                images=self.data("train").images,
                model="tiny",
                train=tuning.train,
                depth=tuning.depth,
                steps=self.steps,
                batch_size=self.batch_size,
                tower_rate=self.tower_rate,
                seed=seed,
                out=str(out),
                resume=True,
                overwrite=True,
            )
        return out

    def two_stage(self, prompts: Path | None, weight: float, split: str = "test") -> Figures:
        """The figures of `segment --method two-stage`."""
        masks, vectors = self.proposals(split)
        return self.segmented(
            split,
            method="two-stage",
            prompts="none" if prompts is None else str(prompts),
            ensemble=weight,
            proposals_file=masks,
            embeddings=vectors,
        )

    def segmented(self, split: str, **options: Any) -> Figures:
        """mIoU of a segmentation of a split: of all classes, and of nouns outside the base set."""
        data = self.data(split)
        out = self.work / "segments.json"
        segment.run(
            [str(data.images)],
            classes_per_image=data.classes_per_image,
            model="tiny",
            out=str(out),
            how=OVERWRITE,
            **options,
        )
        found = evaluate.run(str(out), str(data.semantic), classes_per_image=data.classes_per_image)
        new = [one["iou"] for one in found["classes"] if one["name"] not in BASE]
        known = [value for value in new if value is not None]
        return {"miou": found["miou"], "miou_new": sum(known) / len(known)}

    def oracle(self, prompts: Path | None) -> Figures:
        """The rows of `probe oracle`."""
        data = self.data("test")
        found = oracle.run(
            coco_file=data.semantic,
            images=data.images,
            classes_per_image=data.classes_per_image,
            model="tiny",
            prompts="none" if prompts is None else str(prompts),
            proposals_file=self.proposals("test")[0],
        )
        short = {
            oracle.MASKED: "masked",
            oracle.PROMPTED: "prompted",
            oracle.UNMASKED: "unmasked",
            oracle.PROPOSED: "proposed",
        }
        figures = {}
        for row in found["rows"]:
            figures[f"{short[row['name']]}_miou"] = row["miou"]
            if row["accuracy"] is not None:
                figures[f"{short[row['name']]}_accuracy"] = row["accuracy"]
        return figures

    def best_lambda(self, prompts: Path | None, name: str) -> float:
        """The weight of the CLIP with the best mIoU on val; 1 where proposals have no embeddings."""
        if self.proposals("val")[1] is None:
            return 1.0
        scores = {
            weight: self.cell(
                f"val/{name}/lambda-{weight}",
                lambda weight=weight: self.two_stage(prompts, weight, "val"),
            )["miou"]
            for weight in LAMBDAS
        }
        return max(scores, key=lambda weight: scores[weight])


# name of the row: what is tuned, None for the CLIP as it is
SYSTEMS: Mapping[str, Tuning | None] = {
    "the CLIP as it is": None,
    "prompts (depth 3)": Tuning(),
    "prompts, depth 1": Tuning(depth=1),
    "prompts, all 6 blocks": Tuning(depth=None),
    "tower": Tuning("tower"),
    "tower, then prompts": Tuning("tower-then-prompts"),
    "tower; pairs: true masks and names of the base set": Tuning("tower", "labels"),
    "tower; pairs: captions and true masks": Tuning("tower", "captions-truth"),
}


def systems(bench: Bench, seeds: list[int], only: str | None) -> list[str]:
    """One row a system: two-stage at the lambda that val chose, and the CLIP alone."""
    rows = [
        "| tuned | mIoU, two-stage | of nouns outside the base | CLIP alone | lambda | masks named right |",
        "|---|---|---|---|---|---|",
    ]
    for title, tuning in SYSTEMS.items():
        if only and only not in title:
            continue
        found: list[Figures] = []
        for seed in seeds if tuning is not None else seeds[:1]:
            name = "none" if tuning is None else f"{tuning.name}.{seed}"
            prompts = None if tuning is None else bench.tuned(tuning, seed)
            weight = bench.best_lambda(prompts, name)
            both = bench.cell(
                f"test/{name}/lambda-{weight}",
                lambda p=prompts, w=weight: bench.two_stage(p, w),
            )
            alone = bench.cell(f"test/{name}/lambda-1.0", lambda p=prompts: bench.two_stage(p, 1.0))
            named = bench.cell(f"oracle/{name}", lambda p=prompts: bench.oracle(p))
            right = named.get("prompted_accuracy", named["masked_accuracy"])
            found.append(
                {
                    "miou": both["miou"],
                    "new": both["miou_new"],
                    "alone": alone["miou"],
                    "lambda": weight / 100,
                    "right": right,
                }
            )
        cells = [_shown([one[key] for one in found]) for key in found[0]]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return rows


def _shown(values: list[float]) -> str:
    """The mean in per cent, and every seed where there are several."""
    mean = f"{100 * statistics.mean(values):.1f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({', '.join(f'{100 * value:.1f}' for value in values)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", help="systems whose title contains this text")
    parser.add_argument("--images", type=int, default=2000, help="of collage:train")
    parser.add_argument("--steps", type=int, default=300, help="of every tuning")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--tower-rate", type=float, default=1e-4)
    parser.add_argument("--proposer", help="default: the one of tiny")
    args = parser.parse_args()
    bench = Bench(
        args.work,
        args.images,
        args.steps,
        args.batch_size,
        args.tower_rate,
        args.proposer or proposers.default_name("tiny"),
    )
    seeds = [int(seed) for seed in args.seeds.split(",")]
    names = bench.cell("oracle/none", lambda: bench.oracle(None))
    print("| who names what | mIoU | masks named right |\n|---|---|---|")
    for name in ("masked", "unmasked", "proposed"):
        right = names.get(f"{name}_accuracy")
        print(
            f"| {name} | {_shown([names[f'{name}_miou']])} | {_shown([right]) if right else ''} |"
        )
    print()
    print("\n".join(systems(bench, seeds, args.only)))
    words = ",".join(class_names())
    best = bench.tuned(Tuning("tower-then-prompts"), seeds[0])
    masks, vectors = bench.proposals("test")
    everything = bench.cell(
        "test/all-words",
        lambda: _all_words(bench, words, best, masks, vectors),
    )
    print(f"\nAll {len(class_names())} words at once: {_shown([everything['miou']])} mIoU")


def _all_words(
    bench: Bench, words: str, prompts: Path, masks: Path, vectors: Path | None
) -> Figures:
    """Two-stage with every word of the table for every picture."""
    data, out = bench.data("test"), bench.work / "segments.json"
    segment.run(
        [str(data.images)],
        classes=words,
        background="none",
        model="tiny",
        method="two-stage",
        prompts=str(prompts),
        proposals_file=masks,
        embeddings=vectors,
        out=str(out),
        how=OVERWRITE,
    )
    return {"miou": evaluate.run(str(out), str(data.semantic))["miou"]}


if __name__ == "__main__":
    main()
