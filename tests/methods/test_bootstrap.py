"""Intervals of mean IoU against a slow loop that draws images, sums matrices and takes quantiles."""

import numpy as np
import pytest
import torch

from ovtool.methods import bootstrap, metrics


def matrices(count, classes, seed, none_of_them=True):
    """Confusion matrices (K, K + 1) of images that hold a few of the classes each."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        shape = (classes, classes + none_of_them)
        there = rng.random((classes, 1)) < 0.4
        made.append(
            torch.from_numpy(rng.integers(0, 50, shape) * there * rng.integers(0, 2, shape))
        )
    return made


def counts_of(confusions):
    """The counts of images from their confusion matrices."""
    rows = [bootstrap.image_counts(confusion) for confusion in confusions]
    return bootstrap.ImageCounts(*(torch.stack(part).numpy() for part in zip(*rows, strict=True)))


def slow_miou(matrix):
    """Both conventions, by hand: over classes of the truth, and of truth or prediction."""
    n = matrix.double().numpy()
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
        found.append(slow_miou(torch.stack(drawn).sum(dim=0)))
    return np.array(found)


@pytest.mark.parametrize(("count", "classes"), [(12, 5), (1, 3), (40, 2)])
def test_intervals_are_those_of_a_slow_loop(count, classes):
    images = matrices(count, classes, seed=count)
    found = bootstrap.intervals(counts_of(images), samples=200, seed=3)
    expected, samples = slow_miou(torch.stack(images).sum(dim=0)), slow_samples(images, 200, 3)
    for k, name in enumerate(("miou", "miou_union")):
        low, high = np.nanquantile(samples[:, k], [0.025, 0.975])
        assert found[name].value == pytest.approx(expected[k])
        assert (found[name].low, found[name].high) == (pytest.approx(low), pytest.approx(high))


def test_the_paired_difference_is_that_of_a_slow_loop():
    first = matrices(15, 4, seed=1)
    second = []
    for matrix in first:  # the same truth, predicted a little better
        moved = matrix.clone()
        for i in range(4):
            gained = int(moved[i, 4]) // 2
            moved[i, 4] -= gained
            moved[i, i] += gained
        second.append(moved)
    found = bootstrap.difference(counts_of(first), counts_of(second), samples=300, seed=5)
    samples = slow_samples(second, 300, 5) - slow_samples(first, 300, 5)
    whole = np.subtract(
        slow_miou(torch.stack(second).sum(dim=0)), slow_miou(torch.stack(first).sum(dim=0))
    )
    for k, name in enumerate(bootstrap.CONVENTIONS):
        low, high = np.quantile(samples[:, k], [0.025, 0.975])
        assert found[name].value == pytest.approx(whole[k])
        assert (found[name].low, found[name].high) == (pytest.approx(low), pytest.approx(high))
        assert found[name].low > 0  # better on every image, so better on every sample


def test_equal_predictions_differ_by_nothing():
    counts = counts_of(matrices(6, 3, seed=2))
    for interval in bootstrap.difference(counts, counts, samples=50).values():
        assert (interval.value, interval.low, interval.high) == (0.0, 0.0, 0.0)


def test_a_class_predicted_and_never_true_counts_in_one_convention_alone():
    # truth: 8 pixels of class 0, of which 2 are taken for class 1, which is nowhere true
    matrix = torch.tensor([[6, 2, 0], [0, 0, 0]])
    found = bootstrap.intervals(counts_of([matrix]), samples=10)
    assert found["miou"].value == found["miou"].low == 6 / 8
    assert found["miou_union"].value == 6 / 16
    scores = metrics.scores(matrix)
    assert (scores.miou_truth, scores.miou_union, scores.miou) == (6 / 8, 6 / 16, 6 / 16)


def test_samples_are_those_of_their_seed_in_blocks_too(monkeypatch):
    counts = counts_of(matrices(20, 4, seed=7))
    whole = bootstrap.intervals(counts, samples=64, seed=1)
    assert bootstrap.intervals(counts, samples=64, seed=1) == whole
    assert bootstrap.intervals(counts, samples=64, seed=2) != whole
    monkeypatch.setattr(bootstrap, "_MOST_NUMBERS", 500)  # nine samples at once
    assert bootstrap.intervals(counts, samples=64, seed=1) == whole


def test_images_without_a_counted_pixel_are_no_class():
    empty = torch.zeros(3, 4, dtype=torch.int64)
    interval = bootstrap.intervals(counts_of([empty]), samples=5)["miou"]
    assert all(np.isnan(value) for value in (interval.value, interval.low, interval.high))


def test_what_does_not_belong_together_is_refused():
    first, second = (counts_of(matrices(4, 3, seed=seed)) for seed in (1, 2))
    with pytest.raises(ValueError, match="not counted on the same truth"):
        bootstrap.difference(first, second)
    with pytest.raises(ValueError, match="an image and a sample"):
        bootstrap.intervals(first, samples=0)
    none = np.zeros((0, 3), np.int64)
    with pytest.raises(ValueError, match="an image and a sample"):
        bootstrap.intervals(bootstrap.ImageCounts(none, none, none))
