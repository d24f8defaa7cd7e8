"""MaskFormer with proposals that are compared with words (OVSeg, Liang et al., CVPR 2023, section 3.1).

The network is transformers' (backbone, pixel decoder, transformer decoder); the head is OVSeg's: each
query has a mask and a proposal embedding v in the space of a CLIP's texts t. Its class logits are
cos(v, t_k) / 0.01, with one learnable vector as the last column, "no object".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ovtool.errors import ModelError
from ovtool.formats import tensors
from ovtool.methods.pixels import IMAGENET, standardised
from ovtool.models import artefacts, hub, photo

if TYPE_CHECKING:
    from transformers import MaskFormerConfig

    from ovtool.models.clip import Clip

TEMPERATURE = 0.01  # fixed, and not CLIP's logit scale
MASK_THRESHOLD = 0.5
LONGEST = 4  # the longer side is at most so many times the shorter side's size
_LOCALITY = 1.3  # how narrowly a query looks about its point at first
_STRIDE = 32  # sides are padded to multiples of it


@dataclass(frozen=True)
class LayerOutput:
    """What one decoder layer says: unit embeddings (B, N, C) and mask logits (B, N, H/4, W/4)."""

    embeddings: Tensor
    masks: Tensor


class MaskFormer(nn.Module):
    """transformers' MaskFormer with a proposal embedding in place of the classifier.

    config: transformers' configuration. embed_dim: the width C of the CLIP's space.
    """

    def __init__(self, config: MaskFormerConfig, embed_dim: int) -> None:
        super().__init__()
        from transformers import MaskFormerModel
        from transformers.models.maskformer.modeling_maskformer import MaskformerMLPPredictionHead

        self.config, self.embed_dim = config, embed_dim
        self.model = MaskFormerModel(config)
        if getattr(config, "stem", None) == "photo":  # in the place of a network of its widths
            self.model.pixel_level_module.encoder = photo.Pyramid()
        decoder: Any = config.decoder_config
        hidden = decoder.hidden_size
        self.mask_embedder = MaskformerMLPPredictionHead(hidden, hidden, config.mask_feature_size)
        self.proposal_embedder = MaskformerMLPPredictionHead(
            hidden, 4 * hidden, embed_dim, num_layers=2
        )
        self.no_object = nn.Parameter(torch.randn(embed_dim) * embed_dim**-0.5)
        for module in self.model.modules():  # transformers draws these gains around zero
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)

    def forward(self, pixels: Tensor) -> list[LayerOutput]:
        """Normalised pixels (B, 3, H, W), sides multiples of 32, to one output a layer, the last one
        last."""
        output = self.model(pixels, output_hidden_states=True)
        norm = self.model.transformer_module.decoder.layernorm
        between = output.transformer_decoder_hidden_states[1:-1]  # the first is the decoder's input
        states = [*(norm(state) for state in between), output.transformer_decoder_last_hidden_state]
        places = output.pixel_decoder_last_hidden_state  # (B, F, H/4, W/4)
        return [
            LayerOutput(
                F.normalize(self.proposal_embedder(state), dim=-1),
                torch.einsum("bnf,bfhw->bnhw", self.mask_embedder(state), places),
            )
            for state in states
        ]

    def class_logits(self, embeddings: Tensor, words: Tensor) -> Tensor:
        """Unit embeddings (..., N, C) and unit text embeddings (K, C) to logits (..., N, K + 1); the
        last column is "no object"."""
        columns = torch.cat([words, F.normalize(self.no_object, dim=-1)[None]])
        return embeddings @ columns.T.to(embeddings.dtype) / TEMPERATURE

    @property
    def queries(self) -> int:
        """The number N of proposals."""
        decoder: Any = self.config.decoder_config
        return int(decoder.num_queries)


# --- a proposer of ours, from its file ---------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Trained:
    """A network with what its file says beside the weights.

    words: float32 (K, C), the training vocabulary, for the score of "no object".
    short_side: of images as the network sees them. model, fingerprint: of the CLIP.
    weights: the digest of the network.
    """

    network: MaskFormer
    words: Tensor
    names: tuple[str, ...]
    short_side: int
    model: str
    fingerprint: str
    weights: str


def save(
    path: Path,
    network: MaskFormer,
    words: Tensor,
    clip: Clip,
    settings: Mapping[str, Any],
    half: bool = False,
) -> None:
    """Writes a `proposer` file; `settings` has `names` of the words and `short_side`.

    half: keep numbers as float16, which halves the file.
    """
    kept: dict[str, Tensor] = {
        name: value.half() if half and value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    config = network.config.to_dict()
    config.pop("transformers_version", None)
    settings = {**settings, "config": config, "embed_dim": network.embed_dim}
    artefacts.save(path, "proposer", clip, {**kept, "words": words.half()}, settings)


def load(path: Path, clip: Clip | None = None, device: torch.device | str = "cpu") -> Trained:
    """A network from its file, in eval mode, in float32.

    clip: the CLIP that it must belong to, None for any.

    Raises InputError for a file that is broken or lacks something, MismatchError for a file of another
    kind or of another CLIP (both are named).
    """
    header, content = artefacts.load(path, "proposer", clip, "train the proposer again")
    hub.quiet()
    from transformers import MaskFormerConfig

    settings = header["settings"]
    with artefacts.reading(path, "proposer"):
        words = content.pop("words").float()
        config = MaskFormerConfig.from_dict(settings["config"])
        check_backbone(config)
        embed_dim, names, short_side = (settings[k] for k in ("embed_dim", "names", "short_side"))
        artefacts.check_whole(settings["config"], content, lambda: MaskFormer(config, embed_dim))
        with torch.random.fork_rng(devices=[]):
            network = MaskFormer(config, embed_dim)
        wanted = network.state_dict()
        content = {name: value.to(wanted[name].dtype) for name, value in content.items()}
        network.load_state_dict(content)
    digest = tensors.fingerprint(content)
    network = network.eval().requires_grad_(False).to(device)
    model, mark = str(header.get("model")), str(header.get("fingerprint"))
    return Trained(network, words.to(device), tuple(names), short_side, model, mark, digest)


def check_backbone(config: MaskFormerConfig) -> None:
    """Raise ValueError where a configuration has timm fetch its backbone from a repository."""
    timm_name = str(getattr(config.backbone_config, "backbone", None) or "")
    if ":" in timm_name:
        raise ValueError(f"its backbone {timm_name} is in another repository, which is not loaded")


def no_object_vector(network: MaskFormer) -> NDArray[np.float32]:
    """The unit vector of "no object", float32 (C,)."""
    return F.normalize(network.no_object.detach().float(), dim=-1).cpu().numpy()


def normalise(rgb: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) to what the network takes, float32 (B, 3, H, W)."""
    pixels = standardised(rgb.permute(0, 3, 1, 2).float() / 255, *IMAGENET)
    return pixels.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def predict(network: MaskFormer, rgb: NDArray[np.uint8], short_side: int) -> tuple[Tensor, Tensor]:
    """Soft masks float32 (N, H, W) and unit embeddings (N, C) of an image, uint8 (H, W, 3).

    The image is brought to the shorter side `short_side`, padded to multiples of 32 with the mean;
    logits are enlarged to that size, cut, and their sigmoid is brought to the image's.
    """
    device = network.no_object.device
    height, width = rgb.shape[:2]
    scale = short_side / min(height, width)
    scale = min(scale, LONGEST * short_side / max(height, width))
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    pixels = normalise(torch.from_numpy(np.ascontiguousarray(rgb))[None].to(device))
    if size != [height, width]:
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=scale < 1)
    padded = [-(-side // _STRIDE) * _STRIDE for side in size]
    pixels = F.pad(pixels, (0, padded[1] - size[1], 0, padded[0] - size[0]))
    last = network(pixels)[-1]
    logits = F.interpolate(last.masks.float(), padded, mode="bilinear")
    soft = logits[..., : size[0], : size[1]].sigmoid()
    if size != [height, width]:
        soft = F.interpolate(soft, (height, width), mode="bilinear")
    return soft[0], last.embeddings[0].float()


def scores(soft: Tensor, no_object: Tensor) -> Tensor:
    """The quality of masks, (N,) in [0, 1]: what is left of the probability of "no object", times the
    mean probability of the pixels inside.

    soft: (N, H, W) in [0, 1]. no_object: (N,) in [0, 1].
    """
    inside = soft > MASK_THRESHOLD
    mean = (soft * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
    return (1 - no_object) * mean


def propose(
    loaded: Trained, rgb: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Soft masks float32 (N, H, W), quality (N,) and unit embeddings (N, C) of an image. "No object"
    is weighed against the words of the training."""
    soft, embeddings = predict(loaded.network, rgb, loaded.short_side)
    logits = loaded.network.class_logits(embeddings, loaded.words)
    quality = scores(soft, logits.softmax(-1)[:, -1])
    return soft.cpu().numpy(), quality.cpu().numpy(), embeddings.cpu().numpy()


# --- architectures ---------------------------------------------------------------------------------------
ARCHITECTURES = ("tiny", "resnet50", "swin-base", "photo")
BACKBONES: Mapping[str, str] = {  # what an architecture's backbone begins with, where it is cached
    "resnet50": "microsoft/resnet-50",
    "swin-base": "microsoft/swin-base-patch4-window12-384-in22k",
    "photo": "the stem of the bundled model photo",
}


def configuration(architecture: str, queries: int = 100) -> MaskFormerConfig:
    """transformers' configuration of one of `ARCHITECTURES`.

    `resnet50` and `swin-base` have MaskFormer's own decoders: a feature pyramid of 256 channels, 6
    decoder layers of 8 heads and 2048 hidden units. `tiny` is for 256 pixels on a CPU: three stages of
    a narrow ResNet, so that the decoder sees a grid of 16 x 16. `photo` has the stem of the bundled model
    photo in place of that ResNet.
    """
    import transformers
    from transformers import MaskFormerConfig
    from transformers.models.maskformer.configuration_maskformer import MaskFormerDetrConfig

    resnet: Any = transformers.ResNetConfig  # its type lacks out_features
    stages = ["stage1", "stage2", "stage3", "stage4"]
    if architecture == "swin-base":
        decoder = MaskFormerDetrConfig(encoder_layers=0, num_queries=queries)
        return MaskFormerConfig(decoder_config=decoder)
    if architecture == "resnet50":
        decoder = MaskFormerDetrConfig(encoder_layers=0, num_queries=queries)
        return MaskFormerConfig(backbone_config=resnet(out_features=stages), decoder_config=decoder)
    on_stem = architecture == "photo"
    backbone = resnet(
        embedding_size=32,
        hidden_sizes=list(photo.Pyramid.channels) if on_stem else [32, 64, 160],
        depths=[1, 1, 1] if on_stem else [1, 2, 3],
        layer_type="basic",
        out_features=stages[:3],
    )
    decoder = MaskFormerDetrConfig(
        encoder_layers=0,
        num_queries=queries,
        d_model=192,
        decoder_layers=3,
        decoder_attention_heads=6,
        decoder_ffn_dim=768,
        dropout=0.0,
    )
    stem: Mapping[str, Any] = {"stem": "photo"} if on_stem else {}
    return MaskFormerConfig(
        backbone_config=backbone,
        decoder_config=decoder,
        fpn_feature_size=64,
        mask_feature_size=64,
        **stem,
    )


@torch.no_grad()
def start_queries(network: MaskFormer) -> None:
    """Starts the queries at the points of a grid over the image, in place of random vectors, so that
    they do not all find the same thing at first.

    A query's embedding is the sine position embedding of its point, and each layer's cross-attention
    begins with equal projections of queries and keys, so that a query looks about its point. It is a
    start alone: all of it is learned.
    """
    module = network.model.transformer_module
    count, width = module.queries_embedder.weight.shape
    rows = math.ceil(math.sqrt(count))
    fine = 10 * rows + 1  # an image of so many places, of which the points are the cells' middles
    places = module.position_embedder((1, width, fine, fine), torch.device("cpu"), torch.float32)[0]
    cells = torch.linspace(0, rows * rows - 1, count).round().long()
    points = places[:, 10 * (cells // rows) + 5, 10 * (cells % rows) + 5].T
    module.queries_embedder.weight.copy_(points)
    for layer in module.decoder.layers:
        attention: Any = layer.encoder_attn
        shared = _LOCALITY * width**-0.5 * torch.randn(width, width)
        attention.q_proj.weight.copy_(shared)
        attention.k_proj.weight.copy_(shared)
        attention.q_proj.bias.zero_()
        attention.k_proj.bias.zero_()


def start_decoder(network: MaskFormer) -> None:
    """Draws the decoder, its queries and the mask features as MaskFormer's authors do. transformers draws
    them with a deviation of 0.02, whatever their width, with which all queries learn the same mask."""
    module = network.model.transformer_module
    for weights in module.decoder.parameters():
        if weights.ndim > 1:
            nn.init.xavier_uniform_(weights)
    nn.init.normal_(module.queries_embedder.weight)
    nn.init.kaiming_uniform_(network.model.pixel_level_module.decoder.mask_projection.weight, a=1)


def start_backbone(network: MaskFormer, architecture: str) -> str | None:
    """Puts pretrained weights into the backbone where they are in the cache; the name they have on
    the hub, or of their file, or None where the backbone stays as it was drawn."""
    name = BACKBONES.get(architecture)
    if architecture == "photo":
        if photo.stem_weights() is None:
            return None
        network.model.pixel_level_module.encoder.stem = photo.stem(pretrained=True)
        return "photo.safetensors"
    if name is None or not hub.is_cached(name):
        return None
    from transformers import AutoModel

    hub.quiet()
    state = AutoModel.from_pretrained(name, **hub.DOOR).state_dict()
    encoder = network.model.pixel_level_module.encoder
    wanted = encoder.state_dict()
    fitting = _fitting(state, wanted)
    weights = [key for key in wanted if key.endswith((".weight", ".bias"))]
    missing = [key for key in weights if key not in fitting and "hidden_states_norms" not in key]
    if missing:
        raise ModelError(f"the backbone {name} in the cache lacks {missing[0]}; fetch it again")
    encoder.load_state_dict(fitting, strict=False)
    return name


# transformers' Swin has other names in a MaskFormer than by itself
_SWIN = (
    ("attention.q_proj.", "attention.self.query."),
    ("attention.k_proj.", "attention.self.key."),
    ("attention.v_proj.", "attention.self.value."),
    ("attention.o_proj.", "attention.output.dense."),
    ("attention.relative_position_bias.", "attention.self."),
    ("mlp.fc1.", "intermediate.dense."),
    ("mlp.fc2.", "output.dense."),
)


def _fitting(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a plain model under the names of a backbone, where they have its shapes."""
    renamed = dict(state)
    for key, value in state.items():
        for theirs, ours in _SWIN:
            key = key.replace(theirs, ours)
        renamed |= {key: value, f"model.{key}": value}
    return {
        key: renamed[key]
        for key, value in wanted.items()
        if key in renamed and renamed[key].shape == value.shape
    }
