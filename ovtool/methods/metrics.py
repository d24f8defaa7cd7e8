"""Measures of semantic segmentation, all from one confusion matrix.

Source: Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation"
(CVPR 2015), section 5, "Metrics", whose symbols are used here: n_ij is the number of pixels of
class i predicted to be class j, and t_i = sum_j n_ij the number of pixels of class i. The mean IoU
of a data set takes one matrix summed over all images; it is not a mean over images.

The mean IoU has two conventions, which differ where a class is predicted and is nowhere true: it counts
as 0 in `miou_union` and does not count in `miou_truth`. Their intervals are in `methods.bootstrap`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_AT_ONCE = 1 << 15  # pixels whose intermediate values stay in the processor's cache


@dataclass(frozen=True)
class Scores:
    """What `scores` returns: fractions in [0, 1]; NaN where there is nothing to divide by."""

    iou: NDArray[np.float64]  # (K,); NaN for a class with neither truth nor prediction
    accuracy: NDArray[np.float64]  # (K,), also called recall; NaN for a class with no truth
    miou_truth: float  # over the classes that the truth holds
    miou_union: float  # over the classes that the truth or the prediction holds
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float


def confusion(
    prediction: ArrayLike, truth: ArrayLike, num_classes: int, ignore: int = -1
) -> NDArray[np.int64]:
    """Counts n_ij over the pixels of any number of images.

    Args:
        prediction: integers of any shape, an array or a tensor of the CPU. A value outside 0..K-1 means "none of the classes" and
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
    predicted, true = np.asarray(prediction), np.asarray(truth)
    if predicted.shape != true.shape:
        raise ValueError(f"prediction {predicted.shape}, truth {true.shape}")
    columns = num_classes + 1
    codes = np.empty(true.size, np.int64)  # i (K + 1) + j; what is not counted comes last
    signed, unsigned = _integers(predicted, true, columns)
    flat = (predicted.ravel(), true.ravel())
    for start in range(0, true.size, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        j, i = (
            labels[part].astype(signed, copy=False).view(unsigned) for labels in flat
        )  # in which a value below 0 is very large
        code = i * unsigned(columns) + np.minimum(j, unsigned(num_classes))
        outside = i >= num_classes
        if 0 <= ignore < num_classes:
            outside |= i == ignore
        if outside.any():
            if (i[outside].view(signed) != ignore).any():
                raise ValueError(
                    f"truth holds values outside 0..{num_classes - 1} and not {ignore}"
                )
            code[outside] = num_classes * columns
        codes[part] = code
    counts = np.bincount(codes, minlength=num_classes * columns + 1)
    return counts[:-1].reshape(-1, columns)


def _integers(
    predicted: NDArray[Any], true: NDArray[Any], columns: int
) -> tuple[type[np.signedinteger[Any]], type[np.unsignedinteger[Any]]]:
    """The smallest integers, with and without a sign, that hold all labels and all codes of pixels."""
    held = np.result_type(predicted, true, np.int32)
    small = held == np.int32 and columns < 1 << 15
    return (np.int32, np.uint32) if small else (np.int64, np.uint64)


def scores(confusion: NDArray[np.int64]) -> Scores:
    """The measures of a confusion matrix.

    - IoU_i = n_ii / (t_i + sum_j n_ji - n_ii); mIoU is its mean over the classes that the truth
      holds (`miou_truth`), or that the truth or the prediction holds (`miou_union`)
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
        raise ValueError(f"a confusion matrix is (K, K) or (K, K + 1), not {confusion.shape}")
    n = confusion
    return scores_of_counts(n.diagonal(), n.sum(axis=1), n[:, : len(n)].sum(axis=0))


def scores_of_counts(hits: ArrayLike, truth: ArrayLike, predicted: ArrayLike) -> Scores:
    """The same from what they need of the matrix, (K,) each: n_ii, t_i and sum_j n_ji."""
    hits, t, predicted = (np.asarray(part, np.float64) for part in (hits, truth, predicted))
    union = t + predicted - hits
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: neither truth nor prediction
        iou, accuracy = hits / union, hits / t
        total = t.sum()
        return Scores(
            iou=iou,
            accuracy=accuracy,
            miou_truth=_mean(iou[t > 0]),
            miou_union=_mean(iou[union > 0]),
            pixel_accuracy=float(hits.sum() / total),
            mean_accuracy=_mean(accuracy[t > 0]),
            frequency_weighted_iou=float((t * np.nan_to_num(iou)).sum() / total),
        )


def harmonic_mean(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """2ab / (a + b), 0 where both are 0: of the mIoUs of seen and of novel classes it is called hIoU (Xian et
    al., "Semantic Projection Network", CVPR 2019, section 4)."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    total = a + b
    return np.where(total == 0, 0.0, 2 * a * b / np.where(total == 0, 1.0, total))


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")
