"""How likely a region is an object: a small network on the features of regions that `photo` describes.

It is class-agnostic, as the objectness of Alexe et al. (TPAMI 2012) is: what it learns is the IoU of a region with the
nearest true mask. One safetensors file of kind ``objectness`` holds everything but `photo`, whose fingerprint it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from ovtool.errors import MismatchError
from ovtool.formats import tensors
from ovtool.methods.pixels import standardised, working_size
from ovtool.methods.region_features import NAMED, SHAPE, STANDING
from ovtool.models import artefacts, build, photo, sources
from ovtool.models.efficientnet import LITE2, STRIDE

KIND = "objectness"
SHORT_SIDE = 480  # of images as `photo` sees them
COLOUR, TEXTURE, MEANING = 3, LITE2.widths[2], 48  # the widths of the blocks of a vector
THINGS, WORDS = 80, 133  # the first rows of the table, which are COCO's names, things first
BLOCKS = (COLOUR, TEXTURE, MEANING, WORDS)
WEIGHTS = np.repeat(
    np.array([0.6, 0.6, 0.6, 1.2], np.float32), BLOCKS
)  # of a vector, where regions merge
FEATURES = SHAPE + STANDING + 2 * len(BLOCKS) + 2 * (COLOUR + TEXTURE + MEANING) + NAMED


@dataclass(frozen=True, eq=False)
class Sight:
    """What of `photo` sees places of an image.

    Attributes:
        visual: its image tower, of which the blocks are not used.
        words: the embeddings of the first words of its table, times its logit scale, float32 (WORDS, D).
    """

    visual: photo.HybridVisionTransformer
    words: Tensor


@dataclass(frozen=True, eq=False)
class Seen:
    """What is seen of an image of (H, W) pixels.

    Attributes:
        looks: texture and meaning of each pixel, float32 (TEXTURE + MEANING, H, W).
        scores: of each word in each cell of `photo`'s grid, as logits, float32 (WORDS, h, w).
    """

    looks: Tensor
    scores: Tensor


class Objectness(nn.Module):
    """What describes places of an image, and the network that judges regions of them.

    Attributes:
        texture_mean, texture_deviation: of the stem's third stage, (TEXTURE,).
        basis: the directions of the stem's last map that are read, (MEANING, 1280), and `meaning_mean`, (MEANING,),
            what is taken off them before they are brought to length 1.
        mean, deviation: of the features of regions, (FEATURES,).
    """

    texture_mean: Tensor
    texture_deviation: Tensor
    basis: Tensor
    meaning_mean: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.register_buffer("texture_mean", torch.zeros(TEXTURE))
        self.register_buffer("texture_deviation", torch.ones(TEXTURE))
        self.register_buffer("basis", torch.zeros(MEANING, LITE2.last))
        self.register_buffer("meaning_mean", torch.zeros(MEANING))
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("deviation", torch.ones(FEATURES))
        self.layers = nn.Sequential(
            nn.Linear(FEATURES, hidden), nn.GELU(), nn.Dropout(0.3),
            nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(0.3),
            nn.Linear(hidden, 1),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """Features of regions, (N, FEATURES), to the logits of their IoU with an object, (N,)."""
        logits: Tensor = self.layers((features - self.mean) / self.deviation)[:, 0]
        return logits

    def maps(self, third: Tensor, deep: Tensor) -> tuple[Tensor, Tensor]:
        """The stem's third stage (B, TEXTURE, h, w) and last map (B, 1280, h', w') as texture and meaning. Two
        places are about 1 apart in texture, and at most 2.8 in meaning."""
        texture = (third - self.texture_mean[:, None, None]) / self.texture_deviation[:, None, None]
        read = torch.einsum("bchw,kc->bkhw", deep, self.basis) - self.meaning_mean[:, None, None]
        return texture / (2 * TEXTURE) ** 0.5, normalize(read, dim=1) * 2**0.5


def pixels_of(rgb: Tensor) -> Tensor:
    """An image uint8 (H, W, 3) as the stem takes it: (1, 3, h, w), sides multiples of 16."""
    size = working_size((rgb.shape[0], rgb.shape[1]), SHORT_SIDE, STRIDE, longest=4)
    pixels = rgb.permute(2, 0, 1)[None].float() / 255
    pixels = interpolate(pixels, size, mode="bilinear", antialias=True)
    return standardised(pixels, photo.MEAN, photo.DEVIATION)


@torch.no_grad()
def describe(sight: Sight, network: Objectness, rgb: Tensor) -> Seen:
    """What is seen of an image, uint8 (H, W, 3)."""
    visual = sight.visual
    third = visual.stem.third_stage(pixels_of(rgb).to(network.mean.device))
    deep, local = visual.stem.after_third(third)
    looks = [interpolate(m, rgb.shape[:2], mode="bilinear")[0] for m in network.maps(third, deep)]
    answers = normalize(visual.ln_post(visual.patch_embed(deep, local)) @ visual.proj, dim=-1)
    scores = (sight.words @ answers[0].T).unflatten(1, deep.shape[2:])
    return Seen(torch.cat(looks).cpu(), scores.cpu())


def bundled() -> Path:
    """Where the weights for `photo` lie, if they do."""
    return sources.bundled_folder() / "photo_objectness.safetensors"


def save(path: Path, network: Objectness, fingerprint: str, settings: Mapping[str, Any]) -> None:
    """Writes a file of kind `objectness`, in float16, for the `photo` of a fingerprint."""
    halved = {name: value.half() for name, value in network.state_dict().items()}
    header = {"kind": KIND, "photo": fingerprint, "settings": settings}
    tensors.save(path, halved, header)


def load(path: Path, device: torch.device) -> tuple[Sight, Objectness, str]:
    """What the bundled `photo` sees, the network of a file, and the digest of the latter.

    Raises:
        ModelError: the bundled model is not installed.
        InputError: the file is broken.
        MismatchError: it belongs to another model.
    """
    files = sources.bundled("photo")
    header, content = tensors.load(path, KIND)
    if header.get("photo") != tensors.read_header(files.weights).get("fingerprint"):
        raise MismatchError(f"{path.name} belongs to another 'photo'; install ovtool again")
    model: Any = build.network(files.config, files.weights)
    with artefacts.reading(path, "network"):
        network = Objectness(len(content["layers.0.weight"]))
        network.load_state_dict({name: value.float() for name, value in content.items()})
    for part in (model, network):
        part.eval().requires_grad_(False).to(device)
    return sight(model), network, tensors.fingerprint(content)


def sight(model: photo.Photo) -> Sight:
    """What a `photo` sees."""
    visual: Any = model.visual
    return Sight(visual, normalize(model.word_table[:WORDS], dim=1) * model.logit_scale.exp())
