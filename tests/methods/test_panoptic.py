"""Panoptic quality: cases worked by hand from panopticapi's rules, and a slow twin of them on random images."""

from collections import defaultdict

import numpy as np
import pytest

from ovtool.methods import bootstrap, panoptic
from ovtool.methods.bootstrap import ImageCounts
from ovtool.methods.panoptic import Segments


def strip(*runs):
    """An image of one row: (segment, width), ..."""
    return np.concatenate([np.full(width, segment, np.int32) for segment, width in runs])[None]


def slow_counts(truth, predicted, classes):
    """The rules of panopticapi's `pq_compute_single_core`, said again with dictionaries; ids from 1, 0 is void."""
    stats = defaultdict(lambda: [0.0, 0, 0, 0])
    pairs, areas, true_areas = defaultdict(int), defaultdict(int), defaultdict(int)
    for i, j in zip(truth.labels.ravel().tolist(), predicted.labels.ravel().tolist(), strict=True):
        pairs[i, j] += 1
        areas[j] += 1
        true_areas[i] += 1
    crowds = truth.crowds or [False] * len(truth.classes)
    matched_true, matched = set(), set()
    for (i, j), shared in pairs.items():
        if i < 0 or j < 0 or crowds[i] or truth.classes[i] != predicted.classes[j]:
            continue
        union = areas[j] + true_areas[i] - shared - pairs.get((-1, j), 0)
        if shared / union > 0.5:
            stats[truth.classes[i]][0] += shared / union
            stats[truth.classes[i]][1] += 1
            matched_true.add(i)
            matched.add(j)
    crowd_of = {}
    for i, k in enumerate(truth.classes):
        if crowds[i]:
            crowd_of[k] = i
        elif i not in matched_true and true_areas[i]:
            stats[k][3] += 1
    for j, k in enumerate(predicted.classes):
        if j in matched or not areas[j]:
            continue
        excused = pairs.get((-1, j), 0)
        if k in crowd_of:
            excused += pairs.get((crowd_of[k], j), 0)
        if excused / areas[j] <= 0.5:
            stats[k][2] += 1
    return np.array([stats[k] for k in range(classes)]).T


@pytest.mark.parametrize("seed", range(20))
def test_counts_are_those_of_the_slow_twin(seed):
    random = np.random.default_rng(seed)
    coarse = random.integers(-1, 9, (4, 5)).astype(np.int32)
    labels = coarse.repeat(5, 0).repeat(5, 1)
    own = np.where(random.random(labels.shape) < 0.8, labels, random.integers(-1, 9, labels.shape))
    classes = random.integers(0, 4, 9).tolist()
    guessed = np.where(random.random(9) < 0.7, classes, random.integers(0, 4, 9)).tolist()
    crowds = [k == 8 for k in range(9)]
    truth = Segments(labels, classes, crowds)
    predicted = Segments(own.astype(np.int32), guessed)
    counts = panoptic.image_counts(truth, predicted, 4)
    np.testing.assert_allclose(counts, slow_counts(truth, predicted, 4), rtol=1e-12)
    assert seed or counts[1:].sum(axis=1).all()  # there is something of each kind


def test_worked_by_hand():
    # truth: thing A (10), thing B (10); predicted: 8 of A and 2 more, 4 of B
    truth = Segments(strip((0, 10), (1, 10)), [0, 0])
    predicted = Segments(strip((-1, 2), (0, 10), (1, 4), (-1, 4)), [0, 0])
    counts = panoptic.image_counts(truth, predicted, 1)
    assert counts[:, 0].tolist() == [8 / 12, 1, 1, 1]
    pq, sq, rq = panoptic.qualities(counts)[:, 0]
    assert (pq, sq, rq) == pytest.approx(((8 / 12) / 2, 8 / 12, 0.5))


def test_void_is_not_in_the_union_and_excuses_what_lies_on_it():
    truth = Segments(strip((0, 10), (-1, 10)), [0])
    over = Segments(strip((0, 20)), [0])
    assert panoptic.image_counts(truth, over, 1)[:, 0].tolist() == [1, 1, 0, 0]
    beside = Segments(strip((-1, 8), (0, 12)), [0])  # 2 on the thing, 10 on void
    assert panoptic.image_counts(truth, beside, 1)[:, 0].tolist() == [0, 0, 0, 1]
    half = Segments(strip((-1, 5), (0, 10), (-1, 5)), [0])  # half is not more than half
    assert panoptic.image_counts(truth, half, 1)[:, 0].tolist() == [0, 0, 1, 1]


def test_a_crowd_is_neither_missed_nor_matched_and_excuses_its_own_class():
    truth = Segments(strip((0, 10), (1, 10)), [0, 1], [True, False])
    nothing = Segments(strip((-1, 20)), [])
    assert panoptic.image_counts(truth, nothing, 2)[3].tolist() == [0, 1]
    own = Segments(strip((0, 6), (-1, 14)), [0])
    assert panoptic.image_counts(truth, own, 2)[2].tolist() == [0, 0]
    other = Segments(strip((0, 6), (-1, 14)), [1])
    assert panoptic.image_counts(truth, other, 2)[2].tolist() == [0, 1]


def test_a_class_that_does_not_count_takes_pixels_and_is_no_error_of_another():
    truth = Segments(strip((0, 10)), [0])
    assert panoptic.image_counts(truth, Segments(strip((0, 10)), [-1]), 1)[:, 0].tolist() == [
        *(0, 0, 0, 1)
    ]


def test_means_are_over_the_classes_that_are_there():
    counts = np.zeros((2, 4, 3))
    counts[0, :, 0] = [0.8, 1, 0, 0]
    counts[1, :, 1] = [0, 0, 1, 0]
    groups = {"": np.ones(3, bool), "things": np.array([True, False, False])}
    groups["stuff"] = ~groups["things"]
    values = bootstrap.panoptic_qualities(ImageCounts.of(counts), groups)(np.ones((1, 2)))
    assert values["pq"][0] == pytest.approx(0.4) and values["rq"][0] == pytest.approx(0.5)
    assert values["pq_things"][0] == pytest.approx(0.8) and values["pq_stuff"][0] == 0
    drawn = bootstrap.panoptic_qualities(ImageCounts.of(counts), groups)(np.array([[2.0, 0.0]]))
    assert np.isnan(drawn["pq_stuff"][0]) and drawn["pq"][0] == pytest.approx(0.8)
