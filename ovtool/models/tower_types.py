"""The parts of a CLIP's network that ovtool uses, as types.

open_clip has no types of its own, and torch's modules give `Tensor | Module` for every attribute. The protocols
below name what is read of a network: the kinds of image tower, open_clip's own vision transformer and those of
`network` and `photo`, which have the same parts (`NativeTower`), and timm's (`TimmTower`), and the causal text tower.
`is_native`, `is_hybrid` and `is_timm` tell the image towers apart by what they have, without an import of their classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

if TYPE_CHECKING:
    from typing_extensions import TypeIs


class Layer(Protocol):
    """A norm, a projection or an MLP: one tensor in, one out."""

    def __call__(self, x: Tensor, /) -> Tensor: ...


class Network(Protocol):
    """What ovtool asks of any of torch's modules."""

    def parameters(self) -> Iterator[nn.Parameter]: ...
    def buffers(self) -> Iterator[Tensor]: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state_dict: Mapping[str, Tensor], *, assign: bool = ...) -> Any: ...
    def requires_grad_(self, requires_grad: bool = ...) -> Self: ...
    def eval(self) -> Self: ...
    def to(self, *, device: torch.device | str, dtype: torch.dtype) -> Self: ...


# --- image towers ------------------------------------------------------------------------------------
class Attention(Protocol):
    """torch's multi-head attention. The bias may be missing."""

    in_proj_weight: Tensor  # (3 * width, width): queries, keys, values
    in_proj_bias: Tensor | None
    num_heads: int
    out_proj: nn.Linear


class Block(Protocol):
    """A residual block of open_clip's own transformer."""

    attn: Attention
    ln_1: Layer
    ls_1: Layer
    ln_2: Layer
    ls_2: Layer
    mlp: nn.Sequential

    def __call__(self, x: Tensor, /) -> Tensor: ...
    def attention(self, q_x: Tensor) -> Tensor: ...
    def register_forward_pre_hook(
        self, hook: Callable[[Any, tuple[Tensor, ...]], None]
    ) -> RemovableHandle: ...


class Blocks(Protocol):
    """open_clip's transformer: a stack of blocks."""

    resblocks: Sequence[Block]

    def __call__(self, x: Tensor, /) -> Tensor: ...


class NativeTower(Network, Protocol):
    """open_clip's own vision transformer: class token first, then patches in row order."""

    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    grid_size: tuple[int, int]
    output_dim: int
    pool_type: str
    attn_pool: Layer | None
    final_ln_after_pool: bool
    conv1: nn.Conv2d
    class_embedding: Tensor  # (width,)
    positional_embedding: Tensor  # (1 + h*w, width)
    ln_pre: Layer
    transformer: Blocks
    ln_post: Layer
    proj: Tensor | None  # (width, D)

    def __call__(self, pixels: Tensor, /) -> Tensor: ...


class HybridTower(NativeTower, Protocol):
    """A vision transformer whose patches come from a convolutional stem (`photo.HybridVisionTransformer`)."""

    def embed_patches(self, pixels: Tensor) -> Tensor: ...


class TimmBlock(Protocol):
    """A residual block of timm's vision transformer."""

    attn: Layer
    norm1: Layer
    ls1: Layer
    norm2: Layer
    ls2: Layer
    mlp: Layer

    def register_forward_pre_hook(
        self, hook: Callable[[Any, tuple[Tensor, ...]], None]
    ) -> RemovableHandle: ...


class TimmPatches(Protocol):
    """timm's embedding of patches."""

    patch_size: tuple[int, int]
    strict_img_size: bool
    flatten: bool
    output_fmt: Any  # timm's enumeration of layouts


class TimmTrunk(Protocol):
    """timm's vision transformer."""

    patch_embed: TimmPatches
    dynamic_img_size: bool
    global_pool: str
    num_prefix_tokens: int
    embed_dim: int
    blocks: Sequence[TimmBlock]
    norm: Layer
    attn_pool: Layer | None
    fc_norm: Layer
    head_drop: Layer
    head: Layer

    def forward_features(self, pixels: Tensor) -> Tensor: ...
    def forward_intermediates(
        self,
        pixels: Tensor,
        *,
        indices: list[int],
        norm: bool,
        output_fmt: str,
        intermediates_only: bool,
    ) -> list[Tensor]: ...


class TimmTower(Network, Protocol):
    """timm's vision transformer as open_clip wraps it: a trunk, then a projection."""

    image_size: tuple[int, int]
    trunk: TimmTrunk
    head: Layer

    def __call__(self, pixels: Tensor, /) -> Tensor: ...


ImageTower = NativeTower | TimmTower


def is_native(visual: ImageTower) -> TypeIs[NativeTower]:
    """Whether an image tower is a vision transformer with open_clip's parts."""
    return hasattr(visual, "class_embedding") and hasattr(visual, "transformer")


def is_hybrid(visual: ImageTower) -> TypeIs[HybridTower]:
    """Whether an image tower's patches come from a convolutional stem."""
    return is_native(visual) and hasattr(visual, "embed_patches")


def is_timm(visual: ImageTower) -> TypeIs[TimmTower]:
    """Whether an image tower is timm's, in open_clip's wrapper."""
    return hasattr(visual, "trunk")


# --- text towers and the whole ---------------------------------------------------------------------------
class TextBlocks(Protocol):
    """The transformer of a text tower."""

    def __call__(self, x: Tensor, /, *, attn_mask: Tensor) -> Tensor: ...
    def get_cast_dtype(self) -> torch.dtype: ...


class TextTower(Protocol):
    """open_clip's own text tower; of a plain CLIP it is the whole network."""

    token_embedding: nn.Embedding
    positional_embedding: Tensor  # (context, width)
    transformer: TextBlocks
    ln_final: Layer
    attn_mask: Tensor | None  # (context, context)
    text_projection: nn.Linear | Tensor | None  # (width, D)


class ClipNetwork(Network, Protocol):
    """open_clip's CLIP: an image tower, a text tower in some form, and the scale of its logits."""

    visual: ImageTower
    logit_scale: Tensor
    context_length: int
    _modules: dict[str, Any]

    def encode_text(self, text: Tensor) -> Tensor: ...
