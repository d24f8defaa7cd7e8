"""Measures of semantic segmentation, all from one confusion matrix.

Source: Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation"
(CVPR 2015), section 5, "Metrics", whose symbols are used here: n_ij is the number of pixels of
class i predicted to be class j, and t_i = sum_j n_ij the number of pixels of class i. The mean IoU
of a data set takes one matrix summed over all images; it is not a mean over images.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """What `scores` returns: fractions in [0, 1]; NaN where there is nothing to divide by."""

    iou: Tensor  # (K,) float64; NaN for a class with neither truth nor prediction
    accuracy: Tensor  # (K,) float64, also called recall; NaN for a class with no truth
    miou: float
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float


def confusion(prediction: Tensor, truth: Tensor, num_classes: int, ignore: int = -1) -> Tensor:
    """Counts n_ij over the pixels of any number of images.

    Args:
        prediction: integers of any shape. A value outside 0..K-1 means "none of the classes" and
            is a miss wherever the truth names a class.
        truth: integers of the same shape, each in 0..K-1 or equal to `ignore`.
        num_classes: K.
        ignore: the value of the truth whose pixels are not counted, whatever is predicted there.

    Returns:
        (K, K + 1) int64; rows are the truth, columns the prediction, the last column "none of
        the classes". Matrices of several images are added.

    Raises:
        ValueError: shapes that differ, or a truth value that is neither a class nor `ignore`.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)}, truth {tuple(truth.shape)}")
    counted = truth != ignore
    i = truth[counted].long()  # (N,)
    j = prediction[counted].long()  # (N,)
    if i.numel() and (int(i.min()) < 0 or int(i.max()) >= num_classes):
        raise ValueError(f"truth holds values outside 0..{num_classes - 1} and not {ignore}")
    j = torch.where((j >= 0) & (j < num_classes), j, num_classes)
    columns = num_classes + 1
    return torch.bincount(i * columns + j, minlength=num_classes * columns).view(-1, columns)


def scores(confusion: Tensor) -> Scores:
    """The measures of a confusion matrix.

    - IoU_i = n_ii / (t_i + sum_j n_ji - n_ii); mIoU is its mean over the classes that the truth
      or the prediction holds
    - accuracy_i = n_ii / t_i; mean accuracy is its mean over the classes that the truth holds
    - pixel accuracy = sum_i n_ii / sum_i t_i
    - frequency-weighted IoU = sum_i t_i IoU_i / sum_i t_i

    Args:
        confusion: (K, K) or, as `confusion` returns it, (K, K + 1) counts; columns past the K-th
            are predictions that are none of the classes.

    Raises:
        ValueError: a matrix of another shape.
    """
    if confusion.ndim != 2 or confusion.shape[1] < confusion.shape[0]:
        raise ValueError(
            f"a confusion matrix is (K, K) or (K, K + 1), not {tuple(confusion.shape)}"
        )
    n = confusion.double()
    num_classes = n.shape[0]
    hits = n.diagonal()  # (K,) n_ii
    t = n.sum(dim=1)  # (K,) t_i
    predicted = n[:, :num_classes].sum(dim=0)  # (K,) sum_j n_ji
    iou = hits / (t + predicted - hits)  # 0 / 0 is NaN: neither truth nor prediction
    accuracy = hits / t
    total = t.sum()
    return Scores(
        iou=iou,
        accuracy=accuracy,
        miou=float(iou.nanmean()),
        pixel_accuracy=float(hits.sum() / total),
        mean_accuracy=float(accuracy.nanmean()),
        frequency_weighted_iou=float((t * iou).nansum() / total),
    )
