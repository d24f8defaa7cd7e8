"""Two-stage at every lambda from one pass over the images, and the differences of two such sweeps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from cells import Figures
from numpy.typing import NDArray

from ovtool.formats import images as image_files
from ovtool.formats.images import ImageItem
from ovtool.formats.labelled import LabelledImages
from ovtool.methods import bootstrap, class_maps, metrics
from ovtool.methods.bootstrap import ImageCounts, Interval
from ovtool.segmenters.two_stage import TwoStageSegmenter

Sweep = dict[
    str, NDArray[np.int64]
]  # lambda -> hits, truth and predicted pixels of each image, (N, 3, K)


def sweep(
    ready: TwoStageSegmenter,
    items: Sequence[ImageItem],
    truth: LabelledImages,
    weights: Sequence[float],
) -> Sweep:
    """The counts of every image at every lambda, each image with its own words."""
    index = {name: row for row, (name, *_) in enumerate(truth.classes)}
    names = [category.name for category in ready.words.categories]
    counts: dict[str, list[NDArray[np.int64]]] = {f"{weight}": [] for weight in weights}
    encode = ready.encoder()
    for item in items:
        named = ready.named(item, image_files.read_rgb(item.path), encode)
        own = ready.words.of_image(item.name)
        table = torch.tensor([index[names[row]] for row in own] + [-1])
        true = torch.from_numpy(truth.decode(item.name)).long()
        for weight in weights:
            rows, classes = named.rows(weight)
            results = class_maps.label_blocks(rows, true.shape, classes, len(own))
            confusion = metrics.confusion(table[results.label.long()], true, len(index))
            counts[f"{weight}"].append(bootstrap.image_counts(confusion))
    return {weight: np.stack(several) for weight, several in counts.items()}


def figures(counts: Sweep, is_new: NDArray[np.bool_]) -> Figures:
    """mIoU at every lambda: of the classes of truth or prediction, of those of the truth, and of the `is_new`
    among the former."""
    results = {}
    for weight, several in counts.items():
        hits, truth, predicted = several.sum(0)
        union = truth + predicted - hits
        iou = hits / np.maximum(union, 1)
        results[weight] = float(iou[union > 0].mean())
        results[f"{weight} of the truth"] = float(iou[truth > 0].mean())
        results[f"{weight} new"] = float(iou[(union > 0) & is_new].mean())
    return results


def paired(first: tuple[Path, float], second: tuple[Path, float]) -> dict[str, Interval]:
    """How much higher the second of two sweeps is, each at its lambda, by the paired bootstrap over images."""
    measures, count = [], 0
    for file, weight in (first, second):
        with np.load(file) as kept:
            several = kept[f"{weight}"]
        measures.append(bootstrap.mean_ious(ImageCounts.of(several)))
        count = len(several)
    return bootstrap.intervals(bootstrap.difference(*measures), count)
