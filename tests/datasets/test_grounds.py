"""Grounds: functions of their generator, alike at every size, and told apart from one another."""

import numpy as np
import pytest

from ovtool.datasets import grounds
from ovtool.datasets.nouns import GROUNDS


def sheet(code, ground, variant, size):
    return grounds.sheet.__wrapped__(code, ground, variant, size)


def coarse(texture, cells=16):
    """Mean colours on a grid, so that sizes can be compared: (cells, cells, 3)."""
    step = len(texture) // cells
    return texture.reshape(cells, step, cells, step, 3).astype(float).mean((1, 3))


@pytest.mark.parametrize("ground", GROUNDS)
def test_a_sheet_is_a_function_of_split_variant_and_size(ground):
    first = sheet(2, ground, 0, 32)
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    assert np.array_equal(first, sheet(2, ground, 0, 32))
    for other in (sheet(3, ground, 0, 32), sheet(2, ground, 1, 32)):
        assert (first != other).mean() > 0.3


@pytest.mark.parametrize("ground", GROUNDS)
def test_lengths_are_fractions_of_the_side(ground):
    assert np.abs(coarse(sheet(3, ground, 0, 64)) - coarse(sheet(3, ground, 0, 128))).mean() < 8


def features(texture):
    """Mean and spread of the colours, and how steep the texture is each way."""
    grey = texture.mean(2)
    steep = [2 * np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1)]
    return np.concatenate([texture.mean((0, 1)), texture.std((0, 1)), steep])


def test_grounds_are_told_apart_by_colour_and_grain():
    """The nearest mean of six sheets names the other six."""
    known = {
        ground: np.mean([features(grounds.sheet(3, ground, k, 64)) for k in range(6)], 0)
        for ground in GROUNDS
    }
    right = [
        min(GROUNDS, key=lambda name: np.abs(known[name] - seen).sum()) == ground
        for ground in GROUNDS
        for seen in (features(grounds.sheet(3, ground, k, 64)) for k in range(6, 12))
    ]
    assert np.mean(right) > 0.9


def test_a_patch_is_a_tinted_crop_of_a_sheet():
    rng = np.random.default_rng(0)
    patches = [grounds.ground_patch(rng, 3, "bricks", 48) for _ in range(12)]
    assert all(patch.shape == (48, 48, 3) and patch.dtype == np.float32 for patch in patches)
    assert len({patch.tobytes() for patch in patches}) == 12
    again = grounds.ground_patch(np.random.default_rng(0), 3, "bricks", 48)
    assert np.array_equal(again, patches[0])
    rows = [patch.mean((1, 2)) for patch in patches]  # mortar makes rows uneven, whatever the tint
    assert min(row.std() / row.mean() for row in rows) > 0.05
