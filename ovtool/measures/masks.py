"""Masks that may overlap: recall of proposals, and average precision of masks with classes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ovtool.datasets.matching import UNLABELLED, Classes
from ovtool.errors import InputError
from ovtool.formats import coco, labelled
from ovtool.inputs import predictions
from ovtool.inputs.predictions import MaskPair, MasksByName
from ovtool.measures import federated
from ovtool.measures.measured import Measured, number
from ovtool.methods import average_precision, bootstrap, recall
from ovtool.runtime.progress import Progress
from ovtool.settings.evaluate import AveragePrecision, Recall

_logger = logging.getLogger("ovtool")


def measure(
    prediction: str,
    ground_truth: str,
    metric: Recall | AveragePrecision,
    workers: int,
    progress: Progress,
) -> Measured:
    """The recall of proposals, or the average precision of masks with classes, by LVIS's rule (`federated`) where the
    truth is of LVIS; predicted classes that the truth does not know are errors of no class, and change nothing. One process counts, whatever `workers`.

    Raises:
        InputError: a file is broken, or the truth has no mask.
        MismatchError: average precision, and there is no class in common.
    """
    pair = predictions.open_masks(prediction, ground_truth, metric.missing)
    counts = _counts(pair, ground_truth)
    if isinstance(metric, AveragePrecision):
        return _precision(pair, counts, prediction, ground_truth, progress)
    return _recall(pair, counts, metric, progress)


def planned(prediction: str, ground_truth: str, metric: Recall | AveragePrecision) -> int:
    """How many images would be measured. Raises as `measure` does for files that do not go together."""
    return len(predictions.open_masks(prediction, ground_truth, metric.missing).truth)


def _recall(pair: MaskPair, counts: dict[str, int], metric: Recall, progress: Progress) -> Measured:
    with progress(None, "measuring recall"):
        recalled = recall.measure(pair.truth, pair.proposed)
    result = {
        **recalled.measures,
        **counts,
        "proposals_per_image": counts["proposals"] / len(pair.truth),
    }
    of_image = {}
    if metric.per_image:
        with np.errstate(invalid="ignore"):
            of_image["average_recall"] = recalled.hits / recalled.masks
    measure = bootstrap.ratio("average_recall", recalled.hits, recalled.masks)
    return Measured(result, measure, tuple(pair.truth), of_image)


def _precision(
    pair: MaskPair, counts: dict[str, int], prediction: str, ground_truth: str, progress: Progress
) -> Measured:
    truth = labelled.from_dataset(pair.datasets[0], ground_truth)
    predicted = labelled.from_dataset(pair.datasets[1], prediction)
    classes = Classes(truth, predicted, False, ())
    classes.check_in_common()
    true_number = {category.id: k for k, category in enumerate(pair.datasets[0].categories)}
    own_number = {
        category.id: classes.matches[k] for k, category in enumerate(pair.datasets[1].categories)
    }
    true, proposed = _numbered(pair.truth, true_number), _numbered(pair.proposed, own_number)
    is_federated = federated.is_federated(pair.datasets[0])
    limits: Sequence[int] = average_precision.LIMITS
    if is_federated:
        true, proposed = federated.judged(true, proposed, pair.datasets[0], true_number)
        limits = (federated.LIMIT,)
    with progress(None, "measuring precision"):
        precision = average_precision.measure(true, proposed, len(classes.names), limits)
    for line in classes.notes():
        _logger.warning("%s", line)
    masks, proposals = (
        _by_class(own, numbers)
        for own, numbers in ((pair.truth, true_number), (pair.proposed, own_number))
    )
    rows = [
        {
            "name": name,
            "ap": number(precision.classes[k]),
            "truth_masks": masks[k],
            "predicted_masks": proposals[k],
        }
        for k, name in enumerate(classes.names)
        if k in masks or k in proposals
    ]
    result: dict[str, Any] = {**precision.measures, "classes": rows, **counts}
    if is_federated:
        categories = pair.datasets[0].categories
        result |= {"rule": "lvis", **federated.of_frequencies(categories, precision.classes)}
    return Measured(result, precision.sampled, tuple(pair.truth))


def _counts(pair: MaskPair, ground_truth: str) -> dict[str, int]:
    """How many masks and images count. Raises InputError where there is no true mask."""
    masks = sum(not mask.extra.get("iscrowd") for own in pair.truth.values() for mask in own)
    if not masks:
        raise InputError(f"{ground_truth}: no mask to find in the images that count")
    return {
        "truth_masks": masks,
        "proposals": sum(len(pair.proposed.get(name, ())) for name in pair.truth),
        "images": len(pair.truth),
        "images_missing": pair.absent,
        "images_without_truth": pair.extra,
    }


def _numbered(masks: MasksByName, numbers: dict[int, int]) -> MasksByName:
    """The masks with the number of their class in place of its id; without those of no class."""

    def of_image(id: int) -> list[coco.Annotation]:
        return [
            replace(mask, category_id=numbers[mask.category_id])
            for mask in masks.of_image(id)
            if numbers[mask.category_id] != UNLABELLED
        ]

    return MasksByName(masks.ids, of_image)


def _by_class(masks: MasksByName, numbers: dict[int, int]) -> Counter[int]:
    """How many masks each class has, crowds aside."""
    return Counter(
        numbers[mask.category_id]
        for own in masks.values()
        for mask in own
        if not mask.extra.get("iscrowd")
    )
