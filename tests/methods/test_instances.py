"""The mask of a class, divided into instances."""

import numpy as np
import pytest

from ovtool.methods import instances


def test_parts_touch_by_a_side_or_a_corner():
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
    assert [part.sum() for part in instances.parts(mask)] == [2, 2, 1]


@pytest.mark.parametrize("seed", range(20))
def test_the_instances_are_the_mask_together_and_share_nothing(seed):
    random = np.random.default_rng(seed)
    mask = random.random((24, 30)) < 0.6
    proposals = [random.random((24, 30)) < 0.3 for _ in range(4)]
    divided = instances.by_proposals(mask, proposals)
    assert np.array_equal(sum(part.astype(int) for part in divided), mask)
    assert all(part.any() for part in divided)


def test_proposals_part_what_touches():
    mask = np.zeros((10, 20), bool)
    mask[2:8, 2:18] = True
    left, right, outside = np.zeros((3, 10, 20), bool)
    left[2:8, 2:9] = True
    right[2:8, 11:18] = True
    outside[:, :] = True  # less than half of it lies in the mask
    first, second = instances.by_proposals(mask, [outside, left, right])
    assert np.array_equal(first | second, mask)
    assert (first & left).sum() == left.sum() and not (first & right).any()
    assert first[5, 9] and second[5, 10]  # to the nearest


def test_a_part_that_no_proposal_reaches_is_an_instance():
    mask = np.zeros((6, 12), bool)
    mask[1:3, 1:4] = mask[1:3, 8:11] = True
    proposal = np.zeros_like(mask)
    proposal[1:3, 1:4] = True
    assert [part.sum() for part in instances.by_proposals(mask, [proposal])] == [6, 6]
