"""`photo`: a CLIP for photographs, a hybrid vision transformer on an EfficientNet-Lite stem, in plain torch.

The image tower: the stem (`efficientnet`) gives two maps of stride 16; `PatchEmbed` makes a token of each place; then
come the class token, position embeddings, pre-norm blocks, the last norm and the projection, as in `network`. There is
no norm before the blocks. The text tower is `network.CLIP`'s, causal, over a small vocabulary of sub-words, with a
table of words before it: a text that is a word of the table (`word_table.WordTable`) has the row of the table, and
any other text is read by the tower.

Three files make a model of this kind. ``NAME.json`` is the configuration::

    {"model_cfg": {"embed_dim": 256,
                   "vision_cfg": {"image_size": 448, "patch_size": 16, "width": 256, "head_width": 64, "layers": 2,
                                  "mlp_ratio": 4.0, "hidden": 512, "context": [3], "stem": {"widths": [16, 24, 48, 88,
                                  120, 208, 352], "depths": [1, 3, 3, 4, 4, 5, 1], "first": 32, "last": 1280}},
                   "text_cfg": {"context_length": 40, "vocab_size": 8000, "width": 128, "heads": 2, "layers": 3,
                                "mlp_ratio": 4.0, "table": 3600}},
     "preprocess_cfg": {"mean": [0.498, 0.498, 0.498], "std": [0.502, 0.502, 0.502]}}

(127 / 255 and 128 / 255 in full). ``NAME.tokenizer.json`` is a file of the `tokenizers` library with `vocab_size` ids:
0 pads, the two largest are ``<start>`` and ``<end>``, in this order; it puts in neither of them by itself.
``NAME.safetensors`` holds the tensors, in float16 (``num_batches_tracked`` int64), of width W, embedding D, text width
T, hidden H, vocabulary V, table R, deep channels 1280 of Lite2, and C = 472 (1 + K), its local channels at a place and in the mean of each of the K
squares of ``context`` (none by default)::

    logit_scale ()                          word_table (R, D), rows of length 1
    positional_embedding (context, T)       text_projection (T, D)
    token_embedding.weight (V, T)           transformer.resblocks.N.*, ln_final.{weight,bias}
    visual.stem.*                           timm's names, without the classifier
    visual.patch_embed.mean (C,)            visual.patch_embed.deviation (C,)
    visual.patch_embed.deep.weight (W, 1280), visual.patch_embed.local.weight (W, C)
    visual.patch_embed.hidden.{weight (H, C), bias (H,)}, visual.patch_embed.mixed.weight (W, H)
    visual.class_embedding (W,)             visual.positional_embedding (1 + (image_size / 16)^2, W)
    visual.transformer.resblocks.N.*        attn.in_proj_{weight,bias}, attn.out_proj, ln_1, ln_2, mlp.c_fc, mlp.c_proj
    visual.ln_post.{weight,bias}            visual.proj (W, D)

Its metadata are one key, ``ovtool``, written by `formats.tensors.save`: ``{"kind": "clip", "model": NAME,
"fingerprint": build.fingerprint(network), "settings": {"words": [...], "rows": [...], "stuff": [...], "dense":
{"last_block": "clip", "short_side": 448}}}``, where ``words`` are the names of the table, synonyms and irregular
plurals included, in small letters, and ``rows`` the row of each in `word_table`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, gelu

from ovtool.methods.pixels import IMAGENET, standardised
from ovtool.methods.products import linear
from ovtool.models import sources
from ovtool.models.efficientnet import LITE2, STRIDE, EfficientNetLite, StemShape
from ovtool.models.network import (
    CLIP,
    ImageShape,
    TextShape,
    Transformer,
    drawn,
    image_shape,
)

MEAN, DEVIATION = (127 / 255,) * 3, (128 / 255,) * 3  # of pixels in [0, 1], as the stem takes them
_STEM = "visual.stem."


def with_means(local: Tensor, context: Sequence[int]) -> Tensor:
    """A map beside its means over squares, whose sides are odd, (B, C, h, w) to (B, C (1 + K), h, w)."""
    means = (avg_pool2d(local, side, 1, side // 2, count_include_pad=False) for side in context)
    return torch.cat([local, *means], dim=1)


class PatchEmbed(nn.Module):
    """The stem's two maps as tokens: L1 z + L2 u + L4 gelu(L3 u), with u the local map beside what is around, standardised.

    Args:
        stem: the shape of the stem.
        width: of a token.
        hidden: the width between L3 and L4.
        context: the sides of squares of places, odd; of each the mean of the local map stands beside the map. A square that
            reaches over the edge is cut there.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, stem: StemShape, width: int, hidden: int, context: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.context = context
        channels = stem.local * (1 + len(context))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.deep = nn.Linear(stem.last, width, bias=False)
        self.local = nn.Linear(channels, width, bias=False)
        self.hidden = nn.Linear(channels, hidden)
        self.mixed = nn.Linear(hidden, width, bias=False)

    def forward(self, deep: Tensor, local: Tensor) -> Tensor:
        """Maps (B, last, h, w) and (B, local, h, w) to tokens in row order, (B, h*w, width)."""
        z, x = (
            features.flatten(2).transpose(1, 2)
            for features in (deep, with_means(local, self.context))
        )
        return self.tokens(z, x)

    def tokens(self, z: Tensor, x: Tensor) -> Tensor:
        """Places (..., last) and what `with_means` says of them (..., local (1 + K)) to tokens, (..., width)."""
        u = (x - self.mean) / self.deviation
        hidden = gelu(linear(u, self.hidden.weight, self.hidden.bias))
        return (
            linear(z, self.deep.weight)
            + linear(u, self.local.weight)
            + linear(hidden, self.mixed.weight)
        )


class HybridVisionTransformer(nn.Module):
    """A vision transformer whose patches are what a convolutional stem sees (Dosovitskiy et al., ICLR 2021, 3.1).

    Args:
        stem: the shape of the stem.
        shape: of the transformer; its patches are of 16 pixels.
        hidden, context: see `PatchEmbed`.
        output_dim: the width of the space that images and texts share.
    """

    pool_type = "tok"
    attn_pool = None
    final_ln_after_pool = False

    def __init__(
        self,
        stem: StemShape,
        shape: ImageShape,
        hidden: int,
        output_dim: int,
        context: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        side, width = shape.image_size // STRIDE, shape.width
        self.image_size = (shape.image_size, shape.image_size)
        self.patch_size = (STRIDE, STRIDE)
        self.grid_size = (side, side)
        self.output_dim = output_dim
        self.class_embedding = drawn(width**-0.5, width)
        self.positional_embedding = drawn(width**-0.5, 1 + side * side, width)
        self.proj = drawn(width**-0.5, width, output_dim)
        self.stem = EfficientNetLite(stem)
        self.patch_embed = PatchEmbed(stem, width, hidden, context)
        self.ln_pre = nn.Identity()
        self.transformer = Transformer(width, shape.layers, shape.heads, shape.mlp_ratio)
        self.ln_post = nn.LayerNorm(width)

    def embed_patches(self, pixels: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W), sides multiples of 16, to tokens without positions: (B, h*w, width)."""
        tokens: Tensor = self.patch_embed(*self.stem(pixels))
        return tokens

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised images of the trained size, (B, 3, H, W), to (B, D), not of length 1."""
        patches = self.embed_patches(pixels)
        first = self.class_embedding.expand(len(patches), 1, -1)
        x = torch.cat([first, patches], dim=1) + self.positional_embedding
        pooled: Tensor = self.ln_post(self.transformer(x))[:, 0]
        return pooled @ self.proj


class Photo(CLIP):
    """The hybrid image tower, the causal text tower, and the table of words.

    Attributes:
        word_table: the embeddings of the words of the table, (R, D), of length 1.
    """

    def __init__(
        self, visual: HybridVisionTransformer, embed_dim: int, text: TextShape, table: int
    ) -> None:
        super().__init__(visual, embed_dim, text)
        self.word_table = drawn(embed_dim**-0.5, table, embed_dim)


def is_photo(config: Mapping[str, Any]) -> bool:
    """Whether a model configuration describes a network of this file."""
    return "stem" in config.get("vision_cfg", {})


def from_config(config: Mapping[str, Any]) -> Photo:
    """The network of a configuration for which `is_photo` holds, at random weights.

    Raises ValueError for a configuration that is not whole, whose patches are not of 16 pixels, or whose context is no list of
    odd sides.
    """
    vision, text = dict(config["vision_cfg"]), dict(config["text_cfg"])
    missing = {"hidden", "width", "layers", "image_size"} - vision.keys()
    missing |= {"table", "vocab_size", "context_length"} - text.keys()
    shape, own = image_shape(vision), vision["stem"]
    if missing or not {"widths", "depths"} <= own.keys():
        raise ValueError(f"its configuration lacks {', '.join(sorted(missing)) or 'the stem'}")
    if shape.patch_size != STRIDE or shape.image_size % STRIDE:
        raise ValueError(f"its patches are not of {STRIDE} pixels, as those of its stem are")
    widths, depths = tuple(own["widths"]), tuple(own["depths"])
    stem = StemShape(widths, depths, own.get("first", 32), own.get("last", 1280))
    context = tuple(vision.get("context", ()))
    if any(side < 3 or side % 2 == 0 for side in context):
        raise ValueError(f"its context is {list(context)}, not a list of odd sides of 3 or more")
    visual = HybridVisionTransformer(stem, shape, vision["hidden"], config["embed_dim"], context)
    table = text.pop("table")
    return Photo(visual, config["embed_dim"], TextShape(**text), table)


def stem_weights() -> Path | None:
    """The file of the bundled `photo`, whose stem is pretrained; None where it is not installed."""
    path = sources.bundled_folder() / "photo.safetensors"
    return path if path.is_file() else None


def stem(*, pretrained: bool) -> EfficientNetLite:
    """The stem alone, in float32, its weights those of the bundled `photo` or random."""
    network = EfficientNetLite(LITE2)
    path = stem_weights()
    if pretrained and path is not None:
        with safe_open(path, "pt") as file:
            names = [name for name in file.keys() if name.startswith(_STEM)]  # noqa: SIM118
            network.load_state_dict({n.removeprefix(_STEM): file.get_tensor(n) for n in names})
    return network


def from_imagenet(pixels: Tensor) -> Tensor:
    """Images (B, 3, H, W) that were normalised by `IMAGENET`, as the stem takes them."""
    mean, deviation = (pixels.new_tensor(three)[:, None, None] for three in IMAGENET)
    return standardised(pixels * deviation + mean, MEAN, DEVIATION)


class Stem(nn.Module):
    """The stem as the backbone of a segmenter: low from every eighth pixel, high from every sixteenth."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem(pretrained=False)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        low = self.stem.third_stage(pixels)
        return {"low": low, "high": self.stem.after_third(low)[0]}


@dataclass(frozen=True)
class FeatureMaps:
    """What a backbone of transformers answers, as far as MaskFormer reads it."""

    feature_maps: tuple[Tensor, ...]


class Pyramid(nn.Module):
    """The stem as the backbone of a MaskFormer: maps of strides 4, 8 and 16 of images normalised by `IMAGENET`."""

    channels = (LITE2.widths[1], LITE2.widths[2], LITE2.local)

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem(pretrained=False)

    def forward(self, pixels: Tensor) -> FeatureMaps:
        """Pixels (B, 3, H, W) to maps (B, channels[i], H / 4, W / 4) and so on."""
        stages = self.stem.stages(from_imagenet(pixels))
        return FeatureMaps((stages[1], stages[2], torch.cat([stages[4], stages[6]], dim=1)))
