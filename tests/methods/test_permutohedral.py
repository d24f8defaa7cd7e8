"""The lattice against a slow, obvious version of itself, and against the Gaussian that it stands for."""

import math

import numpy as np
import pytest
import torch

from ovtool.methods import permutohedral
from ovtool.methods.permutohedral import Lattice


def slow_simplex(feature: list[float]) -> list[tuple[tuple[int, ...], float]]:
    """The corners of the simplex around a point, as d + 1 coordinates, and their weights."""
    d = len(feature)
    scale = [math.sqrt(2 / 3) * (d + 1) / math.sqrt((i + 1) * (i + 2)) for i in range(d)]
    y = [0.0] * (d + 1)
    for i, value in enumerate(feature):  # E of Adams et al., a column a coordinate
        for row in range(i + 1):
            y[row] += value * scale[i]
        y[i + 1] -= (i + 1) * value * scale[i]
    base = [(d + 1) * round(one / (d + 1)) for one in y]
    # the highest of what is left first; of equals the first
    order = sorted(range(d + 1), key=lambda i: (base[i] - y[i], i))
    excess = sum(base) // (d + 1)
    while excess > 0:  # too far up: the lowest goes down, and becomes the highest
        last = order.pop()
        base[last] -= d + 1
        order.insert(0, last)
        excess -= 1
    while excess < 0:
        first = order.pop(0)
        base[first] += d + 1
        order.append(first)
        excess += 1
    left = [(y[i] - base[i]) / (d + 1) for i in order]
    corners = []
    for remainder in range(d + 1):
        key = list(base)
        for place, i in enumerate(order):
            key[i] += remainder if place <= d - remainder else remainder - (d + 1)
        if remainder == 0:
            weight = 1 - left[0] + left[d]
        else:
            weight = left[d - remainder] - left[d - remainder + 1]
        corners.append((tuple(key), weight))
    return corners


def slow_filter(features: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Splat, blur along each axis in turn among corners that exist, slice; in float64."""
    d = features.shape[1]
    simplices = [slow_simplex(feature) for feature in features.tolist()]
    table: dict[tuple[int, ...], torch.Tensor] = {}
    for simplex, value in zip(simplices, values.double(), strict=True):
        for key, weight in simplex:
            table[key] = table.get(key, 0) + weight * value
    for axis in range(d + 1):
        blurred = {}
        for key in table:
            blurred[key] = table[key]
            for sign in (1, -1):
                other = tuple(k + sign * (d if i == axis else -1) for i, k in enumerate(key))
                blurred[key] = blurred[key] + 0.5 * table.get(other, 0)
        table = blurred
    alpha = 1 / (1 + 2.0**-d)
    return torch.stack([sum(w * table[key] for key, w in simplex) for simplex in simplices]) * alpha


@pytest.fixture(params=["table", "packed", "device"])
def numbering(request, monkeypatch):
    """The ways in which corners get their numbers; the last is that of other devices than the CPU."""
    if request.param != "table":
        monkeypatch.setattr(permutohedral, "MAX_TABLE", 0)
    if request.param == "device":
        monkeypatch.setattr(permutohedral, "_on_cpu", lambda values: False)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_equals_the_slow_filter(numbering, dimensions, channels):
    random = torch.Generator().manual_seed(dimensions)
    features = 3 * torch.randn(40, dimensions, generator=random)
    features[:10] = features[10:20]  # corners shared by equals too
    values = torch.rand(40, channels, generator=random)
    found = Lattice.build(features).filter(values)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), slow_filter(features, values), rtol=1e-4, atol=1e-5)


def test_ties_of_ranks_are_broken_alike():
    """At the origin all coordinates tie; the tie says which corners exist without weight, and they
    pass on what the blur brings them."""
    near = 0.3 * torch.randn(6, 3, generator=torch.Generator().manual_seed(5))
    features = torch.cat([torch.zeros(2, 3), near])
    values = torch.eye(8)
    torch.testing.assert_close(
        Lattice.build(features).filter(values).double(),
        slow_filter(features, values),
        rtol=1e-4,
        atol=1e-5,
    )


def test_weights_are_barycentric():
    features = 5 * torch.randn(200, 5, generator=torch.Generator().manual_seed(1))
    lattice = Lattice.build(features)
    weights = lattice.slices * (1 + 2.0**-5)
    assert weights.min() > -1e-5
    torch.testing.assert_close(weights.sum(1), torch.ones(200))
    assert len(lattice.points) == lattice.starts[-1] == 200 * 6


def test_neighbours_are_mutual_and_the_missing_stay_zero():
    features = 2 * torch.randn(50, 3, generator=torch.Generator().manual_seed(2))
    near, far = Lattice.build(features).neighbours.unbind(1)
    missing = near.shape[1] - 1
    for axis in range(4):
        assert near[axis, missing] == far[axis, missing] == missing
        here = (near[axis] < missing).nonzero()[:, 0]
        assert len(here) > 0
        assert torch.equal(far[axis, near[axis, here].long()].long(), here)
        assert (far[axis] < missing).sum() == len(here)


def test_scaled_is_a_factor_before_and_after():
    random = torch.Generator().manual_seed(3)
    features, values = torch.randn(40, 2, generator=random), torch.rand(40, 3, generator=random)
    factor = torch.rand(40, generator=random)
    lattice = Lattice.build(features)
    wanted = factor[:, None] * lattice.filter(factor[:, None] * values)
    torch.testing.assert_close(lattice.scaled(factor).filter(values), wanted)


def test_stands_for_a_gaussian_up_to_a_factor():
    grid = torch.stack(torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij"), -1)
    features = grid.view(-1, 2) / 4
    values = torch.rand(48 * 48, 1, generator=torch.Generator().manual_seed(4))
    exact = torch.exp(-0.5 * torch.cdist(features, features).square())
    lattice = Lattice.build(features)
    ours = lattice.filter(values) / lattice.filter(torch.ones_like(values))
    theirs = exact @ values / exact.sum(1, keepdim=True)
    assert (ours - theirs).abs().max() < 0.03
    assert theirs.std() > 0.01


@pytest.mark.parametrize(
    "features",
    [
        torch.zeros(0, 2),
        torch.zeros(3),
        torch.tensor([[0.0, math.nan]]),
        torch.tensor([[math.inf]]),
    ],
)
def test_bad_features_are_refused(features):
    with pytest.raises(ValueError, match=r"want \(N, d\), N > 0, all finite"):
        Lattice.build(features)


def test_features_too_far_apart_are_refused():
    with pytest.raises(ValueError, match="too far apart"):
        Lattice.build(torch.tensor([[0.0] * 5, [1e6] * 5]))


@pytest.mark.parametrize("count", [1, 300, 1 << 16, (1 << 16) + 1, 1 << 20])
def test_numbers_are_ordered_as_a_stable_sort_orders_them(count):
    numbers = np.random.default_rng(0).integers(0, count, 5000).astype(np.int32)
    numbers[:3] = count - 1
    order = permutohedral._stable_order(numbers, count)
    np.testing.assert_array_equal(order, np.argsort(numbers, kind="stable"))
