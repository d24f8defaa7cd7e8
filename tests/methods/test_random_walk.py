"""The walk against the dense squaring that is published, in float64, and its properties."""

import pytest
import torch

from ovtool.methods import random_walk


def dense(affinity, sources, inside, beta):
    """T as a matrix, columns normalised, as the published code makes it."""
    count = len(sources)
    table = torch.zeros(count, count, dtype=torch.float64)
    for j in range(count):
        for i, a, real in zip(sources[j].tolist(), affinity[j].tolist(), inside[j], strict=True):
            if real:
                table[i, j] = a
    table.fill_diagonal_(1.0)
    table = table**beta
    return table / table.sum(0, keepdim=True)


@pytest.mark.parametrize(("grid", "radius", "doublings"), [((5, 7), 3, 0), ((6, 4), 2, 5), ((9, 8), 5, 8)])  # fmt: skip
def test_equals_the_dense_squaring(grid, radius, doublings):
    random = torch.Generator().manual_seed(radius)
    image = torch.rand(3, *grid, generator=random, dtype=torch.float64)
    maps = torch.rand(2, *grid, generator=random, dtype=torch.float64)
    sources, inside = random_walk.neighbours(grid, radius)
    affinity = random_walk.colour_affinity(image, sources, 0.5)
    matrix = dense(affinity, sources, inside, 10.0)
    for _ in range(doublings):
        matrix = matrix @ matrix
    wanted = (maps.flatten(1) @ matrix).view(maps.shape)
    step = random_walk.transition(affinity, sources, inside, 10.0)
    assert step.weights.dtype == torch.float64
    found = random_walk.walk(maps, step, doublings)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_neighbours_are_those_nearer_than_the_radius():
    sources, inside = random_walk.neighbours((11, 11), 5)
    assert sources.shape == (121, 69)  # 34 directions, both ways, and itself
    assert torch.equal(sources[:, 0], torch.arange(121))
    assert inside[60].all() and len(sources[60].unique()) == 69
    corner = sources[0][inside[0]].tolist()
    assert sorted(corner) == sorted(
        y * 11 + x for y in range(5) for x in range(5) if y * y + x * x < 25
    )
    assert torch.equal(sources[~inside], torch.arange(121)[:, None].expand(121, 69)[~inside])


def test_a_wall_wider_than_the_radius_stops_the_walk():
    image = torch.zeros(3, 4, 12)
    image[:, :, 5:8] = 1.0
    maps = torch.zeros(1, 4, 12)
    maps[:, :, 0] = 1.0
    sources, inside = random_walk.neighbours((4, 12), 3)
    free, walled = (
        random_walk.walk(
            maps,
            random_walk.transition(
                random_walk.colour_affinity(picture, sources, 0.1), sources, inside
            ),
            6,
        )
        for picture in (torch.zeros(3, 4, 12), image)
    )
    assert free[0, :, 9:].min() > 0.01
    assert walled[0, :, 8:].max() < 1e-6 and walled[0, :, :5].min() > 0.1


def test_attention_affinity_is_a_cosine():
    attention = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
    sources, _ = random_walk.neighbours((2, 3), 2)
    found = random_walk.attention_affinity(attention, sources)
    torch.testing.assert_close(found[:, 0], torch.ones(6))
    one, two = attention[0], attention[sources[0, 1]]
    torch.testing.assert_close(found[0, 1], one @ two / (one.norm() * two.norm()))
