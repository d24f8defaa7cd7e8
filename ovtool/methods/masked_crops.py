"""Masked crops: the pixels of a region that a CLIP receives.

The tight box of a mask is cut out of the normalised image, pixels outside the mask become 0, which
is the model's mean colour, and the crop is squeezed into a square, its aspect not kept. OVSeg (Liang
et al., CVPR 2023, section 3.2 and appendix A.4): bicubic for pixels, without antialiasing, and nearest
for the mask, which travels with the crop.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, interpolate


def tight_boxes(masks: Tensor) -> Tensor:
    """The smallest box around each mask: bool (N, H, W) to int64 (N, 4) as top, left, bottom, right,
    the last two exclusive; zeros for an empty mask."""
    height, width = masks.shape[1:]
    ones = masks.view(torch.uint8)  # whose greatest value is found many times as fast as any truth
    rows, columns = ones.amax(2).int(), ones.amax(1).int()  # (N, H), (N, W)
    top, left = rows.argmax(1), columns.argmax(1)
    bottom = height - rows.flip(1).argmax(1)
    right = width - columns.flip(1).argmax(1)
    boxes = torch.stack([top, left, bottom, right], dim=1)
    return boxes * rows.amax(1, keepdim=True)


def masked_crops(
    pixels: Tensor, masks: Tensor, size: int, *, fill: bool = True
) -> tuple[Tensor, Tensor]:
    """The masked crop of each mask, and the mask cut and squeezed alike.

    pixels: floating (3, H, W), normalised by the CLIP's mean and standard deviation.
    masks: bool (N, H, W), none of them empty.
    size: side of the square crops, in pixels.
    fill: whether pixels outside a mask become 0; without it the crops show their surroundings.

    Returns floating (N, 3, size, size) and bool (N, size, size), on the device of `pixels`. Raises
    ValueError for an empty mask, or masks of another size than the image.
    """
    if masks.shape[1:] != pixels.shape[1:]:
        raise ValueError(f"masks {tuple(masks.shape)} for an image of {tuple(pixels.shape)}")
    masks = masks.to(pixels.device)
    boxes = tight_boxes(masks).tolist()
    crops = _empty(pixels, len(masks), 3, size, size)
    squeezed = masks.new_empty(len(masks), size, size)
    pixels = pixels.permute(2, 0, 1).contiguous().permute(1, 2, 0)  # column after column
    for index, (top, left, bottom, right) in enumerate(boxes):
        if top == bottom:
            raise ValueError(f"mask {index} is empty: it has no crop")
        mask = masks[index, top:bottom, left:right]
        cut = pixels[:, top:bottom, left:right]
        crops[index] = bicubic(cut * mask if fill else cut, size)
        squeezed[index] = nearest(mask, size)
    return crops, squeezed


def bicubic(cut: Tensor, size: int) -> Tensor:
    """A piece of an image, (3, h, w), squeezed to (3, size, size); one of that size stays as it is."""
    if cut.device.type == "cpu" and cut.dtype == torch.float32:
        return _separable(cut, size)
    return interpolate(cut[None], size=(size, size), mode="bicubic", align_corners=False)[0]


def _separable(cut: Tensor, size: int) -> Tensor:
    """The same by columns and then by rows, which a CPU computes several times as fast."""
    channels, height, width = cut.shape
    if (height, width) == (size, size):
        return cut
    columns = cut.permute(2, 0, 1).reshape(width, channels * height)
    places, weights = _taps(width, size)
    across = embedding_bag(places, columns, mode="sum", per_sample_weights=weights)
    rows = across.T.contiguous()  # (channels height, size)
    places, weights = _taps(height, size)
    first = torch.arange(0, channels * height, height)[:, None, None]
    down = embedding_bag(
        (first + places).flatten(0, 1),
        rows,
        mode="sum",
        per_sample_weights=weights.repeat(channels, 1),
    )
    return down.view(channels, size, size)


@lru_cache(maxsize=1024)  # boxes of the same sizes come again
def _taps(length: int, size: int) -> tuple[Tensor, Tensor]:
    """The four pixels of `length` that each of `size` is made of, int64 (size, 4), and their weights, by the cubic
    convolution with a = -0.75; beyond the border the last pixel goes on."""
    position = (torch.arange(size)[:, None] + 0.5) * (length / size) - 0.5
    places = position.floor() + torch.arange(-1, 3)
    distance = (position - places).abs()
    a = -0.75
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1  # up to a pixel away
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a  # up to two
    weights = torch.cat([far[:, :1], near[:, 1:3], far[:, 3:]], dim=1)
    return places.long().clamp_(0, length - 1), weights


def nearest(mask: Tensor, size: int) -> Tensor:
    """A mask, bool (h, w), squeezed to (size, size): the value at the centre of each new pixel."""
    height, width = mask.shape
    if mask.device.type == "cpu":  # where numpy is faster with bytes
        places = 2 * np.arange(size) + 1
        rows = mask.numpy()[places * height // (2 * size)]
        return torch.from_numpy(rows.take(places * width // (2 * size), axis=1))
    centre = torch.arange(size, device=mask.device) * 2 + 1
    by_row = mask.index_select(0, centre * height // (2 * size))
    return by_row.index_select(1, centre * width // (2 * size))


def _empty(like: Tensor, *shape: int) -> Tensor:
    """An empty tensor of a kind; on a CPU by numpy, which asks for large pages of memory, that come sooner."""
    if like.device.type == "cpu" and like.dtype == torch.float32:
        return torch.from_numpy(np.empty(shape, np.float32))
    return like.new_empty(shape)
