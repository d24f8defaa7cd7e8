"""Intervals of mean IoU against a slow loop that draws images, sums matrices and takes quantiles."""

import numpy as np
import pytest

from ovtool.methods import bootstrap, metrics
from ovtool.methods.bootstrap import ImageCounts


def matrices(count, classes, seed, none_of_them=True):
    """Confusion matrices (K, K + 1) of images that hold a few of the classes each."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        shape = (classes, classes + none_of_them)
        there = rng.random((classes, 1)) < 0.4
        made.append(rng.integers(0, 50, shape) * there * rng.integers(0, 2, shape))
    return made


def measure_of(images):
    """The mean IoU of images, from their matrices."""
    return bootstrap.mean_ious(ImageCounts.of(map(bootstrap.image_counts, images)))


def slow_miou(matrix):
    """Both conventions, by hand: over classes of the truth, and of truth or prediction."""
    n = matrix.astype(float)
    truth_only, union = [], []
    for i in range(len(n)):
        true, predicted, hits = n[i].sum(), n[:, i].sum(), n[i, i]
        if true + predicted:
            union.append(hits / (true + predicted - hits))
            if true:
                truth_only.append(union[-1])
    return [sum(part) / len(part) if part else np.nan for part in (truth_only, union)]


def slow_samples(images, samples, seed):
    """The measures of each sample: images are drawn as the multinomial law draws them."""
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(images), np.full(len(images), 1 / len(images)), size=samples)
    found = []
    for row in times:
        drawn = [images[k] for k, count in enumerate(row) for _ in range(count)]
        found.append(slow_miou(sum(drawn)))
    return np.array(found)


@pytest.mark.parametrize(("count", "classes"), [(12, 5), (1, 3), (40, 2)])
def test_intervals_are_those_of_a_slow_loop(count, classes):
    images = matrices(count, classes, seed=count)
    found = bootstrap.intervals(measure_of(images), count, samples=200, seed=3)
    expected, samples = slow_miou(sum(images)), slow_samples(images, 200, 3)
    for k, name in enumerate(("miou", "miou_union")):
        low, high = np.nanquantile(samples[:, k], [0.025, 0.975])
        assert found[name].value == pytest.approx(expected[k])
        assert (found[name].low, found[name].high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize("kind", [np.int64, np.float64])
def test_counts_are_held_and_summed_as_a_dense_array(kind):
    rng = np.random.default_rng(4)
    dense = (rng.integers(0, 9, (11, 3, 5)) * (rng.random((11, 1, 5)) < 0.3)).astype(kind)
    dense[3] = 0  # an image without a class
    counts = ImageCounts.of(dense)
    for same in (
        counts,
        ImageCounts.joined([ImageCounts.of(dense[:4]), ImageCounts.of(dense[4:])]),
    ):
        assert len(same) == 11 and np.array_equal(np.stack(list(same)), dense)
        assert same.values.dtype == kind and len(same.values) == dense.any(axis=1).sum()
        assert np.array_equal(same.total(), dense.sum(axis=0)) and same.total().dtype == kind
        times = rng.integers(0, 4, (6, 11)).astype(float)
        assert np.allclose(same.sums(times), np.einsum("sn,nrk->srk", times, dense))


def test_the_paired_difference_is_that_of_a_slow_loop():
    first = matrices(15, 4, seed=1)
    second = []
    for matrix in first:  # the same truth, predicted a little better
        moved = matrix.copy()
        for i in range(4):
            gained = int(moved[i, 4]) // 2
            moved[i, 4] -= gained
            moved[i, i] += gained
        second.append(moved)
    between = bootstrap.difference(measure_of(first), measure_of(second))
    found = bootstrap.intervals(between, len(first), samples=300, seed=5)
    samples = slow_samples(second, 300, 5) - slow_samples(first, 300, 5)
    whole = np.subtract(slow_miou(sum(second)), slow_miou(sum(first)))
    for k, name in enumerate(("miou", "miou_union")):
        low, high = np.quantile(samples[:, k], [0.025, 0.975])
        assert found[name].value == pytest.approx(whole[k])
        assert (found[name].low, found[name].high) == (pytest.approx(low), pytest.approx(high))
        assert found[name].low > 0  # better on every image, so better on every sample


def test_the_interval_of_a_ratio_is_that_of_a_slow_loop():
    hits, totals = np.array([3.0, 0, 5, 1]), np.array([4.0, 0, 9, 2])
    found = bootstrap.intervals(bootstrap.ratio("recall", hits, totals), 4, samples=100, seed=2)
    rng = np.random.default_rng(2)
    samples = []
    for row in rng.multinomial(4, [1 / 4] * 4, size=100):
        drawn = [k for k, count in enumerate(row) for _ in range(count)]
        total = sum(totals[k] for k in drawn)
        if total:
            samples.append(sum(hits[k] for k in drawn) / total)
    low, high = np.quantile(samples, [0.025, 0.975])
    assert found == {"recall": bootstrap.Interval(9 / 15, pytest.approx(low), pytest.approx(high))}


def test_equal_predictions_differ_by_nothing():
    measure = measure_of(matrices(6, 3, seed=2))
    between = bootstrap.difference(measure, measure)
    for interval in bootstrap.intervals(between, 6, samples=50).values():
        assert (interval.value, interval.low, interval.high) == (0.0, 0.0, 0.0)


def test_a_class_predicted_and_never_true_counts_in_one_convention_alone():
    # truth: 8 pixels of class 0, of which 2 are taken for class 1, which is nowhere true
    matrix = np.array([[6, 2, 0], [0, 0, 0]])
    found = bootstrap.intervals(measure_of([matrix]), 1, samples=10)
    assert found["miou"].value == found["miou"].low == 6 / 8
    assert found["miou_union"].value == (6 / 8) / 2
    scores = metrics.scores(matrix)
    assert (scores.miou_truth, scores.miou_union) == (6 / 8, (6 / 8 + 0) / 2)


def test_samples_are_those_of_their_seed_in_blocks_too(monkeypatch):
    measure = measure_of(matrices(20, 4, seed=7))
    whole = bootstrap.intervals(measure, 20, samples=64, seed=1)
    assert bootstrap.intervals(measure, 20, samples=64, seed=1) == whole
    assert bootstrap.intervals(measure, 20, samples=64, seed=2) != whole
    monkeypatch.setattr(bootstrap, "_MOST_NUMBERS", 180)  # nine samples at once
    assert bootstrap.intervals(measure, 20, samples=64, seed=1) == whole


def test_images_without_a_counted_pixel_are_no_class():
    empty = np.zeros((3, 4), np.int64)
    interval = bootstrap.intervals(measure_of([empty]), 1, samples=5)["miou"]
    assert all(np.isnan(value) for value in (interval.value, interval.low, interval.high))


def test_no_image_and_no_sample_are_refused():
    measure = measure_of(matrices(4, 3, seed=1))
    for images, samples in ((4, 0), (0, 4)):
        with pytest.raises(ValueError, match="an image and a sample"):
            bootstrap.intervals(measure, images, samples=samples)
