"""How well a score tells two classes apart: ROC curve, the area under it, average precision.

The area is exact: the probability that a positive scores higher than a negative, ties counting half
(Hanley and McNeil, Radiology 1982). Its interval comes from resampling whole images, since the pairs
of one image are not independent (Efron and Tibshirani, 1993, chapter 13).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def auc(scores: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    """The area under the ROC curve; NaN where one of the two classes has no weight.

    scores: floating (n,). targets: bool (n,). weights: how often each counts, (n,), None for once.
    """
    rank, count = _ranks(scores)
    return _auc(rank, count, targets, torch.ones(len(scores)) if weights is None else weights)


def curve(scores: Tensor, targets: Tensor, points: int = 500) -> tuple[list[float], list[float]]:
    """The ROC curve from (0, 0) to (1, 1): false and true positive rates, thinned to about `points`."""
    order = scores.argsort(descending=True, stable=True)
    positive = targets[order].double()
    hits, misses = positive.cumsum(0), (1 - positive).cumsum(0)
    ends = torch.ones(len(order), dtype=torch.bool)  # of runs of equal scores
    ends[:-1] = scores[order][1:] != scores[order][:-1]
    places = ends.nonzero()[:, 0]
    places = places[torch.linspace(0, len(places) - 1, min(points, len(places))).round().long()]
    false, true = misses[places] / misses[-1], hits[places] / hits[-1]
    return [0.0, *false.tolist()], [0.0, *true.tolist()]


def interval(
    scores: Tensor,
    targets: Tensor,
    images: Sequence[Tensor],
    samples: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """The bootstrap interval of `auc`, images being drawn with replacement.

    images: int64 (n,) each, the images that a score stands on; it counts as often as the product of
        the times that these were drawn.

    Returns the two percentiles, NaN where no sample holds both classes.
    """
    rank, count = _ranks(scores)
    kinds, index = torch.unique(torch.cat(list(images)), return_inverse=True)
    places = index.view(len(images), -1)
    generator = torch.Generator().manual_seed(seed)
    areas = []
    for _ in range(samples):
        drawn = torch.randint(len(kinds), (len(kinds),), generator=generator)
        times = torch.bincount(drawn, minlength=len(kinds)).double()
        areas.append(_auc(rank, count, targets, times[places].prod(0)))
    kept = torch.tensor([area for area in areas if area == area], dtype=torch.float64)
    if not len(kept):
        return float("nan"), float("nan")
    low, high = kept.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2]).double()).tolist()
    return low, high


def average_precision(scores: Tensor, targets: Tensor) -> float:
    """The mean over positives of the precision at their score, equal scores being taken together; NaN
    without positives. scores: floating (n,). targets: bool (n,)."""
    rank, count = _ranks(scores)
    hits = torch.zeros(count, dtype=torch.float64).index_add_(0, rank, targets.double()).flip(0)
    total = torch.bincount(rank, minlength=count).double().flip(0)
    precision = hits.cumsum(0) / total.cumsum(0)
    return float((hits * precision).sum() / hits.sum())


def _ranks(scores: Tensor) -> tuple[Tensor, int]:
    """The place of each score among the different ones, lowest first, and how many these are."""
    values, rank = torch.unique(scores, return_inverse=True)
    return rank, len(values)


def _auc(rank: Tensor, count: int, targets: Tensor, weights: Tensor) -> float:
    positive, negative = (
        torch.zeros(count, dtype=torch.float64).index_add_(0, rank, weights.double() * members)
        for members in (targets.double(), (~targets).double())
    )
    below = negative.cumsum(0) - negative / 2  # ties count half
    return float((positive * below).sum() / (positive.sum() * negative.sum()))
