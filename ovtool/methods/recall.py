"""Average recall: how many true masks have a proposal like them, whatever their classes.

pycocotools counts (Hosang et al., TPAMI 2016; COCO's AR): the best proposals of each image are
assigned to its true masks one to one at each IoU from .50 to .95 in steps of .05, and the share of
true masks that got one is averaged over those. Crowds of the truth are left out, by the rule at the head
of `formats.labelled`. Images are matched by file name.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovtool.methods import coco_counts
from ovtool.methods.coco_counts import SIZES, Masks

LIMITS = (1, 10, 100)  # the numbers of proposals of an image that are looked at


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
    (matched,) = coco_counts.matched(truth, proposals, LIMITS[-1])
    recall = coco_counts.accumulated([matched], LIMITS).eval["recall"][:, 0]  # (IoU, size, limit)

    def mean(size: str, limit: int, thresholds: slice = slice(None)) -> float | None:
        values = recall[thresholds, SIZES.index(size), LIMITS.index(limit)]
        return None if (values < 0).any() else float(np.mean(values))

    measures = {
        "average_recall": mean("all", 100),
        "average_recall_10": mean("all", 10),
        "recall_50": mean("all", 100, slice(0, 1)),
        **{f"average_recall_{size}": mean(size, 100) for size in SIZES[1:]},
    }
    met = coco_counts.of_size(matched.hits & ~matched.ignored, 0)  # (T, D), one for each true mask
    hits = np.bincount(matched.images, met.sum(axis=0), len(truth)) / len(met)
    return Recalled(measures, hits, matched.masks[0].astype(np.float64))
