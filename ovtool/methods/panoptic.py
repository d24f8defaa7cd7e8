"""Panoptic quality: things found one by one and stuff by its area, in one measure.

Source: Kirillov, He, Girshick, Rother and Dollár, "Panoptic Segmentation" (CVPR 2019), section 4. A true and a
predicted segment of one class match where their IoU is above 0.5, which no two others can. Of a class
PQ = sum of the IoUs of the matches / (TP + FP / 2 + FN / 2) = SQ * RQ: SQ is the mean IoU of the matches, and
RQ is TP / (TP + FP / 2 + FN / 2).

Void pixels and crowds are treated by the rules of panopticapi, the code of the COCO challenge: pixels that the
truth leaves void do not count in the union; a crowd is neither matched nor missed; and a predicted segment
without a match is no error where more than half of it lies on void pixels and on a crowd of its class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MATCHING_IOU = 0.5  # above it


@dataclass(frozen=True)
class Segments:
    """The segments of an image, which do not overlap.

    Attributes:
        labels: int32 (H, W), the index of each pixel's segment, -1 where there is none.
        classes: the class of each segment, -1 for a class that does not count.
        crowds: whether each is a crowd; empty for none.
    """

    labels: NDArray[np.int32]
    classes: Sequence[int]
    crowds: Sequence[bool] = ()


def image_counts(truth: Segments, predicted: Segments, num_classes: int) -> NDArray[np.float64]:
    """What panoptic quality needs of an image.

    Returns:
        float64 (4, K): of each class the summed IoUs of its matches, and its TP, FP and FN.
    """
    counts = np.zeros((4, num_classes))
    ious, hits, false, missed = counts
    rows, columns = len(truth.classes), len(predicted.classes)
    index = (truth.labels.astype(np.int64) + 1) * (columns + 1) + predicted.labels + 1
    both = np.bincount(index.ravel(), minlength=(rows + 1) * (columns + 1))
    both = both.reshape(rows + 1, columns + 1)  # first row: void; first column: not predicted
    true_area, area, void = both.sum(axis=1)[1:], both.sum(axis=0)[1:], both[0, 1:]
    crowds = tuple(truth.crowds) or (False,) * rows
    matched = set[int]()
    for i, k in enumerate(truth.classes):
        if crowds[i] or k < 0 or not true_area[i]:
            continue
        for j in np.flatnonzero(both[i + 1, 1:]).tolist():
            shared = both[i + 1, j + 1]
            iou = shared / (true_area[i] + area[j] - shared - void[j])
            if predicted.classes[j] == k and iou > MATCHING_IOU:
                ious[k] += iou
                hits[k] += 1
                matched.add(j)
                break
        else:
            missed[k] += 1
    for j, k in enumerate(predicted.classes):
        if k < 0 or j in matched or not area[j]:
            continue
        own = [i for i in range(rows) if crowds[i] and truth.classes[i] == k]
        excused = void[j] + both[[i + 1 for i in own], j + 1].sum()
        false[k] += excused <= area[j] / 2
    return counts


def qualities(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """PQ, SQ and RQ of classes.

    Args:
        counts: (..., 4, K), those of images summed.

    Returns:
        float64 (..., 3, K) in [0, 1]; SQ and RQ are 0 without a match, all three NaN where a class has neither
        a true nor a predicted segment.
    """
    ious, hits, false, missed = np.moveaxis(counts, -2, 0)
    total = hits + (false + missed) / 2
    with np.errstate(invalid="ignore"):
        sq = np.divide(ious, hits, out=np.zeros_like(ious), where=hits > 0)
        sq = np.where(total > 0, sq, np.nan)
        return np.stack([ious / total, sq, hits / total], axis=-2)
