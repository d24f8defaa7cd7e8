"""Panoptic quality of masks that do not overlap: things one by one, and stuff by its area."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovtool.datasets.matching import UNLABELLED, Classes
from ovtool.errors import InputError
from ovtool.formats import labelled, rle
from ovtool.formats.labelled import LabelledImages
from ovtool.formats.mask_store import masks_of
from ovtool.inputs import predictions
from ovtool.inputs.predictions import LabelledPair
from ovtool.inputs.truths import is_stuff
from ovtool.measures.measured import Measured, count_images, number
from ovtool.methods import bootstrap, panoptic
from ovtool.methods.panoptic import Segments
from ovtool.runtime.progress import Progress
from ovtool.settings.evaluate import Panoptic

_logger = logging.getLogger("ovtool")


def measure(
    prediction: str, ground_truth: str, metric: Panoptic, workers: int, progress: Progress
) -> Measured:
    """Panoptic quality. Where masks overlap, `formats.labelled` says which lies on top; of a class of stuff,
    and of label maps, all pixels in an image are one segment.

    Raises:
        InputError: a file is broken, images are missing or differ in size, or the truth has no segment.
        MismatchError: there is no class in common.
    """
    pair, classes, things = _opened(prediction, ground_truth, metric)
    num_classes, own_name = len(classes.names), pair.predicted_name
    true_of = _segments_of(pair.truth, range(num_classes), things, classes.truth)
    predicted_of = _segments_of(pair.predicted, classes.matches, things, classes.prediction)

    def count(name: str) -> NDArray[np.float64]:
        true = true_of(name)
        if name in own_name:
            own = predicted_of(own_name[name])
        else:
            own = Segments(np.full_like(true.labels, UNLABELLED), ())
        pair.check_size(name, own.labels.shape, true.labels.shape)
        return panoptic.image_counts(true, own, num_classes)

    with progress(len(pair.images), "evaluating") as advance:
        counts = count_images(pair.images, count, workers, advance)  # (N, 4, K)
    for line in classes.notes():
        _logger.warning("%s", line)
    groups = {"": np.ones(num_classes, bool), "things": things, "stuff": ~things}
    of_all = bootstrap.panoptic_qualities(counts, groups)
    values = of_all(np.ones((1, len(counts))))
    rows = _rows_of_classes(counts.total(), classes.names, things)
    if not any(row["tp"] + row["fn"] for row in rows):
        raise InputError(f"{ground_truth}: no segment to find in the images that count")
    result = {
        **{name: number(own[0]) for name, own in values.items()},
        "classes": rows,
        "segments": sum(row["tp"] + row["fn"] for row in rows),
        **pair.counts(),
    }
    of_image = {}
    if metric.per_image:
        own = np.stack([panoptic.qualities(image)[0] for image in counts])  # (N, K)
        there = ~np.isnan(own)
        with np.errstate(invalid="ignore"):
            of_image["pq"] = np.sum(own, axis=1, where=there) / there.sum(axis=1)
    return Measured(result, of_all, tuple(pair.images), of_image)


def planned(prediction: str, ground_truth: str, metric: Panoptic) -> int:
    """How many images would be measured. Raises as the measuring does for files that do not go together."""
    return len(_opened(prediction, ground_truth, metric)[0].images)


def _opened(
    prediction: str, ground_truth: str, metric: Panoptic
) -> tuple[LabelledPair, Classes, NDArray[np.bool_]]:
    """The pair, its classes, and which of these are things, bool (K,)."""
    pair = predictions.open_labelled(prediction, ground_truth, metric.missing, has_segments=True)
    classes = Classes(pair.truth, pair.predicted, False, ())
    classes.check_in_common()
    things = np.zeros(len(classes.names), bool)
    if pair.truth.dataset is not None:
        things[:] = [not is_stuff(category) for category in pair.truth.dataset.categories]
    return pair, classes, things


def _rows_of_classes(
    counts: NDArray[np.float64], names: Sequence[str], things: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """The qualities of each class that has a segment, from counts (4, K)."""
    values = panoptic.qualities(counts)
    return [
        {
            "name": name,
            "thing": bool(things[k]),
            **{key: number(values[place, k]) for place, key in enumerate(("pq", "sq", "rq"))},
            "segments": int(counts[1, k] + counts[3, k]),
            **{key: int(counts[place, k]) for place, key in enumerate(("tp", "fp", "fn"), start=1)},
        }
        for k, name in enumerate(names)
        if counts[1:, k].any()
    ]


def _segments_of(
    images: LabelledImages,
    numbers: Sequence[int],
    things: NDArray[np.bool_],
    to_classes: Callable[[NDArray[np.int32], str], NDArray[np.int64]],
) -> Callable[[str], Segments]:
    """What gives the segments of an image.

    Args:
        images: with masks, or with label maps.
        numbers: the true class of each of its classes, -1 for none.
        things: which true classes are things, bool (K,).
        to_classes: a label map and the name of its image to true classes, -1 for none; raises InputError
            for labels that are no class.
    """

    def of_labels(name: str) -> Segments:
        labels = to_classes(images.decode(name), name)
        there, place = np.unique(labels, return_inverse=True)
        offset = int(there[0] == UNLABELLED)
        segments = place.reshape(labels.shape).astype(np.int32) - offset
        return Segments(segments, there[offset:].tolist())

    if images.dataset is None:
        return of_labels
    number = dict(zip((c.id for c in images.dataset.categories), numbers, strict=True))
    by_name = {image.file_name: image for image in images.dataset.images}
    masks_of_image = masks_of(images.dataset)

    def of_masks(name: str) -> Segments:
        image = by_name[name]
        labels = np.full((image.height, image.width), -1, np.int32)
        segments: dict[object, int] = {}
        classes: list[int] = []
        crowds: list[bool] = []
        for mask in labelled.painting_order(masks_of_image(image.id)):
            k, is_crowd = number[mask.category_id], bool(mask.extra.get("iscrowd"))
            is_alone = k >= 0 and things[k] and not is_crowd
            key = mask.id if is_alone else (mask.category_id, is_crowd)
            if key not in segments:
                segments[key] = len(segments)
                classes.append(k)
                crowds.append(is_crowd)
            labels[rle.decode(mask.segmentation, image.height, image.width)] = segments[key]
        return Segments(labels, classes, crowds)

    return of_masks
