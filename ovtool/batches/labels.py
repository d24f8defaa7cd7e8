"""Batches of labelled images for trainings on labels: a function of (seed, step) alone.

Images are squares of `side` pixels, whole or, with a `scale` below 1, random crops; each second one is
mirrored. A crop has the labels of its whole image, as published, though it may not show them all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ovtool.batches import epochs, readable
from ovtool.batches.kept import KeptImages, Rgb
from ovtool.batches.pairs import random_box
from ovtool.batches.readable import Check, Expected
from ovtool.formats import images as image_files
from ovtool.formats.image_labels import Labelled, LabelledImage


def readable_labels(labels: Labelled, check: Check) -> Labelled:
    """The labels of the images that can be read. Raises InputError where none can."""
    expected = [Expected(image.item) for image in labels.images]
    broken = readable.names(check.failures(expected, labels.source))
    images = tuple(image for image in labels.images if image.item.name not in broken)
    return replace(labels, images=images)


@dataclass(frozen=True, eq=False)
class LabelBatch:
    """rgb: uint8 (B, side, side, 3). labels: bool (B, C). rows: int64 (B,), the images' places in the
    list. mirrored: bool (B,)."""

    rgb: Tensor
    labels: Tensor
    rows: Tensor
    mirrored: Tensor


@dataclass(frozen=True, eq=False)
class LabelBatches:
    """Batch `step` of a training: epochs of all images in a new order each. A batch is never larger
    than the set.

    scale: the least share of an image that a crop shows; at 1 images are whole.
    """

    labels: Labelled
    side: int
    batch_size: int
    seed: int
    scale: float = 1.0
    _kept: KeptImages = field(default_factory=KeptImages)

    @property
    def images(self) -> Sequence[LabelledImage]:
        """The images."""
        return self.labels.images

    @property
    def per_epoch(self) -> int:
        """The number of steps in which every image is seen at most once."""
        return max(1, len(self.images) // self.size)

    @property
    def size(self) -> int:
        """The number of images in a batch."""
        return min(self.batch_size, len(self.images))

    def __getitem__(self, step: int) -> LabelBatch:
        rows = epochs.of_step(step, len(self.images), self.size, self.seed)
        rng = np.random.default_rng([self.seed, 3, step])
        mirrored = torch.from_numpy(rng.random(len(rows)) < 0.5)
        return self.of_rows(rows, mirrored, rng)

    def of_rows(
        self,
        rows: Sequence[int],
        mirrored: Tensor | None = None,
        rng: np.random.Generator | None = None,
    ) -> LabelBatch:
        """Some images, whole where there is no `rng`."""
        mirrored = torch.zeros(len(rows), dtype=torch.bool) if mirrored is None else mirrored
        rgb = torch.stack([torch.from_numpy(self._square(row, rng)) for row in rows])
        rgb = torch.where(mirrored.view(-1, 1, 1, 1), rgb.flip(2), rgb)
        return LabelBatch(rgb, self.label_rows(rows), torch.tensor(list(rows)), mirrored)

    def label_rows(self, rows: Sequence[int]) -> Tensor:
        """The labels of some images, bool (B, C), columns in the order of the categories."""
        place = {category.id: k for k, category in enumerate(self.labels.categories)}
        labels = torch.zeros(len(rows), len(place), dtype=torch.bool)
        for index, row in enumerate(rows):
            labels[index, [place[category_id] for category_id in self.images[row].category_ids]] = (
                True
            )
        return labels

    def _square(self, row: int, rng: np.random.Generator | None) -> Rgb:
        """An image, or with `rng` and a scale below 1 a crop of it, brought to a square."""
        if rng is not None and self.scale < 1:
            rgb = image_files.read_rgb(self.images[row].item.path)
            whole = (0, 0, rgb.shape[0], rgb.shape[1])
            top, left, bottom, right = random_box(rng, whole, (self.scale, 1.0))
            return _resized(rgb[top:bottom, left:right], self.side)
        path = self.images[row].item.path
        return self._kept.of(row, lambda: _resized(image_files.read_rgb(path), self.side))


def _resized(rgb: Rgb, side: int) -> Rgb:
    if rgb.shape[:2] == (side, side):
        return rgb.copy()
    pixels = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None]
    square = interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)
    return np.ascontiguousarray(square[0].permute(1, 2, 0).numpy())
