"""Average recall: how many true masks have a proposal like them, whatever their classes.

pycocotools counts (Hosang et al., TPAMI 2016; COCO's AR): the best proposals of each image are
assigned to its true masks one to one at each IoU from .50 to .95 in steps of .05, and the share of
true masks that got one is averaged over those. Crowds of the truth are left out, by the rule at the head
of `formats.labelled`. Images are matched by file name.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovtool.formats import coco

LIMITS = (1, 10, 100)  # the numbers of proposals of an image that are looked at
_SIZES = ("all", "small", "medium", "large")  # COCO's: below 32 x 32, below 96 x 96, above

Masks = Mapping[str, Sequence[coco.Annotation]]  # file name -> the masks of the image


@dataclass(frozen=True)
class Recalled:
    """What `measure` returns.

    measures: fractions in [0, 1], None where there is no mask of that size: `average_recall` at 100
        proposals, `average_recall_10`, `average_recall_small`, `_medium` and `_large`, and `recall_50`, at
        100 proposals and IoU 0.5.
    hits: float64 (N,), the true masks of each image that a proposal is like, averaged over the IoUs.
    masks: float64 (N,), the true masks of each image; `average_recall` is the ratio of the two sums.
    """

    measures: Mapping[str, float | None]
    hits: NDArray[np.float64]
    masks: NDArray[np.float64]


def measure(truth: Masks, proposals: Masks) -> Recalled:
    """The recall of the images of `truth`, in its order; an image that `proposals` lacks has no proposal.
    A proposal without a score counts as 1; of equals the first is best."""
    from pycocotools.cocoeval import COCOeval

    names = list(truth)
    with contextlib.redirect_stdout(io.StringIO()):  # the library prints
        true = as_coco([truth[name] for name in names], with_scores=False)
        proposed = as_coco([proposals.get(name, ()) for name in names], with_scores=True)
        counted = COCOeval(true, proposed, "segm")
        counted.params.useCats = 0
        counted.params.maxDets = list(LIMITS)
        counted.evaluate()
        counted.accumulate()
    recall = counted.eval["recall"][:, 0]  # (IoU, size, limit), -1 where there is no truth

    def mean(size: str, limit: int, thresholds: slice = slice(None)) -> float | None:
        values = recall[thresholds, _SIZES.index(size), LIMITS.index(limit)]
        return None if (values < 0).any() else float(np.mean(values))

    # one entry an image, of size "all" first; None for an image with neither a mask nor a proposal
    of_images = [
        (e["gtMatches"], e["gtIgnore"]) if e else None for e in counted.evalImgs[: len(names)]
    ]
    measures = {
        "average_recall": mean("all", 100),
        "average_recall_10": mean("all", 10),
        "recall_50": mean("all", 100, slice(0, 1)),
        **{f"average_recall_{size}": mean(size, 100) for size in _SIZES[1:]},
    }
    return Recalled(
        measures,
        np.array(
            [(e[0][:, e[1] == 0] > 0).sum() / len(e[0]) if e else 0 for e in of_images], float
        ),
        np.array([(e[1] == 0).sum() if e else 0 for e in of_images], float),
    )


def as_coco(
    images: Sequence[Sequence[coco.Annotation]],
    with_scores: bool,
    category_ids: Sequence[int] | None = None,
) -> Any:
    """Masks of images, numbered from 1, as pycocotools keeps them.

    Args:
        images: the masks of each image.
        with_scores: whether they are predictions. One without a score counts as 1.
        category_ids: of the classes that count; None takes all masks as one class.
    """
    from pycocotools.coco import COCO

    ids = (1,) if category_ids is None else category_ids
    annotations: list[dict[str, Any]] = []
    listed: list[dict[str, Any]] = []
    for image_id, masks in enumerate(images, start=1):
        height, width = masks[0].segmentation["size"] if masks else (1, 1)
        listed.append({"id": image_id, "height": height, "width": width})
        for mask in masks:
            entry: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": 1 if category_ids is None else mask.category_id,
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
        "categories": [{"id": number, "name": str(number)} for number in ids],
    }
    made.createIndex()
    return made
