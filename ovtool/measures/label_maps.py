"""The classes of pixels: mean IoU, accuracies, boundary IoU, and hIoU of seen and novel classes; the rules are
at the head of `stages.evaluate`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovtool.datasets import vocabularies
from ovtool.datasets.matching import UNLABELLED, Classes
from ovtool.errors import InputError, UsageError
from ovtool.inputs import predictions
from ovtool.inputs.predictions import LabelledPair
from ovtool.measures.measured import Measured, count_images, number
from ovtool.methods import bootstrap, boundaries, metrics
from ovtool.methods.bootstrap import ImageCounts
from ovtool.runtime.progress import Progress
from ovtool.settings.evaluate import BoundaryIou, MeanIou

_logger = logging.getLogger("ovtool")


def measure(
    prediction: str, ground_truth: str, metric: MeanIou, workers: int, progress: Progress
) -> Measured:
    """The measures of a prediction.

    Raises:
        InputError: a file is broken, images are missing or differ in size, or nothing is counted.
        MismatchError: there is no class in common.
        UsageError: a novel class, or one to ignore, that the truth does not have.
    """
    pair, classes, novel = _opened(prediction, ground_truth, metric)
    lists = metric.classes_per_image
    words = None if lists is None else pair.words(lists)
    images, own_name = pair.images, pair.predicted_name
    names = classes.every_name  # a class that is predicted alone counts as 0 in the union
    num_classes = len(names)
    dilation = metric.boundary_width if isinstance(metric, BoundaryIou) else None

    def count(name: str) -> NDArray[np.int64]:
        """Hits, truth and prediction of each class, and a row that begins with the pixels that are not counted;
        (4, K)."""
        true = pair.truth.decode(name)
        if name in own_name:
            labels = pair.predicted.decode(own_name[name])
        else:
            labels = np.full_like(true, UNLABELLED)
        pair.check_size(name, labels.shape, true.shape)
        counted = classes.truth(true, name, None if words is None else words[name])
        predicted = classes.prediction(labels, name, with_unmatched=True)
        rows = np.zeros((4, num_classes), np.int64)
        if dilation is None:
            confusion = metrics.confusion(predicted, counted, num_classes, UNLABELLED)
            rows[:3] = bootstrap.image_counts(confusion)
        else:
            d = boundaries.width((true.shape[0], true.shape[1]), dilation)
            is_counted = counted != UNLABELLED
            rows[:3] = boundaries.image_counts(predicted, counted, is_counted, num_classes, d)
        rows[3, 0] = (counted == UNLABELLED).sum()
        return rows

    with progress(len(images), "evaluating") as advance:
        counts = count_images(images, count, workers, advance)  # (N, 4, K)
    for line in classes.notes():
        _logger.warning("%s", line)
    *total, left_out = counts.total()
    if not total[1].any():
        raise InputError(f"{ground_truth}: not one of its pixels is counted; nothing to measure")
    of_all = bootstrap.mean_ious(counts, novel)
    prefix = "" if dilation is None else "boundary_"
    result = result_of(np.stack(total), names, prefix) | {"pixels_not_counted": int(left_out[0])}
    if novel is not None:
        values = of_all(np.ones((1, len(images))))
        result |= {
            prefix + name: number(values[name][0]) for name in ("miou_seen", "miou_novel", "hiou")
        }
        result["classes"] = [
            {**row, "novel": bool(novel[names.index(row["name"])])} for row in result["classes"]
        ]

    def measures(times: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {prefix + name: values for name, values in of_all(times).items()}

    of_image = of_images(counts, prefix) if metric.per_image else {}
    return Measured({**result, **pair.counts()}, measures, tuple(images), of_image)


def planned(prediction: str, ground_truth: str, metric: MeanIou) -> int:
    """How many images would be measured. Raises as `measure` does for files that do not go together."""
    return len(_opened(prediction, ground_truth, metric)[0].images)


def _opened(
    prediction: str, ground_truth: str, metric: MeanIou
) -> tuple[LabelledPair, Classes, NDArray[np.bool_] | None]:
    """The pair, its classes, and which of these are novel, bool (K,), None where none was named."""
    pair = predictions.open_labelled(prediction, ground_truth, metric.missing, metric.protocol)
    classes = Classes(pair.truth, pair.predicted, metric.with_background, metric.ignore_label)
    classes.check_in_common()
    if metric.novel is None:
        return pair, classes, None
    if Path(metric.novel).is_file():
        vocabulary = vocabularies.read_classes_file(Path(metric.novel))
    else:
        vocabulary = vocabularies.parse_classes(metric.novel)
    novel = np.zeros(len(classes.every_name), bool)
    novel[list(classes.named(vocabulary.names, "--novel"))] = True
    if novel[: len(classes.names)].all():
        raise UsageError("--novel names every class of the truth; leave out those that were seen")
    return pair, classes, novel


def result_of(counts: NDArray[np.int64], names: Sequence[str], prefix: str) -> dict[str, Any]:
    """All measures of (3, K) counts; classes that are nowhere are left out. Of boundaries there are no
    accuracies: what lies near no contour is of no class."""
    hits, true, predicted = counts.tolist()
    scores = metrics.scores_of_counts(*counts)
    of_all = {"miou": scores.miou_truth, "miou_union": scores.miou_union}
    of_class = {"iou": scores.iou}
    if not prefix:
        of_all |= {
            "pixel_accuracy": scores.pixel_accuracy,
            "mean_accuracy": scores.mean_accuracy,
            "frequency_weighted_iou": scores.frequency_weighted_iou,
        }
        of_class["accuracy"] = scores.accuracy
    return {
        **{prefix + name: number(value) for name, value in of_all.items()},
        "classes": [
            {
                "name": name,
                **{prefix + measure: number(values[k]) for measure, values in of_class.items()},
                "truth_pixels": true[k],
                "predicted_pixels": predicted[k],
                "hits": hits[k],
            }
            for k, name in enumerate(names)
            if true[k] or predicted[k]
        ],
        "classes_in_truth": sum(t > 0 for t in true),
        "classes_in_neither": sum(not (t or p) for t, p in zip(true, predicted, strict=True)),
        "pixels": sum(true),
    }


def of_images(counts: ImageCounts, prefix: str) -> dict[str, NDArray[np.float64]]:
    """The measures of each image, (N,), from counts (N, 3 or more, K)."""
    scores = [metrics.scores_of_counts(*own[:3]) for own in counts]
    of_image = {f"{prefix}miou": np.array([own.miou_truth for own in scores])}
    if not prefix:
        of_image["pixel_accuracy"] = np.array([own.pixel_accuracy for own in scores])
    return of_image
