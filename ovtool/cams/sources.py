"""Where maps come from: a source shows an image to its network at some size and gives a map a class.

Scales and mirrored images are the same for all sources (`maps_of`), and so is the affinity after them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ovtool.formats.image_labels import Labelled
from ovtool.inputs import category_texts
from ovtool.methods import activation_maps

if TYPE_CHECKING:  # it imports open_clip, for which bad arguments need not wait
    from ovtool.models.classifier import Classifier
    from ovtool.models.clip import Clip
    from ovtool.models.mask_generator import Generator


@dataclass(frozen=True)
class Views:
    """How often an image is seen: at each of `scales`, and each time mirrored too with `flip`."""

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False


@dataclass(frozen=True, eq=False)
class Source:
    """A network that gives maps.

    show: an image, uint8 (H, W, 3) on the CPU, and a scale, to what the network takes, (1, 3, h', w').
    maps: that, and the indices of K categories, to raw maps (K, h, w) from 0 on, on the network's grid.
    """

    show: Callable[[Tensor, float], Tensor]
    maps: Callable[[Tensor, Sequence[int]], Tensor]


@torch.no_grad()
def maps_of(source: Source, rgb: Tensor, classes: Sequence[int], views: Views) -> Tensor:
    """The maps of an image, uint8 (H, W, 3), for some categories: float32 (K, h, w) in [0, 1], on the grid
    of the first scale. A constant map is 0 everywhere."""
    found: list[Tensor] = []
    for scale in views.scales:
        pixels = source.show(rgb, scale)
        found.append(source.maps(pixels, classes).float())
        if views.flip:
            found.append(source.maps(pixels.flip(3), classes).float().flip(2))
    if len(found) == 1:
        return activation_maps.min_max(found[0])
    return activation_maps.merged(found, (found[0].shape[1], found[0].shape[2]))


# --- by a CLIP alone ----------------------------------------------------------------------------------
def gradcam(
    clip: Clip, labels: Labelled, background: str | None, sentence: str, short_side: int | None
) -> tuple[Source, tuple[str, ...]]:
    """CLIP-ES's GradCAM, and the background words that compete in its softmax. Raises UsageError."""
    from ovtool.models import gradcam as tower

    words = category_texts.background_words(clip, labels, background)
    text = category_texts.embed(clip, labels.categories, sentence)
    competing = category_texts.embed_words(clip, words, sentence) if words else text[:0]

    def maps(pixels: Tensor, classes: Sequence[int]) -> Tensor:
        chosen = torch.cat([text[list(classes)], competing])
        return tower.maps(clip, pixels, chosen, len(classes))

    return Source(_shown_to(clip, short_side), maps), words


def pacl(clip: Clip, labels: Labelled, head_file: Path, short_side: int | None) -> Source:
    """The patch weights of a PACL head, each class's own. Raises UsageError, InputError."""
    from ovtool.methods import patch_alignment
    from ovtool.models import pacl as heads

    head = heads.load(head_file, clip)
    text = category_texts.embed(clip, labels.categories)

    def maps(pixels: Tensor, classes: Sequence[int]) -> Tensor:
        patches = heads.patch_features(clip, head, pixels)[0]  # (h, w, D)
        flat = patches.flatten(0, 1).expand(len(classes), -1, -1)
        weights = patch_alignment.patch_weights(flat, text[list(classes)], head.pooling)
        grid: tuple[int, int] = (patches.shape[0], patches.shape[1])
        spread: Tensor = weights.unflatten(1, grid)
        return spread

    return Source(_shown_to(clip, short_side), maps)


def _shown_to(clip: Clip, short_side: int | None) -> Callable[[Tensor, float], Tensor]:
    from ovtool.models import dense_scores

    base = short_side or 2 * clip.image_size

    def show(rgb: Tensor, scale: float) -> Tensor:
        return dense_scores.prepare(clip, rgb, max(clip.patch_size, round(scale * base)))

    return show


# --- by a network that was trained on the labels ----------------------------------------------------------
def generator(network: Generator) -> Source:
    """The maps of a mask generator."""

    def maps(pixels: Tensor, classes: Sequence[int]) -> Tensor:
        raw: Tensor = network(pixels)
        return raw[0, list(classes)]

    return Source(lambda rgb, scale: network.shown(rgb, scale), maps)


def classifier(network: Classifier) -> Source:
    """The classic maps of a classifier."""

    def maps(pixels: Tensor, classes: Sequence[int]) -> Tensor:
        features = network.features(pixels)
        raw: Tensor = activation_maps.class_maps(features, network.weights[list(classes)])
        return raw[0]

    return Source(lambda rgb, scale: network.shown(rgb, scale), maps)


# --- after them ---------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Affinity:
    """Class-aware attention affinity after any source (`methods.attention_affinity`).

    short_side: of the image when attention is read, None as for GradCAM. threshold: of the maps, for the
    boxes outside of which nothing flows; None is the method's own.
    """

    clip: Clip
    short_side: int | None = None
    threshold: float | None = None

    def __call__(self, rgb: Tensor, maps: Tensor) -> Tensor:
        """Maps (K, h, w) in [0, 1] brought to the CLIP's grid and spread: (K, h', w') in [0, 1]."""
        from ovtool.methods import attention_affinity
        from ovtool.models import attention, towers

        pixels = _shown_to(self.clip, self.short_side)(rgb, 1.0)
        grid = towers.grid_size(pixels, self.clip.patch_size)
        resized = interpolate(maps[None], size=grid, mode="bilinear", align_corners=False)[0]
        options = {} if self.threshold is None else {"box_threshold": self.threshold}
        spread = attention_affinity.refine(
            resized, attention.mean_attention(self.clip, pixels), **options
        )
        return activation_maps.min_max(spread)
