"""Boundary IoU against the authors' definition, step by step, in a slow twin."""

import math

import numpy as np
import pytest

from ovtool.methods import boundaries


def slow_inner(mask, d):
    """A mask less its erosion, d times by 3 x 3 pixels, with nothing beyond the image."""
    eroded = np.pad(mask, 1)
    for _ in range(d):
        wide = np.pad(eroded, 1)
        eroded = np.ones_like(eroded)
        for dy in range(3):
            for dx in range(3):
                height, width = eroded.shape
                eroded &= wide[dy : dy + height, dx : dx + width]
    return mask & ~eroded[1:-1, 1:-1]


def blobs(random, size, classes):
    """Label maps with regions of some width, -1 among them."""
    coarse = random.integers(-1, classes, (size[0] // 6 + 1, size[1] // 6 + 1))
    return coarse.repeat(6, 0).repeat(6, 1)[: size[0], : size[1]]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [(31, 47), (12, 5), (64, 64)])
def test_counts_are_those_of_the_slow_twin(seed, size):
    random = np.random.default_rng(seed)
    truth = blobs(random, size, 3)
    prediction = np.roll(truth, 1, 1)
    prediction[random.random(size) < 0.02] = 7  # a value that is none of the classes
    counted = (random.random(size) < 0.9) & (truth >= 0)
    d = boundaries.width(size) + seed
    counts = boundaries.image_counts(prediction, truth, counted, 3, d)
    for k in range(3):
        true = slow_inner(truth == k, d) & counted
        own = slow_inner(prediction == k, d) & counted
        assert counts[:, k].tolist() == [(true & own).sum(), true.sum(), own.sum()]


def test_the_width_is_two_per_cent_of_the_diagonal():
    assert boundaries.width((480, 640)) == 16 == round(0.02 * math.hypot(480, 640))
    assert boundaries.width((4, 4)) == 1


def test_a_shift_costs_thin_edges_more_than_areas():
    truth = np.zeros((100, 100), int)
    truth[20:80, 20:80] = 1
    prediction = np.roll(truth, 2, 1)
    counted = np.ones_like(truth, bool)
    hits, true, own = boundaries.image_counts(prediction, truth, counted, 2, 3)[:, 1]
    area = ((truth == 1) & (prediction == 1)).sum() / ((truth == 1) | (prediction == 1)).sum()
    assert hits / (true + own - hits) < area - 0.2
    same = boundaries.image_counts(truth, truth, counted, 2, 3)
    assert (same[0] == same[1]).all() and (same[0] == same[2]).all()
