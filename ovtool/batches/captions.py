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
from torch import Tensor
from torch.nn.functional import interpolate

from ovtool.batches import epochs, readable
from ovtool.batches.kept import Rgb
from ovtool.batches.pairs import random_box
from ovtool.batches.readable import LENIENT, Check, Expected
from ovtool.errors import InputError, UsageError
from ovtool.formats import captions as captions_file
from ovtool.formats import images as image_files
from ovtool.formats import parts, shards
from ovtool.formats.file_matching import path_of
from ovtool.formats.images import ImageItem
from ovtool.formats.shards import Left, Sample
from ovtool.training.run import Failure

BLOCK = 1000  # samples of a shard stream that change places with each other


@dataclass(frozen=True)
class Batch:
    """This process's rows of a step.

    Attributes:
        pixels: uint8 (b, 3, S, S); None where tokens are kept already.
        index: the places of the images in the list; empty for shards.
        captions: one of each image.
        all_captions: all captions of each image.
        left: what shards lacked up to here.
    """

    pixels: Tensor | None
    index: tuple[int, ...]
    captions: tuple[str, ...]
    all_captions: tuple[tuple[str, ...], ...]
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

    Attributes:
        source: the name that the list goes by.
        items: the images.
        captions: those of each image.
        held_out: the images of the validation.
        left: images that were listed and left out, by reason.
        digest: of names and captions.
        failures: images that cannot be read, with reasons.
    """

    source: str
    items: tuple[ImageItem, ...]
    captions: tuple[tuple[str, ...], ...]
    held_out: tuple[ImageItem, ...]
    left: Left
    digest: str
    failures: tuple[Failure, ...] = ()

    @property
    def count(self) -> int:
        """How many images there are to train on."""
        return len(self.items)

    @property
    def texts(self) -> list[str]:
        """All captions, image by image."""
        return [caption for captions in self.captions for caption in captions]


def listed(
    spec: str, source: Path, folder: Path, seed: int, held_out: float, check: Check = LENIENT
) -> Listed:
    """The captioned images of a captions JSON; those that are not there, or cannot be read, are left out
    and counted.

    Args:
        spec: the name that the file goes by (`inputs.captions.locate`).
        source: the file.
        folder: where its file names start.
        seed: draws the images that are held out.
        held_out: the share of the images kept for validation; none of fewer than ten.
        check: how the images are looked at.

    Raises:
        InputError: the file is broken, or fewer than two of several images are there and can be read.
    """
    everything = captions_file.read(source).images
    captioned = [image for image in everything if image.captions]
    items = [ImageItem(path_of(folder, image.file_name), image.file_name) for image in captioned]
    there = [item.path.exists() for item in items]
    if not any(there):
        raise InputError(
            f"none of the {len(items)} images of {source} is below {folder}; the first would be "
            f"{items[0].path}"
        )
    left = Left()
    left.samples |= {"no caption": len(everything) - len(captioned), "no image": there.count(False)}
    kept = [index for index, is_there in enumerate(there) if is_there]
    failures = check.failures([Expected(items[index]) for index in kept], spec)
    if failures:
        left.samples["broken image"] = len(failures)
    broken = readable.names(failures)
    kept = [index for index in kept if items[index].name not in broken]
    count = round(held_out * len(kept)) if len(kept) >= 10 else 0
    held = set(np.random.default_rng([seed, 1]).permutation(kept)[:count].tolist())
    train = [index for index in kept if index not in held]
    if len(train) < 2 <= len(captioned):
        reasons = ", ".join(f"{reason}: {n}" for reason, n in left.samples.items() if n)
        raise InputError(
            f"only {len(train)} of the {len(everything)} images of {source} can be trained on ({reasons}); give two "
            "or more with their captions"
        )
    texts = tuple(tuple(caption.text for caption in captioned[index].captions) for index in train)
    names = [
        [items[index].name, list(captions)] for index, captions in zip(train, texts, strict=True)
    ]
    return Listed(
        spec,
        tuple(items[index] for index in train),
        texts,
        tuple(items[index] for index in sorted(held)),
        left,
        parts.settings_digest({"captions": names}),
        failures,
    )


@dataclass(frozen=True)
class Sharded:
    """Captioned images in WebDataset shards.

    Attributes:
        urls: the shards.
        count: their samples; None where a shard lies elsewhere, and nobody counted.
    """

    urls: tuple[str, ...]
    count: int | None

    @property
    def digest(self) -> str:
        """Of the names of the shards."""
        return parts.settings_digest({"shards": [Path(url).name for url in self.urls]})


def sharded(spec: str) -> Sharded:
    """The shards that a SPEC names, `x/{00000..00331}.tar`, with their samples counted.

    Raises:
        UsageError: an address that would run a command.
        InputError: a shard is not there, or none of them holds a captioned image.
    """
    urls = shards.expand(spec)
    if not all(shards.is_local(url) for url in urls):
        return Sharded(tuple(urls), None)
    count = shards.count(urls)
    if not count:
        raise InputError(f"{urls[0]} and the shards beside it hold no captioned image")
    return Sharded(tuple(urls), count)


@dataclass(frozen=True, eq=False)
class ListedBatches:
    """Batch `step` of a training, from 0 on: epochs of all images in a new order, without the rest that
    fills no batch.

    Attributes:
        listed: the images.
        side: of the square that each is brought to, in pixels.
        batch_size: of all processes together.
        rows: those of the whole batch that this process has.
        seed: of orders, captions and crops.
        crops: whether images are cut by `squared`; else they are whole.
        has_pixels: False where their tokens are kept already.
    """

    listed: Listed
    side: int
    batch_size: int
    rows: range
    seed: int
    crops: bool = True
    has_pixels: bool = True

    def drawn(self, step: int) -> list[tuple[int, int]]:
        """The images of a step and which caption of each, for the whole batch."""
        own = epochs.of_step(step, self.listed.count, self.batch_size, self.seed)
        draws = np.random.default_rng([self.seed, 3, step]).random(len(own))
        return [
            (index, int(draw * len(self.listed.captions[index])))
            for index, draw in zip(own, draws, strict=True)
        ]

    def __getitem__(self, step: int) -> Batch:
        own = self.drawn(step)[self.rows.start : self.rows.stop]
        pixels = None
        if self.has_pixels:
            pixels = torch.stack(
                [
                    self.image(index, step if self.crops else None, row)
                    for (index, _), row in zip(own, self.rows, strict=True)
                ]
            )
        captions = tuple(self.listed.captions[index][which] for index, which in own)
        all_captions = tuple(self.listed.captions[index] for index, _ in own)
        return Batch(pixels, tuple(index for index, _ in own), captions, all_captions)

    def image(self, index: int, step: int | None = None, row: int = 0) -> Tensor:
        """An image as a row of a step shows it, or whole: uint8 (3, side, side)."""
        rng = None if step is None else np.random.default_rng([self.seed, 4, step, row])
        return squared(image_files.read_rgb(self.listed.items[index].path), self.side, rng)


@dataclass(eq=False)
class ShardBatches:
    """Batch `step` of a training, from 0 on and for ever: the shards in a new order each epoch, dealt to
    the processes, their samples shuffled in blocks of `BLOCK`. Processes with fewer samples begin their
    next epoch sooner.

    Shards are read from front to back, so steps that follow each other cost least: what lies between two
    steps is read and not decoded, and an earlier step begins anew.

    Attributes:
        urls: the shards.
        side: of the square that each image is brought to, in pixels.
        own: samples of a batch that this process has.
        rank: this process.
        world: how many there are.
        seed: of orders and crops.
        strict: whether a broken image is an error, and not replaced by another sample.
        left: what was left out up to here.
    """

    urls: Sequence[str]
    side: int
    own: int
    rank: int
    world: int
    seed: int
    strict: bool = False
    left: Left = field(default_factory=Left)
    _broken: set[str] = field(default_factory=set)
    _samples: Iterator[tuple[Sample, Sequence[Sample]]] | None = None
    _next: int = 0

    def __getitem__(self, step: int) -> Batch:
        if self._samples is None or step < self._next:
            self.left, self._broken = Left(), set()
            self._samples, self._next = self._shuffled(), 0
        for _ in range((step - self._next) * self.own):
            next(self._samples)
        self._next = step + 1
        rows = []
        for row in range(self.own):
            rng = np.random.default_rng([self.seed, 4, self.rank, step, row])
            rows.append(self._decoded(*next(self._samples), rng))
        pixels = torch.stack([image for image, _ in rows])
        left = Left(self.left.samples.copy(), dict(self.left.cut))
        captions = tuple(caption for _, caption in rows)
        return Batch(pixels, (), captions, tuple((caption,) for caption in captions), left)

    def _decoded(
        self, sample: Sample, block: Sequence[Sample], rng: np.random.Generator
    ) -> tuple[Tensor, str]:
        """A sample's image and caption; in place of a broken one, another sample of its block, so
        that every step draws as many."""
        others = (block[place] for place in rng.permutation(len(block)))
        for tried in (sample, *others):
            try:
                rgb = image_files.decode_rgb(tried.image, tried.name)
                return squared(rgb, self.side, rng), tried.caption
            except InputError:
                if self.strict:
                    raise
                self._broken.add(tried.name)
                self.left.samples["broken image"] = len(self._broken)
        raise InputError(f"no image near {sample.name} can be read; give shards with images")

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
