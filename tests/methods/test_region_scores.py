"""Scores pooled in regions, against slow versions that spell out every sum in float64."""

import math

import pytest
import torch

from ovtool.methods import class_maps
from ovtool.methods.region_scores import DISAGREEMENT, OWN_WEIGHT, fuse, superpixel_means

SHAPES = [(1, 1, 2, 1), (5, 7, 3, 4), (12, 9, 6, 20), (16, 3, 1, 5), (4, 30, 11, 13)]


def random_case(height, width, classes, superpixels, seed=0):
    """Scores (C, H, W) and a map (H, W) in which every superpixel occurs."""
    random = torch.Generator().manual_seed(seed)
    scores = 5 * torch.randn(classes, height, width, generator=random)
    labels = torch.randint(superpixels, (height * width,), generator=random)
    labels[torch.randperm(height * width, generator=random)[:superpixels]] = torch.arange(
        superpixels
    )
    return scores, labels.view(height, width)


def slow_means(scores, labels):
    classes, height, width = scores.shape
    count = int(labels.max()) + 1
    sums = [[0.0] * classes for _ in range(count)]
    areas = [0] * count
    for y in range(height):
        for x in range(width):
            superpixel = int(labels[y, x])
            areas[superpixel] += 1
            for c in range(classes):
                sums[superpixel][c] += float(scores[c, y, x])
    means = [[total / area for total in row] for row, area in zip(sums, areas, strict=True)]
    return torch.tensor(means, dtype=torch.float64), torch.tensor(areas, dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("held", [1, 40, 1 << 20])
def test_superpixel_means_are_those_of_a_loop_over_pixels(shape, held, monkeypatch):
    monkeypatch.setattr(class_maps, "MAX_BLOCK_ELEMENTS", held)
    scores, labels = random_case(*shape)
    means, areas = superpixel_means(lambda start, stop: scores[:, start:stop], labels, shape[2])
    expected_means, expected_areas = slow_means(scores, labels)
    assert means.dtype == areas.dtype == torch.float32
    torch.testing.assert_close(means.double(), expected_means, atol=1e-5, rtol=1e-5)
    assert torch.equal(areas.double(), expected_areas)


def test_half_precision_scores_are_summed_in_float32():
    scores = torch.full((1, 64, 64), 1.0, dtype=torch.bfloat16)
    labels = torch.zeros(64, 64, dtype=torch.int64)
    means, _ = superpixel_means(lambda start, stop: scores[:, start:stop], labels, 1)
    assert means.item() == 1.0  # 4096 ones summed in bfloat16 stay at 256


def softmax(row):
    top = max(row)
    powers = [math.exp(value - top) for value in row]
    return [power / sum(powers) for power in powers]


def entropy(row):
    return -sum(p * math.log(p) for p in row if p > 0)


def slow_fuse(means, areas, members, quality):
    means, areas = means.double().tolist(), areas.double().tolist()
    own = [softmax(row) for row in means]
    classes = range(len(means[0]))
    votes = [[OWN_WEIGHT * p for p in row] for row in own]
    weights = [OWN_WEIGHT] * len(means)
    for region, worth in zip(members.tolist(), quality.double().tolist(), strict=True):
        inside = [s for s, is_in in enumerate(region) if is_in]
        if not inside:
            continue
        total = sum(areas[s] for s in inside)
        pooled = [sum(areas[s] * means[s][c] for s in inside) / total for c in classes]
        mixture = [sum(areas[s] * own[s][c] for s in inside) / total for c in classes]
        divergence = entropy(mixture) - sum(areas[s] * entropy(own[s]) for s in inside) / total
        weight = worth * math.exp(-DISAGREEMENT * divergence)
        probabilities = softmax(pooled)
        for s in inside:
            weights[s] += weight
            votes[s] = [v + weight * p for v, p in zip(votes[s], probabilities, strict=True)]
    rows = [[v / weight for v in row] for row, weight in zip(votes, weights, strict=True)]
    return torch.tensor(rows, dtype=torch.float64)


def random_regions(superpixels, regions, classes, seed):
    random = torch.Generator().manual_seed(seed)
    return (
        4 * torch.randn(superpixels, classes, generator=random),
        torch.randint(1, 900, (superpixels,), generator=random).float(),
        torch.rand(regions, superpixels, generator=random) < 0.4,
        torch.rand(regions, generator=random),
    )


@pytest.mark.parametrize("superpixels, regions, classes", [(1, 1, 1), (6, 3, 4), (25, 40, 7)])
def test_fusing_is_that_of_a_loop_over_regions(superpixels, regions, classes):
    case = random_regions(superpixels, regions, classes, seed=superpixels)
    found = fuse(*case)
    torch.testing.assert_close(found.double(), slow_fuse(*case), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.sum(1), torch.ones(superpixels))


def test_regions_that_are_empty_or_not_there_change_nothing():
    means, areas, _, _ = random_regions(5, 0, 3, seed=1)
    own = means.softmax(1)
    for count in (0, 2):
        found = fuse(means, areas, torch.zeros(count, 5, dtype=torch.bool), torch.ones(count))
        torch.testing.assert_close(found, own)


def test_a_region_names_its_superpixels_as_one():
    means = torch.tensor([[4.0, 0.0], [3.0, 0.0], [0.0, 0.2], [0.0, 5.0]])  # the third is in doubt
    members = torch.tensor([[True, True, True, False]])
    found = fuse(means, torch.tensor([90.0, 90.0, 20.0, 50.0]), members, torch.tensor([0.9]))
    assert found.argmax(1).tolist() == [0, 0, 0, 1]


def test_a_region_over_an_object_and_its_ground_has_little_say():
    means = torch.tensor([[9.0, 0.0], [0.0, 9.0]])
    areas = torch.tensor([60.0, 40.0])
    both = torch.tensor([[True, True]])
    alone = torch.tensor([[True, False], [False, True]])
    members, quality = torch.cat([both, alone]), torch.tensor([1.0, 0.3, 0.3])
    found = fuse(means, areas, members, quality)
    assert found.argmax(1).tolist() == [0, 1]
    monotone = fuse(torch.tensor([[9.0, 0.0], [9.0, 0.0]]), areas, both, torch.tensor([1.0]))
    assert monotone[1, 0] > 0.99 and found[1, 1] > 0.8
