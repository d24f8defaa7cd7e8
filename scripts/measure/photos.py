#!/usr/bin/env python3
"""Measures a CLIP on photographs with masks of COCO's 133 panoptic names.

    scripts/measure/photos.py FOLDER [--model photo] [--split train | --final]

FOLDER has `coco/images/SPLIT` and `coco/annotations/{semantic,classes}_SPLIT.json`. Each patch has the word of the
highest cosine; scores are resized to the photograph. Prints one JSON document, every figure with its 95 % interval
of the bootstrap over photographs. `--split train`, the default, is what `photo` was trained on, and is for
comparisons on folds and for trying the script; `--final` reads `val`, on which nothing is chosen, and appends a
line to the log in `photos.md`.
"""

import argparse
import datetime
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ovtool.formats import rle
from ovtool.methods import bootstrap
from ovtool.methods.bootstrap import ImageCounts, Interval
from ovtool.models import clip as door
from ovtool.models import dense_scores, text

LOG = Path(__file__).with_suffix(".md")
THINGS = 80  # the first of the names
VOID = 255
SAMPLES = 1000
COMPETITORS = (
    "sky",
    "tree",
    "grass",
    "wall",
    "road",
    "person",
    "floor",
    "building",
    "water",
    "dirt",
    "table",
)


@dataclass(frozen=True)
class Truth:
    """A photograph, uint8 (H, W, 3), its labels, uint8 (H, W), and the rows of its 20 words."""

    rgb: Tensor
    labels: Tensor
    words: Tensor


@dataclass(frozen=True)
class Outcome:
    """What is kept of one photograph.

    Attributes:
        twenty, everything: hits, truth and predicted pixels among 20 words and among all, int64 (3, 133).
        is_present: whether the thing of the highest cosine with the whole photograph is there; None without things.
        things: that cosine of each thing, float32 (80,), and whether it is there, bool (80,).
        absent: share of the pixels that a word which is not there takes from one that is, and built-in words.
    """

    twenty: Tensor
    everything: Tensor
    is_present: bool | None
    things: tuple[Tensor, Tensor]
    absent: float


def truths(folder: Path, split: str) -> tuple[list[str], list[Truth]]:
    """The names of the classes, and the photographs in the order of their file names."""
    annotations = folder / "coco" / "annotations"
    semantic = json.loads((annotations / f"semantic_{split}.json").read_text(encoding="utf-8"))
    asked = json.loads((annotations / f"classes_{split}.json").read_text(encoding="utf-8"))
    names = [category["name"] for category in semantic["categories"]]
    row = {category["id"]: index for index, category in enumerate(semantic["categories"])}
    size = {image["id"]: (image["height"], image["width"]) for image in semantic["images"]}
    labels = {image_id: np.full(shape, VOID, np.uint8) for image_id, shape in size.items()}
    for annotation in semantic["annotations"]:
        image_id = annotation["image_id"]
        mask = rle.decode(annotation["segmentation"], *size[image_id])
        labels[image_id][mask] = row[annotation["category_id"]]
    read = []
    for image in sorted(semantic["images"], key=lambda image: str(image["file_name"])):
        with Image.open(folder / "coco" / "images" / split / image["file_name"]) as opened:
            rgb = torch.from_numpy(np.array(opened.convert("RGB")))
        words = torch.tensor([names.index(word) for word in asked[image["file_name"]]])
        read.append(Truth(rgb, torch.from_numpy(labels[image["id"]]), words))
    return names, read


def counts(scores: Tensor, rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Hits, truth and predicted pixels of each class, int64 (3, classes), from scores (len(rows), H, W)."""
    known = labels < classes
    truth, predicted = labels[known].long(), rows[scores.argmax(0)][known]
    hits = truth[truth == predicted]
    return torch.stack([part.bincount(minlength=classes) for part in (hits, truth, predicted)])


def outcome(
    clip: door.Clip, words: Tensor, names: Sequence[str], truth: Truth, seed: int
) -> Outcome:
    """The figures of one photograph; words: float32 (133, D), of length 1."""
    pixels = dense_scores.prepare(clip, truth.rgb, None)
    patches = door.patch_features(clip, pixels)[0]
    whole = (words[:THINGS] @ door.encode_images(clip, pixels)[0]).cpu()
    maps = interpolate(
        (patches @ words.T).permute(2, 0, 1)[None], truth.labels.shape, mode="bilinear"
    )[0]
    everything = torch.arange(len(names))
    there = truth.labels[truth.labels < len(names)].long().bincount(minlength=len(names)) > 0
    things = there[:THINGS]
    return Outcome(
        counts(maps[truth.words], truth.words, truth.labels, len(names)),
        counts(maps, everything, truth.labels, len(names)),
        bool(things[whole.argmax()]) if things.any() else None,
        (whole, things),
        _absent(maps, names, there, seed),
    )


def _absent(maps: Tensor, names: Sequence[str], there: Tensor, seed: int) -> float:
    """The share of a photograph that a word which is not there takes, beside one that is and `COMPETITORS`."""
    rng = np.random.default_rng(seed)
    present, missing = (rng.choice(np.flatnonzero(side)) for side in (there, ~there))
    others = [names.index(name) for name in COMPETITORS]
    rows = [int(missing), int(present), *(row for row in others if row not in (missing, present))]
    return float((maps[rows].argmax(0) == 0).float().mean())


def interval(count: int, figure: Callable[[NDArray[np.intp]], float], seed: int = 0) -> Interval:
    """A figure of photographs by their indices, and the middle 95 % of its samples with replacement."""
    rng = np.random.default_rng(seed)
    drawn = [figure(rng.integers(count, size=count)) for _ in range(SAMPLES)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Interval(figure(np.arange(count)), float(low), float(high))


def mean_average_precision(scores: NDArray[np.float32], present: NDArray[np.bool_]) -> float:
    """Mean over the columns with a hit of the average precision of rows by score: (N, K) each."""
    precisions = []
    for column in np.flatnonzero(present.any(0)):
        hits = present[np.argsort(-scores[:, column], kind="stable"), column]
        precisions.append(float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean()))
    return float(np.mean(precisions))


def figures(outcomes: Sequence[Outcome]) -> dict[str, Interval]:
    """All figures with their intervals."""
    result: dict[str, Interval] = {}
    count = len(outcomes)
    for name in ("twenty", "everything"):
        parts = torch.stack([getattr(one, name) for one in outcomes]).numpy()
        hits, truth, predicted = parts[:, 0], parts[:, 1], parts[:, 2]
        accuracy = bootstrap.ratio("accuracy", hits.sum(1), truth.sum(1))
        miou = bootstrap.mean_ious(ImageCounts(hits, truth, predicted))
        result[f"{name}_accuracy"] = bootstrap.intervals(accuracy, count, SAMPLES)["accuracy"]
        result[f"{name}_miou"] = bootstrap.intervals(miou, count, SAMPLES)["miou"]
    tops = np.array([one.is_present for one in outcomes if one.is_present is not None])
    result["whole_top1"] = interval(len(tops), lambda rows: float(tops[rows].mean()))
    scores = torch.stack([one.things[0] for one in outcomes]).numpy()
    present = torch.stack([one.things[1] for one in outcomes]).numpy()
    result["whole_map"] = interval(
        count, lambda rows: mean_average_precision(scores[rows], present[rows])
    )
    absent = np.array([one.absent for one in outcomes])
    result["absent_share"] = interval(count, lambda rows: float(absent[rows].mean()))
    return result


def log_line(model: str, fingerprint: str, result: dict[str, Interval]) -> str:
    """A row of the table in `photos.md`."""
    cells = (f"{i.value:.3f} [{i.low:.3f}, {i.high:.3f}]" for i in result.values())
    date = datetime.datetime.now(datetime.UTC).date()
    return f"| {date} | {model} `{fingerprint}` | {' | '.join(cells)} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="photo")
    parser.add_argument("--split", default="train", choices=("train",))
    parser.add_argument("--limit", type=int, help="of the photographs, for a trial of the script")
    parser.add_argument(
        "--final", action="store_true", help="the measure of record: coco/val, logged"
    )
    options = parser.parse_args()
    clip = door.load(options.model)
    names, photographs = truths(options.folder, "val" if options.final else options.split)
    words = text.embed_words(clip, names, "one")
    outcomes = [
        outcome(clip, words, names, truth, seed)
        for seed, truth in enumerate(photographs[: options.limit])
    ]
    result = figures(outcomes)
    print(json.dumps({name: asdict(found) for name, found in result.items()}, indent=1))
    if options.final and options.limit is None:
        with LOG.open("a", encoding="utf-8") as file:
            file.write(log_line(options.model, clip.fingerprint, result))


if __name__ == "__main__":
    main()
