"""Mask prompt tuning: learned tokens in the place of what a masked crop does not show.

A masked crop is mostly blank, which a CLIP has never seen. With T the patch embeddings of a crop and
M its patch mask, the tokens of blank patches are replaced by prompts P (OVSeg, Liang et al., CVPR 2023,
section 3.3):

    M = ceil(average pooled mask)        0 only where a patch has no pixel of the mask
    T <- T M + P[0] (1 - M)              before class token, position embedding and first norm
    T <- T M + P[d] (1 - M)              on the output of block d, for d = 1 .. depth - 1

P has a token for each position and depth, and is shared by all crops. The class token is never
touched, and the number of tokens stays as it is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

INIT_STD = 0.02


@dataclass(frozen=True, eq=False)
class MaskPrompts:
    """Prompts for a grid of (h, w) patches: `values` is floating (depth, h*w, E), E the tower's width. Tokens are
    replaced before the first block, and after depth - 1 more."""

    values: Tensor
    grid: tuple[int, int]


def initial(
    depth: int, grid: tuple[int, int], width: int, generator: torch.Generator
) -> MaskPrompts:
    """Prompts to start from: N(0, 0.02), float32, on the CPU."""
    shape = (depth, grid[0] * grid[1], width)
    return MaskPrompts(INIT_STD * torch.randn(shape, generator=generator), grid)


def patch_masks(masks: Tensor, patch_size: int) -> Tensor:
    """The patches that a mask has a pixel of: bool (B, H, W) to bool (B, h*w), which is
    ceil(average pooled mask). H and W are multiples of the patch size."""
    height, width = masks.shape[1:]
    if height % patch_size or width % patch_size:
        raise ValueError(f"masks of {height} x {width} pixels are no multiple of {patch_size}")
    pooled: Tensor = max_pool2d(masks[:, None].float(), patch_size)
    return pooled.flatten(1) > 0


def replaced(tokens: Tensor, foreground: Tensor, prompts: Tensor) -> Tensor:
    """T M + P (1 - M): tokens (B, N, E), foreground bool (B, N), prompts (N, E) or (B, N, E)."""
    return torch.where(foreground[..., None], tokens, prompts.to(tokens.dtype))


def resized(prompts: MaskPrompts, grid: tuple[int, int]) -> MaskPrompts:
    """The same prompts for another grid, bilinearly, as position embeddings are resampled."""
    if grid == prompts.grid:
        return prompts
    depth, _, width = prompts.values.shape
    square = prompts.values.float().reshape(depth, *prompts.grid, width).permute(0, 3, 1, 2)
    larger = interpolate(square, size=grid, mode="bilinear", align_corners=False)
    values = larger.flatten(2).transpose(1, 2).to(prompts.values.dtype)
    return MaskPrompts(values.contiguous(), grid)
