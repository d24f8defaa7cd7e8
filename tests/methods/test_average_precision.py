"""AP: pycocotools' own figures, and samples against pycocotools on the images that were drawn."""

from dataclasses import replace

import numpy as np
import pytest

from ovtool.formats import coco, rle
from ovtool.methods import average_precision, coco_counts, recall

SIDE, CLASSES = 48, 3


def boxes(random, count):
    masks = np.zeros((count, SIDE, SIDE), bool)
    for mask in masks:
        top, left = random.integers(0, 30, 2)
        mask[top : top + random.integers(6, 18), left : left + random.integers(6, 18)] = True
    return masks


def annotations(masks, classes, scores=None):
    return [
        coco.annotation(
            k + 1, 1, int(c), rle.encode(m), None if scores is None else float(scores[k])
        )
        for k, (m, c) in enumerate(zip(masks, classes, strict=True))
    ]


def scenes(count, seed=0):
    random = np.random.default_rng(seed)
    truth, predicted = {}, {}
    for number in range(count):
        masks, classes = boxes(random, 5), random.integers(0, CLASSES, 5)
        moved = np.stack([np.roll(m, random.integers(-2, 3, 2), (0, 1)) for m in masks])
        own = np.concatenate([moved, boxes(random, 6)])
        named = np.concatenate([classes, random.integers(0, CLASSES, 6)])
        scores = random.permutation(11 * count)[:11] / (11 * count) + number / 1e4
        truth[f"{number}.jpg"] = annotations(masks, classes)
        predicted[f"{number}.jpg"] = annotations(own, named, scores)
    crowd = truth["0.jpg"][0]
    truth["0.jpg"][0] = replace(crowd, extra={"iscrowd": 1})
    return truth, predicted


def test_all_images_once_is_what_pycocotools_says():
    measured = average_precision.measure(*scenes(8), CLASSES)
    once = measured.sampled(np.ones((1, 8)))
    assert once["ap"][0] == pytest.approx(measured.measures["ap"], abs=1e-12)
    assert once["ap_50"][0] == pytest.approx(measured.measures["ap_50"], abs=1e-12)
    assert 0.1 < measured.measures["ap"] < measured.measures["ap_50"] < 1
    assert np.mean(measured.classes) == pytest.approx(measured.measures["ap"])
    assert measured.measures["ap_large"] is None


def test_samples_are_what_pycocotools_says_of_the_images_that_are_drawn():
    truth, predicted = scenes(6, seed=1)
    measured = average_precision.measure(truth, predicted, CLASSES)
    times = np.random.default_rng(2).multinomial(6, np.full(6, 1 / 6), size=4)
    sampled = measured.sampled(times.astype(float))
    for row, counts in enumerate(times):
        drawn = [(f"{k}.jpg", copy) for k, n in enumerate(counts) for copy in range(n)]
        again = average_precision.measure(
            {f"{copy} {name}": truth[name] for name, copy in drawn},
            {f"{copy} {name}": predicted[name] for name, copy in drawn},
            CLASSES,
        )
        assert sampled["ap"][row] == pytest.approx(again.measures["ap"], abs=1e-9)
        assert sampled["ap_50"][row] == pytest.approx(again.measures["ap_50"], abs=1e-9)


def test_perfect_and_none():
    truth, _ = scenes(3)
    perfect = {name: [replace(mask, extra={}) for mask in own] for name, own in truth.items()}
    assert average_precision.measure(truth, perfect, CLASSES).measures["ap"] == pytest.approx(1)
    nothing = average_precision.measure(truth, {}, CLASSES)
    assert nothing.measures["ap"] == nothing.sampled(np.ones((2, 3)))["ap"][0] == 0


def test_a_class_without_truth_does_not_count():
    truth, predicted = scenes(3)
    fewer = average_precision.measure(truth, predicted, CLASSES)
    more = average_precision.measure(truth, predicted, CLASSES + 1)
    assert more.measures == fewer.measures and np.isnan(more.classes[-1])
    assert more.sampled(np.ones((1, 3)))["ap"][0] == pytest.approx(fewer.measures["ap"])


def test_images_in_blocks_are_counted_as_at_once(monkeypatch):
    truth, predicted = scenes(9, seed=3)
    del predicted["3.jpg"]
    truth["5.jpg"] = predicted["6.jpg"] = []

    def counted():
        measured = average_precision.measure(truth, predicted, CLASSES + 1)
        recalled = recall.measure(truth, predicted)
        samples = measured.sampled(np.ones((1, 9)))
        return repr((measured.measures, measured.classes, samples, recalled))

    at_once = counted()
    monkeypatch.setattr(coco_counts, "BLOCK", 2)
    monkeypatch.setattr(coco_counts, "_AT_ONCE", 1)  # an IoU after the other
    assert counted() == at_once
