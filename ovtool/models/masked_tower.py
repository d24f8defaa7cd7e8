"""open_clip's own vision transformer on masked crops, with or without mask prompts.

`embed_plain` is the tower with tokens replaced, as it is written down. `embed` computes the same, and
leaves out what cannot change the class token:

- of the last block, all queries but the class token's;
- in block i, before prompts have ended, the blank patches: what they hold at its input is a constant of
  the position (P[i - 1], and for the first block its norm with the position embedding), so their keys and
  values are computed once for all crops, and their queries, projections and MLP not at all, for prompts
  replace them at the next block's input.

Attention does not mind the order of patches, so those of the mask are put first; the crops of a batch
are brought to one length by blank patches, which prompts replace like the others.

`embed_shown` leaves the blank patches out altogether, which is another method and no speed-up of this one.
`embed_regions` embeds regions of a whole image by class tokens of their own (`methods.region_tokens`).
"""

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ovtool.methods import mask_prompts, region_tokens
from ovtool.methods.mask_prompts import MaskPrompts
from ovtool.methods.products import linear, perceptron
from ovtool.models import towers
from ovtool.models.tower_types import Block, ImageTower, NativeTower, is_hybrid, is_native


def is_supported(visual: ImageTower) -> TypeGuard[NativeTower]:
    """Whether a tower is open_clip's own, pools by a class token and has its ordinary blocks."""
    return (
        is_native(visual)
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and all(
            isinstance(block.attn, nn.MultiheadAttention) and block.attn.in_proj_weight is not None
            for block in visual.transformer.resblocks
        )
    )


def embed_plain(
    visual: NativeTower, crops: Tensor, foreground: Tensor, prompts: MaskPrompts | None
) -> Tensor:
    """Embed masked crops as the paper's formulas say: normalised (B, 3, S, S) to (B, D), not of length 1.

    foreground: bool (B, h*w), `mask_prompts.patch_masks` of the crops' masks.
    """
    values: Tensor | Sequence[Tensor] = () if prompts is None else prompts.values
    x = towers.patch_embeddings(visual, crops)  # (B, h*w, E)
    if len(values):
        x = mask_prompts.replaced(x, foreground, values[0])
    x = _with_class_token(visual, x, towers.positions(visual, grid_of(visual, crops)).to(x.dtype))
    for done, block in enumerate(visual.transformer.resblocks, start=1):
        x = block(x)
        if done < len(values):
            seen = mask_prompts.replaced(x[:, 1:], foreground, values[done])
            x = torch.cat([x[:, :1], seen], dim=1)
    return pooled(visual, x[:, 0])


def embed(
    visual: NativeTower, crops: Tensor, foreground: Tensor, prompts: MaskPrompts | None
) -> Tensor:
    """The same as `embed_plain`, with less arithmetic; it has the same gradients."""
    blocks = visual.transformer.resblocks
    positions = towers.positions(visual, grid_of(visual, crops)).to(crops.dtype)
    if prompts is None:
        x = towers.patch_embeddings(visual, crops)
        x = _with_class_token(visual, x, positions)
        return rest(visual, x, blocks)
    values = prompts.values.to(crops.dtype)
    kept, order = int(foreground.sum(1).max()), (~foreground).int().argsort(dim=1, stable=True)
    visible, blank = order[:, :kept], order[:, kept:]  # (B, n), (B, h*w - n)
    inside = foreground.gather(1, visible)
    x = mask_prompts.replaced(_patches(visual, crops, visible), inside, values[0][visible])
    x = _with_class_token(visual, x, positions, visible)
    constant = visual.ln_pre(values[0] + positions[1:])  # (h*w, E)
    for done in range(1, len(values)):
        block = blocks[done - 1]
        x = _block(block, x, blank=keys_and_values(block, constant)[blank])
        seen = mask_prompts.replaced(x[:, 1:], inside, values[done][visible])
        x, constant = torch.cat([x[:, :1], seen], dim=1), values[done]
    last = blocks[len(values) - 1]
    if len(values) == len(blocks):
        blank_keys = keys_and_values(last, constant)[blank]
        return pooled(visual, _block(last, x, queries=1, blank=blank_keys)[:, 0])
    return rest(visual, torch.cat([x, constant[blank]], dim=1), blocks[len(values) - 1 :])


def embed_shown(visual: NativeTower, crops: Tensor, foreground: Tensor) -> Tensor:
    """Embed masked crops by their class token and the patches that show something of the mask, as if there
    were no others: normalised (B, 3, S, S) to (B, D), not of length 1. foreground: as `embed_plain`."""
    positions = towers.positions(visual, grid_of(visual, crops)).to(crops.dtype)
    kept, order = int(foreground.sum(1).max()), (~foreground).int().argsort(dim=1, stable=True)
    visible = order[:, :kept]  # (B, n)
    x = _with_class_token(visual, _patches(visual, crops, visible), positions, visible)
    inside = foreground.gather(1, visible)
    attended = torch.cat([torch.ones_like(inside[:, :1]), inside], dim=1)[:, None, None]
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = _block(block, x, attended=attended)
    return pooled(visual, _block(last, x, queries=1, attended=attended)[:, 0])


def embed_regions(visual: NativeTower, pixels: Tensor, masks: Tensor) -> Tensor:
    """Embed regions of one image in one pass: normalised (1, 3, H, W) and bool (N, h*w), the patches
    of each region, none empty, to (N, D), not of length 1."""
    x = towers.patch_embeddings(visual, pixels)
    x = _with_class_token(visual, x, towers.positions(visual, grid_of(visual, pixels)).to(x.dtype))
    regions = x[:, :1].expand(1, len(masks), -1)
    blocks = visual.transformer.resblocks
    for block in blocks:
        regions, x = _with_regions(block, regions, x, masks, with_patches=block is not blocks[-1])
    return pooled(visual, regions[0])


def grid_of(visual: NativeTower, pixels: Tensor) -> tuple[int, int]:
    return towers.grid_size(pixels, visual.patch_size[0])


def _patches(visual: NativeTower, crops: Tensor, visible: Tensor) -> Tensor:
    """The patch embeddings of some patches alone: (B, 3, S, S) and (B, n) to (B, n, E)."""
    return patches(visual, crops, torch.arange(len(crops), device=crops.device)[:, None], visible)


def patches(visual: NativeTower, crops: Tensor, index: Tensor, visible: Tensor) -> Tensor:
    """The embeddings of the patches `visible` of the crops `index`, two int64 of one shape: (..., E)."""
    if is_hybrid(visual):  # its stem sees beyond a patch
        return visual.embed_patches(crops)[index, visible]
    side, (height, width) = visual.patch_size[0], grid_of(visual, crops)
    cut = crops.unflatten(3, (width, side)).unflatten(2, (height, side))  # (B, 3, h, p, w, p)
    rows = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, h*w, 3*p*p)
    return linear(rows[index, visible], visual.conv1.weight.flatten(1))


def _with_class_token(
    visual: NativeTower, x: Tensor, positions: Tensor, visible: Tensor | None = None
) -> Tensor:
    """What the first block reads, (B, 1 + n, E): class token before patches, positions added, normed."""
    first = (visual.class_embedding.to(x.dtype) + positions[0]).expand(len(x), 1, -1)
    places = positions[1:] if visible is None else positions[1:][visible]
    return visual.ln_pre(torch.cat([first, x + places], dim=1))


def rest(visual: NativeTower, x: Tensor, blocks: Sequence[Block]) -> Tensor:
    """The blocks that are left, of the last one the class token alone, and the projection: (B, D)."""
    for block in list(blocks)[:-1]:
        x = _block(block, x)
    return pooled(visual, _block(blocks[-1], x, queries=1)[:, 0])


def keys_and_values(block: Block, x: Tensor) -> Tensor:
    """The keys and values of a block's input, (..., N, E) to (..., N, 2E)."""
    weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    width = weight.shape[1]
    return linear(block.ln_1(x), weight[width:], None if bias is None else bias[width:])


def _block(
    block: Block,
    x: Tensor,
    *,
    queries: int | None = None,
    blank: Tensor | None = None,
    attended: Tensor | None = None,
) -> Tensor:
    """A block's output for its first `queries` tokens, (B, queries, E), None being all.

    blank: (B, m, 2E), keys and values of tokens that are attended to and not computed.
    attended: bool (B, 1, 1, n), the tokens that are attended to, None being all.
    """
    attention = block.attn
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    width = weight.shape[1]
    normed = block.ln_1(x)
    if queries is None:
        q, keys = linear(normed, weight, bias).split([width, 2 * width], dim=-1)
    else:
        x = x[:, :queries]
        q = linear(normed[:, :queries], weight[:width], None if bias is None else bias[:width])
        keys = linear(normed, weight[width:], None if bias is None else bias[width:])
    if blank is not None:
        keys = torch.cat([keys, blank.to(keys.dtype)], dim=1)
    k, v = keys.chunk(2, dim=-1)
    q, k, v = (heads(part, attention.num_heads) for part in (q, k, v))
    mixed = scaled_dot_product_attention(q, k, v, attn_mask=attended).transpose(1, 2).flatten(2)
    return after_attention(block, x, mixed)


def after_attention(block: Block, x: Tensor, mixed: Tensor) -> Tensor:
    """A block's output from its input and the attended values, both (..., E)."""
    projection = block.attn.out_proj
    x = x + block.ls_1(linear(mixed, projection.weight, projection.bias))
    return x + block.ls_2(perceptron(block.mlp, block.ln_2(x)))


def _with_regions(
    block: Block, regions: Tensor, x: Tensor, masks: Tensor, *, with_patches: bool
) -> tuple[Tensor, Tensor]:
    """A block's output for the regions' class tokens (1, N, E), and for class token and patches."""
    attention = block.attn
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    q, own_k, own_v = (
        heads(part, attention.num_heads)[0]
        for part in linear(block.ln_1(regions), weight, bias).chunk(3, dim=-1)
    )
    k, v = (
        heads(part, attention.num_heads)[0]
        for part in keys_and_values(block, x[:, 1:]).chunk(2, dim=-1)
    )
    attended = region_tokens.attention(q, (own_k, own_v), k, v, masks)
    regions = after_attention(block, regions, attended.transpose(0, 1).flatten(1)[None])
    return regions, _block(block, x) if with_patches else x


def heads(x: Tensor, count: int) -> Tensor:
    """(B, N, E) to (B, count, N, E / count)."""
    split: Tensor = x.unflatten(-1, (count, -1)).transpose(1, 2)
    return split


def pooled(visual: NativeTower, token: Tensor) -> Tensor:
    """The tower's embedding from its class token, (B, E) to (B, D): last norm, then projection."""
    token = visual.ln_post(token)
    return token if visual.proj is None else token @ visual.proj
