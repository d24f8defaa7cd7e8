"""Masks to run lengths, and label maps to a confusion matrix, by the libraries that people use."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def run_lengths(masks: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Masks, bool (N, H, W), by pycocotools, one after another."""
    from pycocotools import mask as coco_mask

    encoded = []
    for mask in masks:
        rle = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
        encoded.append({"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")})
    return encoded


def confusion(
    prediction: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]], classes: int, ignore: int
) -> NDArray[np.int64]:
    """The confusion matrix of two label maps, int64 (classes, classes), by torchmetrics.

    A pixel whose truth is `ignore` is not counted.
    """
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    predicted, true = (torch.from_numpy(labels).long() for labels in (prediction, truth))
    matrix = multiclass_confusion_matrix(
        predicted, true, classes, ignore_index=ignore, validate_args=False
    )
    return matrix.numpy()


def of_folder(folder: str) -> NDArray[np.int64]:
    """The confusion matrix of 150 classes over the label maps in `truth/` and `prediction/` of a folder."""
    from pathlib import Path

    from PIL import Image

    total = np.zeros((150, 150), np.int64)
    for path in sorted(Path(folder, "truth").glob("*.png")):
        truth, prediction = (
            np.asarray(Image.open(place)).astype(np.int64)
            for place in (path, Path(folder, "prediction", path.name))
        )
        total += confusion(prediction, truth, 150, -1)
    return total
