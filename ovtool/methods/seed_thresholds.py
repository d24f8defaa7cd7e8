"""Activation maps as seeds: the threshold that parts them from the background, and what they score with it.

A pixel takes the class of its highest map where that is above a threshold t, else the background (Ahn and
Kwak, CVPR 2018, section 3.2, and those after it). Papers report the t that scores best on the very images
that are scored. Here each half of the images is scored with the t that is best for the other half, so that no
image is scored with a t that it helped to choose; and that best for all is given beside it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = np.arange(100) / 100  # 0, 0.01, ... 0.99


@dataclass(frozen=True)
class SeedCounts:
    """What the seeds of an image score at each threshold.

    Attributes:
        classes: int64 (C,), the classes of its maps, and the background last.
        hits: int64 (T, C), the pixels of each class that are right at each threshold.
        predicted: int64 (T, C), those that are called it.
        truth: int64 (K,), the true pixels of all classes.
        left_out: the pixels that are not counted.
    """

    classes: NDArray[np.int64]
    hits: NDArray[np.int64]
    predicted: NDArray[np.int64]
    truth: NDArray[np.int64]
    left_out: int = 0


def image_counts(
    maps: NDArray[np.float32],
    classes: NDArray[np.int64],
    truth: NDArray[np.int64],
    num_classes: int,
    background: int,
) -> SeedCounts:
    """Counts the pixels of an image at all thresholds.

    Args:
        maps: float32 (C, H, W) in [0, 1], at the size of the image; C may be 0.
        classes: int64 (C,), the class of each map, -1 for one that the truth does not know.
        truth: int64 (H, W), 0 to K - 1, -1 where nothing is counted.
        num_classes: K.
        background: its class.
    """
    counted = truth >= 0
    true, steps, count = truth[counted], len(THRESHOLDS), len(classes)
    if count:
        # a pixel is of its class at the first `last` thresholds, those below its highest map
        best = maps.argmax(axis=0)[counted]
        last = np.searchsorted(THRESHOLDS, maps.max(axis=0)[counted])
    else:
        best = last = np.zeros(len(true), np.int64)

    def above(where: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(T, C): how many of these pixels are above each threshold, by their best map."""
        index = best[where] * (steps + 1) + last[where]
        bins = np.bincount(index, minlength=max(count, 1) * (steps + 1)).reshape(-1, steps + 1)
        return bins[:count, ::-1].cumsum(axis=1)[:, -2::-1].T

    own = np.append(classes, background)
    is_ground = true == background
    right = true == own[best] if count else np.zeros(len(true), bool)
    called, hit, taken = above(np.ones(len(true), bool)), above(right), above(is_ground)
    rest = [len(true) - called.sum(axis=1), is_ground.sum() - taken.sum(axis=1)]
    return SeedCounts(
        own,
        np.concatenate([hit, rest[1][:, None]], axis=1),
        np.concatenate([called, rest[0][:, None]], axis=1),
        np.bincount(true, minlength=num_classes),
        int(counted.size - len(true)),
    )


def at(counts: SeedCounts, step: int) -> NDArray[np.int64]:
    """Hits, truth and prediction of an image at a threshold, int64 (3, K), as `methods.bootstrap` takes them."""
    rows = np.stack([np.zeros_like(counts.truth), counts.truth, np.zeros_like(counts.truth)])
    known = counts.classes >= 0
    np.add.at(rows[0], counts.classes[known], counts.hits[step, known])
    np.add.at(rows[2], counts.classes[known], counts.predicted[step, known])
    return rows


def best_step(images: list[SeedCounts]) -> int:
    """The place of the threshold with the best mean IoU over the classes of the truth; of equals the lowest."""
    sums = sum(np.stack([at(counts, step) for step in range(len(THRESHOLDS))]) for counts in images)
    hits, truth, predicted = np.moveaxis(np.asarray(sums, float), 1, 0)  # (T, K) each
    union = truth + predicted - hits
    iou = np.divide(hits, union, out=np.zeros_like(hits), where=union > 0)
    return int(iou.mean(axis=1, where=truth > 0).argmax())
