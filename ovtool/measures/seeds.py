"""Activation maps as seeds of pixel labels: mean IoU at a threshold that other images chose.

The truth's unlabelled pixels are background, or, where it has a class `background`, not counted (VOC's void).
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovtool.datasets.matching import BACKGROUND, Classes
from ovtool.errors import InputError
from ovtool.formats import cams
from ovtool.formats.cams import CamImage
from ovtool.inputs import predictions
from ovtool.inputs.predictions import LabelledPair
from ovtool.measures import label_maps
from ovtool.measures.measured import Measured
from ovtool.methods import activation_maps, bootstrap, seed_thresholds
from ovtool.methods.bootstrap import ImageCounts
from ovtool.methods.seed_thresholds import THRESHOLDS, SeedCounts
from ovtool.runtime.progress import Progress
from ovtool.settings.evaluate import Seeds

_logger = logging.getLogger("ovtool")


def measure(
    prediction: str, ground_truth: str, metric: Seeds, workers: int, progress: Progress
) -> Measured:
    """The mean IoU of seeds. Each half of the images, which is drawn by their names, is scored at the threshold
    that is best for the other half. One process counts, whatever `workers`.

    Raises:
        InputError: a file is broken, images are missing or differ in size, nothing is counted, or there is a
            single image.
        MismatchError: it is no file of activation maps, or there is no class in common.
    """
    maps, pair, classes, background = _opened(prediction, ground_truth, metric)
    by_name = {image.file_name: image for image in maps.images}
    images, own_name = pair.images, pair.predicted_name
    if len(images) < 2:
        raise InputError(
            f"{ground_truth}: the threshold of an image is chosen by others, and there is a single one"
        )
    index = {category.id: k for k, category in enumerate(maps.categories)}
    counts = []
    with progress(len(images), "evaluating") as advance:
        for name in images:
            own = by_name.get(own_name.get(name, ""))
            counts.append(_count(name, own, maps, pair, (classes, index, background)))
            advance()
    for line in classes.notes():
        _logger.warning("%s", line)
    if not any(own.truth.any() for own in counts):
        raise InputError(f"{ground_truth}: not one of its pixels is counted; nothing to measure")
    is_second = _halves(images)
    steps = [
        seed_thresholds.best_step(
            [c for c, second in zip(counts, is_second, strict=True) if second != half]
        )
        for half in (False, True)
    ]
    rows = ImageCounts.of(
        seed_thresholds.at(own, steps[second])
        for own, second in zip(counts, is_second.tolist(), strict=True)
    )
    best = seed_thresholds.best_step(counts)
    of_best = sum(seed_thresholds.at(own, best) for own in counts)
    result: dict[str, Any] = {
        **label_maps.result_of(rows.total(), classes.names, ""),
        "pixels_not_counted": sum(own.left_out for own in counts),
        "thresholds": [float(THRESHOLDS[step]) for step in steps],
        "best_threshold": float(THRESHOLDS[best]),
        "best_miou": label_maps.result_of(np.asarray(of_best), classes.names, "")["miou"],
        **pair.counts(),
    }
    of_image = label_maps.of_images(rows, "") if metric.per_image else {}
    of_all = bootstrap.mean_ious(rows)
    return Measured(result, of_all, tuple(images), of_image)


def planned(prediction: str, ground_truth: str, metric: Seeds) -> int:
    """How many images would be measured. Raises as `measure` does for files that do not go together."""
    return len(_opened(prediction, ground_truth, metric)[1].images)


def _opened(
    prediction: str, ground_truth: str, metric: Seeds
) -> tuple[cams.Cams, LabelledPair, Classes, int]:
    """The maps, their images matched with those of the truth, the classes, and that of the background."""
    maps = cams.read(Path(prediction))
    truth = predictions.open_truth(ground_truth, metric.protocol)
    pair = predictions.pair(truth, cams.as_labelled(maps, prediction), metric.missing)
    own_background = [
        k for k, names in enumerate(truth.classes) if names[0].casefold() == BACKGROUND
    ]
    classes = Classes(truth, pair.predicted, not own_background, metric.ignore_label)
    classes.check_in_common()
    return maps, pair, classes, own_background[0] if own_background else len(classes.names) - 1


def _count(
    name: str,
    own: CamImage | None,
    maps: cams.Cams,
    pair: LabelledPair,
    classes: tuple[Classes, dict[int, int], int],
) -> SeedCounts:
    """The counts of an image at all thresholds; without maps all of it is background.

    Args:
        name: the true name of the image.
        own: its entry in the maps, None where it has none.
        maps: those of all images.
        pair: the images of both.
        classes: the classes, the place of each category of the maps among theirs, and the background.
    """
    both, place, background = classes
    truth = both.truth(pair.truth.decode(name), name)
    own_maps, own_classes = np.zeros((0, *truth.shape), np.float32), np.zeros(0, np.int64)
    if own is not None:
        pair.check_size(name, (own.height, own.width), truth.shape)
        resized = activation_maps.resized(maps.of(own.id), (own.height, own.width))
        own_maps = resized.numpy()
        own_classes = np.array([both.matches[place[id]] for id in own.category_ids], np.int64)
    return seed_thresholds.image_counts(own_maps, own_classes, truth, len(both.names), background)


def _halves(images: list[str]) -> NDArray[np.bool_]:
    """Which images are in the second half, bool (N,): a draw by their names, whatever their order."""
    drawn = sorted(range(len(images)), key=lambda k: hashlib.sha256(images[k].encode()).digest())
    is_second = np.zeros(len(images), bool)
    is_second[drawn[len(images) // 2 :]] = True
    return is_second
