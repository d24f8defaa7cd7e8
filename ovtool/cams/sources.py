"""Where activation maps come from, behind one Protocol: an image and its labels to a map for each label.

Networks share how they see an image (`NetworkMaps`): at several scales, mirrored too, and merged. Maps
of files (`GivenFiles`) and maps spread along attention (`Spread`) are sources as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from ovtool.errors import InputError
from ovtool.formats import coco, given_maps
from ovtool.formats.image_labels import Labelled
from ovtool.formats.images import ImageItem
from ovtool.inputs import category_texts
from ovtool.methods import activation_maps, attention_affinity
from ovtool.settings.cam import Gradcam, PaclMaps

if TYPE_CHECKING:  # loaded where it is used: bad arguments need not wait for it
    from ovtool.models.classifier import Classifier
    from ovtool.models.clip import Clip
    from ovtool.models.mask_generator import Generator

GRADCAM: Mapping[str, str] = {"sentence": category_texts.SHARP}  # published


class Source(Protocol):
    """Where the maps of an image come from."""

    def __call__(self, item: ImageItem, rgb: Tensor, category_ids: Sequence[int]) -> Tensor:
        """The maps of an image for some categories.

        Args:
            item: The image.
            rgb: Its pixels, uint8 (H, W, 3), on the CPU.
            category_ids: Of K categories.

        Returns:
            float32 (K, h, w) in [0, 1], on any grid over the image.

        Raises:
            InputError: The maps of this image cannot be had.
        """
        ...


# --- by a network ---------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Network:
    """A network that gives maps.

    Attributes:
        prepare: An image, uint8 (H, W, 3) on the CPU, and a scale, to what the network takes,
            (1, 3, h', w').
        maps: That, and the indices of K categories, to raw maps (K, h, w) from 0 on, on the network's grid.
    """

    prepare: Callable[[Tensor, float], Tensor]
    maps: Callable[[Tensor, Sequence[int]], Tensor]


@dataclass(frozen=True, eq=False)
class NetworkMaps:
    """The maps of a network, as a source.

    Attributes:
        network: Gives raw maps.
        categories: Of the network's classes, in their order.
        scales: At which an image is seen.
        flip: Whether its mirror image is seen too.
    """

    network: Network
    categories: Sequence[coco.Category]
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __call__(self, item: ImageItem, rgb: Tensor, category_ids: Sequence[int]) -> Tensor:
        """The maps of an image; see `Source`."""
        place = {category.id: k for k, category in enumerate(self.categories)}
        return maps_of(
            self.network, rgb, [place[number] for number in category_ids], self.scales, self.flip
        )


@torch.no_grad()
def maps_of(
    network: Network,
    rgb: Tensor,
    classes: Sequence[int],
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> Tensor:
    """The maps of an image over all its views.

    Args:
        network: Gives raw maps.
        rgb: The image, uint8 (H, W, 3).
        classes: The indices of K classes.
        scales: At which it is seen.
        flip: Whether its mirror image is seen too.

    Returns:
        float32 (K, h, w) in [0, 1], on the grid of the first scale. A constant map is 0 everywhere.
    """
    views: list[Tensor] = []
    for scale in scales:
        pixels = network.prepare(rgb, scale)
        views.append(network.maps(pixels, classes).float())
        if flip:
            views.append(network.maps(pixels.flip(3), classes).float().flip(2))
    if len(views) == 1:
        return activation_maps.min_max(views[0])
    return activation_maps.merged(views, (views[0].shape[1], views[0].shape[2]))


def gradcam(clip: Clip, labels: Labelled, settings: Gradcam) -> tuple[Network, tuple[str, ...]]:
    """CLIP-ES's GradCAM, and the background words that compete in its softmax.

    Args:
        clip: The model.
        labels: The images and classes.
        settings: With the sentence settled (`GRADCAM`).

    Raises:
        UsageError: No word competes with the one label of an image.
    """
    from ovtool.models import gradcam as tower

    sentence = settings.sentence or category_texts.SHARP
    words = category_texts.background_words(clip, labels, settings.background)
    text = category_texts.embed(clip, labels.categories, sentence)
    competing = category_texts.embed_words(clip, words, sentence) if words else text[:0]

    def maps(pixels: Tensor, classes: Sequence[int]) -> Tensor:
        texts = torch.cat([text[list(classes)], competing])
        raw: Tensor = tower.maps(clip, pixels, texts, len(classes))
        return raw

    return Network(_as_seen_by(clip, settings.short_side), maps), words


def pacl(clip: Clip, labels: Labelled, settings: PaclMaps) -> Network:
    """The patch weights of a PACL head, each class's own. Raises UsageError, InputError."""
    from ovtool.methods import patch_alignment
    from ovtool.models import pacl as heads

    head = heads.load(settings.pacl, clip)
    text = category_texts.embed(clip, labels.categories)

    def maps(pixels: Tensor, classes: Sequence[int]) -> Tensor:
        patches: Tensor = heads.patch_features(clip, head, pixels)[0]  # (h, w, D)
        flat = patches.flatten(0, 1).expand(len(classes), -1, -1)
        weights: Tensor = patch_alignment.patch_weights(flat, text[list(classes)], head.pooling)
        height, width = patches.shape[:2]
        return weights.reshape(len(classes), height, width)

    return Network(_as_seen_by(clip, settings.short_side), maps)


def generator(network: Generator) -> Network:
    """The maps of a mask generator."""
    return Network(network.view, lambda pixels, classes: network(pixels)[0, list(classes)])


def classifier(network: Classifier) -> Network:
    """The classic maps of a classifier."""

    def maps(pixels: Tensor, classes: Sequence[int]) -> Tensor:
        weights: Tensor = network.weights[list(classes)]
        return activation_maps.class_maps(network.features(pixels), weights)[0]

    return Network(network.view, maps)


def _as_seen_by(clip: Clip, short_side: int | None) -> Callable[[Tensor, float], Tensor]:
    from ovtool.models import dense_scores

    base = short_side or 2 * clip.image_size

    def prepare(rgb: Tensor, scale: float) -> Tensor:
        return dense_scores.prepare(clip, rgb, max(clip.patch_size, round(scale * base)))

    return prepare


# --- by files, and after other sources -------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class GivenFiles:
    """Maps of any other program, a file for each image.

    Attributes:
        files: File name of the image to the file of its maps.
        categories: All categories, for files that hold a map for each of them.
    """

    files: Mapping[str, Path]
    categories: Sequence[coco.Category]

    @classmethod
    def of(cls, folder: Path, labels: Labelled) -> GivenFiles:
        """Finds the files. Raises InputError where an image has none."""
        names = [item.name for item in labels.items]
        return cls(given_maps.find(folder, names), labels.categories)

    def __call__(self, item: ImageItem, rgb: Tensor, category_ids: Sequence[int]) -> Tensor:
        """The maps of an image; see `Source`."""
        path = self.files[item.name]
        try:
            return given_maps.read(path, tuple(category_ids), tuple(self.categories))
        except InputError as error:  # what is written names no folder of this machine
            raise InputError(str(error).replace(str(path), path.name)) from None


@dataclass(frozen=True, eq=False)
class Spread:
    """Class-aware attention affinity after any source (`methods.attention_affinity`).

    Attributes:
        source: Gives the maps that are spread.
        clip: Whose attention is read.
        short_side: Of the image when attention is read, None as for GradCAM.
        threshold: Of the maps, for the boxes outside of which nothing flows.
    """

    source: Source
    clip: Clip
    short_side: int | None = None
    threshold: float = attention_affinity.BOX_THRESHOLD

    def __call__(self, item: ImageItem, rgb: Tensor, category_ids: Sequence[int]) -> Tensor:
        """Maps brought to the CLIP's grid and spread; see `Source`."""
        from ovtool.models import attention, towers

        maps = self.source(item, rgb, category_ids)
        pixels = _as_seen_by(self.clip, self.short_side)(rgb, 1.0)
        grid = towers.grid_size(pixels, self.clip.patch_size)
        maps = activation_maps.resized(maps, grid)
        mean = attention.mean_attention(self.clip, pixels)
        return activation_maps.min_max(attention_affinity.refine(maps, mean, self.threshold))
