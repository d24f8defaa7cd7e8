"""Random crops of images with the maps of their classes: what is learned from maps is learned on these.

Which images a step has, and how each is cut, is a function of (seed, step) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ovtool.batches import epochs, readable
from ovtool.batches.kept import KeptImages
from ovtool.batches.pairs import held_out_ids, random_box, require_files
from ovtool.batches.readable import Check
from ovtool.errors import InputError
from ovtool.formats import cams as maps_file
from ovtool.formats import file_matching, tensors
from ovtool.formats import images as image_files
from ovtool.formats.cams import CamImage, Cams
from ovtool.formats.file_matching import path_of
from ovtool.formats.images import ImageItem
from ovtool.training.run import Failure

SCALE = (0.08, 1.0)  # of the area, of a random resized crop, as published


@dataclass(frozen=True, eq=False)
class CropBatch:
    """Crops of images, and the pairs of a crop and a class that its image is labelled with.

    Attributes:
        pixels: uint8 (B, S, S, 3).
        owners: int64 (P,), the crop's row.
        classes: int64 (P,), the index of the class.
        maps: float32 (P, S, S) in [0, 1].
    """

    pixels: Tensor
    owners: Tensor
    classes: Tensor
    maps: Tensor

    def of_rows(self, rows: range) -> CropBatch:
        """Some crops of the batch that follow each other."""
        inside = (self.owners >= rows.start) & (self.owners < rows.stop)
        return CropBatch(
            self.pixels[rows.start : rows.stop],
            self.owners[inside] - rows.start,
            self.classes[inside],
            self.maps[inside],
        )


def items_of(cams: Cams, folder: Path, source: str) -> list[ImageItem]:
    """The images that maps are of, below a folder; one that cannot be read is among them.

    Raises InputError where they are not there, MismatchError where one has another size.
    """
    items = _located(cams, folder, source)
    sizes = {image.file_name: (image.height, image.width) for image in cams.images}
    for item in items:
        with suppress(InputError):  # the run finds it broken too, and lists it
            sizes[item.name] = image_files.read_size(item.path)
    maps_file.check_images(cams, sizes, source)
    return items


def readable_maps(
    cams: Cams, folder: Path, source: str, check: Check
) -> tuple[Cams, tuple[Failure, ...]]:
    """The maps of images that can be read and have their size, and the other images, with reasons.

    Raises InputError where images are not there, or none of them can be read.
    """
    _located(cams, folder, source)
    failures = check.failures(readable.expected(cams.images, folder), source, "maps")
    broken = readable.names(failures)
    images = tuple(image for image in cams.images if image.file_name not in broken)
    read = {image.id: partial(cams.maps.__getitem__, image.id) for image in images}
    return replace(cams, images=images, maps=tensors.Anew(read)), failures


def _located(cams: Cams, folder: Path, source: str) -> list[ImageItem]:
    """The images of maps, where they should be. Raises InputError where they are not."""
    file_matching.folder_of(folder, source)
    items = [ImageItem(path_of(folder, image.file_name), image.file_name) for image in cams.images]
    require_files([item.path for item in items], folder, source)
    return items


def constant_maps(cams: Cams) -> int:
    """How many of the maps have one value everywhere, and so say nothing."""
    return sum(
        int((maps.amax((1, 2)) == maps.amin((1, 2))).sum())
        for maps in cams.maps.values()
        if len(maps)
    )


def held_out(cams: Cams, seed: int, share: float) -> frozenset[int]:
    """The ids of the images with maps that are kept for validation; none of fewer than ten."""
    return held_out_ids([image.id for image in cams.images if image.category_ids], seed, share)


@dataclass(frozen=True, eq=False)
class CamBatches:
    """Batch `step` of a training, from 0 on: epochs of all images with maps in a new order, without the
    rest that fills no batch. Crops are squares.

    Attributes:
        cams: the maps.
        folder: where the file names of their images start.
        batch_size: images of a step.
        side: of a crop, in pixels.
        seed: of orders and crops.
        scale: the least share of an image in a random resized crop, which may be mirrored; with 1 the
            whole image, always the same.
        left_out: ids of images that are not shown.
    """

    cams: Cams
    folder: Path
    batch_size: int
    side: int
    seed: int
    scale: float = SCALE[0]
    left_out: frozenset[int] = frozenset()
    _kept: KeptImages = field(default_factory=KeptImages)

    @property
    def images(self) -> Sequence[CamImage]:
        """The images that have a map."""
        return [
            image
            for image in self.cams.images
            if image.category_ids and image.id not in self.left_out
        ]

    def drawn(self, step: int) -> list[int]:
        """Which images a step has."""
        return epochs.of_step(step, len(self.images), self.batch_size, self.seed)

    def __getitem__(self, step: int) -> CropBatch:
        return self.of(self.drawn(step), np.random.default_rng([self.seed, 3, step]))

    def of(self, numbers: Sequence[int], rng: np.random.Generator) -> CropBatch:
        """Some images, each cut anew."""
        index = {category.id: place for place, category in enumerate(self.cams.categories)}
        images = self.images
        pixels = torch.empty(len(numbers), self.side, self.side, 3, dtype=torch.uint8)
        owners, classes, masks = [], [], []
        for row, number in enumerate(numbers):
            image = images[number]
            pixels[row], maps = self._crop(image, rng)
            masks.append(maps)
            owners += [row] * len(maps)
            classes += [index[category_id] for category_id in image.category_ids]
        return CropBatch(pixels, torch.tensor(owners), torch.tensor(classes), torch.cat(masks))

    def _crop(self, image: CamImage, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        path, maps = path_of(self.folder, image.file_name), self.cams.of(image.id)
        rgb = self._kept.of(path, lambda: image_files.read_rgb(path))
        top, left, bottom, right = (0, 0, image.height, image.width)
        is_mirrored = False
        if self.scale < 1:
            box = (top, left, bottom, right)
            top, left, bottom, right = random_box(rng, box, (self.scale, SCALE[1]))
            is_mirrored = rng.random() < 0.5
        whole = interpolate(maps[None], (image.height, image.width), mode="bilinear")[0]
        cut = torch.from_numpy(rgb[top:bottom, left:right].copy()).permute(2, 0, 1).float()
        size = (self.side, self.side)
        crop = interpolate(cut[None], size, mode="bicubic", antialias=True)[0]
        mask = interpolate(whole[None, :, top:bottom, left:right], size, mode="bilinear")[0]
        if is_mirrored:
            crop, mask = crop.flip(-1), mask.flip(-1)
        return crop.round().clamp(0, 255).byte().permute(1, 2, 0), mask.clamp(0, 1)
