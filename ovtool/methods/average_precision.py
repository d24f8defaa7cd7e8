"""Average precision and average recall of masks with classes and scores, as COCO has them.

pycocotools matches predictions to true masks (Lin et al., ECCV 2014; COCO's detection evaluation): class by
class, image by image, the better score first, at each IoU from .50 to .95 in steps of .05. The precision at a
recall is the best at that recall or a higher one, and AP is its mean over 101 recalls, over the IoUs and over
the classes that the truth holds. AR is the mean of the greatest recalls. Images are matched by file name.

For intervals the same matches are counted again with each image as often as a sample draws it (`Matches`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovtool.methods import coco_counts
from ovtool.methods.coco_counts import SIZES, Masks, Matched

RECALLS = np.linspace(0, 1, 101)
LIMITS = (1, 10, 100)  # predictions of an image and a class
_SAMPLES = 2**18  # numbers held at once by the bootstrap
_NEAR_ZERO = np.spacing(1)


@dataclass(frozen=True)
class Matches:
    """How the predictions of a class fared, the best score first.

    Attributes:
        images: int32 (D,), the image of each prediction.
        hits: bool (T, D), whether it has a true mask at each IoU.
        ignored: bool (T, D), whether it is left out, since it lies on a crowd.
        masks: int32 (N,), the true masks of each image.
    """

    images: NDArray[np.int32]
    hits: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    masks: NDArray[np.int32]

    def precision(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """AP at each IoU where each image counts so often.

        Args:
            times: float64 (S, N), samples by images.

        Returns:
            float64 (S, T); NaN where a sample has no true mask.
        """
        totals = times @ self.masks.astype(np.float64)  # (S,)
        weights = times[:, self.images]  # (S, D)
        columns = [
            _interpolated(weights, hits, ignored, totals)
            for hits, ignored in zip(self.hits, self.ignored, strict=True)
        ]
        values = np.stack(columns, axis=1)
        values[totals == 0] = np.nan
        return values


def _interpolated(
    weights: NDArray[np.float64],
    hits: NDArray[np.bool_],
    ignored: NDArray[np.bool_],
    totals: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The mean precision over `RECALLS` of each sample, (S,)."""
    samples, count = weights.shape
    if not count:
        return np.zeros(samples)
    true = np.cumsum(weights * (hits & ~ignored), axis=1)
    false = np.cumsum(weights * (~hits & ~ignored), axis=1)
    reached = true / np.maximum(totals, 1)[:, None]  # recalls, rising along a row
    precision = true / (true + false + _NEAR_ZERO)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    best = np.concatenate([best, np.zeros((samples, 1))], axis=1)  # recalls that are not reached
    place = np.stack([np.searchsorted(row, RECALLS) for row in reached])
    values: NDArray[np.float64] = np.take_along_axis(best, place, axis=1).mean(axis=1)
    return values


@dataclass(frozen=True)
class Precision:
    """What `measure` returns.

    Attributes:
        measures: fractions in [0, 1], None where there is no true mask of that size: `ap`, `ap_50`, `ap_75`,
            `ap_small`, `_medium`, `_large`, and `ar_1`, `ar_10`, `ar_100` (or of other limits), `ar_small`, `_medium`, `_large`.
        classes: the AP of each class, NaN for one that the truth lacks.
        matches: those of each class, for the bootstrap.
    """

    measures: Mapping[str, float | None]
    classes: Sequence[float]
    matches: Sequence[Matches]

    def sampled(self, times: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """`ap` and `ap_50` of samples (`methods.bootstrap.Measure`): float64 (S,) each."""
        most = max((len(matches.images) for matches in self.matches), default=0)
        step = max(1, _SAMPLES // max(most, 1))
        blocks = [
            self._sampled(times[start : start + step]) for start in range(0, len(times), step)
        ]
        return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}

    def _sampled(self, times: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        values = np.stack([own.precision(times) for own in self.matches])  # (K, S, T)
        there = ~np.isnan(values[:, :, 0])
        with np.errstate(invalid="ignore"):
            means = np.nansum(values, axis=0) / there.sum(axis=0)[:, None]
        return {"ap": means.mean(axis=1), "ap_50": means[:, 0]}


def measure(
    truth: Masks, predicted: Masks, num_classes: int, limits: Sequence[int] = LIMITS
) -> Precision:
    """The precision and recall of the images of `truth`; an image that `predicted` lacks has no prediction.

    Args:
        truth: the true masks, whose `category_id` is 0 to K - 1.
        predicted: the predicted ones, of the same numbers. One without a score counts as 1.
        num_classes: K.
        limits: the numbers of predictions of an image and a class that AR looks at; the last is that of AP.
    """
    matched = coco_counts.matched(truth, predicted, limits[-1], num_classes)
    counted = coco_counts.accumulated(matched, limits).eval
    precision = counted["precision"][..., -1]  # (IoU, recall, class, size), -1 without truth
    recall = counted["recall"]  # (IoU, class, size, limit)
    values = {
        "ap": precision[..., 0],
        "ap_50": precision[0, ..., 0],
        "ap_75": precision[5, ..., 0],
        **{f"ap_{size}": precision[..., k] for k, size in enumerate(SIZES) if k},
        **{f"ar_{limit}": recall[:, :, 0, k] for k, limit in enumerate(limits)},
        **{f"ar_{size}": recall[:, :, k, -1] for k, size in enumerate(SIZES) if k},
    }
    of_all = precision[..., 0]
    of_class = np.where((of_all < 0).any((0, 1)), np.nan, of_all.mean((0, 1)))
    matches = [_matches(own) for own in matched]
    measures = {name: _mean_of_known(own) for name, own in values.items()}
    return Precision(measures, of_class.tolist(), matches)


def _mean_of_known(values: NDArray[np.float64]) -> float | None:
    """The mean of what has a truth, as pycocotools' `summarize` takes it; None where nothing has."""
    known = values[values > -1]
    return float(known.mean()) if known.size else None


def _matches(own: Matched) -> Matches:
    """The matches of a class among objects of all sizes."""
    order = np.argsort(-own.scores, kind="mergesort")  # equals stay in the order of the images
    hits, ignored = (coco_counts.of_size(bits[order], 0) for bits in (own.hits, own.ignored))
    return Matches(own.images[order], hits, ignored, own.masks[0])
