#!/usr/bin/env python3
"""Measures what `segment` gives by default with a CLIP on photographs, beside patches alone.

    scripts/measure/photos_default.py FOLDER [--model photo] [--keep FILE] [--against FILE] [--final]

FOLDER is that of `photos.py`. Each photograph is segmented with its 20 words, by the default method with the settings that
the model recommends, and by `--method patch`. Prints one JSON document: accuracy, mIoU and how much higher they are by
default, with 95 % intervals of the bootstrap over photographs; and the share of scikit-image's `chelsea`, a close-up
cat, that is named cat. Photographs of `train` are for trying the script, since `photo` was trained on them; `--final`
reads `val`, on which nothing is chosen, and appends a line to `photos_default.md`. `--keep` writes the pixels counted by
default to a file, and `--against` reads such a file and prints how much higher accuracy and mIoU are than those.
"""

import argparse
import datetime
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from photos import SAMPLES, Truth, truths
from skimage import data

import ovtool
from ovtool.formats.images import ImageItem
from ovtool.inputs.words import WordSet
from ovtool.methods import bootstrap
from ovtool.methods.bootstrap import ImageCounts, Interval, Measure
from ovtool.models import clip as clips
from ovtool.segmenters import dense
from ovtool.settings.segment import Fused, Patch
from ovtool.settings.shared import Compute

LOG = Path(__file__).with_suffix(".md")
CAT = "cat,dog,person,sky,wall,couch"


def counts(
    model: str, method: Fused | Patch, names: Sequence[str], photographs: Sequence[Truth]
) -> NDArray[np.int64]:
    """Hits, truth and predicted pixels of each class in each photograph, (N, 3, classes), among its own words."""
    words = WordSet(
        tuple((name,) for name in names),
        per_image={str(n): tuple(truth.words.tolist()) for n, truth in enumerate(photographs)},
    )
    segmenter = dense.prepared(method, words, (), Compute(model=model), None)()
    encode = segmenter.encoder()
    parts = []
    for number, photograph in enumerate(photographs):
        item = ImageItem(Path(str(number)), str(number))
        labels = segmenter.segment(item, photograph.rgb.numpy(), encode).class_map.label
        known = photograph.labels < len(names)
        truth, predicted = photograph.labels[known].long(), photograph.words[labels[known].long()]
        own = (truth[truth == predicted], truth, predicted)
        parts.append(torch.stack([part.bincount(minlength=len(names)) for part in own]))
    return torch.stack(parts).numpy()


def measures(parts: NDArray[np.int64]) -> dict[str, Measure]:
    """Accuracy and mIoU of what `counts` gives."""
    hits, truth = parts[:, 0], parts[:, 1]
    return {
        "accuracy": bootstrap.ratio("accuracy", hits.sum(1), truth.sum(1)),
        "miou": bootstrap.mean_ious(ImageCounts.of(parts)),
    }


def figures(
    model: str, own: NDArray[np.int64], patches: NDArray[np.int64]
) -> dict[str, Interval | float]:
    """All figures of what `counts` gives by default and by patches, those of pixels with their intervals."""
    result: dict[str, Interval | float] = {}
    gains = differences(patches, own)
    for name, measure in measures(own).items():
        result[name] = bootstrap.intervals(measure, len(own), SAMPLES)[name]
        result[f"{name}_more_than_patches"] = gains[name]
    for method in (Fused(), Patch()):
        cat = data.chelsea()  # type: ignore[no-untyped-call]
        masks = ovtool.Segmenter(CAT, method, model=model)(cat)
        result["cat" if isinstance(method, Fused) else "cat_by_patches"] = float(
            masks["cat"].mean()
        )
    return result


def differences(before: NDArray[np.int64], after: NDArray[np.int64]) -> dict[str, Interval]:
    """How much higher accuracy and mIoU are after than before, on the same photographs."""
    first, second = measures(before), measures(after)
    return {
        name: bootstrap.intervals(
            bootstrap.difference(first[name], second[name]), len(after), SAMPLES
        )[name]
        for name in second
    }


def log_line(model: str, fingerprint: str, result: dict[str, Interval | float]) -> str:
    """A row of the table in `photos_default.md`."""
    cells = (
        f"{i.value:.3f} [{i.low:.3f}, {i.high:.3f}]" if isinstance(i, Interval) else f"{i:.2f}"
        for i in result.values()
    )
    date = datetime.datetime.now(datetime.UTC).date()
    return f"| {date} | {model} `{fingerprint}` | {' | '.join(cells)} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="photo")
    parser.add_argument("--keep", type=Path, help="file for what is counted by default")
    parser.add_argument("--against", type=Path, help="file of --keep")
    parser.add_argument("--limit", type=int, help="of the photographs, for a trial of the script")
    parser.add_argument(
        "--final", action="store_true", help="the measure of record: coco/val, logged"
    )
    options = parser.parse_args()
    names, photographs = truths(options.folder, "val" if options.final else "train")
    own, patches = (
        counts(options.model, method, names, photographs[: options.limit])
        for method in (Fused(), Patch())
    )
    result = figures(options.model, own, patches)
    if options.keep:
        np.save(options.keep, own)
    shown = dict(result)
    if options.against:
        gains = differences(np.load(options.against), own)
        shown |= {f"{name}_more_than_against": gain for name, gain in gains.items()}
    plain = {
        name: asdict(figure) if isinstance(figure, Interval) else figure
        for name, figure in shown.items()
    }
    print(json.dumps(plain, indent=1))
    if options.final and options.limit is None:
        with LOG.open("a", encoding="utf-8") as file:
            fingerprint = clips.load(options.model).fingerprint
            file.write(log_line(Path(options.model).stem, fingerprint, result))


if __name__ == "__main__":
    main()
