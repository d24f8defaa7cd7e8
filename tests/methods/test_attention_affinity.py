"""Class-aware attention affinity against the published steps, dense and in float64."""

import numpy as np
import pytest
import torch
from skimage import measure

from ovtool.methods import attention_affinity as caa


def slow(maps, attention, threshold):
    """As published: the square of D, masked by columns, one class at a time."""
    for _ in range(3):
        attention = attention / attention.sum(0, keepdim=True)
        attention = attention / attention.sum(1, keepdim=True)
    symmetric = (attention + attention.T) / 2
    square = symmetric @ symmetric
    refined = []
    for one in maps:
        steps = (one * 255).byte().numpy()
        mask = np.zeros(steps.shape)
        parts = measure.label(steps > threshold * steps.max(), connectivity=2)
        for region in measure.regionprops(parts):
            top, left, bottom, right = region.bbox
            mask[top:bottom, left:right] = 1
        found = (square * torch.from_numpy(mask).flatten()) @ one.flatten()
        found = found - found.min()
        refined.append((found / (found.max() + 1e-7)).view(one.shape))
    return torch.stack(refined)


@pytest.mark.parametrize("grid", [(4, 6), (7, 5)])
@pytest.mark.parametrize("threshold", [0.4, 0.7])
def test_equals_the_published_steps(grid, threshold):
    random = torch.Generator().manual_seed(grid[0])
    count = grid[0] * grid[1]
    attention = torch.randn(count, count, generator=random, dtype=torch.float64).softmax(1)
    maps = torch.rand(3, *grid, generator=random, dtype=torch.float64) ** 4
    found = caa.refine(maps, attention, threshold)
    torch.testing.assert_close(found, slow(maps, attention, threshold))
    assert 0 <= found.min() and found.max() <= 1


def test_sinkhorn_ends_near_doubly_stochastic():
    attention = torch.randn(30, 30, generator=torch.Generator().manual_seed(0)).softmax(1)
    spread = caa.doubly_stochastic(attention)
    torch.testing.assert_close(spread.sum(1), torch.ones(30))
    assert (spread.sum(0) - 1).abs().max() < 0.02 < (attention.sum(0) - 1).abs().max()


def test_boxes_hold_each_part_to_its_edges():
    maps = torch.zeros(2, 6, 8)
    maps[0, 0, 0] = maps[0, 1, 1] = 1.0  # corners connect
    maps[0, 4:6, 7] = 0.5
    maps[0, 5, 6] = 0.39  # below
    mask = caa.box_mask(maps, 0.4)
    wanted = torch.zeros(6, 8, dtype=torch.bool)
    wanted[:2, :2] = True
    wanted[4:6, 7] = True
    assert torch.equal(mask[0], wanted)
    assert not mask[1].any()


def test_a_constant_map_becomes_zero_and_shapes_must_agree():
    attention = torch.full((6, 6), 1 / 6)
    found = caa.refine(torch.full((1, 2, 3), 0.5), attention)
    assert torch.equal(found, torch.zeros(1, 2, 3))
    assert caa.refine(torch.zeros(0, 2, 3), attention).shape == (0, 2, 3)
    with pytest.raises(ValueError, match=r"maps \(1, 2, 2\) and attention \(6, 6\)"):
        caa.refine(torch.zeros(1, 2, 2), attention)
