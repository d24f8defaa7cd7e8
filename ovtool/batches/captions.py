"""Captioned images in batches for a training: from a data set, a captions JSON, or WebDataset shards.

Which images and captions a step has, and how each is cut, is a function of (seed, step); of shards also
of the number of processes, since each process reads its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset, IterableDataset

from ovtool.batches.pairs import random_box
from ovtool.errors import InputError, UsageError
from ovtool.formats import captions as captions_file
from ovtool.formats import images as pictures
from ovtool.formats import parts, shards
from ovtool.formats.images import ImageItem
from ovtool.formats.shards import Left, Sample

BLOCK = 1000  # samples of a shard stream that change places with each other

Rgb = NDArray[np.uint8]


@dataclass(frozen=True)
class Batch:
    """This process's rows of a step. pixels: uint8 (b, 3, S, S), None where tokens are kept already;
    index: their places in the list of images; captions: one each; told: all captions of each; left:
    what shards lacked up to here."""

    pixels: Tensor | None
    index: tuple[int, ...]
    captions: tuple[str, ...]
    told: tuple[tuple[str, ...], ...]
    left: Left | None = None


def squared(rgb: Rgb, side: int, rng: np.random.Generator | None = None) -> Tensor:
    """An image (H, W, 3) of any size brought to uint8 (3, side, side), its aspect given up; with `rng`
    a random box of 90 to 100 % of it."""
    top, left, bottom, right = 0, 0, rgb.shape[0], rgb.shape[1]
    if rng is not None:
        top, left, bottom, right = random_box(rng, (top, left, bottom, right))
    part = torch.from_numpy(np.ascontiguousarray(rgb[top:bottom, left:right])).permute(2, 0, 1)
    if part.shape[1:] == (side, side):
        return part.clone()
    return interpolate(part[None], size=(side, side), mode="bilinear", antialias=True)[0]


@dataclass(frozen=True)
class Listed:
    """The images of a list and their captions, those held out for validation aside.

    left: images that were listed and left out, by reason. digest: of names and captions.
    """

    source: str
    items: tuple[ImageItem, ...]
    captions: tuple[tuple[str, ...], ...]
    held_out: tuple[ImageItem, ...]
    left: Left
    digest: str

    @property
    def texts(self) -> list[str]:
        """All captions, image by image."""
        return [caption for said in self.captions for caption in said]


def listed(spec: str, source: Path, folder: Path, seed: int, held_out: float) -> Listed:
    """The captioned images of a captions JSON whose file names start from a folder.

    spec: the name that the file goes by (`inputs.captions.locate`).
    held_out: the share of the images kept for validation, drawn by the seed; none of fewer than ten.

    Images that are not there are left out and counted. Raises InputError.
    """
    everything = captions_file.read(source).images
    found = [image for image in everything if image.captions]
    items = [ImageItem(folder / image.file_name, image.file_name) for image in found]
    there = [item.path.exists() for item in items]
    if not any(there):
        raise InputError(
            f"none of the {len(items)} images of {source} is below {folder}; the first would be "
            f"{items[0].path}"
        )
    left = Left()
    left.samples |= {"no caption": len(everything) - len(found), "no image": there.count(False)}
    kept = [index for index, is_there in enumerate(there) if is_there]
    count = round(held_out * len(kept)) if len(kept) >= 10 else 0
    held = set(np.random.default_rng([seed, 1]).permutation(kept)[:count].tolist())
    train = [index for index in kept if index not in held]
    texts = tuple(tuple(caption.text for caption in found[index].captions) for index in train)
    names = [[items[index].name, list(said)] for index, said in zip(train, texts, strict=True)]
    return Listed(
        spec,
        tuple(items[index] for index in train),
        texts,
        tuple(items[index] for index in sorted(held)),
        left,
        parts.settings_digest({"captions": names}),
    )


@dataclass(frozen=True, eq=False)
class ListedBatches(Dataset[Batch]):
    """Batch `step` of a training, from 0 on: epochs of all images in a new order, without the rest that
    fills no batch.

    rows: those of the global batch that this process has. crops: images are cut by `squared`; else
    whole. has_pixels: False where their tokens are kept already.
    """

    listed: Listed
    side: int
    batch_size: int
    rows: range
    seed: int
    crops: bool = True
    has_pixels: bool = True

    def chosen(self, step: int) -> list[tuple[int, int]]:
        """The images of a step and which caption of each, for the whole batch."""
        epoch, place = divmod(step, len(self.listed.items) // self.batch_size)
        order = np.random.default_rng([self.seed, 2, epoch]).permutation(len(self.listed.items))
        own = order[place * self.batch_size : (place + 1) * self.batch_size]
        draws = np.random.default_rng([self.seed, 3, step]).random(len(own))
        return [
            (int(index), int(draw * len(self.listed.captions[index])))
            for index, draw in zip(own, draws, strict=True)
        ]

    def __getitem__(self, step: int) -> Batch:
        chosen = self.chosen(step)[self.rows.start : self.rows.stop]
        pixels = None
        if self.has_pixels:
            pixels = torch.stack(
                [
                    self.picture(index, step if self.crops else None, row)
                    for (index, _), row in zip(chosen, self.rows, strict=True)
                ]
            )
        captions = tuple(self.listed.captions[index][which] for index, which in chosen)
        told = tuple(self.listed.captions[index] for index, _ in chosen)
        return Batch(pixels, tuple(index for index, _ in chosen), captions, told)

    def picture(self, index: int, step: int | None = None, row: int = 0) -> Tensor:
        """An image as a row of a step shows it, or whole."""
        rng = None if step is None else np.random.default_rng([self.seed, 4, step, row])
        return squared(pictures.read_rgb(self.listed.items[index].path), self.side, rng)


@dataclass(frozen=True, eq=False)
class ShardBatches(IterableDataset[Batch]):
    """Batches from step `first` on, for ever: the shards in a new order each epoch, dealt to the
    processes, their samples shuffled in blocks of `BLOCK`. Processes with fewer samples begin their next
    epoch sooner.
    """

    urls: Sequence[str]
    side: int
    own: int
    first: int
    rank: int
    world: int
    seed: int
    left: Left = field(default_factory=Left)
    broken: set[str] = field(default_factory=set)

    def __iter__(self) -> Iterator[Batch]:
        drawn = self._shuffled()
        for _ in range(self.first * self.own):  # not decoded, to come to where a run was cut off
            next(drawn)
        step = self.first
        while True:
            rows = []
            for row in range(self.own):
                rng = np.random.default_rng([self.seed, 4, self.rank, step, row])
                rows.append(self._decoded(*next(drawn), rng))
            pixels = torch.stack([picture for picture, _ in rows])
            left = Left(self.left.samples.copy(), dict(self.left.cut))
            captions = tuple(caption for _, caption in rows)
            yield Batch(pixels, (), captions, tuple((each,) for each in captions), left)
            step += 1

    def _decoded(
        self, sample: Sample, block: Sequence[Sample], rng: np.random.Generator
    ) -> tuple[Tensor, str]:
        """A sample's image and caption; in place of a broken one, another sample of its block, so
        that every step draws as many."""
        others = (block[place] for place in rng.permutation(len(block)))
        for tried in (sample, *others):
            try:
                rgb = pictures.decode_rgb(tried.image, tried.name)
                return squared(rgb, self.side, rng), tried.caption
            except InputError:
                self.broken.add(tried.name)
                self.left.samples["broken image"] = len(self.broken)
        raise InputError(f"no image near {sample.name} can be read: give shards with pictures")

    def _shuffled(self) -> Iterator[tuple[Sample, Sequence[Sample]]]:
        """The samples for ever, each with the block that it comes from."""
        epoch = 0
        while True:
            rng = np.random.default_rng([self.seed, 3, epoch, self.rank])
            stream = self._epoch(epoch)
            given = 0
            while block := list(islice(stream, BLOCK)):
                given += len(block)
                yield from ((block[place], block) for place in rng.permutation(len(block)))
            if not given:
                raise InputError(f"{self.urls[0]} and the shards beside it hold no captioned image")
            epoch += 1

    def _epoch(self, epoch: int) -> Iterator[Sample]:
        order = np.random.default_rng([self.seed, 2, epoch]).permutation(len(self.urls))
        left = self.left if epoch == 0 else Left(cut=self.left.cut)  # each sample is counted once
        for index in order[self.rank :: self.world]:
            yield from shards.read(self.urls[index], left)


def require_shards(count: int, world: int) -> None:
    """Raises UsageError where some processes would have no shard."""
    if world > count:
        raise UsageError(
            f"{world} processes and {count} shard{'s' * (count > 1)}: each process reads its own, so "
            f"start at most {count}, or cut the data into more"
        )
