"""Boundary IoU: how well the edges of classes lie, whatever their areas.

Source: Cheng, Girshick, Dollár, Berg and Kirillov, "Boundary IoU" (CVPR 2021), section 5: of a mask only the
pixels within d pixels of its contour count, where d is 2 % of the image's diagonal, and the IoU is taken of
what is left of truth and prediction: |(G_d & G) & (P_d & P)| / |(G_d & G) | (P_d & P)|.

Distances are those of the authors' code, d steps of an erosion by 3 x 3 pixels, and what lies beyond the
image is of no mask. A true mask ends where the truth is silent, too. The counts of a class are summed over all
images, as those of a mean IoU are.
"""

import math

import numpy as np
from numpy.typing import NDArray

DILATION = 0.02  # of the diagonal


def width(size: tuple[int, int], dilation: float = DILATION) -> int:
    """d in pixels, of an image of `size` (H, W): a share of its diagonal, and at least 1."""
    return max(1, round(dilation * math.hypot(*size)))


def inner(labels: NDArray[np.integer], d: int) -> NDArray[np.bool_]:
    """The pixels within d of the contour of their own class.

    Args:
        labels: integers (H, W); each value is a mask.
        d: in pixels, at least 1.

    Returns:
        bool (H, W): where the square of d pixels to each side holds another value, or leaves the image.
    """
    from scipy import ndimage  # slow to import, and few need it

    side = 2 * d + 1
    lowest = ndimage.minimum_filter(labels, side, mode="nearest")
    highest = ndimage.maximum_filter(labels, side, mode="nearest")
    near = np.asarray(lowest != highest)
    near[:d], near[-d:], near[:, :d], near[:, -d:] = True, True, True, True
    return near


def image_counts(
    prediction: NDArray[np.integer],
    truth: NDArray[np.integer],
    counted: NDArray[np.bool_],
    num_classes: int,
    d: int,
) -> NDArray[np.int64]:
    """What the boundary IoU needs of an image.

    Args:
        prediction: integers (H, W); values outside 0..K-1 are none of the classes.
        truth: the same.
        counted: bool (H, W), the pixels that count.
        num_classes: K.
        d: in pixels.

    Returns:
        int64 (3, K): hits, and the pixels near the contours of the truth and of the prediction.
    """

    def count(labels: NDArray[np.integer], where: NDArray[np.bool_]) -> NDArray[np.int64]:
        own = labels[where & (labels >= 0) & (labels < num_classes)]
        return np.bincount(own, minlength=num_classes)

    true, predicted = counted & inner(truth, d), counted & inner(prediction, d)
    hits = true & predicted & (truth == prediction)
    return np.stack([count(truth, hits), count(truth, true), count(prediction, predicted)])
