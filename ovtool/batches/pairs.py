"""Pairs of a mask and a noun, read from any COCO JSON with masks and names, as batches of masked crops.

Which pairs a step has, and how each crop is cut, is a function of (seed, step) alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ovtool.batches import epochs, readable
from ovtool.batches.kept import KeptImages, Rgb
from ovtool.batches.readable import LENIENT, Check
from ovtool.datasets import registry
from ovtool.errors import InputError
from ovtool.formats import atomic, coco, learnable, parts, rle
from ovtool.formats import images as image_files
from ovtool.formats.file_matching import path_of
from ovtool.methods.masked_crops import bicubic, nearest, tight_boxes
from ovtool.methods.pixels import Triple, standardised
from ovtool.training.run import Failure

HELD_OUT = 0.05  # of the images, for validation
RATIOS = (3 / 4, 4 / 3)  # of the random resized crop, as torchvision has them
_ATTEMPTS = 10


@dataclass(frozen=True)
class Pair:
    """A mask on an image, and the index of its noun."""

    image: coco.Image
    mask: rle.Rle
    noun: int


@dataclass(frozen=True)
class Pairs:
    """The pairs of a file, split by image, in the file's order.

    Attributes:
        source: the file, or the data set.
        folder: where the file names of the images start.
        nouns: the names of masks.
        train: the pairs to learn from.
        held_out: those of the validation.
        digest: of images, masks and names.
        failures: images that cannot be read or have another size than their masks, with reasons.
    """

    source: str
    folder: Path
    nouns: tuple[str, ...]
    train: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    digest: str
    failures: tuple[Failure, ...] = ()


def read(
    source: str, images: Path | None, seed: int, held_out: float = HELD_OUT, check: Check = LENIENT
) -> Pairs:
    """The pairs of a COCO JSON, a folder of parts, or a data set `NAME[:SPLIT]` with masks; those of images
    that cannot be read are left out.

    Args:
        source: the file, the folder or the data set.
        images: the folder of the images, by default that of the data set, or the one that the file is in.
        seed: draws the images of the validation.
        held_out: the share of the images that is kept for validation; none of fewer than ten.
        check: how the images are looked at.

    Raises:
        InputError: the file is broken or has no pairs, images are not there, or none can be read.
    """
    path, folder = _places(source, images)
    dataset = coco.read(path, root=folder)
    learnable.check_pairs(dataset, source)
    by_id = {image.id: image for image in dataset.images}
    index = {category.id: place for place, category in enumerate(dataset.categories)}
    pairs = [
        Pair(by_id[entry.image_id], entry.segmentation, index[entry.category_id])
        for entry in dataset.annotations
        if rle.area(entry.segmentation) > 0
    ]
    used = {pair.image.id: pair.image for pair in pairs}
    require_files([path_of(folder, image.file_name) for image in used.values()], folder, source)
    failures = check.failures(readable.expected(used.values(), folder), source, "masks")
    broken = readable.names(failures)
    pairs = [pair for pair in pairs if pair.image.file_name not in broken]
    held = held_out_ids(sorted({pair.image.id for pair in pairs}), seed, held_out)
    return Pairs(
        source=source,
        folder=folder,
        nouns=tuple(category.name for category in dataset.categories),
        train=tuple(pair for pair in pairs if pair.image.id not in held),
        held_out=tuple(pair for pair in pairs if pair.image.id in held),
        digest=_digest(dataset),
        failures=failures,
    )


def _places(source: str, images: Path | None) -> tuple[Path | str, Path]:
    files = registry.of_source(source)
    if files is not None:
        return files.masks(only_instances=True), images or files.images
    if source == "-":
        return source, images or Path()
    return Path(source), images or Path(source).resolve().parent


def require_files(paths: Sequence[Path], folder: Path, source: str) -> None:
    """Raises InputError where images of a source are not in their folder."""
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise InputError(
            f"{folder} lacks {len(missing)} of the {len(paths)} images of {source}, such as "
            f"{missing[0].relative_to(folder)}; give the folder that the file names start from with "
            "--images"
        )


def held_out_ids(image_ids: Sequence[int], seed: int, share: float) -> frozenset[int]:
    """The images that are kept for validation, a share drawn by the seed; none of fewer than ten."""
    if len(image_ids) < 10 or not share:
        return frozenset()
    order = np.random.default_rng([seed, 1]).permutation(image_ids)
    return frozenset(order[: max(1, round(share * len(order)))].tolist())


def _digest(dataset: coco.Dataset) -> str:
    return parts.settings_digest(
        {
            "images": [coco.image_entry(image) for image in dataset.images],
            "categories": [coco.category_entry(category) for category in dataset.categories],
            "annotations": [
                atomic.canonical_json(coco.annotation_entry(entry)) for entry in dataset.annotations
            ],
        }
    )


@dataclass(frozen=True, eq=False)
class Batch:
    """Masked crops and their nouns.

    Attributes:
        pixels: float32 (B, 3, S, S), normalised, 0 outside the masks.
        masks: bool (B, S, S).
        nouns: int64 (B,).
    """

    pixels: Tensor
    masks: Tensor
    nouns: Tensor


@dataclass(frozen=True, eq=False)
class Cutter:
    """Cuts the masked crops of pairs, `size` pixels a side, for a CLIP of this mean and deviation."""

    folder: Path
    size: int
    mean: Triple
    std: Triple
    _kept: KeptImages = field(default_factory=KeptImages)

    def batch(self, pairs: Sequence[Pair], rng: np.random.Generator | None = None) -> Batch:
        """The crops of some pairs; with `rng` each is cut as by `random_box`."""
        pixels = torch.empty(len(pairs), 3, self.size, self.size)
        masks = torch.empty(len(pairs), self.size, self.size, dtype=torch.bool)
        for index, pair in enumerate(pairs):
            pixels[index], masks[index] = self._crop(pair, rng)
        return Batch(pixels, masks, torch.tensor([pair.noun for pair in pairs]))

    def _crop(self, pair: Pair, rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        rgb = self._rgb(pair.image)
        mask = torch.from_numpy(rle.decode(pair.mask, pair.image.height, pair.image.width).copy())
        top, left, bottom, right = tight_boxes(mask[None])[0].tolist()
        if rng is not None:
            smaller = random_box(rng, (top, left, bottom, right))
            if mask[smaller[0] : smaller[2], smaller[1] : smaller[3]].any():
                top, left, bottom, right = smaller
        inside = mask[top:bottom, left:right]
        cut = (
            torch.from_numpy(rgb[top:bottom, left:right].copy()).permute(2, 0, 1).float().div_(255)
        )
        filled = standardised(cut, self.mean, self.std) * inside
        return bicubic(filled, self.size), nearest(inside, self.size)

    def _rgb(self, image: coco.Image) -> Rgb:
        """The pixels of an image."""
        path = path_of(self.folder, image.file_name)
        return self._kept.of(path, lambda: image_files.read_rgb(path))


def random_box(
    rng: np.random.Generator,
    box: tuple[int, int, int, int],
    scale: tuple[float, float] = (0.9, 1.0),
) -> tuple[int, int, int, int]:
    """The random resized crop of a box that is seen as a square: a part of `scale` of its area, of an
    aspect between 3:4 and 4:3; the whole box where ten draws do not fit. Top, left, bottom, right."""
    top, left, bottom, right = box
    for _ in range(_ATTEMPTS):
        area = rng.uniform(*scale)
        ratio = np.exp(rng.uniform(*np.log(RATIOS)))
        width, height = np.sqrt(area * ratio), np.sqrt(area / ratio)
        if width > 1 or height > 1:
            continue
        y, x = rng.uniform(0, 1 - height), rng.uniform(0, 1 - width)
        rows, columns = bottom - top, right - left
        first = top + round(y * rows), left + round(x * columns)
        high, wide = max(1, round(height * rows)), max(1, round(width * columns))
        return first[0], first[1], min(bottom, first[0] + high), min(right, first[1] + wide)
    return box


@dataclass(frozen=True, eq=False)
class Batches:
    """Batch `step` of a training, from 0 on: epochs of all pairs in a new order, without the rest that
    fills no batch."""

    pairs: Sequence[Pair]
    cutter: Cutter
    batch_size: int
    seed: int

    def drawn(self, step: int) -> list[int]:
        """Which pairs a step has."""
        return epochs.of_step(step, len(self.pairs), self.batch_size, self.seed)

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, 3, step])
        return self.cutter.batch([self.pairs[index] for index in self.drawn(step)], rng)
