"""The measures against a slow float64 twin and against torchmetrics."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassJaccardIndex,
)

from ovtool.methods.metrics import confusion, scores

IGNORE = -1


def twin(prediction, truth, num_classes):
    """Every measure by its definition, pixel by pixel, in Python floats."""
    pairs = [
        (i, j)
        for i, j in zip(truth.flatten().tolist(), prediction.flatten().tolist(), strict=True)
        if i != IGNORE
    ]
    iou, accuracy, weighted = [], [], 0.0
    for k in range(num_classes):
        both = sum(i == k and j == k for i, j in pairs)
        either = sum(i == k or j == k for i, j in pairs)
        true = sum(i == k for i, j in pairs)
        iou.append(both / either if either else math.nan)
        accuracy.append(both / true if true else math.nan)
        weighted += true * (both / either) if either else 0.0
    mean = lambda values: sum(values) / len(values) if values else math.nan  # noqa: E731
    return {
        "iou": iou,
        "accuracy": accuracy,
        "miou_truth": mean([v for v, a in zip(iou, accuracy, strict=True) if not math.isnan(a)]),
        "miou_union": mean([v for v in iou if not math.isnan(v)]),
        "mean_accuracy": mean([v for v in accuracy if not math.isnan(v)]),
        "pixel_accuracy": sum(i == j for i, j in pairs) / len(pairs),
        "frequency_weighted_iou": weighted / len(pairs),
    }


def random_maps(seed, lowest_prediction=-1):
    """A truth with ignored pixels and missing classes, and a prediction that is right half the time."""
    generator = torch.Generator().manual_seed(seed)
    num_classes = int(torch.randint(2, 9, (), generator=generator))
    shape = tuple(torch.randint(3, 24, (2,), generator=generator).tolist())
    used = int(torch.randint(1, num_classes + 1, (), generator=generator))
    truth = torch.randint(-1, used, shape, generator=generator)
    noise = torch.randint(lowest_prediction, num_classes, shape, generator=generator)
    right = torch.rand(shape, generator=generator) < 0.5
    return torch.where(right & (truth >= 0), truth, noise), truth, num_classes


@pytest.mark.parametrize("seed", range(20))
def test_scores_agree_with_the_slow_twin(seed):
    prediction, truth, num_classes = random_maps(seed)
    matrix = confusion(prediction, truth, num_classes)
    assert matrix.dtype == np.int64 and matrix.shape == (num_classes, num_classes + 1)
    ours, expected = scores(matrix), twin(prediction, truth, num_classes)
    for name, value in expected.items():
        torch.testing.assert_close(
            torch.as_tensor(getattr(ours, name), dtype=torch.float64),
            torch.tensor(value, dtype=torch.float64),
            equal_nan=True,
            rtol=1e-12,
            atol=0,
        )


@pytest.mark.parametrize("seed", range(20))
def test_scores_agree_with_torchmetrics(seed):
    prediction, truth, num_classes = random_maps(seed, lowest_prediction=0)
    options = {"num_classes": num_classes, "ignore_index": IGNORE}
    matrix = confusion(prediction, truth, num_classes)
    ours = scores(matrix)
    theirs = MulticlassConfusionMatrix(**options)(prediction, truth)
    assert np.array_equal(matrix[:, :num_classes], theirs) and not matrix[:, num_classes].any()

    def close(value, metric):
        torch.testing.assert_close(
            torch.as_tensor(value).float(), metric(prediction, truth).float(), rtol=1e-6, atol=1e-6
        )

    close(np.nan_to_num(ours.iou), MulticlassJaccardIndex(average="none", **options))
    close(ours.miou_union, MulticlassJaccardIndex(average="macro", **options))
    close(ours.pixel_accuracy, MulticlassAccuracy(average="micro", **options))
    close(np.nan_to_num(ours.accuracy), MulticlassAccuracy(average="none", **options))
    # torchmetrics weighs IoU by its "weighted" average, which is the frequency-weighted IoU
    close(ours.frequency_weighted_iou, MulticlassJaccardIndex(average="weighted", **options))


def test_matrices_of_images_are_added():
    prediction, truth, num_classes = random_maps(3)
    whole = confusion(prediction, truth, num_classes)
    half = len(truth) // 2
    parts = [
        confusion(prediction[rows], truth[rows], num_classes)
        for rows in (slice(0, half), slice(half, None))
    ]
    assert np.array_equal(whole, parts[0] + parts[1])


def test_an_absent_class_is_left_out_and_a_false_one_counts():
    truth = torch.tensor([0, 0, 1, 1])
    found = scores(confusion(torch.tensor([0, 0, 1, 3]), truth, 4))
    assert found.iou[:2].tolist() == [1.0, 0.5]
    assert math.isnan(found.iou[2])  # neither in the truth nor predicted
    assert found.iou[3] == 0.0  # predicted, though never there
    assert found.miou_union == pytest.approx((1.0 + 0.5 + 0.0) / 3)
    assert found.miou_truth == pytest.approx((1.0 + 0.5) / 2)
    assert found.mean_accuracy == pytest.approx((1.0 + 0.5) / 2)  # class 3 has no truth


def test_prediction_of_no_class_is_a_miss_but_no_false_alarm():
    truth = torch.tensor([0, 0, 1, 1])
    found = scores(confusion(torch.tensor([0, -1, 99, 1]), truth, 2))
    assert found.iou.tolist() == [0.5, 0.5]
    assert found.pixel_accuracy == 0.5


def test_nothing_counted_gives_nan():
    found = scores(confusion(torch.zeros(3, 3), torch.full((3, 3), IGNORE), 2))
    assert (
        math.isnan(found.miou_truth)
        and math.isnan(found.miou_union)
        and math.isnan(found.pixel_accuracy)
    )


def test_small_integer_types_do_not_overflow():
    truth = torch.full((300, 300), 200, dtype=torch.uint8)
    matrix = confusion(truth, truth, 254, ignore=255)
    assert matrix[200, 200] == 90_000 and matrix.sum() == 90_000


@pytest.mark.parametrize(
    "call",
    [
        lambda: confusion(torch.zeros(2), torch.zeros(3), 1),
        lambda: confusion(torch.zeros(2), torch.tensor([0, 5]), 2),
        lambda: scores(np.zeros((3, 2))),
        lambda: scores(np.zeros(3)),
    ],
)
def test_wrong_shapes_and_values_are_refused(call):
    with pytest.raises(ValueError):
        call()
