"""Masks matched by pycocotools, some images at a time: the masks of a block are held, and of all images only how
each prediction fared, 34 bytes."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovtool.formats import coco

SIZES = ("all", "small", "medium", "large")  # COCO's: below 32 x 32, below 96 x 96, above
IOUS = 10  # from .50 to .95
BLOCK = 64  # images
_BLOCKS = 32  # that are held apart, before they are joined
_AT_ONCE = 2**13  # predictions, times the IoUs that are counted together

_KEPT = ("precision", "recall")
Masks = Mapping[str, Sequence[coco.Annotation]]  # file name -> the masks of the image


@dataclass(frozen=True)
class Matched:
    """How the predictions of a class fared: image after image, the best score first in each.

    Attributes:
        scores: float64 (D,).
        images: int32 (D,), the image of each prediction.
        ranks: int32 (D,), its place among those of its image, from 0.
        hits: uint64 (D,), whether it has a true mask, a bit for each size of the truth and IoU (`of_size`).
        ignored: uint64 (D,), whether it is left out: it lies on a crowd, or is of another size.
        masks: int32 (A, N), the true masks of each image that count.
    """

    scores: NDArray[np.float64]
    images: NDArray[np.int32]
    ranks: NDArray[np.int32]
    hits: NDArray[np.uint64]
    ignored: NDArray[np.uint64]
    masks: NDArray[np.int32]


def of_size(
    bits: NDArray[np.uint64], size: int, ious: Sequence[int] = range(IOUS)
) -> NDArray[np.bool_]:
    """The bits of a size of the truth at some IoUs, bool (len(ious), D)."""
    places = [np.uint64(size * IOUS + iou) for iou in ious]
    return np.stack([(bits >> place & np.uint64(1)).astype(np.bool_) for place in places])


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
                if len(column) == _BLOCKS:
                    column[:] = [np.concatenate(column, axis=-1)]
    results = []
    for of_class in columns:
        arrays = [np.concatenate(column, axis=-1) for column in of_class]
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
        every, most = parameters.iouThrs, max([1, *(len(own.scores) for own in classes)])
        step = max(1, _AT_ONCE // most)
        for limit in limits:
            of_ious = []
            for start in range(0, IOUS, step):
                ious = range(start, min(start + step, IOUS))
                # an image stands for all, whose predictions are within the limit already
                evaluation.evalImgs = [
                    entry for own in classes for entry in _as_one_image(own, limit, ious)
                ]
                parameters.iouThrs, parameters.maxDets = every[start : start + step], [most]
                evaluation._paramsEval = parameters
                evaluation.accumulate()
                of_ious.append(evaluation.eval)
            results.append({k: np.concatenate([own[k] for own in of_ious]) for k in _KEPT})
    parameters.iouThrs, parameters.maxDets = every, list(limits)
    evaluation.eval = {
        name: np.concatenate([own[name] for own in results], axis=-1) for name in _KEPT
    }
    return evaluation


def _as_one_image(own: Matched, limit: int, ious: Sequence[int]) -> list[dict[str, Any]]:
    """The entry of each size, as if all images were one."""
    is_within = own.ranks < limit
    scores, hits, ignored = own.scores[is_within], own.hits[is_within], own.ignored[is_within]
    return [
        {
            "dtScores": scores,
            "dtMatches": of_size(hits, size, ious),
            "dtIgnore": of_size(ignored, size, ious),
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

    def joined(name: str) -> NDArray[np.uint64]:
        bits = np.zeros(sum(lengths), np.uint64)
        for size, own in enumerate(by_size):
            of_ious = [e[name] != 0 for e in own if e]  # (T, d) each
            for iou, row in enumerate(np.concatenate(of_ious, axis=1) if of_ious else ()):
                bits |= row.astype(np.uint64) << np.uint64(size * IOUS + iou)
        return bits

    masks = np.zeros((len(SIZES), count), np.int32)
    for size, own in enumerate(by_size):
        masks[size, there] = [(np.asarray(e["gtIgnore"]) == 0).sum() for e in own if e]
    return [
        np.concatenate([np.zeros(0), *scores]),
        np.repeat(np.array(there, np.int32) + np.int32(start), lengths),
        np.concatenate([np.zeros(0, np.int32), *(np.arange(n, dtype=np.int32) for n in lengths)]),
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
