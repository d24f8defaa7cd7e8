"""Suppression against a slow version of itself, and its edges."""

import numpy as np
import pytest

from ovtool.methods import mask_nms


def slow(masks, quality, max_iou, most):
    kept = []
    for index in sorted(range(len(masks)), key=lambda i: (-quality[i], i)):
        overlaps = [
            (masks[index] & masks[other]).sum() / (masks[index] | masks[other]).sum()
            for other in kept
        ]
        if all(overlap <= max_iou for overlap in overlaps) and len(kept) < most:
            kept.append(index)
    return kept


@pytest.mark.parametrize("max_iou", [0.1, 0.35, 0.6, 0.85])
def test_against_a_slow_twin(max_iou):
    random = np.random.default_rng(int(100 * max_iou))
    for _ in range(5):
        masks = np.zeros((30, 24, 31), bool)
        for mask in masks:
            top, left = random.integers(0, 12, 2)
            mask[top : top + random.integers(6, 12), left : left + random.integers(6, 18)] = True
        quality = random.integers(0, 8, 30).astype(np.float32) / 8  # with equal ones
        found = mask_nms.suppress(masks, quality, max_iou, 20)
        assert found.tolist() == slow(masks, quality, max_iou, 20)


def test_one_keeps_all_in_order_and_none_is_none():
    masks = np.ones((3, 4, 4), bool)
    quality = np.array([0.1, 0.9, 0.5], np.float32)
    assert mask_nms.suppress(masks, quality, 1.0, 9).tolist() == [1, 2, 0]
    assert mask_nms.suppress(masks, quality, 1.0, 2).tolist() == [1, 2]
    assert mask_nms.suppress(masks, quality, 0.99, 9).tolist() == [1]
    assert mask_nms.suppress(masks[:0], quality[:0], 0.5, 9).shape == (0,)


def test_large_masks_are_compared_in_small():
    masks = np.zeros((3, 700, 1400), bool)
    masks[0, :, :700], masks[1, :, :690], masks[2, :, 700:] = True, True, True
    quality = np.array([0.9, 0.8, 0.7], np.float32)
    assert mask_nms.suppress(masks, quality, 0.85, 9).tolist() == [0, 2]


@pytest.mark.parametrize("seed", range(3))
def test_sets_of_superpixels_are_suppressed_as_their_masks_are(seed):
    rng = np.random.default_rng(seed)
    superpixels = rng.integers(0, 30, (40, 50))
    members = rng.random((25, 30)) < rng.uniform(0.2, 0.9, (25, 1))
    quality = rng.random(25)
    areas = np.bincount(superpixels.ravel(), minlength=30)
    for max_iou in (0.3, 0.6):
        found = mask_nms.suppress_members(members, areas, quality, max_iou, 20)
        expected = mask_nms.suppress(members[:, superpixels], quality, max_iou, 20)
        assert np.array_equal(found, expected) and 1 < len(found) < 25
