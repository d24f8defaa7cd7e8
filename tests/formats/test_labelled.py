"""Masks and label maps as maps of classes: which mask lies on top, and which file is which."""

import itertools

import numpy as np
import pytest

from ovtool.formats import coco, labelled, rle

WHOLE = np.ones((2, 3), bool)
LEFT = np.zeros((2, 3), bool)
LEFT[:, :1] = True


def decoded(*masks):
    """The map of masks (category, mask, score, iscrowd) of one image."""
    annotations = [
        coco.annotation(
            number, 1, category, rle.encode(mask), score, **({"iscrowd": 1} if crowd else {})
        )
        for number, (category, mask, score, crowd) in enumerate(masks, start=1)
    ]
    images = [coco.Image(1, "a.png", 3, 2)]
    categories = [coco.Category(0, "person"), coco.Category(7, "bicycle")]
    dataset = coco.Dataset({}, images, annotations, categories)
    return labelled.from_dataset(dataset, "x.json").decode("a.png").tolist()


PERSON_ON_TOP, BICYCLE_ON_TOP = [[0, 1, 1]] * 2, [[1, 1, 1]] * 2


def test_the_higher_score_lies_on_top_whatever_the_order():
    masks = [(0, LEFT, 0.9, False), (7, WHOLE, 0.2, False)]
    assert decoded(*masks) == decoded(*reversed(masks)) == PERSON_ON_TOP
    masks = [(0, LEFT, 0.1, False), (7, WHOLE, 0.2, False)]
    assert decoded(*masks) == decoded(*reversed(masks)) == BICYCLE_ON_TOP


@pytest.mark.parametrize("score", [None, 0.5])
def test_of_equals_the_later_lies_on_top(score):
    assert decoded((0, LEFT, score, False), (7, WHOLE, score, False)) == BICYCLE_ON_TOP
    assert decoded((7, WHOLE, score, False), (0, LEFT, score, False)) == PERSON_ON_TOP


def test_a_mask_without_a_score_counts_as_one():
    masks = [(0, LEFT, None, False), (7, WHOLE, 0.99, False)]
    assert decoded(*masks) == decoded(*reversed(masks)) == PERSON_ON_TOP


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_crowds_lie_below_all_objects(order):
    right = np.zeros((2, 3), bool)
    right[:, 2] = True
    masks = [(7, WHOLE, None, True), (0, LEFT, None, False), (0, right, 0.01, False)]
    assert decoded(*(masks[k] for k in order)) == [[0, 1, 0]] * 2
