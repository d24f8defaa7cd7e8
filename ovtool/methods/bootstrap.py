"""How sure a measure of a data set is: intervals by the bootstrap over images, and differences of two predictions.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13, the percentile
interval. A sample draws as many images as there are, with replacement, and takes the measure of the data
set of those; the interval holds the middle 95 % of the samples. Two predictions of the same images are
compared on the same samples, so that images which are hard for both do not widen the interval of their
difference (the paired bootstrap).

A measure is a function of how often each image is drawn: float64 (S, N), samples by images, to the values
by name, float64 (S,) each, NaN where there is nothing to divide by.
"""

import itertools
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovtool.methods import metrics, panoptic

Measure = Callable[[NDArray[np.float64]], Mapping[str, NDArray[np.float64]]]
LEVEL = 0.95
_MOST_NUMBERS = 2**17  # float64 held at once: 1 MB


@dataclass(frozen=True)
class ImageCounts:
    """R numbers of each of K classes in each of N images; of classes that an image lacks nothing is held.

    Attributes:
        starts: int64 (N + 1,), the first entry of each image, and the number of entries M.
        classes: int32 (M,), the class of each entry.
        values: int64 or float64 (M, R), its numbers.
        num_classes: K.
    """

    starts: NDArray[np.int64]
    classes: NDArray[np.int32]
    values: NDArray[Any]
    num_classes: int

    @classmethod
    def of(cls, images: Iterable[NDArray[Any]]) -> "ImageCounts":
        """Those of images, each (R, K), all of one shape and type; at least one."""
        starts, classes, values = array("q", [0]), array("i"), bytearray()
        for rows in images:
            there = np.flatnonzero(rows.any(axis=0))
            classes.frombytes(there.astype(np.int32).tobytes())
            values += rows[:, there].T.tobytes()
            starts.append(len(classes))
        return cls(
            np.array(starts, np.int64),
            np.array(classes, np.int32),
            np.frombuffer(values, rows.dtype).reshape(-1, len(rows)),
            rows.shape[1],
        )

    @classmethod
    def joined(cls, blocks: Sequence["ImageCounts"]) -> "ImageCounts":
        """Those of the images of all blocks, in order; at least one."""
        ends = np.cumsum([0, *(len(block.classes) for block in blocks)])
        starts = [block.starts[1:] + end for block, end in zip(blocks, ends, strict=False)]
        return cls(
            np.concatenate([[0], *starts]),
            np.concatenate([block.classes for block in blocks]),
            np.concatenate([block.values for block in blocks]),
            blocks[0].num_classes,
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """The numbers of each image, (R, K)."""
        for start, stop in itertools.pairwise(self.starts):
            rows = np.zeros((self.values.shape[1], self.num_classes), self.values.dtype)
            rows[:, self.classes[start:stop]] = self.values[start:stop].T
            yield rows

    def total(self) -> NDArray[Any]:
        """The sums over all images, (R, K)."""
        sums = np.zeros((self.num_classes, self.values.shape[1]), self.values.dtype)
        np.add.at(sums, self.classes, self.values)
        return sums.T

    def sums(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sums of samples: float64 (S, R, K) of how often each draws each image, float64 (S, N)."""
        sums = np.zeros((len(times), self.values.shape[1], self.num_classes))
        for k, own, images in self._by_class:
            sums[:, :, k] = times[:, images] @ self.values[own].astype(np.float64)
        return sums

    @cached_property
    def _by_class(self) -> list[tuple[int, NDArray[np.int32], NDArray[np.int32]]]:
        """Each class with its entries and their images."""
        order = np.argsort(self.classes, kind="stable").astype(np.int32)
        images = np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.starts))
        classes, firsts = np.unique(self.classes[order], return_index=True)
        entries = np.split(order, firsts[1:])
        return [(k, own, images[own]) for k, own in zip(classes.tolist(), entries, strict=False)]


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
    harmonic mean `hiou`.

    Args:
        counts: int64 (N, 3 or more, K), as `image_counts` gives them; n_ii, t_i and sum_j n_ji in the symbols of
            `methods.metrics`.
        novel: bool (K,).
    """

    def measure(times: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        # sums of whole numbers below 2**53, hence exact
        hits, truth, predicted = np.moveaxis(counts.sums(times), 1, 0)[:3]
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


def panoptic_qualities(counts: ImageCounts, groups: Mapping[str, NDArray[np.bool_]]) -> Measure:
    """The means of PQ, SQ and RQ over the classes of each group that have a segment: `pq`, `sq` and `rq` of the
    group with an empty name, `pq_things` of `things`.

    Args:
        counts: float64 (N, 4, K), of each image (`methods.panoptic`).
        groups: name to the classes, bool (K,).
    """

    def measure(times: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        values = panoptic.qualities(counts.sums(times))  # (S, 3, K)
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
