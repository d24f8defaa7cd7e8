"""Sliding windows as SCLIP and NACLIP do it: window after window, each brought to the image's pixels and added."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def slide(
    pixels: Tensor, window: int, stride: int, classes: int, score: Callable[[Tensor], Tensor]
) -> Tensor:
    """The mean scores of each pixel, (classes, H, W).

    Args:
        pixels: (1, 3, H, W), no side shorter than the window.
        window: the side of a window in pixels.
        stride: from one window to the next; the last one is shifted back inside.
        classes: how many scores a place has.
        score: maps a window (1, 3, window, window) to scores (1, classes, h, w).
    """
    height, width = pixels.shape[2:]
    total, count = torch.zeros(classes, height, width), torch.zeros(1, height, width)
    rows = max(height - window + stride - 1, 0) // stride + 1
    columns = max(width - window + stride - 1, 0) // stride + 1
    for row in range(rows):
        for column in range(columns):
            top, left = min(row * stride, height - window), min(column * stride, width - window)
            place = (slice(None), slice(top, top + window), slice(left, left + window))
            scores = score(pixels[:, :, place[1], place[2]])
            total[place] += interpolate(scores, size=(window, window), mode="bilinear")[0]
            count[place] += 1
    return total / count
