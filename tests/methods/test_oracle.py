"""Proposals named by truth against loops over pixels."""

import numpy as np
import pytest
import torch

from ovtool.methods import oracle, regions


@pytest.fixture(params=[0, 1, 6])
def case(request):
    random = np.random.default_rng(request.param)
    masks = random.random((request.param, 8, 9)) > 0.6
    truth = torch.from_numpy(random.integers(-1, 3, (8, 9)))
    found = regions.from_masks(masks, np.ones(request.param, np.float32))
    return masks, truth, torch.from_numpy(found.superpixels).long(), torch.from_numpy(found.members)


def slow_iou(mask, truth, k):
    true = truth.numpy() == k
    return (mask & true).sum() / (mask | true).sum()


def test_overlap_is_iou(case):
    masks, truth, superpixels, members = case
    found = oracle.overlaps(superpixels, members, truth, 3)
    assert found.shape == (len(masks), 3)
    for n, mask in enumerate(masks):
        assert found[n].tolist() == pytest.approx([slow_iou(mask, truth, k) for k in range(3)])


def test_a_pixel_takes_the_class_of_its_best_proposal(case):
    masks, truth, superpixels, members = case
    found = oracle.named_by_truth(superpixels, members, truth, 3)
    iou = np.array([[slow_iou(mask, truth, k) for k in range(3)] for mask in masks])
    for y in range(8):
        for x in range(9):
            here = [n for n in range(len(masks)) if masks[n, y, x]]
            best = max(here, key=lambda n: iou[n].max(), default=None)
            assert found[y, x] == (-1 if best is None else iou[best].argmax())


def test_true_masks_as_proposals_are_all_right_and_strays_have_no_class():
    truth = torch.tensor([[0, 0, 1], [2, 2, -1]])
    masks = np.stack([truth.numpy() == k for k in (0, 1, 2, -1)])
    found = regions.from_masks(masks, np.ones(4, np.float32))
    arrays = torch.from_numpy(found.superpixels).long(), torch.from_numpy(found.members)
    assert torch.equal(oracle.named_by_truth(*arrays, truth, 3), truth)
