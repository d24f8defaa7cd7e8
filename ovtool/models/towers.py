"""Image towers as patches see them: open_clip's own vision transformer and timm's, at any image
size.

Position embeddings are resampled to the image's grid (bicubic): open_clip's towers here, without
antialiasing; timm's by timm itself. Pixels are (B, 3, H, W), normalised, with H and W multiples of
the patch size.
"""

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, grid_sample, interpolate

from ovtool.errors import ModelError, UsageError
from ovtool.methods import dense_clip
from ovtool.methods.products import linear, perceptron
from ovtool.models.tower_types import (
    Block,
    ImageTower,
    NativeTower,
    TimmBlock,
    TimmTower,
    TimmTrunk,
    is_hybrid,
    is_native,
    is_timm,
)


def prepare(visual: ImageTower, name: str) -> tuple[int, str]:
    """Make a tower ready for any image size: its patch size in pixels and its pooling.

    The pooling is ``token``, ``attention`` or ``average``. Raises ModelError for what is no plain
    vision transformer.
    """
    if is_native(visual) and visual.attn_pool is None:
        pooling = {"tok": "token", "avg": "average"}.get(visual.pool_type, "")
        patch = visual.patch_size
    elif is_timm(visual) and _is_plain(visual.trunk):
        embed = visual.trunk.patch_embed
        # what timm's constructor sets for dynamic_img_size, which open_clip does not pass on
        embed.strict_img_size, embed.flatten = False, False
        embed.output_fmt = type(embed.output_fmt)("NHWC")
        visual.trunk.dynamic_img_size = True
        patch = embed.patch_size
        pooled = visual.trunk.global_pool
        pooling = {"map": "attention", "token": "token"}.get(pooled, "average")
    else:
        pooling, patch = "", (0, 0)
    if not pooling or patch[0] != patch[1]:
        raise ModelError(
            f"the image tower of {name} is not a plain vision transformer, which patch features and mask "
            "prompts need; use one such as ViT-B-16/openai"
        )
    return patch[0], pooling


def _is_plain(trunk: TimmTrunk) -> bool:
    from timm.layers.patch_embed import PatchEmbed
    from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer

    kinds: tuple[type, type] = type(trunk), type(trunk.patch_embed)
    return kinds == (TimmVisionTransformer, PatchEmbed)


def grid_size(pixels: Tensor, patch_size: int, stride: int | None = None) -> tuple[int, int]:
    """The grid of patches of a batch of images, (h, w), their step being `stride` pixels, the whole
    patch if None; ValueError where the patches do not cover it whole.
    """
    height, width = pixels.shape[2:]
    if height % patch_size or width % patch_size or 0 in (height, width):
        raise ValueError(f"{height} x {width} pixels are no multiple of {patch_size}")
    step = stride or patch_size
    return (height - patch_size) // step + 1, (width - patch_size) // step + 1


def patch_embeddings(visual: NativeTower, pixels: Tensor, stride: int | None = None) -> Tensor:
    """Patches before their positions, in row order: (B, h*w, width). A stem's have the one stride."""
    if is_hybrid(visual):
        return visual.embed_patches(pixels)
    convolution, step = visual.conv1, stride or visual.patch_size
    patches = conv2d(pixels, convolution.weight, convolution.bias, stride=step)  # (B, width, h, w)
    return patches.flatten(2).transpose(1, 2)


def _embed(visual: NativeTower, pixels: Tensor, stride: int | None = None) -> Tensor:
    """The tokens before the first block: class token, then patches in row order, (B, 1 + h*w,
    width).
    """
    grid = grid_size(pixels, visual.patch_size[0], stride)
    x = patch_embeddings(visual, pixels, stride)
    first = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
    placed = positions(visual, grid, _finer(visual, stride))
    return visual.ln_pre(torch.cat([first, x], dim=1) + placed.to(x.dtype))


def _finer(visual: NativeTower, stride: int | None) -> int:
    """How many patches begin in the space of one."""
    return 1 if stride is None else visual.patch_size[0] // stride


def positions(visual: NativeTower, grid: tuple[int, int], finer: int = 1) -> Tensor:
    """The position embeddings for a grid of (h, w) patches: (1 + h*w, width).

    finer: patches begin every 1/finer of a patch, and those that begin at whole patches have the
        embeddings of the plain grid.
    """
    learned = visual.positional_embedding
    height, width = visual.grid_size
    if finer == 1 and grid == (height, width):
        return learned
    square = learned[1:].float().reshape(1, height, width, -1).permute(0, 3, 1, 2)
    if finer == 1:
        resized = interpolate(square, size=grid, mode="bicubic", align_corners=False)
    else:
        places = torch.meshgrid(
            *(_places(count, finer, learned.device) for count in grid), indexing="ij"
        )
        sampled = torch.stack(places[::-1], dim=-1)[None]  # (1, h, w, 2): across, then down
        resized = grid_sample(
            square, sampled, mode="bicubic", padding_mode="border", align_corners=False
        )
    return torch.cat([learned[:1].float(), resized.flatten(2)[0].T])


def _places(count: int, finer: int, device: torch.device) -> Tensor:
    """The centres of `count` patches that begin every 1/finer of a patch, from -1 to 1 over the
    image: (count,)."""
    patches = (count - 1) // finer + 1
    return 2 * (torch.arange(count, device=device) / finer + 0.5) / patches - 1


def image_features(visual: ImageTower, pixels: Tensor) -> Tensor:
    """The tower's own embedding of whole images: (B, D), not normalised."""
    if is_timm(visual):
        return visual(pixels)
    x = visual.transformer(_embed(visual, pixels))
    if not visual.final_ln_after_pool:
        x = visual.ln_post(x)
    pooled = x[:, 0] if visual.pool_type == "tok" else x[:, 1:].mean(dim=1)
    if visual.final_ln_after_pool:
        pooled = visual.ln_post(pooled)
    return pooled if visual.proj is None else pooled @ visual.proj


def patch_features(
    visual: ImageTower,
    pixels: Tensor,
    grid: tuple[int, int],
    name: str,
    stride: int | None = None,
) -> Tensor:
    """Patches in the space of the text embeddings, by the last block `name`: (B, h*w, D), not
    normalised. grid: `grid_size` with this `stride`.

    On timm's towers the only last block is ``clip``: the trunk as trained, then the tower's pooling
    and projection applied to each patch alone. For attention pooling that is its value path: over
    one token the softmax is 1.
    """
    if is_timm(visual):
        _require_own_block(name)
        return _pooled_alone(visual, visual.trunk.forward_features(pixels))
    x = block_tokens(visual, pixels, grid, dense_clip.last_block(name).name, stride)
    return x if visual.proj is None else x @ visual.proj


def block_tokens(
    visual: ImageTower,
    pixels: Tensor,
    grid: tuple[int, int],
    names: str,
    stride: int | None = None,
) -> Tensor:
    """The patches after the last block `names` and the tower's last norm, before its projection: (B,
    h*w, width). Several names, joined by ``+``, give their tokens side by side, each of this width.
    ``clip`` is the tower as it is, and all that timm's towers have.
    """
    blocks = dense_clip.last_blocks(names)
    if is_timm(visual):
        for block in blocks:
            _require_own_block(block.name)
        return torch.cat([patch_tokens(visual, pixels)] * len(blocks), dim=-1)
    x, finer = _embed(visual, pixels, stride), _finer(visual, stride)
    for earlier in visual.transformer.resblocks[:-1]:
        x = _blockwise(earlier, x) if finer > 1 else earlier(x)
    last = visual.transformer.resblocks[-1]
    tokens = [_last_block(last, x, grid, block, finer)[:, 1:] for block in blocks]
    return torch.cat([visual.ln_post(patches) for patches in tokens], dim=-1)


def _require_own_block(name: str) -> None:
    if dense_clip.last_block(name).name != "clip":
        raise UsageError(
            f"--last-block {name} needs a class token in an open_clip tower, and this model's tower "
            "has none; use --last-block clip"
        )


def _last_block(
    block: Block,
    x: Tensor,
    grid: tuple[int, int],
    kept: dense_clip.LastBlock,
    finer: int = 1,
) -> Tensor:
    """The last block's output with another attention, (B, 1 + h*w, width); see
    `methods.dense_clip`. A neighbourhood is as wide in the image, however fine the grid.
    """
    attention = block.attn
    if not isinstance(attention, nn.MultiheadAttention):
        if kept.name == "clip":
            return block(x)
        raise UsageError(
            f"--last-block {kept.name} is not defined for this tower's attention; use --last-block clip"
        )
    projected = linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    heads = attention.num_heads
    q, k, v = (
        part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in projected.chunk(3, dim=-1)
    )  # (B, heads, N, d)
    attended = dense_clip.attention(kept.name, q, k, v, grid, finer * dense_clip.NACLIP_SIGMA)
    projection, mixed = attention.out_proj, attended.transpose(1, 2).flatten(2)
    branch = block.ls_1(linear(mixed, projection.weight, projection.bias))
    x = x + branch if kept.keeps_residual else branch
    return x + block.ls_2(perceptron(block.mlp, block.ln_2(x))) if kept.keeps_mlp else x


def _blockwise(block: Block, x: Tensor) -> Tensor:
    """A block as it is, its attention computed in pieces: torch's own layer, where there are no
    gradients, holds all (1 + h*w)^2 weights of every head, 379 MB for 2,809 patches and 12 heads.
    """
    return _last_block(block, x, (0, 0), dense_clip.LAST_BLOCKS["clip"])


def _pooled_alone(visual: TimmTower, tokens: Tensor) -> Tensor:
    """Pooling and projection of a timm tower applied to each patch token alone: (B, h*w, D)."""
    trunk = visual.trunk
    patches = tokens[:, trunk.num_prefix_tokens :]
    alone = patches.flatten(0, 1).unsqueeze(1)  # (B*h*w, 1, width)
    if trunk.attn_pool is not None:
        pooled = trunk.attn_pool(alone)
    else:  # a class token or a mean of one is the token itself
        pooled = alone[:, 0]
    pooled = trunk.head(trunk.head_drop(trunk.fc_norm(pooled)))
    projected: Tensor = visual.head(pooled).unflatten(0, patches.shape[:2])
    return projected


def patch_tokens(visual: ImageTower, pixels: Tensor, block: int = -1) -> Tensor:
    """The patches after one block (0 is the first, -1 the last) and the tower's last norm: (B, h*w,
    width).
    """
    (tokens,) = layer_tokens(visual, pixels, [block])
    return tokens


def layer_tokens(
    visual: ImageTower, pixels: Tensor, blocks: Sequence[int], stride: int | None = None
) -> list[Tensor]:
    """The same of several blocks in one pass, in the order in which they are named."""
    indices = [range(depth(visual))[block] for block in blocks]
    rising = sorted(set(indices))
    tokens = dict(zip(rising, tapped_tokens(visual, pixels, rising, stride), strict=True))
    norm = visual.trunk.norm if is_timm(visual) else visual.ln_post
    return [norm(tokens[index]) for index in indices]


def tapped_tokens(
    visual: ImageTower, pixels: Tensor, blocks: Sequence[int], stride: int | None = None
) -> list[Tensor]:
    """The patches after each of some blocks (0 is the first, in rising order), without a norm: each (B,
    h*w, width).
    """
    if is_timm(visual):
        return visual.trunk.forward_intermediates(
            pixels, indices=list(blocks), norm=False, output_fmt="NLC", intermediates_only=True
        )
    x, finer, tapped = _embed(visual, pixels, stride), _finer(visual, stride), []
    for index, block in enumerate(visual.transformer.resblocks[: max(blocks) + 1]):
        x = _blockwise(block, x) if finer > 1 else block(x)
        if index in blocks:
            tapped.append(x[:, 1:])
    return tapped


@torch.no_grad()
def last_block_inputs(visual: ImageTower, pixels: Tensor, count: int = 1) -> list[Tensor]:
    """The tokens that enter each of the last `count` blocks, in order: each (B, prefix + h*w, width)."""
    if not is_timm(visual):
        tokens = deque([_embed(visual, pixels)], maxlen=count)
        for earlier in visual.transformer.resblocks[:-1]:
            tokens.append(earlier(tokens[-1]))
        return list(tokens)
    entered: list[Tensor] = []

    def keep(_: object, inputs: tuple[Tensor, ...]) -> None:
        entered.append(inputs[0])

    hooks = [block.register_forward_pre_hook(keep) for block in blocks_of(visual)[-count:]]
    try:
        image_features(visual, pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return entered


def blocks_of(visual: ImageTower) -> Sequence[Block] | Sequence[TimmBlock]:
    """A tower's blocks, the first one first."""
    return visual.trunk.blocks if is_timm(visual) else visual.transformer.resblocks


def depth(visual: ImageTower) -> int:
    """The number of a tower's blocks."""
    return len(blocks_of(visual))


def width(visual: ImageTower) -> int:
    """The width of a tower's tokens."""
    if is_timm(visual):
        return int(visual.trunk.embed_dim)
    return int(visual.class_embedding.shape[0])
