"""What a proposer learns from: images with masks, from a COCO file, augmented, in batches.

An example is a function of (seed, step, row), so that a run that was cut off goes on, and many
processes share a batch by taking its rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ovtool.errors import InputError
from ovtool.formats import coco, rle
from ovtool.formats import images as pictures
from ovtool.training import augmentation

TARGETS = ("categories", "instances")
SCALES = (0.5, 2.0)  # of the shorter side, over the side of the crop


@dataclass(frozen=True)
class Example:
    """A square image, uint8 (S, S, 3), its masks, bool (T, S, S), and their labels, int64 (T,)."""

    rgb: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Images uint8 (B, S, S, 3), and of each the masks, bool (T, S, S), and labels, int64 (T,)."""

    pixels: Tensor
    masks: Sequence[Tensor]
    labels: Sequence[Tensor]


ExampleOf = Callable[[int, int], Example]  # (step, row of the batch)


class Batches(IterableDataset[Batch]):
    """The rows `rows` of every batch from step `first` on, for ever."""

    def __init__(self, example_of: ExampleOf, first: int, rows: range) -> None:
        self.example_of, self.first, self.rows = example_of, first, rows

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        start, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        step = self.first + start
        while True:
            examples = [self.example_of(step, row) for row in self.rows]
            yield Batch(
                torch.from_numpy(np.stack([one.rgb for one in examples])),
                [torch.from_numpy(one.masks) for one in examples],
                [torch.from_numpy(one.labels) for one in examples],
            )
            step += stride


def stream(example_of: ExampleOf, first: int, rows: range, workers: int = 0) -> Iterator[Batch]:
    """Batches in order, made by `workers` other processes, or by this one (0)."""
    batches = Batches(example_of, first, rows)
    if not workers:
        return iter(batches)
    return iter(DataLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=4))


@dataclass(frozen=True)
class Truth:
    """Images with masks, some of them kept from the training.

    images, masks: rows alike, the masks of each as (label, RLE); names: of the labels.
    training, held_out: rows of these.
    """

    folder: Path
    images: Sequence[coco.Image]
    masks: Sequence[Sequence[tuple[int, rle.Rle]]]
    names: tuple[str, ...]
    training: Sequence[int]
    held_out: Sequence[int]

    def picture(self, row: int) -> NDArray[np.uint8]:
        """uint8 (H, W, 3). Raises InputError where it cannot be read or has another size."""
        image = self.images[row]
        rgb = pictures.read_rgb(self.folder / image.file_name)
        if rgb.shape[:2] != (image.height, image.width):
            raise InputError(
                f"{image.file_name} has {rgb.shape[1]} x {rgb.shape[0]} pixels, and its masks "
                f"{image.width} x {image.height}: give the pictures that the masks were drawn on"
            )
        return rgb

    def targets(self, row: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """The masks of an image, bool (T, H, W), and their labels (T,)."""
        image, found = self.images[row], self.masks[row]
        masks = np.stack([rle.decode(mask, image.height, image.width) for _, mask in found])
        return masks, np.array([label for label, _ in found], np.int64)


def truth_of(
    dataset: coco.Dataset,
    folder: Path,
    targets: str = "categories",
    held_out_share: float = 0.05,
    most_held_out: int = 64,
    seed: int = 0,
) -> Truth:
    """The images of a data set that have masks.

    targets: `categories` is one mask for each category of a picture, as OVSeg trains; `instances`
        keeps each mask, and leaves crowds out.
    held_out_share: of the images, drawn by seed, for validation.

    Raises InputError where no image has a mask.
    """
    order = {category.id: label for label, category in enumerate(dataset.categories)}
    masks: dict[int, list[tuple[int, rle.Rle]]] = {image.id: [] for image in dataset.images}
    for entry in dataset.annotations:
        is_crowd = bool(entry.extra.get("iscrowd"))
        if rle.area(entry.segmentation) and not (is_crowd and targets == "instances"):
            masks[entry.image_id].append((order[entry.category_id], entry.segmentation))
    images = [image for image in dataset.images if masks[image.id]]
    if not images:
        raise InputError("no picture of the truth has a mask: a proposer learns from masks")
    found = [masks[image.id] for image in images]
    if targets == "categories":
        found = [_merged(each) for each in found]
    shuffled = np.random.default_rng([seed, 11]).permutation(len(images)).tolist()
    count = min(most_held_out, len(images) - 1, round(held_out_share * len(images)))
    names = tuple(category.name for category in dataset.categories)
    return Truth(folder, images, found, names, sorted(shuffled[count:]), sorted(shuffled[:count]))


def _merged(masks: Sequence[tuple[int, rle.Rle]]) -> list[tuple[int, rle.Rle]]:
    """One mask a label, in the order of the labels."""
    merged = []
    for label in sorted({label for label, _ in masks}):
        own = [mask for other, mask in masks if other == label]
        height, width = own[0]["size"]
        union = np.zeros((height, width), np.bool_)
        for mask in own:
            union |= rle.decode(mask, height, width)
        merged.append((label, own[0] if len(own) == 1 else rle.encode(union)))
    return merged


def examples_of(truth: Truth, seed: int, batch_size: int, side: int) -> ExampleOf:
    """Augmented crops of `side` pixels: every image once an epoch, in an order drawn by seed."""
    count = len(truth.training)

    @lru_cache(maxsize=2)
    def order(epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([seed, epoch, 12]).permutation(count)

    def example(step: int, row: int) -> Example:
        epoch, place = divmod(step * batch_size + row, count)
        chosen = truth.training[int(order(epoch)[place])]
        rng = np.random.default_rng([seed, step, row, 13])
        return augment(rng, truth.picture(chosen), *truth.targets(chosen), side)

    return example


def augment(
    rng: np.random.Generator,
    rgb: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    labels: NDArray[np.int64],
    side: int,
) -> Example:
    """A random crop of a random scale, mirrored or not, its colours jittered; masks with no pixel left
    are dropped.

    The shorter side becomes 0.5 to 2 times `side`; what the crop has beyond the image is in no mask.
    """
    pixels, cut = augmentation.random_crop(rng, rgb, masks, side, SCALES, blank=False)
    kept = cut.any((1, 2))
    return Example(pixels, cut[kept], labels[kept])
