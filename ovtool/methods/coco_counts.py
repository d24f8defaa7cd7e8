"""Masks matched by pycocotools, some images at a time: the masks of a block are held, and of all images only how
each prediction fared, some 100 bytes."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovtool.formats import coco

SIZES = ("all", "small", "medium", "large")  # COCO's: below 32 x 32, below 96 x 96, above
BLOCK = 256  # images

Masks = Mapping[str, Sequence[coco.Annotation]]  # file name -> the masks of the image


@dataclass(frozen=True)
class Matched:
    """How the predictions of a class fared: image after image, the best score first in each.

    Attributes:
        scores: float64 (D,).
        images: int64 (D,), the image of each prediction.
        ranks: int64 (D,), its place among those of its image, from 0.
        hits: bool (A, T, D), whether it has a true mask, for each size of the truth and at each IoU.
        ignored: bool (A, T, D), whether it is left out: it lies on a crowd, or is of another size.
        masks: int64 (A, N), the true masks of each image that count.
    """

    scores: NDArray[np.float64]
    images: NDArray[np.int64]
    ranks: NDArray[np.int64]
    hits: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    masks: NDArray[np.int64]


def matched(
    truth: Masks, predicted: Masks, most: int, num_classes: int | None = None
) -> list[Matched]:
    """The predictions of each class on the images of `truth`, matched to its masks.

    Args:
        truth: the true masks.
        predicted: the predicted ones; an image that it lacks has none, and a mask without a score counts as 1.
        most: how many predictions of an image and a class are looked at, the best ones.
        num_classes: K, where `category_id` is 0 to K - 1; None takes all masks as one class.
    """
    names, count = list(truth), num_classes or 1
    columns: list[list[list[NDArray[Any]]]] = [[[] for _ in range(6)] for _ in range(count)]
    for start in range(0, len(names), BLOCK):
        block = names[start : start + BLOCK]
        entries = _entries(
            [truth[name] for name in block],
            [predicted.get(name, ()) for name in block],
            most,
            num_classes,
        )
        for k in range(count):
            own = entries[k * len(SIZES) * len(block) : (k + 1) * len(SIZES) * len(block)]
            for column, values in zip(columns[k], _columns(own, len(block), start), strict=True):
                column.append(values)
    shapes = ((0,), (0,), (0,), (len(SIZES), 10, 0), (len(SIZES), 10, 0), (len(SIZES), 0))
    types = (np.float64, np.int64, np.int64, np.bool_, np.bool_, np.int64)
    results = []
    for of_class in columns:
        arrays = [
            np.concatenate([np.zeros(shape, kind), *column], axis=-1)
            for shape, kind, column in zip(shapes, types, of_class, strict=True)
        ]
        of_class.clear()
        results.append(Matched(*arrays))
    return results


def accumulated(classes: Sequence[Matched], limits: Sequence[int]) -> Any:
    """pycocotools' evaluation of all images, its `eval` filled: precision (T, R, K, A, M) and recall
    (T, K, A, M), -1 where there is no truth. `limits`: M numbers of predictions of an image and a class."""
    from pycocotools.cocoeval import COCOeval

    results = []
    with contextlib.redirect_stdout(io.StringIO()):  # the library prints
        evaluation = COCOeval(iouType="segm")
        parameters = evaluation.params
        parameters.imgIds, parameters.catIds = [0], list(range(len(classes)))
        for limit in limits:
            # an image stands for all, whose predictions are within the limit already
            evaluation.evalImgs = [
                entry for own in classes for entry in _as_one_image(own, own.ranks < limit)
            ]
            parameters.maxDets = [max([1, *(len(own.scores) for own in classes)])]
            evaluation._paramsEval = parameters
            evaluation.accumulate()
            results.append(evaluation.eval)
    parameters.maxDets = list(limits)
    evaluation.eval = {
        name: np.concatenate([own[name] for own in results], axis=-1)
        for name in ("precision", "recall")
    }
    return evaluation


def _as_one_image(own: Matched, is_within: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """The entry of each size, as if all images were one."""
    return [
        {
            "dtScores": own.scores[is_within],
            "dtMatches": own.hits[size][:, is_within],
            "dtIgnore": own.ignored[size][:, is_within],
            "gtIgnore": np.zeros(own.masks[size].sum(), np.bool_),
        }
        for size in range(len(SIZES))
    ]


def _columns(
    entries: Sequence[Mapping[str, Any] | None], count: int, start: int
) -> list[NDArray[Any]]:
    """The fields of `Matched` of a block of images.

    Args:
        entries: pycocotools' of a class, by size and image; None for an image without masks of the class.
        count: the images of the block.
        start: the number of the first one.
    """
    there = [number for number in range(count) if entries[number] is not None]
    by_size = [[entries[a * count + number] for number in there] for a in range(len(SIZES))]
    scores = [np.asarray(entry["dtScores"], np.float64) for entry in by_size[0] if entry]
    lengths = [len(own) for own in scores]

    def joined(name: str) -> NDArray[np.bool_]:
        none = np.zeros((10, 0), np.bool_)
        return np.stack(
            [np.concatenate([none, *(e[name] != 0 for e in own if e)], axis=1) for own in by_size]
        )

    masks = np.zeros((len(SIZES), count), np.int64)
    for size, own in enumerate(by_size):
        masks[size, there] = [(np.asarray(e["gtIgnore"]) == 0).sum() for e in own if e]
    return [
        np.concatenate([np.zeros(0), *scores]),
        np.repeat(np.array(there, np.int64) + start, lengths),
        np.concatenate([np.zeros(0, np.int64), *map(np.arange, lengths)]),
        joined("dtMatches"),
        joined("dtIgnore"),
        masks,
    ]


def _entries(
    truth: Sequence[Sequence[coco.Annotation]],
    predicted: Sequence[Sequence[coco.Annotation]],
    most: int,
    num_classes: int | None,
) -> list[Mapping[str, Any] | None]:
    """How pycocotools matches the masks of some images: an entry for each class, size and image."""
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # the library prints
        evaluation = COCOeval(
            _as_coco(truth, False, num_classes), _as_coco(predicted, True, num_classes), "segm"
        )
        evaluation.params.useCats = int(num_classes is not None)
        evaluation.params.catIds = list(range(num_classes or 1))
        evaluation.params.maxDets = [most]
        evaluation.evaluate()
    return list(evaluation.evalImgs)


def _as_coco(
    images: Sequence[Sequence[coco.Annotation]], with_scores: bool, num_classes: int | None
) -> Any:
    """Masks of images, numbered from 1, as pycocotools keeps them; predictions have scores."""
    from pycocotools.coco import COCO

    annotations: list[dict[str, Any]] = []
    listed: list[dict[str, Any]] = []
    for image_id, masks in enumerate(images, start=1):
        height, width = masks[0].segmentation["size"] if masks else (1, 1)
        listed.append({"id": image_id, "height": height, "width": width})
        for mask in masks:
            entry: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": 0 if num_classes is None else mask.category_id,
                "segmentation": dict(mask.segmentation),
                "area": mask.area,
                "iscrowd": int(mask.extra.get("iscrowd", 0)),
            }
            if with_scores:
                entry |= {"score": 1.0 if mask.score is None else mask.score, "iscrowd": 0}
            annotations.append(entry)
    made = COCO()
    made.dataset = {
        "images": listed,
        "annotations": annotations,
        "categories": [{"id": k, "name": str(k)} for k in range(num_classes or 1)],
    }
    made.createIndex()
    return made
