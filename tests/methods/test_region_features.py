"""The tree of merges and the features of its nodes, against the same counted anew from masks."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from ovtool.methods import region_features, regions

BLOCKS = (3, 2)


def distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.linalg.norm(first - second))


def scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A small Lab image, its superpixels, and maps (5, h, w)."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(5, 11, 2)
    lab = rng.uniform((0, -60, -60), (100, 60, 60), (height, width, 3)).astype(np.float32)
    labels = rng.integers(0, 4, (height // 2 + 1, width // 2 + 1)) + np.arange(
        0, 4 * (width // 2 + 1), 4
    )
    labels = labels.repeat(2, 0).repeat(2, 1)[:height, :width]
    superpixels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    return lab, superpixels.astype(np.int32), rng.normal(size=(5, height, width)).astype(np.float32)


def edges(
    lab: np.ndarray, mask: np.ndarray
) -> list[tuple[tuple[int, int], tuple[int, int], float]]:
    """The pixel edges between a mask and the rest: the pixel inside, the one outside, the Lab contrast."""
    height, width = mask.shape
    listed = []
    for y, x in np.ndindex(height, width):
        for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= near[0] < height and 0 <= near[1] < width
            if mask[y, x] and inside and not mask[near]:
                listed.append(((y, x), near, float(np.linalg.norm(lab[y, x] - lab[near]))))
    return listed


def slow_tree(
    lab: np.ndarray, superpixels: np.ndarray, vectors: np.ndarray
) -> list[tuple[list[int], float]]:
    """The members of each merged region and the contrast at which it was made, all pairs anew at each step."""
    pixels = vectors[superpixels]
    living = {label: superpixels == label for label in range(superpixels.max() + 1)}
    merges, new = [], len(living)
    while len(living) > 1:
        best = None
        for a, b in ((a, b) for a in living for b in living if a < b):
            own = {n: edges(lab, living[n]) for n in (a, b)}
            between = [step for _, outside, step in own[a] if living[b][outside]]
            if not between:
                continue
            unlike = distance(*(pixels[living[n]].mean(0) for n in (a, b)))
            unlike += min(1, np.mean(between) / 40)
            contrast = unlike * (1.6 - len(between) / min(map(len, own.values())))
            share = min(living[n].mean() for n in (a, b))
            urgency = contrast * (0.25 + min(1, np.sqrt(share / 0.02)))
            if best is None or urgency < best[0]:
                best = urgency, contrast, a, b
        assert best is not None
        _, contrast, a, b = best
        living[new] = living.pop(a) | living.pop(b)
        merges.append((sorted(np.unique(superpixels[living[new]])), contrast))
        new += 1
    return merges


@pytest.mark.parametrize("seed", range(4))
def test_the_tree_is_that_of_a_plain_loop(seed: int) -> None:
    lab, superpixels, maps = scene(seed)
    vectors = region_features.means(superpixels, maps)
    borders = regions.borders_of(lab, superpixels)
    tree = regions.merged(superpixels, borders, vectors, distance)
    count = len(vectors)
    merges = slow_tree(lab, superpixels, vectors)
    assert len(tree.members) == count + len(merges)
    for node, (members, contrast) in enumerate(merges, start=count):
        assert np.flatnonzero(tree.members[node]).tolist() == members
        assert tree.made[node] == pytest.approx(contrast, rel=1e-4)
        for child in np.flatnonzero(tree.parents == node)[:2]:
            assert child == node or tree.ended[child] == tree.made[node]


@pytest.mark.parametrize("seed", range(4))
def test_features_are_those_of_the_masks(seed: int) -> None:
    lab, superpixels, maps = scene(seed)
    vectors = region_features.means(superpixels, maps)
    for label in range(len(vectors)):
        assert np.allclose(vectors[label], maps[:, superpixels == label].mean(1), atol=1e-5)
    borders = regions.borders_of(lab, superpixels)
    tree = regions.merged(superpixels, borders, vectors, distance)
    found = region_features.describe(superpixels, borders, tree, vectors, BLOCKS)
    height, width = superpixels.shape
    per_pixel = vectors[superpixels]
    for node, row in enumerate(found):
        mask = tree.members[node][superpixels]
        ys, xs = np.nonzero(mask)
        tall, wide = np.ptp(ys) + 1, np.ptp(xs) + 1
        border = edges(lab, mask)
        touched = [ys.min() == 0, xs.min() == 0, ys.max() == height - 1, xs.max() == width - 1]
        inside = per_pixel[mask].mean(0)
        around = np.mean([per_pixel[out] for _, out, _ in border], axis=0) if border else inside
        made, ended = tree.made[node] + 0.01, tree.ended[node] + 0.01
        expected = [
            np.log(mask.mean()), np.sqrt(mask.mean()), tall / height, wide / width,
            mask.sum() / (tall * wide), np.log(tall / wide),
            (ys.min() + ys.max() + 1) / 2 / height - 0.5,
            abs((xs.min() + xs.max() + 1) / 2 / width - 0.5),
            sum(touched) / 4, float(touched[2]), len(border) / np.sqrt(mask.sum()) / 4,
            np.sqrt(mask.sum()) / min(height, width),
            np.mean([step for _, _, step in border]) / 40 if border else 0,
            np.log(made), np.log(ended), np.log(ended / made),
        ]  # fmt: skip
        parts = (slice(0, 3), slice(3, 5))
        spread = (per_pixel[mask] - inside) ** 2
        expected += [np.sqrt(spread[:, part].sum(1).mean()) for part in parts]
        expected += [np.linalg.norm((inside - around)[part]) for part in parts]
        assert row == pytest.approx([*expected, *inside, *around], rel=1e-3, abs=2e-3)


@pytest.mark.parametrize("shape", [(13, 9), (6, 5), (1, 1)])
def test_means_of_a_grid_are_those_of_the_grid_resized(shape):
    rng = np.random.default_rng(1)
    grid = rng.normal(size=(4, 3, 5)).astype(np.float32)
    superpixels = np.unique(rng.integers(0, 5, shape), return_inverse=True)[1].reshape(shape)
    resized = interpolate(torch.from_numpy(grid)[None], shape, mode="bilinear")[0].numpy()
    expected = [resized[:, superpixels == label].mean(1) for label in range(superpixels.max() + 1)]
    found = region_features.grid_means(superpixels.astype(np.int32), grid)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_words_say_of_a_region():
    inside = np.array([[0.6, 0.1, 0.3], [0.1, 0.1, 0.8]], np.float32)
    around = np.array([[0.2, 0.1, 0.7], [0.5, 0.4, 0.1]], np.float32)
    entropies = [-(row * np.log(row)).sum() for row in (*inside, *around)]
    expected = [
        [0.7, 0.6, 0.3, 0.3, entropies[0], 0.3, 0.2, 0.7, 0.5, entropies[2], 0.2, 0.4, 0.8, 0.4],
        [0.2, 0.1, 0.8, 0.7, entropies[1], 0.9, 0.5, 0.1, 0.1, entropies[3], 0.5, -0.4, 1.4, 0.7],
    ]
    found = region_features.named(inside, around, 2)
    assert found.shape == (2, region_features.NAMED)
    np.testing.assert_allclose(found, expected, atol=1e-6)
