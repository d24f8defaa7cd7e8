"""Recall against a slow count of its own, and every bad input."""

from dataclasses import replace

import numpy as np
import pytest

from ovtool.errors import InputError, OutputExistsError
from ovtool.formats import coco, rle
from ovtool.methods import recall
from ovtool.settings.evaluate import Recall
from ovtool.stages import evaluate

SIDE = 48


def boxes(random, count):
    masks = np.zeros((count, SIDE, SIDE), bool)
    for mask in masks:
        top, left = random.integers(0, 30, 2)
        mask[top : top + random.integers(6, 18), left : left + random.integers(6, 18)] = True
    return masks


def moved(random, mask):
    return np.roll(mask, random.integers(-2, 3, 2), (0, 1))


def annotations(masks, scores=None, image=1, first=1):
    return [
        coco.annotation(
            first + k, image, 1, rle.encode(mask), None if scores is None else scores[k]
        )
        for k, mask in enumerate(masks)
    ]


def slow_recall(truth, found, threshold, limit):
    """COCO's greedy count: each proposal, best first, takes the free truth that it is most like."""
    free = set(range(len(truth)))
    for mask in found[:limit]:
        ious = {k: (truth[k] & mask).sum() / (truth[k] | mask).sum() for k in free}
        fitting = {k: iou for k, iou in ious.items() if iou >= threshold}
        if fitting:
            free.discard(max(fitting, key=fitting.get))
    return len(truth) - len(free)


def test_against_a_slow_twin():
    random = np.random.default_rng(0)
    truth, found, hits = {}, {}, {10: [], 100: []}
    names = [f"{k}.jpg" for k in range(6)]
    total = 0
    for name in names:
        true = boxes(random, 5)
        proposed = np.concatenate([np.stack([moved(random, m) for m in true]), boxes(random, 15)])
        proposed = proposed[random.permutation(20)]
        scores = np.sort(random.random(20))[::-1].round(4)
        truth[name] = annotations(true)
        found[name] = annotations(proposed, scores.tolist())
        total += 5
        for limit in hits:
            hits[limit].append(
                [slow_recall(true, proposed, t, limit) for t in np.linspace(0.5, 0.95, 10)]
            )
    measured = recall.measure(truth, found).measures
    for limit, name in ((100, "average_recall"), (10, "average_recall_10")):
        expected = np.sum(hits[limit], 0) / total
        assert measured[name] == pytest.approx(expected.mean(), abs=1e-9)
    assert measured["recall_50"] == pytest.approx(np.sum(hits[100], 0)[0] / total)
    assert 0.1 < measured["average_recall_10"] < measured["average_recall"] < 1
    assert measured["average_recall_large"] is None  # no mask is above 96 x 96


def test_perfect_none_and_missing():
    masks = boxes(np.random.default_rng(1), 4)
    truth = {"a": annotations(masks), "b": annotations(masks)}
    measured = recall.measure(
        truth, {"a": annotations(masks, [1.0] * 4), "b": annotations(masks)}
    ).measures
    assert measured["average_recall"] == measured["recall_50"] == 1
    half = recall.measure(truth, {"a": annotations(masks), "b": []}).measures
    assert half["average_recall"] == 0.5
    assert recall.measure(truth, {}).measures["average_recall"] == 0


def test_crowds_and_classes_do_not_count():
    masks = boxes(np.random.default_rng(2), 2)
    first, second = annotations(masks)
    crowd = replace(second, extra={"iscrowd": 1})
    found = [replace(one, category_id=5) for one in annotations(masks[:1], [0.5])]
    assert recall.measure({"a": [first, crowd]}, {"a": found}).measures["average_recall"] == 1


@pytest.fixture
def files(tmp_path):
    """truth.json of two pictures and found.json that proposes exactly its masks."""
    masks = boxes(np.random.default_rng(3), 4)
    images = [coco.Image(k, f"{k}.jpg", SIDE, SIDE) for k in (1, 2)]
    entries = [*annotations(masks[:2], None, 1), *annotations(masks[2:], None, 2, 3)]
    dataset = coco.Dataset({}, images, entries, [coco.Category(1, "thing")])
    coco.write(dataset, tmp_path / "truth.json")
    scored = [replace(entry, score=0.5) for entry in entries]
    coco.write(replace(dataset, annotations=scored), tmp_path / "found.json")
    return tmp_path, dataset


def test_files(files):
    folder, dataset = files
    truth, found = str(folder / "truth.json"), folder / "found.json"
    result = evaluate.run(str(found), truth, Recall(), out=folder / "r.json")
    assert result["average_recall"] == 1 and (folder / "r.json").exists()
    assert (result["truth_masks"], result["proposals"], result["images"]) == (4, 4, 2)
    with pytest.raises(OutputExistsError):
        evaluate.run(str(found), truth, Recall(), out=folder / "r.json")
    # ids in another order: images are matched by name
    turned = [coco.Image(3 - image.id, image.file_name, SIDE, SIDE) for image in dataset.images]
    entries = [replace(entry, image_id=3 - entry.image_id) for entry in dataset.annotations]
    coco.write(replace(dataset, images=turned, annotations=entries), found)
    assert evaluate.run(str(found), truth, Recall())["average_recall"] == 1


def test_images_that_are_missing(files):
    folder, dataset = files
    truth, found = str(folder / "truth.json"), str(folder / "found.json")
    first = [entry for entry in dataset.annotations if entry.image_id == 1]
    coco.write(replace(dataset, images=dataset.images[:1], annotations=first), found)
    with pytest.raises(InputError, match="lacks 1 of the 2 images .*first is '2.jpg'"):
        evaluate.run(found, truth, Recall())
    assert evaluate.run(found, truth, Recall(missing="empty"))["average_recall"] == 0.5
    skipped = evaluate.run(found, truth, Recall(missing="skip"))
    assert (skipped["average_recall"], skipped["images"], skipped["images_missing"]) == (1, 1, 1)


def test_an_image_without_proposals_has_found_nothing(files):
    folder, dataset = files
    first = [entry for entry in dataset.annotations if entry.image_id == 1]
    coco.write(replace(dataset, annotations=first), folder / "found.json")
    result = evaluate.run(str(folder / "found.json"), str(folder / "truth.json"), Recall())
    assert result["average_recall"] == 0.5 and result["proposals_per_image"] == 1


def test_sizes_that_differ_and_a_truth_without_masks(files):
    folder, dataset = files
    truth, found = str(folder / "truth.json"), str(folder / "found.json")
    images = [replace(image, width=SIDE + 1) for image in dataset.images]
    coco.write(replace(dataset, images=images, annotations=[]), found)
    with pytest.raises(InputError, match="1.jpg: prediction and truth differ in size .49 x 48"):
        evaluate.run(found, truth, Recall())
    coco.write(replace(dataset, annotations=[]), truth)
    with pytest.raises(InputError, match="no mask to find"):
        evaluate.run(truth, truth, Recall())
