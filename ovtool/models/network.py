"""CLIP in plain torch, for the models that come with ovtool and for files of the same plain shape.

The names and the order of the parameters are open_clip's, and so are the numbers, bit for bit, but where oneDNN sums in
another order (`methods.products`): a file made for the one is read by the other. What only other shapes need (attention pooling, layer scale, timm's towers) is not here;
those networks are open_clip's. Importing open_clip costs more time than a small model's whole work on an image.

>>> image, text = ImageShape(128, 16, 192, 6, 3), TextShape(77, 49408, 128, 3, 2)
>>> clip = CLIP(VisionTransformer(image, 192), 192, text)
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention

from ovtool.methods import products

Activation = Callable[[], nn.Module]

_TOP_KEYS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
_IMAGE_KEYS = {"image_size", "patch_size", "width", "layers", "head_width", "mlp_ratio"}
_TEXT_KEYS = {"context_length", "vocab_size", "width", "layers", "heads", "mlp_ratio"}


@dataclass(frozen=True)
class ImageShape:
    """The shape of a vision transformer.

    Attributes:
        image_size: the side of the square that it is trained on, in pixels.
        patch_size: the side of a patch, in pixels.
        width: of its tokens.
        layers: the number of its blocks.
        heads: of each block's attention.
        mlp_ratio: the width of an MLP's hidden layer, in widths.
    """

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0


@dataclass(frozen=True)
class TextShape:
    """The shape of a causal text transformer.

    Attributes:
        context_length: the number of tokens of a sentence, padding included.
        vocab_size: the number of tokens that there are; the largest id ends a sentence.
        width: of its tokens.
        layers: the number of its blocks.
        heads: of each block's attention.
        mlp_ratio: the width of an MLP's hidden layer, in widths.
    """

    context_length: int = 77
    vocab_size: int = 49408
    width: int = 512
    layers: int = 12
    heads: int = 8
    mlp_ratio: float = 4.0


def drawn(deviation: float, *size: int) -> nn.Parameter:
    """A parameter of normal random numbers; on the meta device nothing is drawn, where torch would import its
    compiler to do it.
    """
    values = torch.empty(*size)
    return nn.Parameter(values if values.is_meta else values.normal_(std=deviation))


class QuickGELU(nn.Module):
    """The activation of OpenAI's CLIPs: x sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class TokenEmbedding(nn.Embedding):
    """An embedding that, like `drawn`, draws nothing on the meta device."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class ResidualAttentionBlock(nn.Module):
    """A pre-norm block: x + attention(norm(x)), then x + MLP(norm(x)), on (B, N, width)."""

    def __init__(
        self, width: int, heads: int, mlp_ratio: float = 4.0, activation: Activation = nn.GELU
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ls_1 = nn.Identity()
        self.ln_2 = nn.LayerNorm(width)
        hidden = int(width * mlp_ratio)
        layers = OrderedDict[str, nn.Module](
            c_fc=nn.Linear(width, hidden), gelu=activation(), c_proj=nn.Linear(hidden, width)
        )
        self.mlp = nn.Sequential(layers)
        self.ls_2 = nn.Identity()

    def attention(self, q_x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Self-attention of normed tokens, (B, N, width); the mask, (N, N), is added to its logits."""
        mask = None if attn_mask is None else attn_mask.to(q_x.dtype)
        attn, projection = self.attn, self.attn.out_proj
        if not products.is_by_onednn(q_x, projection.weight, q_x.shape[0] * q_x.shape[1]):
            attended: Tensor = attn(q_x, q_x, q_x, need_weights=False, attn_mask=mask)[0]
            return attended
        projected = products.linear(q_x, attn.in_proj_weight, attn.in_proj_bias)
        q, k, v = (
            part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
            for part in projected.chunk(3, dim=-1)
        )  # (B, heads, N, d)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        return products.linear(mixed, projection.weight, projection.bias)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        x = x + self.ls_1(self.attention(self.ln_1(x), attn_mask))
        out: Tensor = x + self.ls_2(products.perceptron(self.mlp, self.ln_2(x)))
        return out


class Transformer(nn.Module):
    """A stack of blocks, (B, N, width) to the same shape."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        mlp_ratio: float = 4.0,
        activation: Activation = nn.GELU,
    ) -> None:
        super().__init__()
        self.width = width
        self.resblocks = nn.ModuleList(
            ResidualAttentionBlock(width, heads, mlp_ratio, activation) for _ in range(layers)
        )

    def get_cast_dtype(self) -> torch.dtype:
        """The dtype of its weights, which tokens are brought to."""
        return next(self.parameters()).dtype

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, attn_mask)
        return x


class VisionTransformer(nn.Module):
    """An image tower: class token first, then patches in row order (Dosovitskiy et al., ICLR 2021)."""

    pool_type = "tok"
    attn_pool = None
    final_ln_after_pool = False

    def __init__(
        self, shape: ImageShape, output_dim: int, activation: Activation = nn.GELU
    ) -> None:
        super().__init__()
        side, width, scale = shape.image_size // shape.patch_size, shape.width, shape.width**-0.5
        self.image_size = (shape.image_size, shape.image_size)
        self.patch_size = (shape.patch_size, shape.patch_size)
        self.grid_size = (side, side)
        self.output_dim = output_dim
        self.class_embedding = drawn(scale, width)
        self.positional_embedding = drawn(scale, side * side + 1, width)
        self.proj = drawn(scale, width, output_dim)
        self.conv1 = nn.Conv2d(3, width, shape.patch_size, stride=shape.patch_size, bias=False)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(
            width, shape.layers, shape.heads, shape.mlp_ratio, activation
        )
        self.ln_post = nn.LayerNorm(width)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised images of the trained size, (B, 3, H, W), to (B, D), not of length 1."""
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        x = torch.cat([first, patches], dim=1) + self.positional_embedding.to(patches.dtype)
        pooled: Tensor = self.ln_post(self.transformer(self.ln_pre(x)))[:, 0]
        return pooled @ self.proj


class CLIP(nn.Module):
    """An image tower, a causal text tower whose end-of-text token has the largest id, and the scale of logits."""

    text_pool_type = "argmax"
    text_eos_id = -1  # a sentence ends at its largest id
    attn_mask: Tensor

    def __init__(
        self, visual: nn.Module, embed_dim: int, text: TextShape, activation: Activation = nn.GELU
    ) -> None:
        super().__init__()
        self.context_length, self.vocab_size = text.context_length, text.vocab_size
        self.positional_embedding = drawn(0.01, text.context_length, text.width)
        self.text_projection = drawn(text.width**-0.5, text.width, embed_dim)
        self.logit_scale = nn.Parameter(torch.full((), log(1 / 0.07)))
        self.visual = visual
        self.transformer = Transformer(
            text.width, text.layers, text.heads, text.mlp_ratio, activation
        )
        self.token_embedding = TokenEmbedding(text.vocab_size, text.width)
        self.ln_final = nn.LayerNorm(text.width)
        self.register_buffer("attn_mask", causal_mask(text.context_length), persistent=False)

    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:
        """Images of the trained size, (B, 3, H, W), to (B, D); of length 1 with `normalize`."""
        return _unit(self.visual(image), normalize)

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """Token ids, int64 (N, context_length), to (N, D); of length 1 with `normalize`."""
        dtype = self.transformer.get_cast_dtype()
        x = self.token_embedding(text).to(dtype) + self.positional_embedding.to(dtype)
        x = self.ln_final(self.transformer(x, attn_mask=self.attn_mask))
        rows = torch.arange(len(x), device=x.device)
        return _unit(x[rows, text.argmax(dim=-1)] @ self.text_projection, normalize)


def _unit(features: Tensor, wanted: bool) -> Tensor:
    return normalize(features, dim=-1) if wanted else features


def causal_mask(length: int) -> Tensor:
    """What is added to attention logits so that no token sees a later one: (length, length)."""
    # no file holds it, so it is made even where the network itself is on the meta device
    return torch.full((length, length), -torch.inf, device="cpu").triu_(1)


def is_plain(config: Mapping[str, Any]) -> bool:
    """Whether open_clip's model configuration describes a network of this file."""
    image, text = config["vision_cfg"], config["text_cfg"]
    return (
        config.keys() <= _TOP_KEYS
        and image.keys() <= _IMAGE_KEYS
        and text.keys() <= _TEXT_KEYS
        and all(isinstance(image.get(key, 1), int) for key in ("image_size", "layers"))
    )


def from_config(config: Mapping[str, Any]) -> CLIP:
    """The network of a configuration for which `is_plain` holds, at random weights."""
    activation: Activation = QuickGELU if config.get("quick_gelu") else nn.GELU
    visual = VisionTransformer(image_shape(config["vision_cfg"]), config["embed_dim"], activation)
    return CLIP(visual, config["embed_dim"], TextShape(**config["text_cfg"]), activation)


def image_shape(vision: Mapping[str, Any]) -> ImageShape:
    """The shape that open_clip's ``vision_cfg`` describes; other keys are left aside."""
    heads = vision.get("width", ImageShape.width) // vision.get("head_width", 64)
    own = {key: vision[key] for key in _IMAGE_KEYS & vision.keys() if key != "head_width"}
    return ImageShape(heads=heads, **own)
