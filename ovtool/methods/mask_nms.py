"""Non-maximum suppression of masks, greedy, best first."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIDE = 256  # masks are compared at this longer side, where a hundred of them are cheap


def suppress(
    masks: NDArray[np.bool_], quality: NDArray[np.floating[Any]], max_iou: float, most: int
) -> NDArray[np.intp]:
    """The masks to keep, best first: none overlaps a better one by more than `max_iou`.

    masks: bool (N, H, W). quality: floating (N,); of equal ones the earlier is better.
    max_iou: in [0, 1]; 1 keeps all. most: how many to keep.

    Masks are compared on every k-th row and column, so that the longer side has fewer than 512 pixels.
    """
    step = max(1, max(masks.shape[1:], default=1) // _SIDE)
    seen = masks[:, ::step, ::step]
    flat = seen.reshape(len(masks), seen.shape[1] * seen.shape[2])
    return suppress_members(flat, np.ones(flat.shape[1]), quality, max_iou, most)


def suppress_members(
    members: NDArray[np.bool_],
    areas: NDArray[np.number[Any]],
    quality: NDArray[np.floating[Any]],
    max_iou: float,
    most: int,
) -> NDArray[np.intp]:
    """As `suppress`, of masks that are sets of superpixels, compared in every pixel.

    members: bool (N, S). areas: (S,), of the superpixels.
    """
    order = np.argsort(-quality, kind="stable")
    if max_iou >= 1 or len(order) < 2:
        return order[:most]
    flat = members * np.sqrt(areas).astype(np.float32)
    sizes = np.einsum("ns,ns->n", flat, flat)
    inside = flat @ flat.T  # (N, N) pixels in common
    iou = inside / np.maximum(sizes[:, None] + sizes[None] - inside, 1)
    kept: list[int] = []
    for index in order:
        if len(kept) >= most:
            break
        if not (iou[index, kept] > max_iou).any():
            kept.append(int(index))
    return np.array(kept, np.intp)
