"""How well a head's patches are named, on images with semantic masks that no training has seen.

Images are shown as `segment --method patch` shows them, each with its own words where the data set
lists them, else with all categories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.batches import readable
from ovtool.batches.readable import LENIENT, Check, Expected
from ovtool.datasets import registry
from ovtool.errors import InputError
from ovtool.formats.images import ImageItem
from ovtool.inputs import embedded_words, truths
from ovtool.inputs.embedded_words import EmbeddedWords
from ovtool.inputs.truths import Probed
from ovtool.methods import class_maps, metrics, patch_labels
from ovtool.models import dense_scores
from ovtool.models.dense_scores import DenseSettings

if TYPE_CHECKING:  # loaded where they are used: bad arguments need not wait for them
    from ovtool.models.clip import Clip
    from ovtool.models.pacl import Head

IMAGES = 64  # at most
BATCH_SIZE = 8  # windows at once
IGNORED = patch_labels.IGNORED


@dataclass(frozen=True, eq=False)
class Validation:
    """Images with their truth, and the words that compete in them."""

    probed: Probed
    items: tuple[ImageItem, ...]
    embedded: EmbeddedWords

    @torch.no_grad()
    def measure(self, clip: Clip, head: Head) -> dict[str, float]:
        """`patch_accuracy`, the share of patches with one label on more than half of their pixels that
        get it, over all windows, and `miou`; both in [0, 1]."""
        settings = DenseSettings().settled(clip, head)
        count = len(self.probed.words.classes)
        right = patches = 0
        total = np.zeros((count, count + 1), np.int64)
        for item in self.items:
            rgb, labels = self.probed.read(item)
            text, owner = self.embedded.of_image(item.name)
            competing = torch.tensor(self.probed.words.of_image(item.name))
            encode = dense_scores.encoder(clip, None, BATCH_SIZE, head)
            cosines = dense_scores.word_cosines(clip, torch.from_numpy(rgb), text, settings, encode)
            scores = class_maps.class_scores(cosines.scores, owner, dim=1)
            named = competing[scores.argmax(1).cpu()]  # (windows, h, w)
            whole = patch_labels.majority(
                patch_labels.resized(labels, cosines.size), clip.patch_size
            )
            true = _of_windows(whole.counted(), cosines.tops, cosines.lefts, cosines.window, clip)
            right += int((named == true)[true >= 0].sum())
            patches += int((true >= 0).sum())
            size = (labels.shape[0], labels.shape[1])
            rows = dense_scores.rows(cosines, size)
            best = class_maps.label_blocks(
                partial(_class_scores, rows, owner), size, len(competing)
            )
            total += metrics.confusion(competing[best.label.long()], labels, count, IGNORED)
        miou = metrics.scores(total).miou_truth
        return {"patch_accuracy": round(right / max(1, patches), 6), "miou": round(miou, 6)}


def _class_scores(
    rows: Callable[[int, int], Tensor], owner: Sequence[int], start: int, stop: int
) -> Tensor:
    """The scores of classes in some rows of an image."""
    return class_maps.class_scores(rows(start, stop), owner)


def _of_windows(
    grid: Tensor, tops: Sequence[int], lefts: Sequence[int], window: tuple[int, int], clip: Clip
) -> Tensor:
    """The part of a grid of patches (h, w) that each window shows: (windows, wh, ww)."""
    patch = clip.patch_size
    height, width = window[0] // patch, window[1] // patch
    starts = [(top // patch, left // patch) for top in tops for left in lefts]
    return torch.stack([grid[y : y + height, x : x + width] for y, x in starts])


def _size(labels: NDArray[np.int32]) -> tuple[int, int]:
    return labels.shape[0], labels.shape[1]


def load(
    spec: str,
    held_out: Sequence[ImageItem],
    clip: Clip,
    templates: str = "one",
    check: Check = LENIENT,
) -> Validation | None:
    """The validation on images of a data set, `IMAGES` of them at most; None without images or masks.

    Args:
        spec: The name of the data set.
        held_out: Its images that are not trained on.
        clip: Embeds the words.
        templates: The sentences around them.
        check: How images are compared in size with their masks; those that differ are left out.

    Raises:
        InputError: Every image has another size than its masks.
    """
    if not held_out or not registry.is_name(spec) or Path(spec).exists():
        return None
    try:
        probed = truths.open_probed(spec)
    except InputError:  # no masks
        return None
    some = held_out[:: max(1, len(held_out) // IMAGES)][:IMAGES]
    expected = [Expected(item, _size(probed.labels.decode(item.name))) for item in some]
    broken = readable.names(check.failures(expected, f"the validation on {spec}", "masks"))
    some = [item for item in some if item.name not in broken]
    return Validation(probed, tuple(some), embedded_words.of(clip, probed.words, templates))
