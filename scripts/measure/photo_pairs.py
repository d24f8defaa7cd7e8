#!/usr/bin/env python3
"""Which proposals mining with `photo` should have: the share of pairs whose mask is right, on photographs of coco/train.

    scripts/measure/photo_pairs.py WORK --photographs FOLDER [--images 50] [--first regions] [--second merging]

The caption of a photograph names its classes of the truth, each once, so that every noun is there. A pair is right
where its mask has an IoU above 0.5 with the class's pixels or with one of its instances. `photo` has seen these masks in
its training, for both proposers alike. Prints the rows of a table: pairs, shares, and the difference, 95 % by the
bootstrap over photographs. Pairs that are in WORK are not mined again.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ovtool.formats import coco, rle
from ovtool.methods import bootstrap
from ovtool.settings.pairs import Matching, Nouns
from ovtool.settings.shared import Compute
from ovtool.stages import mine_pairs

MIN_IOU = 0.5

Masks = dict[tuple[str, str], list[rle.Rle]]  # of a file name and a class


def truth(annotations: Path) -> Masks:
    """The masks of classes and of instances."""
    masks: Masks = defaultdict(list)
    for kind in ("semantic", "instances"):
        read = coco.read(annotations / f"{kind}_train.json")
        files = {image.id: image.file_name for image in read.images}
        names = {category.id: category.name for category in read.categories}
        for one in read.annotations:
            masks[files[one.image_id], names[one.category_id]].append(one.segmentation)
    return masks


def captions(masks: Masks, photographs: list[str], out: Path) -> None:
    """Writes a caption for each photograph, of its classes of one word."""
    sentences = [
        "There is a photo with " + ", ".join(f"a {name}" for file, name in masks if file == photo and " " not in name)
        for photo in photographs
    ]  # fmt: skip
    images = [{"id": number, "file_name": file} for number, file in enumerate(photographs, 1)]
    entries = [
        {"id": number, "image_id": number, "caption": f"{sentence}."}
        for number, sentence in enumerate(sentences, 1)
    ]
    out.write_text(json.dumps({"images": images, "annotations": entries}))


def right(pairs: coco.Dataset, masks: Masks, photographs: list[str]) -> NDArray[np.float64]:
    """(2, N): of each photograph how many pairs are right, and how many there are."""
    files = {image.id: image.file_name for image in pairs.images}
    names = {category.id: category.name for category in pairs.categories}
    result = np.zeros((2, len(photographs)))
    for pair in pairs.annotations:
        there = masks.get((files[pair.image_id], names[pair.category_id]), [])
        if there:  # a lemma that is no class's name is not counted
            overlap = np.max(coco_mask.iou([pair.segmentation], there, [0] * len(there)))
            result[:, photographs.index(files[pair.image_id])] += (overlap > MIN_IOU, 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--first", default="regions")
    parser.add_argument("--second", default="merging")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    masks = truth(options.photographs / "coco" / "annotations")
    photographs = sorted({file for file, _ in masks})[: options.images]
    sentences = options.work / f"captions_{len(photographs)}.json"
    captions(masks, photographs, sentences)
    counted = []
    for proposer in (options.first, options.second):
        out = options.work / f"pairs_{proposer}_{len(photographs)}.json"
        if not out.exists():
            mine_pairs.run(
                sentences,
                options.photographs / "coco" / "images" / "train",
                Nouns(),
                Matching(proposer=proposer),
                out=out,
                compute=Compute(model="photo"),
            )
        counted.append(right(coco.read(out), masks, photographs))
    shares = [bootstrap.ratio("", hits, totals) for hits, totals in counted]
    print("| masks | pairs | right |\n|---|---|---|")
    rows = zip((options.first, options.second), shares, counted, strict=True)
    for name, share, (_, totals) in rows:
        print(f"| `{name}` | {totals.sum():.0f} | {_cell(share, len(photographs), '')} |")
    gain = bootstrap.difference(*shares)
    print(f"| difference | | {_cell(gain, len(photographs), '+')} |")


def _cell(measure: bootstrap.Measure, images: int, sign: str) -> str:
    found = bootstrap.intervals(measure, images)[""]
    return f"{found.value:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


if __name__ == "__main__":
    main()
