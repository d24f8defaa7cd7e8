"""The fused probabilities of proposals, and what pixels get, against loops in float64."""

import numpy as np
import pytest
import torch

from ovtool.methods import class_maps, ensemble, regions


def probabilities(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64).softmax(1)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.7, 1.0])
def test_ensemble_is_the_formula(weight):
    p, q = 0.8 * probabilities(5, 4, 1), probabilities(5, 4, 2)
    p[0, 0] = 0.0
    found = ensemble.ensemble(p, q, weight)
    for i in range(5):
        for k in range(4):
            expected = float(p[i, k]) ** (1 - weight) * float(q[i, k]) ** weight
            assert found[i, k].item() == pytest.approx(expected, rel=1e-12)


def test_zero_and_one_are_one_of_the_two():
    p, q = probabilities(5, 4, 1), probabilities(5, 4, 2)
    assert torch.equal(ensemble.ensemble(p, q, 0.0), p)
    assert torch.equal(ensemble.ensemble(p, q, 1.0), q)


def test_no_object_takes_its_share_of_a_proposal():
    generator = torch.Generator().manual_seed(3)
    cosines, nothing = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((5, 3), (5,))
    )
    found = ensemble.proposal_probabilities(cosines, nothing, 0.5)
    for i in range(5):
        powers = [np.exp(float(each) / 0.5) for each in (*cosines[i], nothing[i])]
        assert found[i].tolist() == pytest.approx([x / sum(powers) for x in powers[:3]])
    assert (found.sum(1) < 1).all()


def slow_labels(scores, soft, masks):
    """The class of each pixel, and its share of the sum over classes; -1 where no mask is."""
    count, height, width = soft.shape
    labels, shares = np.full((height, width), -1), np.ones((height, width))
    for y in range(height):
        for x in range(width):
            total = sum(scores[i] * float(soft[i, y, x]) for i in range(count))
            if any(masks[i, y, x] for i in range(count)):
                labels[y, x] = int(total.argmax())
                shares[y, x] = float(total.max() / total.sum())
    return labels, shares


def means(labels, shares):
    """The mean share of each class, 0 where it has no pixel."""
    return [shares[labels == k].mean() if (labels == k).any() else 0.0 for k in range(4)]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_pixels_take_the_class_of_the_greatest_sum(count):
    generator = torch.Generator().manual_seed(4)
    soft = torch.rand(count, 9, 11, generator=generator, dtype=torch.float64)
    masks = soft > 0.6
    scores = probabilities(max(count, 1), 4, 5)[:count]
    rows = ensemble.rows_of_soft_masks(
        scores, lambda a, b: soft[:, a:b], lambda a, b: masks[:, a:b].any(0)
    )
    found = class_maps.label_blocks(rows, (9, 11), 5, keep=4)
    labels, shares = slow_labels(scores, soft, masks)
    assert np.array_equal(found.label.numpy(), labels)
    assert (labels == -1).any() or count == 5
    assert np.allclose(found.mean_probability.numpy(), means(labels, shares), atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_superpixels_give_what_their_masks_do(count):
    generator = torch.Generator().manual_seed(6)
    masks = torch.rand(count, 9, 11, generator=generator) > 0.6
    found = regions.from_masks(masks.numpy(), np.ones(count, np.float32))
    scores = probabilities(max(count, 1), 4, 7)[:count]
    rows = ensemble.rows_of_superpixels(
        scores, torch.from_numpy(found.members), torch.from_numpy(found.superpixels).long()
    )
    fast = class_maps.label_blocks(rows, (9, 11), 5, keep=4)
    labels, shares = slow_labels(scores, masks.double(), masks)
    assert np.array_equal(fast.label.numpy(), labels)
    assert np.allclose(fast.mean_probability.numpy(), means(labels, shares), atol=1e-6)
