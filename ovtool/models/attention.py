"""How a CLIP's patches attend to each other: the mean attention of its last blocks."""

import torch
from torch import Tensor, nn

from ovtool.errors import UsageError
from ovtool.methods.products import linear
from ovtool.models import towers
from ovtool.models.clip import Clip
from ovtool.models.tower_types import Block, is_native

SHARE = 2 / 3  # of the blocks, the last ones: 8 of 12


@torch.no_grad()
def mean_attention(clip: Clip, pixels: Tensor, blocks: int | None = None) -> Tensor:
    """The attention between the patches of one image, the mean over all heads of the last blocks:
    float32 (n, n), each row what one patch attends to, without the class token's share.

    pixels: normalised (1, 3, H, W), H and W multiples of the patch size; n = H W / patch^2.
    blocks: how many, None for two thirds of the tower's.

    Raises UsageError for a tower whose attention cannot be seen (timm's).
    """
    visual = clip.model.visual
    if not is_native(visual) or not all(
        isinstance(block.attn, nn.MultiheadAttention) for block in visual.transformer.resblocks
    ):
        raise UsageError(
            f"the attention of {clip.name} cannot be seen: it takes an open_clip vision transformer, "
            "such as ViT-B-16/openai"
        )
    towers.grid_size(pixels, clip.patch_size)
    layers = visual.transformer.resblocks
    last = max(1, round(len(layers) * SHARE)) if blocks is None else blocks
    placed = pixels.to(device=clip.device, dtype=clip.dtype)
    entered = towers.last_block_inputs(visual, placed, last)
    weights = [_patch_attention(*pair) for pair in zip(layers[-last:], entered, strict=True)]
    return torch.stack(weights).mean(0)


def _patch_attention(layer: Block, x: Tensor) -> Tensor:
    """A block's attention on its input (1, 1 + n, width), the mean over heads: float32 (n, n)."""
    attention = layer.attn
    projected = linear(layer.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    q, k, _ = (
        part[0].unflatten(-1, (attention.num_heads, -1)).transpose(0, 1).float()
        for part in projected.chunk(3, dim=-1)
    )  # (heads, 1 + n, d)
    weights: Tensor = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
    return weights.mean(0)[1:, 1:]
