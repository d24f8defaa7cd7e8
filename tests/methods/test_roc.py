"""Areas, curves and precisions against counting pair by pair."""

import math

import pytest
import torch

from ovtool.methods import roc


def sample(count=60, levels=9, seed=0):
    """Scores with many ties, and targets that they say something of."""
    random = torch.Generator().manual_seed(seed)
    targets = torch.rand(count, generator=random) < 0.4
    scores = torch.randint(0, levels, (count,), generator=random) + 2 * targets
    return scores.float() / levels, targets


def slow_auc(scores, targets, weights):
    won = total = 0.0
    for s, w in zip(scores[targets].tolist(), weights[targets].tolist(), strict=True):
        for z, v in zip(scores[~targets].tolist(), weights[~targets].tolist(), strict=True):
            won += w * v * (1.0 if s > z else 0.5 if s == z else 0.0)
            total += w * v
    return won / total


def test_the_area_counts_pairs_and_halves_of_ties():
    scores, targets = sample()
    ones = torch.ones(len(scores))
    assert roc.auc(scores, targets) == pytest.approx(slow_auc(scores, targets, ones), abs=1e-12)
    weights = torch.randint(0, 4, (len(scores),), generator=torch.Generator().manual_seed(1))
    expected = slow_auc(scores, targets, weights.double())
    assert roc.auc(scores, targets, weights) == pytest.approx(expected, abs=1e-12)
    assert roc.auc(torch.zeros(9), torch.arange(9) < 3) == 0.5
    assert math.isnan(roc.auc(scores, torch.ones_like(targets)))


def test_the_area_under_the_curve_is_the_area():
    scores, targets = sample(400, 150)
    false, true = roc.curve(scores, targets)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert false == sorted(false) and true == sorted(true)
    area = torch.trapezoid(torch.tensor(true), torch.tensor(false)).item()
    assert area == pytest.approx(roc.auc(scores, targets), abs=1e-6)
    assert len(roc.curve(scores, targets, points=20)[0]) == 21


def test_the_interval_resamples_images():
    scores, targets = sample(400, 200, seed=3)
    images = torch.arange(400) // 10
    low, high = roc.interval(scores, targets, [images], samples=300, seed=5)
    assert low < roc.auc(scores, targets) < high
    assert roc.interval(scores, targets, [images], samples=300, seed=5) == (low, high)
    # copies of one image add nothing: the interval is that of the images, not of the pairs
    copies = [torch.cat([each] * 9) for each in (scores, targets, images)]
    assert roc.interval(*copies[:2], copies[2:], samples=300, seed=5) == pytest.approx((low, high))
    alone = roc.interval(*copies[:2], [torch.arange(3600)], samples=300, seed=5)
    assert alone[1] - alone[0] < 0.6 * (high - low)


def test_the_interval_of_pairs_across_images_takes_both():
    scores, targets = sample(40, 30, seed=4)
    first, second = torch.arange(40) % 5, 5 + torch.arange(40) // 8
    generator = torch.Generator().manual_seed(2)
    found = []
    for _ in range(50):
        times = torch.bincount(torch.randint(10, (10,), generator=generator), minlength=10)
        found.append(roc.auc(scores, targets, times[first] * times[second]))
    expected = torch.tensor([v for v in found if v == v]).double()
    low, high = roc.interval(scores, targets, [first, second], samples=50, seed=2)
    assert low == pytest.approx(expected.quantile(0.025).item())
    assert high == pytest.approx(expected.quantile(0.975).item())


def test_average_precision():
    scores, targets = sample(40, 12)
    total = 0.0
    for s in scores[targets].tolist():
        above = scores >= s
        total += (targets & above).sum().item() / above.sum().item()
    expected = total / targets.sum().item()
    assert roc.average_precision(scores, targets) == pytest.approx(expected, abs=1e-12)
    ordered = torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert roc.average_precision(ordered, ordered == 2) == pytest.approx(1 / 3)
    assert math.isnan(roc.average_precision(ordered, ordered > 9))
