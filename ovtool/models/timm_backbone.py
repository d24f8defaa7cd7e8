"""Networks as feature maps: any CNN or plain vision transformer of timm by name, or the stem of `photo`.

Weights are pretrained where timm has them in its local cache, or where `photo` is installed; nothing is fetched from
here, and `say_start` says which it was.
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ovtool.errors import UsageError
from ovtool.methods.pixels import IMAGENET, standardised
from ovtool.models import hub, photo, sources
from ovtool.models.efficientnet import STRIDE

PREFIX = "timm:"
PHOTO = "photo"
_CNN_DIVISOR = 32
_logger = logging.getLogger("ovtool")


class Backbone(nn.Module):
    """A network without its classifier: normalised (B, 3, H, W) to (B, width, h, w).

    name: timm's, or `photo`. size: the side of the images in training, which a transformer's position embeddings are
    made for; other sizes are resampled. pretrained: begin with timm's weights if they are in the cache;
    `is_pretrained` says whether they were, else weights are drawn from `seed`. A CNN's last stage keeps a
    stride of 16 where timm can do that.
    """

    def __init__(self, name: str, size: int, seed: int = 0, *, pretrained: bool = True) -> None:
        super().__init__()
        self.name, self.size = name, size
        self.is_pretrained = pretrained and (
            photo.stem_weights() is not None if name == PHOTO else is_cached(name)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if name == PHOTO:
                self.network: Any = photo.stem(pretrained=self.is_pretrained)
                self.width = int(self.network.conv_head.out_channels)
            else:
                self.network = _create(name, size, self.is_pretrained)
                self.width = int(self.network.num_features)

    @property
    def divisor(self) -> int:
        """What the sides of an image must be multiples of."""
        if self.name == PHOTO:
            return STRIDE
        embed = getattr(self.network, "patch_embed", None)
        return int(embed.patch_size[0]) if embed is not None else _CNN_DIVISOR

    def forward(self, pixels: Tensor) -> Tensor:
        if self.name == PHOTO:
            deep: Tensor = self.network(photo.from_imagenet(pixels))[0]
            return deep
        features: Tensor = self.network.forward_features(pixels)
        if features.ndim == 4:
            is_first = features.shape[1] == self.width  # some networks give (B, h, w, width)
            return features if is_first else features.permute(0, 3, 1, 2)
        patches = features[:, self.network.num_prefix_tokens :]  # (B, h*w, width)
        grid = [side // self.divisor for side in pixels.shape[2:]]
        on_grid: Tensor = patches.transpose(1, 2).unflatten(2, grid)
        return on_grid

    @torch.no_grad()
    def stages(self, pixels: Tensor) -> list[Tensor]:
        """What each stage, or each block of a transformer, gives of normalised (B, 3, H, W): (B, channels, h, w)
        each, of whatever steps the network has."""
        size = [max(1, round(side / self.divisor)) * self.divisor for side in pixels.shape[2:]]
        fitting = interpolate(pixels, size=size, mode="bilinear", antialias=True)
        if self.name == PHOTO:
            return list(self.network.stages(photo.from_imagenet(fitting)))
        maps: list[Tensor] = self.network.forward_intermediates(
            fitting, output_fmt="NCHW", intermediates_only=True
        )
        return maps


def name_of(spec: str) -> str:
    """The timm name in `timm:NAME`, or `photo`. Raises UsageError where timm has no such network."""
    if spec == PHOTO:
        return spec
    from timm.models import is_model

    name = spec.removeprefix(PREFIX)
    if not spec.startswith(PREFIX) or not is_model(name):
        raise UsageError(
            f"no network '{spec}'; give {PREFIX}NAME with a name of timm, such as {PREFIX}resnet18, or {PHOTO}"
        )
    return name


def is_cached(name: str) -> bool:
    """Whether timm's weights of a network are in the hub's local cache."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return False
    return sources.cached_file(config.hf_hub_id, hub.WEIGHTS[:2]) is not None


def say_start(backbone: Backbone) -> None:
    """One line on where a backbone's weights come from, where they are random."""
    if not backbone.is_pretrained:
        _logger.warning(
            "no pretrained weights of %s are in the local cache, so it starts from random ones",
            backbone.name,
        )


def normalise(rgb: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) by ImageNet's mean and deviation."""
    return standardised(rgb.permute(0, 3, 1, 2).float() / 255, *IMAGENET)


def resized(rgb: Tensor, side: int, divisor: int) -> Tensor:
    """An image uint8 (H, W, 3) with its shorter side near `side`, both sides multiples of `divisor`:
    uint8 (1, h, w, 3)."""
    scale = side / min(rgb.shape[:2])
    size = [max(1, round(n * scale / divisor)) * divisor for n in rgb.shape[:2]]
    image = rgb.permute(2, 0, 1)[None]
    if list(image.shape[2:]) != size:
        image = interpolate(image, size=size, mode="bilinear", antialias=True)
    return image.permute(0, 2, 3, 1)


def _create(name: str, size: int, pretrained: bool) -> Any:
    """A network for images of a size: a transformer with embeddings for any, a CNN of stride 16."""
    import timm

    flexible: tuple[dict[str, Any], ...] = (
        {"img_size": size, "dynamic_img_size": True}, {"output_stride": 16}, {},
    )  # fmt: skip
    for options in flexible:
        try:
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
        except (TypeError, NotImplementedError):  # an option that it does not have
            continue
    raise UsageError(f"timm cannot make {name} without a classifier; name another network")
