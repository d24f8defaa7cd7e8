#!/usr/bin/env python3
"""Measures the claims of SemPLeS on the collage: maps, background prompts, refinement, a final segmenter.

    scripts/reproduce_semples.py WORK [--seeds 0,1,2] [--only ROW] [--images 2000]

Everything that is made on the way stays in the folder WORK, every figure in WORK/cells.json, and what is
there is not made again: a run that was cut off goes on. The data are the preset `cooccur`: 20 classes,
all else background; objects lie on their paired ground nine times in ten in `train`, and one time in two in
`val`, whose drawings nothing was trained on. Figures are of `val`, in per cent, where the row does not say
`train`. No threshold and no step is chosen by pixel truth. Prints Markdown tables: mean over the seeds, and
every seed.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import semples_scores as scores
from semples_bench import HOSTS, Bench, Budget
from semples_scores import Figures, shown

# --- rows -----------------------------------------------------------------------------------------------
Row = tuple[str, list[Figures]]
# title: what the prompts of a refinement are pushed from; `list` is words, None is L_match alone
REFINEMENTS: Mapping[str, str | None] = {
    "matching (L_match)": None,
    "+ L_refine, prompts from a list of words": "list",
    "+ L_refine, prompts pulled only": "none",
    "+ L_refine, pulled, pushed from the class text": "text",
    "+ L_refine, pulled, pushed from the foreground": "foreground",
}


def maps_rows(bench: Bench, seeds: Sequence[int]) -> list[Row]:
    """Seeds of `val`: training-free, matching, and matching with prompts of each kind."""
    val = bench.data("val")
    rows: list[Row] = []
    free = bench.cell("maps/gradcam", lambda: scores.seeds(bench.maps("gradcam", 0, "val"), val))
    rows.append(("gradcam, training-free", [free]))
    for title, push in REFINEMENTS.items():
        found = []
        for seed in seeds:

            def measure(push: str | None = push, seed: int = seed) -> Figures:
                generator = (
                    bench.matching(seed)[1] if push is None else bench.refined(push, seed)[1]
                )
                return scores.seeds(bench.by_generator(generator), val)

            found.append(bench.cell(f"maps/{push or 'match'}/{seed}", measure))
        rows.append((title, found))
    return rows


def nearest_rows(bench: Bench, seeds: Sequence[int]) -> list[Row]:
    """For how many classes the paired ground is among the five nearest words."""
    rows = []
    for title, push in REFINEMENTS.items():
        if push in (None, "list"):
            continue
        for seed in seeds:
            bench.prompts(push, seed)
        rows.append((title, [bench.cells[f"nearest/{push}/{seed}"] for seed in seeds]))
    return rows


def chain_rows(bench: Bench, seeds: Sequence[int]) -> list[Row]:
    """Seeds, refined masks, the segmenter on them, and the segmenter on true masks: mIoU of `val`."""
    val = bench.data("val")
    found: dict[str, list[Figures]] = {}
    for seed in seeds:
        own = bench.refined("text", seed)

        def masks(seed: int = seed, own: tuple[Path, Path] = own) -> Figures:
            maps = bench.by_generator(own[1])
            return scores.masks(bench.pseudo(maps, "val", "refined", seed, 0.0), val)

        def train_masks(seed: int = seed, own: tuple[Path, Path] = own) -> Figures:
            made = bench.pseudo(own[0], "train", "whole", seed, 0.0)
            return scores.masks(made, bench.data("train"))

        def final(seed: int = seed, own: tuple[Path, Path] = own) -> Figures:
            labels = bench.pseudo(own[0], "train", "refined", seed, None)
            return bench.segmenter(labels, "pseudo", seed, with_background=False)

        def full(seed: int = seed) -> Figures:
            labels = bench.data("train").instances
            assert labels is not None
            return bench.segmenter(labels, "truth", seed, with_background=True)

        seeds_of = lambda seed=seed, own=own: scores.seeds(bench.by_generator(own[1]), val)  # noqa: E731
        for title, name, measure in (
            ("seed", f"maps/text/{seed}", seeds_of),
            ("refined (CRF)", f"chain/refined/{seed}", masks),
            ("pseudo masks of train", f"chain/train/{seed}", train_masks),
            ("final segmenter", f"chain/segmenter/{seed}", final),
            ("the same on true masks", f"chain/full/{seed}", full),
        ):
            found.setdefault(title, []).append(bench.cell(name, measure))
    return list(found.items())


def host_rows(bench: Bench, seeds: Sequence[int]) -> list[Row]:
    """Seeds of `train` on other maps: as given, the head fitted alone, + match, + refine."""
    rows = []
    train = bench.data("train")
    for title in HOSTS:
        for kind, label in (
            ("given", "as given"), ("fit", "head fitted"), ("match", "+ L_match"),
            ("refine", "+ L_match + L_refine"),
        ):  # fmt: skip
            found = []
            for seed in seeds:

                def measure(title: str = title, kind: str = kind, seed: int = seed) -> Figures:
                    if kind == "given":
                        return scores.seeds(bench.host(title, seed), train)
                    return bench.on_host(title, kind, seed)

                found.append(bench.cell(f"host/{title}/{kind}/{seed}", measure))
            rows.append((f"{title}: {label}", found))
    return rows


# name: (title of the table, the rows, the columns as figure and head)
TABLES: Mapping[str, tuple[str, Callable[[Bench, Sequence[int]], list[Row]], Mapping[str, str]]] = {
    "maps": (
        "maps", maps_rows,
        {
            "miou": "seed mIoU", "false": "false in the foreground",
            "paired": "of it on the paired ground", "grabbed": "paired ground in the foreground",
        },
    ),
    "nearest": ("prompts", nearest_rows, {"found": "paired ground among the 5 nearest words"}),
    "chain": ("chain", chain_rows, {"miou": "mIoU"}),
    "hosts": (
        "seeds of train", host_rows,
        {"miou": "mIoU", "grabbed": "paired ground in the foreground"},
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", choices=TABLES, help="one of the tables")
    parser.add_argument("--images", type=int, default=2000, help="of train")
    parser.add_argument("--val-images", type=int, default=200)
    parser.add_argument("--match-epochs", type=float, default=10.0)
    parser.add_argument("--prompt-epochs", type=float, default=10.0)
    parser.add_argument("--classifier-epochs", type=float, default=15.0)
    parser.add_argument("--segmenter", default="clip", help="--arch of train-segmenter")
    parser.add_argument("--segmenter-steps", type=int, default=1500)
    parser.add_argument("--crf", default="irn", help="preset for pseudo masks")
    args = parser.parse_args()
    budget = Budget(
        args.match_epochs, args.prompt_epochs, args.classifier_epochs, args.segmenter,
        args.segmenter_steps, args.crf,
    )  # fmt: skip
    bench = Bench(args.work, {"train": args.images, "val": args.val_images}, budget)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    for name, (title, rows, columns) in TABLES.items():
        if args.only not in (None, name):
            continue
        found = rows(bench, seeds)
        print(f"| {title} | {' | '.join(columns.values())} |\n|---|{'---|' * len(columns)}")
        for row, figures in found:
            cells = [
                shown([one[key] for one in figures]) if all(key in one for one in figures) else ""
                for key in columns
            ]
            print(f"| {row} | {' | '.join(cells)} |")
        print(flush=True)


if __name__ == "__main__":
    main()
