#!/usr/bin/env python3
"""Measures the claims of SemPLeS on the collage: maps, background prompts, refinement, a final segmenter.

    scripts/reproduce/semples.py WORK [--seeds 0,1,2] [--only ROW] [--images 500]
    scripts/reproduce/semples.py WORK --only intervals --scenes-seed 8 --images 200 --val-images 100
    scripts/reproduce/semples.py WORK --photos PHOTOS --twin FILE

Everything that is made on the way stays in the folder WORK, every figure in WORK/cells.json, and what is
there is not made again: a run that was cut off goes on. The data are the preset `cooccur`: 20 classes,
all else background; objects lie on their paired ground nine times in ten in `train`, and one time in two in
`val`, whose drawings nothing was trained on. Figures are in per cent: maps of `train`, whose images the masks
are for, and of `val`; hosts of `train`; the chain of `val`, where the row does not say `train`. No threshold
and no step of a run is chosen by pixel truth; rates, steps and weights were looked at on 100 images of each
split. Prompts are learned by the similarity `shifted`. Prints Markdown tables: mean over the repetitions of a
training (`--seeds`), which share scenes, and each of them.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from itertools import chain
from pathlib import Path

import photographs
import semples_intervals
import semples_photographs
import semples_scores as scores
from cells import Figures, mean_and_seeds
from semples_bench import BEST, HOSTS, Bench, Budget

# --- rows -----------------------------------------------------------------------------------------------
Row = tuple[str, list[Figures]]
Own = Callable[[], tuple[Path, Path]]  # maps of `train` and the generator that made them
# title: what the prompts of a refinement are pushed from; `list` is words
REFINEMENTS: Mapping[str, str] = {
    "prompts from a list of words": "list",
    "prompts pulled only": "none",
    "prompts pulled, and pushed from the class text": "text",
    "prompts pulled, and pushed from the foreground": "foreground",
}
# what the generator begins with, and which refinements are measured on it
STARTS: Mapping[str, Sequence[str]] = {"text": tuple(REFINEMENTS.values()), "rivals": (BEST,)}


def maps_rows(bench: Bench, seeds: Sequence[int]) -> list[Row]:
    """Seeds of both splits: training-free, by matching, and by matching with prompts of each kind."""

    def cell(name: str, of: Callable[[], tuple[Path, Path]]) -> Figures:
        """of: maps of `train`, and the generator that made them."""

        def measure() -> Figures:
            maps, generator = of()
            results = scores.seeds(maps, bench.data("train"))
            return results | _on_val(scores.seeds(bench.by_generator(generator), bench.data("val")))

        return bench.cell(f"maps/{name}", measure)

    def free() -> Figures:
        on = {split: bench.maps("gradcam", 0, split) for split in ("train", "val")}
        figures = {split: scores.seeds(maps, bench.data(split)) for split, maps in on.items()}
        return figures["train"] | _on_val(figures["val"])

    rows: list[Row] = [("gradcam, training-free", [bench.cell("maps/gradcam", free)])]
    for start, pushes in STARTS.items():
        begun = cell(f"{start}/begun", lambda start=start: bench.matching(start, 0, 0))
        rows.append((f"start `{start}`, no training", [begun]))
        results = [
            cell(f"{start}/match/{seed}", lambda start=start, seed=seed: bench.matching(start, seed))
            for seed in seeds
        ]  # fmt: skip
        rows.append((f"start `{start}`, L_match", results))
        for title, push in REFINEMENTS.items():
            if push not in pushes:
                continue
            results = [
                cell(
                    f"{start}/{push}/{seed}",
                    lambda start=start, push=push, seed=seed: bench.refined(start, push, seed),
                )
                for seed in seeds
            ]
            rows.append((f"start `{start}`, L_match + L_refine, {title}", results))
    return rows


def _on_val(figures: Figures) -> Figures:
    return {f"val_{name}": value for name, value in figures.items()}


def nearest_rows(bench: Bench, seeds: Sequence[int]) -> list[Row]:
    """For how many classes the paired ground is among the five nearest words."""
    rows = []
    for title, push in REFINEMENTS.items():
        if push == "list":
            continue
        for seed in seeds:
            if not bench.only_known:
                bench.prompts(push, seed)
        rows.append((title, [bench.cells.get(f"nearest/{push}/{seed}", {}) for seed in seeds]))
    return rows


def chain_rows(bench: Bench, seeds: Sequence[int]) -> list[Row]:
    """Seeds, refined masks, the segmenter on them, and the segmenter on true masks: mIoU of `val`."""
    val = bench.data("val")
    results: dict[str, list[Figures]] = {}
    for seed in seeds:

        def own(seed: int = seed) -> tuple[Path, Path]:
            return bench.refined("rivals", BEST, seed)

        def seeds_of(own: Own = own) -> Figures:
            return scores.seeds(bench.by_generator(own()[1]), val)

        def masks(seed: int = seed, own: Own = own) -> Figures:
            maps = bench.by_generator(own()[1])
            return scores.masks(bench.pseudo(maps, "val", "refined", seed, 0.0), val)

        def train_masks(seed: int = seed, own: Own = own) -> Figures:
            made = bench.pseudo(own()[0], "train", "whole", seed, 0.0)
            return scores.masks(made, bench.data("train"))

        def final(seed: int = seed, own: Own = own) -> Figures:
            labels = bench.pseudo(own()[0], "train", "refined", seed, None)
            return bench.segmenter(labels, "pseudo", seed, with_background=False)

        def full(seed: int = seed) -> Figures:
            labels = bench.data("train").instances
            assert labels is not None
            return bench.segmenter(labels, "truth", seed, with_background=True)

        for title, name, measure in (
            ("seed", f"chain/seed/{seed}", seeds_of),
            ("refined (CRF)", f"chain/refined/{seed}", masks),
            ("pseudo masks of train", f"chain/train/{seed}", train_masks),
            ("final segmenter", f"chain/segmenter/{seed}", final),
            ("the same on true masks", f"chain/full/{seed}", full),
        ):
            results.setdefault(title, []).append(bench.cell(name, measure))
    return list(results.items())


def host_rows(bench: Bench, seeds: Sequence[int]) -> list[Row]:
    """Seeds of `train` on other maps: as given, the head fitted alone, + match, + refine."""
    rows = []
    train = bench.data("train")
    for title in HOSTS:
        for kind, label in (
            ("given", "as given"), ("fit", "head fitted"), ("match", "+ L_match"),
            ("refine", "+ L_match + L_refine"),
        ):  # fmt: skip
            results = []
            for seed in seeds:

                def measure(title: str = title, kind: str = kind, seed: int = seed) -> Figures:
                    if kind == "given":
                        return scores.seeds(bench.host(title, seed), train)
                    return scores.seeds(bench.maps_on_host(title, kind, seed), train)

                results.append(bench.cell(f"host/{title}/{kind}/{seed}", measure))
            rows.append((f"{title}: {label}", results))
    return rows


# name: (title of the table, the rows, the columns as figure and head)
TABLES: Mapping[str, tuple[str, Callable[[Bench, Sequence[int]], list[Row]], Mapping[str, str]]] = {
    "maps": (
        "seeds of train", maps_rows,
        {
            "miou": "seed mIoU", "miou_truth": "of classes of the truth", "false": "false in the foreground",
            "grabbed": "paired ground in the foreground",
            "val_miou": "on val: seed mIoU", "val_false": "false in the foreground",
            "val_grabbed": "paired ground in the foreground",
        },
    ),
    "nearest": ("prompts", nearest_rows, {"found": "paired ground among the 5 nearest words"}),
    "chain": ("chain", chain_rows, {"miou": "mIoU", "miou_truth": "of classes of the truth"}),
    "hosts": (
        "seeds of train", host_rows,
        {"miou": "mIoU", "grabbed": "paired ground in the foreground"},
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    photographs.add_options(parser)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument(
        "--only",
        choices=(*TABLES, "intervals"),
        help="one of the tables; intervals: differences of one training each",
    )
    parser.add_argument("--images", type=int, default=500, help="of train")
    parser.add_argument("--val-images", type=int, default=200)
    parser.add_argument("--scenes-seed", type=int, default=7, help="what the scenes are drawn from")
    for one in fields(Budget):
        flag = f"--{one.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(one.default), default=one.default)
    parser.add_argument("--known", action="store_true", help="print what is measured, no more")
    options = parser.parse_args()
    if photographs.print_table(options, semples_photographs.claims, semples_photographs.nearest):
        return
    args = vars(options)
    budget = Budget(**{one.name: args[one.name] for one in fields(Budget)})
    images = {"train": args["images"], "val": args["val_images"]}
    bench = Bench(args["work"], images, budget, args["scenes_seed"], only_known=args["known"])
    if args["only"] == "intervals":
        for line in chain(semples_intervals.nearest(bench), semples_intervals.table(bench)):
            print(line, flush=True)
        return
    seeds = [int(seed) for seed in args["seeds"].split(",")]
    tables = {name: table for name, table in TABLES.items() if args["only"] in (None, name)}
    for count in range(1, len(seeds) + 1):  # the first seed of everything before the second
        for _, rows, _ in tables.values():
            rows(bench, seeds[:count])
    for title, rows, columns in tables.values():
        results = rows(bench, seeds)
        print(f"| {title} | {' | '.join(columns.values())} |\n|---|{'---|' * len(columns)}")
        for row, several in results:
            figures = [one for one in several if one]
            if not figures:
                continue
            cells = [
                mean_and_seeds([one[key] for one in figures])
                if all(key in one for one in figures)
                else ""
                for key in columns
            ]
            print(f"| {row} | {' | '.join(cells)} |")
        print(flush=True)


if __name__ == "__main__":
    main()
