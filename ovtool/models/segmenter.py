"""Segmenters of a fixed list of classes: torchvision's, MaskFormer, and a small head on a frozen CLIP.

Each network maps pixels in [0, 1] to class logits on a coarse grid; `load` and `save` keep it in a file
of kind `segmenter`. `deeplabv3_*` are torchvision's DeepLabV3 (Chen et al., 2017, section 4.1); `tiny`
is its LR-ASPP (Howard et al., ICCV 2019, section 6.4) on a ResNet-18, and `photo` the same on the stem of the model `photo`; `maskformer-*` is the house's
MaskFormer, its class embeddings compared with one learned vector a class; `clip` decodes a frozen
CLIP's patches, as WeCLIP does (Zhang et al., CVPR 2024, section 3.2), with a few convolutions beside it
that see edges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from ovtool.errors import InputError, UsageError
from ovtool.formats import learnable, tensors
from ovtool.methods.class_maps import Rows
from ovtool.methods.pixels import IMAGENET, Triple, standardised, working_size
from ovtool.methods.windows import upsample_rows
from ovtool.models import artefacts, hub, maskformer, photo, towers
from ovtool.models import clip as clips
from ovtool.models.efficientnet import LITE2, STRIDE

if TYPE_CHECKING:
    from ovtool.models.clip import Clip
    from ovtool.models.maskformer import LayerOutput, MaskFormer

KIND = "segmenter"
DEEPLAB = ("deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "deeplabv3_resnet101")
MASKFORMER = tuple(f"maskformer-{name}" for name in maskformer.ARCHITECTURES)
ARCHITECTURES = ("tiny", "clip", "photo", *DEEPLAB, *MASKFORMER)
_QUERIES = 100
_EMBED_DIM = 256  # of MaskFormer's class embeddings
_TAPS = (1, 3, 5)  # blocks of the CLIP, in sixths of its depth, whose patches are read


class Network(nn.Module):
    """What all architectures share: normalisation, and the multiple that sides must be of.

    body: normalised pixels (B, 3, H, W) to logits (B, K, h, w).
    """

    def __init__(
        self,
        body: nn.Module,
        multiple: int = 1,
        mean: Triple = IMAGENET[0],
        deviation: Triple = IMAGENET[1],
    ) -> None:
        super().__init__()
        self.body, self.multiple = body, multiple
        self.mean, self.deviation = mean, deviation

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1], (B, 3, H, W), as the body takes them."""
        taken = standardised(pixels, self.mean, self.deviation)
        return taken.contiguous(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1], (B, 3, H, W), sides of the multiple, to logits (B, K, h, w)."""
        logits: Tensor = self.body(self.normalised(pixels))
        return logits

    @property
    def backbone(self) -> nn.Module | None:
        """The part that may begin with pretrained weights, None where it is not trained."""
        return getattr(self.body, "backbone", None)


class Convolutional(nn.Module):
    """A torchvision segmentation network, before it enlarges its logits."""

    def __init__(self, backbone: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.backbone, self.classifier = backbone, classifier

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.backbone(pixels)
        logits: Tensor = self.classifier(features["out"] if "out" in features else features)
        return logits


class Queries(nn.Module):
    """MaskFormer with K learned unit vectors in place of texts."""

    def __init__(self, network: MaskFormer, classes: int) -> None:
        super().__init__()
        self.network = network
        self.classes = nn.Parameter(torch.randn(classes, network.embed_dim))

    @property
    def backbone(self) -> nn.Module:
        encoder: nn.Module = self.network.model.pixel_level_module.encoder
        return encoder

    def layers(self, pixels: Tensor) -> list[tuple[Tensor, LayerOutput]]:
        """Of each decoder layer the class logits (B, N, K + 1) of its queries, and its masks."""
        words = normalize(self.classes, dim=-1)
        return [
            (self.network.class_logits(layer.embeddings, words), layer)
            for layer in self.network(pixels)
        ]

    def forward(self, pixels: Tensor) -> Tensor:
        """The logarithm of sum_n p_n(k) m_n at each place (MaskFormer, section 3.4): (B, K, h, w)."""
        logits, layer = self.layers(pixels)[-1]
        share = logits.softmax(-1)[..., :-1]
        mixed = torch.einsum("bnk,bnhw->bkhw", share, layer.masks.sigmoid())
        return mixed.clamp(min=1e-6).log()


class OnClip(nn.Module):
    """Patches of three blocks of a frozen CLIP, and a stem that sees every fourth pixel, decoded.

    The CLIP is no part of the state: a file names it, and holds what was trained.
    """

    def __init__(self, clip: Clip, classes: int, width: int = 96, stem: int = 48) -> None:
        super().__init__()
        self.clip = (clip,)  # in a tuple, which torch leaves alone
        blocks = towers.depth(clip.model.visual)
        self.taps = tuple(sorted({(tap + 1) * blocks // 6 - 1 for tap in _TAPS} - {-1}))
        own = towers.width(clip.model.visual)
        self.norms = nn.ModuleList(nn.LayerNorm(own) for _ in self.taps)
        self.fuse = _convolution(own * len(self.taps), width, 1)
        self.stem = nn.Sequential(
            _convolution(3, stem // 2, 3, stride=2), _convolution(stem // 2, stem, 3, stride=2)
        )
        self.decode = nn.Sequential(
            _convolution(width + stem, width, 3),
            _convolution(width, width, 3),
            nn.Conv2d(width, classes, 1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        (clip,) = self.clip
        grid = towers.grid_size(pixels, clip.patch_size)
        with torch.no_grad():
            given = pixels.to(device=clip.device, dtype=clip.dtype)
            tapped = towers.tapped_tokens(clip.model.visual, given, self.taps)
        patches = torch.cat(
            [norm(tokens.to(pixels)) for norm, tokens in zip(self.norms, tapped, strict=True)], -1
        )
        seen = self.fuse(patches.transpose(1, 2).unflatten(2, grid))
        edges = self.stem(pixels)
        seen = interpolate(seen, edges.shape[2:], mode="bilinear", align_corners=False)
        logits: Tensor = self.decode(torch.cat([seen, edges], 1))
        return logits


def _convolution(inside: int, outside: int, side: int, stride: int = 1) -> nn.Sequential:
    """A convolution, batch norm and ReLU that keep the size, apart from the stride."""
    kernel = nn.Conv2d(inside, outside, side, stride, side // 2, bias=False)
    return nn.Sequential(kernel, nn.BatchNorm2d(outside), nn.ReLU())


def build(architecture: str, classes: int, clip: Clip | None = None) -> Network:
    """A network at random weights. clip: what `clip` stands on.

    Raises UsageError for an unknown architecture.
    """
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UsageError(f"unknown architecture '{architecture}'; choose from {known}")
    if architecture == "clip":
        assert clip is not None
        return Network(OnClip(clip, classes), clip.patch_size, clip.mean, clip.std)
    if architecture in MASKFORMER:
        config = maskformer.configuration(architecture.removeprefix("maskformer-"), _QUERIES)
        network = maskformer.MaskFormer(config, _EMBED_DIM)
        maskformer.start_decoder(network)
        return Network(Queries(network, classes), 32)
    if architecture == "tiny":
        return Network(_light(classes))
    if architecture == "photo":
        return Network(_on_stem(classes), STRIDE, photo.MEAN, photo.DEVIATION)
    from torchvision.models import segmentation

    make = getattr(segmentation, architecture)
    network = make(weights=None, weights_backbone=None, num_classes=classes)
    return Network(Convolutional(network.backbone, network.classifier))


def _light(classes: int) -> Convolutional:
    """LR-ASPP on a ResNet-18: low from every fourth pixel, high from every thirty-second."""
    from torchvision.models import resnet18
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.segmentation.lraspp import LRASPPHead

    layers = {"layer1": "low", "layer4": "high"}
    backbone = IntermediateLayerGetter(resnet18(weights=None), layers)
    return Convolutional(backbone, LRASPPHead(64, 512, classes, 128))


def _on_stem(classes: int) -> Convolutional:
    from torchvision.models.segmentation.lraspp import LRASPPHead

    return Convolutional(photo.Stem(), LRASPPHead(LITE2.widths[2], LITE2.last, classes, 128))


# --- pretrained backbones -----------------------------------------------------------------------------
def start_backbone(network: Network, architecture: str) -> str | None:
    """Puts pretrained weights into a backbone where they are in the local cache; their name, or None
    where it stays as it was drawn. Nothing is fetched.

    Raises InputError where the file in the cache is broken.
    """
    if architecture in MASKFORMER:
        body = network.body
        assert isinstance(body, Queries)
        return maskformer.start_backbone(body.network, architecture.removeprefix("maskformer-"))
    if architecture == "photo":
        backbone = network.backbone
        assert isinstance(backbone, photo.Stem)
        if photo.stem_weights() is None:
            return None
        backbone.stem = photo.stem(pretrained=True)
        return "photo.safetensors"
    place = cached_weights(architecture)
    if place is None or not place.exists() or network.backbone is None:
        return None
    wanted = network.backbone.state_dict()
    try:
        state = torch.load(place, weights_only=True, map_location="cpu")
        plain = {key.removeprefix("features."): value for key, value in state.items()}
        network.backbone.load_state_dict({key: plain[key] for key in wanted})
    except Exception as error:  # torch has one for each way in which a file is broken
        reason = hub.reason(error)
        raise InputError(
            f"{place} cannot be read ({reason}); remove it, or fetch it again"
        ) from None
    return place.name


def pretrained(architecture: str) -> str | None:
    """What a backbone can begin with, in words; None for those without any."""
    if architecture in MASKFORMER:
        return maskformer.BACKBONES.get(architecture.removeprefix("maskformer-"))
    if architecture == "photo":
        return "the stem of the bundled model photo"
    place = cached_weights(architecture)
    return None if place is None else f"torchvision's {place.name}"


def cached_weights(architecture: str) -> Path | None:
    """Where torchvision keeps the weights of a backbone, there or not; None for those without any."""
    from torchvision import models

    weights = {
        "tiny": models.ResNet18_Weights.IMAGENET1K_V1,
        "deeplabv3_mobilenet_v3_large": models.MobileNet_V3_Large_Weights.IMAGENET1K_V1,
        "deeplabv3_resnet50": models.ResNet50_Weights.IMAGENET1K_V1,
        "deeplabv3_resnet101": models.ResNet101_Weights.IMAGENET1K_V1,
    }.get(architecture)
    if weights is None:
        return None
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(str(weights.url)).name


# --- files --------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Trained:
    """A network with what its file says beside the weights.

    names: of the classes, in the order of the logits. short_side: of images as the network sees
    them. model, fingerprint: of the CLIP that it stands on, None for one that stands alone.
    weights: the digest of what was trained.
    """

    network: Network
    architecture: str
    names: tuple[str, ...]
    short_side: int
    model: str | None
    fingerprint: str | None
    weights: str

    @property
    def background(self) -> int | None:
        """The index of the class `background`, None where there is none."""
        return learnable.background_of(self.names)


def save(path: Path, network: Network, settings: Mapping[str, Any], clip: Clip | None) -> None:
    """Writes a `segmenter` file; `settings` has `architecture`, `names` and `short_side`."""
    header: dict[str, Any] = {"kind": KIND, "settings": settings}
    if clip is not None:
        header["model"] = clip.name
        header["fingerprint"] = clip.fingerprint
    tensors.save(path, network.state_dict(), header)


def load(path: Path, device: torch.device | str = "cpu", model: str | None = None) -> Trained:
    """A network from its file, in eval mode, in float32.

    model: the CLIP that it stands on, None for the one that the file names.

    Raises InputError for a file that is broken or lacks something, MismatchError for a file of another
    kind or another CLIP, ModelError where the CLIP is not at hand.
    """
    header, content = artefacts.load(path, KIND, None, "train the segmenter again")
    settings, clip = header["settings"], None
    if settings.get("architecture") == "clip":
        clip = clips.load(model, device, torch.float32, header.get("model"))
        tensors.check_fingerprint(header, clip.name, clip.fingerprint, path)
    elif model is not None:
        raise UsageError(f"{path} stands on no CLIP; leave out --model")
    with artefacts.reading(path, "segmenter"):
        names, short_side = tuple(settings["names"]), int(settings["short_side"])
        with torch.random.fork_rng(devices=[]):
            network = build(settings["architecture"], len(names), clip)
        network.load_state_dict(content)
    network = network.eval().requires_grad_(False).to(device)
    network = network.to(memory_format=torch.channels_last)
    return Trained(
        network, settings["architecture"], names, short_side, header.get("model"),
        header.get("fingerprint"), tensors.fingerprint(content),
    )  # fmt: skip


# --- use ----------------------------------------------------------------------------------------------
@torch.no_grad()
def rows(
    network: Network,
    rgb: NDArray[np.uint8],
    short_side: int,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    run: Callable[[Tensor], Iterable[Tensor]] | None = None,
) -> Rows:
    """The class logits (K, stop - start, W) of any rows of an image, uint8 (H, W, 3), as
    `class_maps.label_blocks` takes them: their mean over the scales, and over the mirror images.

    run: what shows the network pixels (B, 3, h, w) in pieces, None for the network itself.
    """
    device = next(network.parameters()).device
    image = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].to(device)
    height, width = rgb.shape[:2]
    scores: list[Tensor] = []
    for scale in scales:
        size = working_size((height, width), scale * short_side, network.multiple)
        pixels = image.float() / 255
        if size != (height, width):
            pixels = interpolate(pixels, size, mode="bilinear", antialias=True)
        views = torch.cat([pixels, pixels.flip(3)]) if flip else pixels
        logits = (network(views) if run is None else torch.cat([*run(views)])).float()
        scores.append(logits[0])
        if flip:
            scores.append(logits[1].flip(2))

    def of(start: int, stop: int) -> Tensor:
        total = upsample_rows(scores[0], (height, width), start, stop)
        for other in scores[1:]:
            total = total + upsample_rows(other, (height, width), start, stop)
        return total / len(scores)

    return of
