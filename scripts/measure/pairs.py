#!/usr/bin/env python3
"""Measures mined pairs on the collage, where the truth is known.

    scripts/measure/pairs.py [--model tiny] [--split test] [--images 200] [--recipe ovseg]

Of the pairs whose noun is in the scene (matched by its head noun, the table's names and synonyms), the
share whose mask overlaps an object or a ground of that name with IoU above 0.5; strays, nouns that are
not in the scene, apart; nouns inside and outside the base set and grounds apart. Prints one JSON
document.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ovtool.datasets import collage_files, registry
from ovtool.datasets.nouns import GROUNDS, table
from ovtool.formats import coco, rle
from ovtool.settings.pairs import Matching, Nouns
from ovtool.settings.shared import Compute
from ovtool.stages import mine_pairs

MIN_IOU = 0.5
TARGET = 0.70


def kinds() -> dict[str, tuple[str, str]]:
    """For every word and its lemma, as a caption may have it: the class and its kind."""
    from ovtool.models import nouns

    pipeline = nouns.load()
    by_word: dict[str, tuple[str, str]] = {}
    for noun in table():
        kind = "base" if noun.base else "new"
        by_word |= {word: (noun.name, kind) for word in (noun.name, *noun.synonyms)}
    by_word |= {ground: (ground, "ground") for ground in GROUNDS}
    for word in list(by_word):  # `bricks` is mined as `brick`
        for noun in next(nouns.find(pipeline, [f"There are some {word}."], stop=frozenset())):
            by_word.setdefault(noun.lemma, by_word[word])
    return by_word


def measure(pairs: coco.Dataset, truths: list[coco.Dataset]) -> dict[str, Any]:
    """The figures of a pairs file. truths: instances, semantic masks; their images by file name."""
    known, names = kinds(), {c.id: c.name for c in pairs.categories}
    masks: dict[tuple[str, str], list[rle.Rle]] = defaultdict(list)
    for truth in truths:
        files = {image.id: image.file_name for image in truth.images}
        classes = {category.id: category.name for category in truth.categories}
        for one in truth.annotations:
            masks[files[one.image_id], classes[one.category_id]].append(one.segmentation)
    files = {image.id: image.file_name for image in pairs.images}
    right: dict[str, list[bool]] = defaultdict(list)
    strays = unknown = 0
    for pair in pairs.annotations:
        noun = names[pair.category_id]
        name, kind = known.get(noun, known.get(noun.split()[-1], ("", "")))
        there = masks.get((files[pair.image_id], name), [])
        if not there:
            strays, unknown = strays + bool(name), unknown + (not name)
            continue
        right[kind].append(
            bool(np.max(coco_mask.iou([pair.segmentation], there, [0] * len(there))) > MIN_IOU)
        )
    seen = [hit for hits in right.values() for hit in hits]
    objects = right["base"] + right["new"]
    return {
        "images": len(pairs.images),
        "pairs": len(pairs.annotations),
        "pairs_per_image": len(pairs.annotations) / max(1, len(pairs.images)),
        "unique_nouns": len({pair.category_id for pair in pairs.annotations}),
        "strays": strays,
        "not_in_the_table": unknown,
        "share_right": float(np.mean(seen)) if seen else None,
        "share_right_of_objects": float(np.mean(objects)) if objects else None,
        "by_kind": {
            kind: {"pairs": len(hits), "share_right": float(np.mean(hits))}
            for kind, hits in sorted(right.items())
        },
        "target": TARGET,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--split", default="test")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--captions-per-image", default="1")
    parser.add_argument("--proposer", help="default: that of `ovtool mine-pairs`")
    parser.add_argument("--proposals", type=Path, help="masks from a file")
    parser.add_argument("--recipe", help="ovseg: the published way")
    parser.add_argument("--matching", help="default: what the model recommends, and so below")
    parser.add_argument("--quality-weight", type=float)
    parser.add_argument("--templates")
    parser.add_argument("--min-similarity", type=float)
    parser.add_argument("--data", type=Path, help="folder for the images; default: a scratch one")
    options = parser.parse_args()
    with TemporaryDirectory() as scratch:
        folder = options.data or Path(scratch) / "collage"
        data = registry.collage_in(folder, options.split)
        if not registry.is_made(data):
            spec = collage_files.CollageSpec(options.split, options.images, options.seed)
            collage_files.make(spec, folder)
        assert data.captions and data.instances and data.semantic
        outcome = mine_pairs.run(
            data.captions,
            data.images,
            _nouns(options),
            _matching(options),
            limit=options.images,
            out=Path(scratch) / "pairs.json",
            compute=Compute(model=options.model),
        )
        truths = [coco.read(data.instances), coco.read(data.semantic)]
    print(json.dumps({"split": options.split, **measure(outcome.dataset, truths)}, indent=2))


def _nouns(options: argparse.Namespace) -> Nouns:
    return Nouns(captions_per_image=options.captions_per_image, recipe=options.recipe)


def _matching(options: argparse.Namespace) -> Matching:
    """The settings of the matching that were given."""
    names = ("recipe", "proposer", "proposals", "matching", "quality_weight", "templates")
    given = {name: getattr(options, name) for name in (*names, "min_similarity")}
    return Matching(**{name: value for name, value in given.items() if value is not None})


if __name__ == "__main__":
    main()
