"""How sure a measure of a data set is: intervals by the bootstrap over images, and differences of two predictions.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13, the percentile
interval. A sample draws as many images as there are, with replacement, and takes the measure of the data
set of those; the interval holds the middle 95 % of the samples. Two predictions of the same images are
compared on the same samples, so that images which are hard for both do not widen the interval of their
difference (the paired bootstrap).

A measure is a function of how often each image is drawn: float64 (S, N), samples by images, to the values
by name, float64 (S,) each, NaN where there is nothing to divide by.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovtool.methods import metrics, panoptic

Measure = Callable[[NDArray[np.float64]], Mapping[str, NDArray[np.float64]]]
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


@dataclass(frozen=True)
class Interval:
    """A measure on all images, and the interval of its samples; NaN where there is nothing to divide by."""

    value: float
    low: float
    high: float

    def as_data(self, *, with_value: bool) -> dict[str, float | None]:
        """The two ends, after the value where that is asked for, as JSON can hold them: None for NaN."""
        numbers = {"value": self.value} if with_value else {}
        numbers |= {"low": self.low, "high": self.high}
        return {name: None if np.isnan(number) else number for name, number in numbers.items()}


def image_counts(confusion: NDArray[np.int64]) -> NDArray[np.int64]:
    """Hits, truth and predicted pixels of one image's matrix, (3, K): what is worth keeping of each image,
    since the matrices of many classes are large."""
    n = confusion
    return np.stack([n.diagonal(), n.sum(axis=1), n[:, : len(n)].sum(axis=0)])


def mean_ious(counts: ImageCounts, novel: NDArray[np.bool_] | None = None) -> Measure:
    """The mean IoU of the summed matrices by both conventions of `methods.metrics`: `miou`, over the classes
    of the truth, and `miou_union`, over those of truth or prediction. With `novel`, bool (K,), also
    `miou_seen` and `miou_novel`, of the classes of the truth that are novel and that are not, and their
    harmonic mean `hiou`."""

    def measure(times: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        # sums of whole numbers below 2**53, hence exact
        hits, truth, predicted = (
            times @ part.astype(np.float64)
            for part in (counts.hits, counts.truth, counts.predicted)
        )
        union = truth + predicted - hits
        iou = np.divide(hits, union, out=np.zeros_like(hits), where=union > 0)
        groups = {"miou": truth > 0, "miou_union": union > 0}
        if novel is not None:
            groups |= {"miou_seen": (truth > 0) & ~novel, "miou_novel": (truth > 0) & novel}
        with np.errstate(invalid="ignore"):
            means = {
                name: iou.sum(axis=1, where=there) / there.sum(axis=1)
                for name, there in groups.items()
            }
        if novel is not None:
            means["hiou"] = metrics.harmonic_mean(means["miou_seen"], means["miou_novel"])
        return means

    return measure


def panoptic_qualities(
    counts: NDArray[np.float64], groups: Mapping[str, NDArray[np.bool_]]
) -> Measure:
    """The means of PQ, SQ and RQ over the classes of each group that have a segment: `pq`, `sq` and `rq` of the
    group with an empty name, `pq_things` of `things`.

    Args:
        counts: float64 (N, 4, K), of each image (`methods.panoptic`).
        groups: name to the classes, bool (K,).
    """
    flat = counts.reshape(len(counts), -1)

    def measure(times: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        sums = (times @ flat).reshape(len(times), 4, -1)
        values = panoptic.qualities(sums)  # (S, 3, K)
        there = ~np.isnan(values[:, 0])
        means: dict[str, NDArray[np.float64]] = {}
        for group, members in groups.items():
            own = there & members
            for place, name in enumerate(("pq", "sq", "rq")):
                total = np.sum(values[:, place], axis=1, where=own)
                with np.errstate(invalid="ignore"):
                    means[f"{name}_{group}" if group else name] = total / own.sum(axis=1)
        return means

    return measure


def ratio(name: str, hits: NDArray[np.float64], totals: NDArray[np.float64]) -> Measure:
    """The sum of `hits` over the sum of `totals`, (N,) each: an accuracy or a recall."""

    def measure(times: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        with np.errstate(invalid="ignore"):
            return {name: (times @ hits) / (times @ totals)}

    return measure


def difference(first: Measure, second: Measure) -> Measure:
    """How much higher `second` is than `first`, both of the same images in the same order. An interval that
    does not hold 0 says that the difference is no accident of the choice of images."""

    def measure(times: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        before, after = first(times), second(times)
        return {name: after[name] - before[name] for name in before}

    return measure


def intervals(
    measure: Measure, images: int, samples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """The values of a measure, each with its interval.

    Args:
        measure: see the head of this file.
        images: N.
        samples: how many there are; equal seeds give equal samples.

    Raises:
        ValueError: no image, or no sample.
    """
    if images < 1 or samples < 1:
        raise ValueError("the bootstrap needs an image and a sample")
    rng = np.random.default_rng(seed)
    step = max(1, _MOST_NUMBERS // images)
    blocks = []
    for start in range(0, samples, step):
        size = min(step, samples - start)
        times = rng.multinomial(images, np.full(images, 1 / images), size=size)
        blocks.append(measure(times.astype(np.float64)))
    tail = (1 - LEVEL) / 2
    result = {}
    for name, whole in measure(np.ones((1, images))).items():
        values = np.concatenate([block[name] for block in blocks])
        values = values[~np.isnan(values)]
        low, high = np.quantile(values, [tail, 1 - tail]) if values.size else (np.nan, np.nan)
        result[name] = Interval(float(whole[0]), float(low), float(high))
    return result
