"""An image of a probe as the image tower sees it: whole or in windows, with a class for each patch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.methods import patch_labels, windows
from ovtool.methods.patch_labels import PatchLabels
from ovtool.models import dense_scores
from ovtool.models.dense_scores import DenseSettings

if TYPE_CHECKING:  # it imports open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip


@dataclass(frozen=True)
class Shown:
    """What the tower sees of an image.

    crops: normalised (n, 3, wh, ww), the windows, or the whole image. labels: of the patches of the
    whole image, (h, w). places: int64 (n, wh / P, ww / P), the patch of the image, from 0 in row
    order, that each patch of a window is.
    """

    crops: Tensor
    labels: PatchLabels
    places: Tensor


def shown(clip: Clip, rgb: NDArray[np.uint8], labels: Tensor, settings: DenseSettings) -> Shown:
    """An image uint8 (H, W, 3), labels int64 (H, W); settings: as `settled`, of one view."""
    pixels = dense_scores.prepare(clip, torch.from_numpy(rgb), settings.short_side)
    size, patch = (pixels.shape[2], pixels.shape[3]), clip.patch_size
    found = patch_labels.majority(patch_labels.resized(labels, size), patch)
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
    return Shown(cut.scores, found, torch.stack(places))
