"""An image of a probe as the image tower sees it: whole or in windows, with a class for each patch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.methods import patch_labels, windows
from ovtool.methods.patch_labels import PatchLabels
from ovtool.models import dense_scores
from ovtool.models.dense_scores import DenseSettings
from ovtool.settings import layers
from ovtool.settings.probe import Alignment, Coherence

if TYPE_CHECKING:  # loaded where it is used: bad arguments need not wait for it
    from ovtool.models.clip import Clip


LAYERED = ("last_block", "short_side", "window", "stride")  # fields that a model may recommend


@dataclass(frozen=True)
class PatchView:
    """What the tower sees of an image.

    Attributes:
        crops: the windows, or the whole image, normalised: (n, 3, wh, ww).
        labels: of the patches of the whole image, (h, w).
        places: int64 (n, wh / P, ww / P), the patch of the image, from 0 in row order, that each patch
            of a window is.
    """

    crops: Tensor
    labels: PatchLabels
    places: Tensor


def settled(clip: Clip, settings: Alignment | Coherence) -> DenseSettings:
    """How images go through the tower, with nothing left to the model."""
    last_block = settings.last_block if isinstance(settings, Alignment) else None
    views = DenseSettings(last_block, settings.short_side, settings.window, settings.stride)
    return views.settled(clip)


def as_data(
    clip: Clip, settings: Alignment | Coherence, views: DenseSettings, contents: Mapping[str, str]
) -> dict[str, Any]:
    """The settings of a probe with what was settled, and where that came from, as plain data.

    Args:
        clip: the model.
        settings: as they were given.
        views: as they were settled.
        contents: field to what stands for the path that it holds.
    """
    data = layers.provenance(settings, contents)
    names = [name for name in LAYERED if name in data]
    origins = dict[str, layers.Origin]()
    for name in names:
        origins[name] = "model" if name in clip.dense else "default"
        if getattr(settings, name) is not None:
            origins[name] = "given"
    return {**data, **{name: getattr(views, name) for name in names}, "origins": origins}


def view(clip: Clip, rgb: NDArray[np.uint8], labels: Tensor, settings: DenseSettings) -> PatchView:
    """An image as the tower sees it.

    Args:
        clip: the model.
        rgb: the image, uint8 (H, W, 3).
        labels: its classes, int64 (H, W).
        settings: as `settled`, of one view.
    """
    pixels = dense_scores.prepare(clip, torch.from_numpy(rgb), settings.short_side)
    size, patch = (pixels.shape[2], pixels.shape[3]), clip.patch_size
    classes = patch_labels.majority(patch_labels.resized(labels, size), patch)
    side = settings.window or max(size)
    (cut,) = windows.score_windows(pixels, side, settings.stride or side, lambda crops: crops)
    height, width = size[0] // patch, size[1] // patch
    numbers = torch.arange(height * width).view(height, width)
    rows, columns = cut.window[0] // patch, cut.window[1] // patch
    places = [
        numbers[top // patch : top // patch + rows, left // patch : left // patch + columns]
        for top in cut.tops
        for left in cut.lefts
    ]
    return PatchView(cut.scores, classes, torch.stack(places))
