"""Masked crops with prompts through a vision transformer, as many tokens as each crop shows.

The same as `masked_tower.embed`, for inference on a CPU: the tokens of all crops lie one after another, so that no crop
is brought to the length of another one. What a token is multiplied by is the same for all; attention is computed
crop by crop.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ovtool.methods.mask_prompts import MaskPrompts
from ovtool.methods.products import linear
from ovtool.models import masked_tower, towers
from ovtool.models.tower_types import Block, NativeTower


def embed(visual: NativeTower, crops: Tensor, foreground: Tensor, prompts: MaskPrompts) -> Tensor:
    """Embed masked crops: normalised (B, 3, S, S) and bool (B, h*w) to (B, D), not of length 1."""
    blocks, values = visual.transformer.resblocks, prompts.values.to(crops.dtype)
    positions = towers.positions(visual, masked_tower.grid_of(visual, crops)).to(crops.dtype)
    is_seen = torch.cat(
        [torch.ones_like(foreground[:, :1]), foreground], dim=1
    )  # class token first
    index, token = is_seen.nonzero(as_tuple=True)  # (M,)
    is_patch = token > 0
    x = positions[token]
    x[~is_patch] += visual.class_embedding.to(x.dtype)
    x[is_patch] += masked_tower.patches(visual, crops, index[is_patch], token[is_patch] - 1)
    x = visual.ln_pre(x)  # (M, E)
    blank = visual.ln_pre(values[0] + positions[1:])  # (h*w, E), what blank patches hold
    for done in range(1, len(values)):
        x = block_output(blocks[done - 1], x, x, is_seen, blank)
        blank = values[done]
    last = blocks[len(values) - 1]
    if len(values) == len(blocks):
        first = block_output(last, x[~is_patch], x, is_seen, blank)
        return masked_tower.pooled(visual, first)
    whole = torch.cat([blank[:1], blank]).expand(len(crops), -1, -1).clone()  # (B, 1 + h*w, E)
    whole[is_seen] = x
    return masked_tower.rest(visual, whole, blocks[len(values) - 1 :])


def block_output(
    block: Block, queries: Tensor, x: Tensor, is_seen: Tensor, blank: Tensor
) -> Tensor:
    """A block's output for some tokens.

    Args:
        block: the block.
        queries: (Q, E), the tokens that are computed: all of `x`, or the class token of each crop.
        x: (M, E), the tokens that crops show, crop after crop.
        is_seen: bool (B, 1 + h*w), which they are.
        blank: (h*w, E), what the others hold.

    Returns:
        (Q, E).
    """
    attention = block.attn
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    width = weight.shape[1]
    q = linear(block.ln_1(queries), weight[:width], None if bias is None else bias[:width])
    keys = masked_tower.keys_and_values(block, x)
    blank_keys = masked_tower.keys_and_values(block, blank)
    counts = is_seen.sum(1).tolist()
    asked = counts if len(queries) == len(x) else [1] * len(is_seen)
    mixed = torch.empty_like(q)
    parts = zip(mixed.split(asked), q.split(asked), keys.split(counts), is_seen, strict=True)
    for out, own_q, own_keys, own_seen in parts:
        both = torch.cat([own_keys, blank_keys[~own_seen[1:]]])[None]
        k, v = both.chunk(2, dim=-1)
        own_q, k, v = (
            masked_tower.heads(part, attention.num_heads) for part in (own_q[None], k, v)
        )
        out.copy_(scaled_dot_product_attention(own_q, k, v).transpose(1, 2).flatten(2)[0])
    return masked_tower.after_attention(block, queries, mixed)
