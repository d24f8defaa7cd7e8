"""How sure a mean IoU is: intervals by the bootstrap over images, and the difference of two predictions.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13, the percentile
interval. A sample draws as many images as there are, with replacement, and takes the mean IoU of their
summed confusion matrix, as `methods.metrics` does; the interval holds the middle 95 % of the samples.
Two predictions of the same images are compared on the same samples, so that images which are hard for
both do not widen the interval of their difference (the paired bootstrap).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

CONVENTIONS = ("miou", "miou_union")  # over the classes of the truth; of truth or prediction
LEVEL = 0.95
_MOST_NUMBERS = 2**24  # float64 held at once: 128 MB


@dataclass(frozen=True)
class ImageCounts:
    """What a mean IoU needs of each of N images: int64 (N, K) each.

    hits: n_ii, truth: t_i, predicted: sum_j n_ji, in the symbols of `methods.metrics`.
    """

    hits: NDArray[np.int64]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not self.hits.shape == self.truth.shape == self.predicted.shape:
            raise ValueError("hits, truth and predicted have different shapes")


@dataclass(frozen=True)
class Interval:
    """A measure on all images, and the interval of its samples; NaN where there is no class."""

    value: float
    low: float
    high: float


def image_counts(confusion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hits, truth and predicted pixels of one confusion matrix, (K, K) or (K, K + 1) as
    `metrics.confusion` returns it: int64 (K,) each, on the CPU. They are kept of each image, since the
    matrices of many classes are large."""
    n = confusion.long().cpu()
    return n.diagonal().clone(), n.sum(dim=1), n[:, : len(n)].sum(dim=0)


def intervals(counts: ImageCounts, samples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """The mean IoU by each of CONVENTIONS, with its interval.

    Args:
        samples: how many there are; equal seeds give equal samples.

    Raises:
        ValueError: no image, or no sample.
    """
    whole = _mious(np.ones((1, len(counts.hits))), counts)[0]
    drawn = _sampled([counts], samples, seed)[0]
    return _as_intervals(whole, drawn)


def difference(
    first: ImageCounts, second: ImageCounts, samples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """How much higher the mean IoU of `second` is than that of `first`, by each of CONVENTIONS, with the
    interval of the paired bootstrap: rows alike, the counts of two predictions of the same images. An
    interval that does not hold 0 says that the difference is no accident of the choice of images.

    Raises:
        ValueError: other images or classes on one side, no image, or no sample.
    """
    if not np.array_equal(first.truth, second.truth):
        raise ValueError("the two predictions are not counted on the same truth, image by image")
    ones = np.ones((1, len(first.hits)))
    whole = _mious(ones, second)[0] - _mious(ones, first)[0]
    before, after = _sampled([first, second], samples, seed)
    return _as_intervals(whole, after - before)


def _sampled(sides: Sequence[ImageCounts], samples: int, seed: int) -> list[NDArray[np.float64]]:
    """The measures of each side on the same samples, (samples, 2) each."""
    images, classes = sides[0].hits.shape
    if not images or samples < 1:
        raise ValueError("the bootstrap needs an image and a sample")
    rng = np.random.default_rng(seed)
    step = max(1, _MOST_NUMBERS // (images + 8 * classes))
    measures: list[list[NDArray[np.float64]]] = [[] for _ in sides]
    for start in range(0, samples, step):
        size = min(step, samples - start)
        # how often each image is drawn in each sample, (size, images)
        times = rng.multinomial(images, np.full(images, 1 / images), size=size).astype(np.float64)
        for side, rows in zip(sides, measures, strict=True):
            rows.append(_mious(times, side))
    return [np.concatenate(rows) for rows in measures]


def _mious(times: NDArray[np.float64], counts: ImageCounts) -> NDArray[np.float64]:
    """Both measures of weighted images: (S, N) to (S, 2), NaN where there is no class. The sums are of
    whole numbers below 2**53, hence exact."""
    hits, truth, predicted = (
        times @ part.astype(np.float64) for part in (counts.hits, counts.truth, counts.predicted)
    )
    union = truth + predicted - hits
    iou = np.divide(hits, union, out=np.zeros_like(hits), where=union > 0)
    with np.errstate(invalid="ignore"):
        means = [
            iou.sum(axis=1, where=there) / there.sum(axis=1) for there in (truth > 0, union > 0)
        ]
    return np.stack(means, axis=1)


def _as_intervals(whole: NDArray[np.float64], drawn: NDArray[np.float64]) -> dict[str, Interval]:
    tail = (1 - LEVEL) / 2
    named = {}
    for k, name in enumerate(CONVENTIONS):
        values = drawn[:, k][~np.isnan(drawn[:, k])]
        low, high = np.quantile(values, [tail, 1 - tail]) if values.size else (np.nan, np.nan)
        named[name] = Interval(float(whole[k]), float(low), float(high))
    return named
