"""Seeds at all thresholds against a slow count of their own."""

import numpy as np
import pytest

from ovtool.methods import seed_thresholds
from ovtool.methods.seed_thresholds import THRESHOLDS


def slow_labels(maps, classes, threshold, background):
    labels = np.full(maps.shape[1:], background)
    for y, x in np.ndindex(labels.shape):
        if len(maps) and maps[:, y, x].max() > threshold:
            labels[y, x] = classes[int(maps[:, y, x].argmax())]
    return labels


def drawn(seed, count):
    random = np.random.default_rng(seed)
    maps = random.random((count, 7, 9)).astype(np.float32)
    maps[:, 0] = np.float32(0.5)  # values that are a threshold to the bit are not above it
    classes = random.permutation(4)[:count]
    truth = random.integers(-1, 5, (7, 9))
    return maps, classes, truth


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_the_slow_twin(seed, count):
    maps, classes, truth = drawn(seed, count)
    counts = seed_thresholds.image_counts(maps, classes, truth, 5, 4)
    for step in range(0, len(THRESHOLDS), 9):
        labels = slow_labels(maps, classes, THRESHOLDS[step], 4)
        rows = seed_thresholds.at(counts, step)
        for k in range(5):
            own, true = (labels == k) & (truth >= 0), truth == k
            assert rows[:, k].tolist() == [(own & true).sum(), true.sum(), own.sum()]


def test_a_map_of_a_class_that_the_truth_lacks_is_wrong_and_hides_others():
    maps = np.stack([np.full((2, 2), 0.9), np.full((2, 2), 0.8)]).astype(np.float32)
    truth = np.zeros((2, 2), int)
    rows = seed_thresholds.at(
        seed_thresholds.image_counts(maps, np.array([-1, 0]), truth, 2, 1), 10
    )
    assert rows.tolist() == [[0, 0], [4, 0], [0, 0]]


def test_the_best_threshold_parts_the_two():
    maps = np.array([[[0.2, 0.3, 0.7, 0.8]]], np.float32)
    truth = np.array([[1, 1, 0, 0]])
    counts = seed_thresholds.image_counts(maps, np.array([0]), truth, 2, 1)
    best = THRESHOLDS[seed_thresholds.best_step([counts])]
    assert best == pytest.approx(0.31)  # the float32 nearest to 0.3 is above 0.3
