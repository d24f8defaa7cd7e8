"""Masked crops of regions with Pillow, one after another, and a batch of them through an open_clip model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize


def cut(
    rgb: NDArray[np.uint8], masks: NDArray[np.bool_], size: int, mean: Sequence[float]
) -> list[NDArray[np.uint8]]:
    """The box of each mask, its other pixels filled with the mean colour, squeezed to a square.

    Args:
        rgb: uint8 (H, W, 3).
        masks: bool (N, H, W), none of them empty.
        size: the side of the squares.
        mean: the mean colour, from 0 to 1.

    Returns:
        N arrays, uint8 (size, size, 3).
    """
    colour = (255 * np.array(mean)).round().astype(np.uint8)
    crops = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        filled = np.where(mask[box][..., None], rgb[box], colour)
        crop = Image.fromarray(filled).resize((size, size), Image.Resampling.BICUBIC)
        crops.append(np.asarray(crop))
    return crops


def normalised(
    crops: Sequence[NDArray[np.uint8]], mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Crops as a network takes them: float32 (N, 3, size, size)."""
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def embedded(
    model: Any,
    rgb: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """The embeddings of masked crops in one batch, float32 (N, D) of length 1."""
    with torch.inference_mode():
        pixels = normalised(cut(rgb, masks, size, mean), mean, std)
        return normalize(model.encode_image(pixels), dim=-1)
