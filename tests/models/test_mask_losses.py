"""MaskFormer's losses and matching against slow twins in float64."""

import itertools
import math

import pytest
import torch

from ovtool.models import mask_losses
from ovtool.models.mask_losses import Targets

QUERIES, CLASSES = 5, 3


def problem(seed, sizes=(2, 3, 1), grid=(6, 5), side=(12, 10)):
    """Random logits of a batch and its targets, float64; target masks have twice the grid."""
    torch.manual_seed(seed)
    batch = len(sizes)
    logits = torch.randn(batch, QUERIES, CLASSES + 1, dtype=torch.float64, requires_grad=True)
    masks = torch.randn(batch, QUERIES, *grid, dtype=torch.float64, requires_grad=True)
    targets = Targets(
        [(torch.rand(size, *side) > 0.6).double() for size in sizes],
        [torch.randint(0, CLASSES, (size,)) for size in sizes],
    )
    return logits, masks, targets


def softmax(values):
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def focal(logits, truth):
    """Mean over pixels of the focal loss, alpha 0.25, gamma 2, pixel by pixel."""
    total = 0.0
    for x, t in zip(logits, truth, strict=True):
        p = 1 / (1 + math.exp(-x))
        right = p if t else 1 - p
        alpha = 0.25 if t else 0.75
        total += -alpha * (1 - right) ** 2 * math.log(right)
    return total / len(logits)


def dice(logits, truth):
    p = [1 / (1 + math.exp(-x)) for x in logits]
    overlap = sum(a * b for a, b in zip(p, truth, strict=True))
    return 1 - (2 * overlap + 1) / (sum(p) + sum(truth) + 1)


def slow_assignment(logits, masks, truth, labels):
    """The cheapest of all assignments, tried one by one."""
    size = len(labels)
    small = truth[:, ::2, ::2]  # nearest, of twice the grid
    cost = [
        [
            -softmax(logits[query].tolist())[int(labels[target])]
            + 20 * focal(masks[query].flatten().tolist(), small[target].flatten().tolist())
            + dice(masks[query].flatten().tolist(), small[target].flatten().tolist())
            for target in range(size)
        ]
        for query in range(QUERIES)
    ]
    return min(
        itertools.permutations(range(QUERIES), size),
        key=lambda chosen: sum(cost[query][target] for target, query in enumerate(chosen)),
    )


@pytest.mark.parametrize("seed", range(3))
def test_losses_against_a_slow_twin(seed):
    logits, masks, targets = problem(seed)
    found = mask_losses.layer_losses(logits, masks, targets, targets.counts(QUERIES))
    entropy = weights = focal_sum = dice_sum = 0.0
    enlarged = torch.nn.functional.interpolate(masks.detach(), (12, 10), mode="bilinear")
    for row, (truth, labels) in enumerate(zip(targets.masks, targets.labels, strict=True)):
        chosen = slow_assignment(logits[row].detach(), masks[row].detach(), truth, labels)
        for query in range(QUERIES):
            label = int(labels[chosen.index(query)]) if query in chosen else CLASSES
            weight = 1.0 if query in chosen else 0.1
            entropy += -weight * math.log(softmax(logits[row, query].tolist())[label])
            weights += weight
        for target, query in enumerate(chosen):
            flat = enlarged[row, query].flatten().tolist()
            focal_sum += focal(flat, truth[target].flatten().tolist())
            dice_sum += dice(flat, truth[target].flatten().tolist())
    assert found["class"].item() == pytest.approx(entropy / weights, rel=1e-9)
    assert found["mask"].item() == pytest.approx(20 * focal_sum / 6, rel=1e-9)
    assert found["dice"].item() == pytest.approx(dice_sum / 6, rel=1e-9)


def test_parts_of_a_batch_sum_to_the_whole():
    logits, masks, targets = problem(7, sizes=(2, 0, 3, 1))
    counts = targets.counts(QUERIES)
    whole = mask_losses.layer_losses(logits, masks, targets, counts)
    halves = []
    for rows in (slice(0, 2), slice(2, 4)):
        part = Targets(targets.masks[rows], targets.labels[rows])
        halves.append(mask_losses.layer_losses(logits[rows], masks[rows], part, counts))
    for name in whole:
        assert (halves[0][name] + halves[1][name]).item() == pytest.approx(whole[name].item())
    split = [Targets(targets.masks[r], targets.labels[r]) for r in (slice(0, 2), slice(2, 4))]
    assert torch.allclose(split[0].counts(QUERIES) + split[1].counts(QUERIES), counts)


def test_a_batch_without_masks_says_no_object_and_has_gradients():
    logits, masks, targets = problem(1, sizes=(0, 0))
    found = mask_losses.layer_losses(logits, masks, targets, targets.counts(QUERIES))
    assert found["mask"].item() == found["dice"].item() == 0
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.full((2 * QUERIES,), CLASSES)
    )
    assert found["class"].item() == pytest.approx(expected.item())
    sum(found.values()).backward()
    assert masks.grad.abs().sum() == 0 and logits.grad.abs().sum() > 0


def test_more_targets_than_queries():
    logits, masks, targets = problem(2, sizes=(QUERIES + 3,))
    matched = mask_losses.assign(logits.detach(), masks.detach(), targets)
    assert sorted(matched[0][0].tolist()) == list(range(QUERIES))
    assert targets.counts(QUERIES).tolist() == [QUERIES, QUERIES + 3]
    found = mask_losses.layer_losses(logits, masks, targets, targets.counts(QUERIES))
    assert all(torch.isfinite(value) for value in found.values())


def test_ignored_pixels_change_no_loss_of_maskformer():
    torch.manual_seed(0)
    logits, masks = torch.randn(1, 3, 3), torch.randn(1, 3, 8, 8, requires_grad=True)
    true = torch.zeros(2, 8, 8)
    true[0, :4, :4], true[1, :4, 4:] = 1, 1
    ignored = torch.zeros(8, 8, dtype=torch.bool)
    ignored[4:] = True
    labels = torch.tensor([0, 1])
    targets = mask_losses.Targets([true], [labels], [ignored])
    cut = mask_losses.Targets([true[:, :4]], [labels])
    found = mask_losses.layer_losses(logits, masks, targets, targets.counts(3))
    short = mask_losses.layer_losses(logits, masks[:, :, :4], cut, cut.counts(3))
    assert torch.allclose(found["dice"], short["dice"])
    # transformers' focal loss is a mean over pixels, of which half are ignored
    assert torch.allclose(2 * found["mask"], short["mask"])
    (found["dice"] + found["mask"]).backward()
    assert not masks.grad[:, :, 4:].any() and masks.grad[:, :, :4].any()
