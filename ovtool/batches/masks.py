"""What a proposer learns from: images with masks, from a COCO file, augmented, in batches.

An example is a function of (seed, step, row), so that a run that was cut off goes on, and many
processes share a batch by taking its rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.batches import epochs, masked_images, readable
from ovtool.batches.epochs import Epochs
from ovtool.batches.readable import LENIENT, Check
from ovtool.errors import InputError
from ovtool.formats import coco, file_matching, learnable, rle
from ovtool.formats import images as image_files
from ovtool.formats.file_matching import path_of
from ovtool.formats.images import Exif
from ovtool.training import augmentation
from ovtool.training.run import Failure

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


@dataclass(frozen=True)
class Batches:
    """The rows `rows` of the batch of any step, as `batches.loader` asks for them."""

    example_of: ExampleOf
    rows: range

    def __getitem__(self, step: int) -> Batch:
        examples = [self.example_of(step, row) for row in self.rows]
        return Batch(
            torch.from_numpy(np.stack([example.rgb for example in examples])),
            [torch.from_numpy(example.masks) for example in examples],
            [torch.from_numpy(example.labels) for example in examples],
        )


@dataclass(frozen=True)
class Truth:
    """Images with masks, some of them kept from the training.

    Attributes:
        folder: That the names of the images start from.
        images: Those that have a mask.
        masks: Of each image, as (label, RLE).
        names: Of the labels.
        training: Rows of the images to learn from.
        held_out: Rows of the images to measure on.
        failures: Images with masks that cannot be read, with reasons.
        exif: How the pixels of the images lie.
    """

    folder: Path
    images: Sequence[coco.Image]
    masks: Sequence[Sequence[tuple[int, rle.Rle]]]
    names: tuple[str, ...]
    training: Sequence[int]
    held_out: Sequence[int]
    failures: Sequence[Failure] = ()
    exif: Exif = "upright"

    def rgb(self, row: int) -> NDArray[np.uint8]:
        """An image, uint8 (H, W, 3). Raises InputError where it cannot be read or has another size."""
        image = self.images[row]
        rgb = image_files.read_rgb(path_of(self.folder, image.file_name), self.exif)
        if rgb.shape[:2] != (image.height, image.width):
            raise InputError(
                f"{image.file_name} has {rgb.shape[1]} x {rgb.shape[0]} pixels, and its masks "
                f"{image.width} x {image.height}; give the images that the masks were drawn on"
            )
        return rgb

    def targets(self, row: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """The masks of an image, bool (T, H, W), and their labels (T,)."""
        image, labelled = self.images[row], self.masks[row]
        masks = np.stack([rle.decode(mask, image.height, image.width) for _, mask in labelled])
        return masks, np.array([label for label, _ in labelled], np.int64)


def read(source: str, images: Path | None, targets: str) -> tuple[coco.Dataset, Path]:
    """The masks of a COCO JSON or of a data set's name, and the folder of their images.

    Args:
        source: The file, or the name.
        images: The folder that the file names start from; None for a data set, which has its own.
        targets: As in `truth_of`: which masks of a data set are read.

    Raises:
        UsageError: The folder is missing, or given for a data set.
        InputError: The file is broken, or the folder holds none of the images.
    """
    files = masked_images.data_set_files(source, images, only_instances=targets == "instances")
    if files is not None:
        masks, folder = files
        return coco.read(masks, root=folder), folder
    folder = file_matching.folder_of(images, source, source)
    return coco.read(source, root=folder), folder


def truth_of(
    dataset: coco.Dataset,
    folder: Path,
    targets: str = "categories",
    held_out: float = 0.05,
    seed: int = 0,
    check: Check = LENIENT,
) -> Truth:
    """The images of a data set that have masks; those that cannot be read are left out.

    Args:
        dataset: With masks and categories.
        folder: That the names of its images start from.
        targets: `categories` is one mask for each category of an image, as OVSeg trains; `instances`
            keeps each mask, and leaves crowds out.
        held_out: The share of the images, drawn by seed, for validation.
        seed: Draws them.
        check: How the images are looked at.

    Raises:
        InputError: No image has a mask, or none of those that have one can be read.
    """
    learnable.check_truth(dataset, targets)
    order = {category.id: label for label, category in enumerate(dataset.categories)}
    masks: dict[int, list[tuple[int, rle.Rle]]] = {image.id: [] for image in dataset.images}
    for entry in dataset.annotations:
        is_crowd = bool(entry.extra.get("iscrowd"))
        if rle.area(entry.segmentation) and not (is_crowd and targets == "instances"):
            masks[entry.image_id].append((order[entry.category_id], entry.segmentation))
    images = [image for image in dataset.images if masks[image.id]]
    failures = check.failures(readable.expected(images, folder), "the truth", "masks")
    broken = readable.names(failures)
    images = [image for image in images if image.file_name not in broken]
    labelled = [masks[image.id] for image in images]
    if targets == "categories":
        labelled = [_merged(own) for own in labelled]
    names = tuple(category.name for category in dataset.categories)
    training, measured = epochs.split(len(images), held_out, seed)
    return Truth(folder, images, labelled, names, training, measured, failures, check.exif)


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


def examples_of(truth: Truth, seed: int, batch_size: int, crop_size: int) -> ExampleOf:
    """Augmented crops of `crop_size` pixels: every image once an epoch, in an order drawn by seed."""
    order = Epochs(len(truth.training), batch_size, seed)

    def example(step: int, row: int) -> Example:
        image = truth.training[order.item(step, row)]
        rng = order.generator(step, row)
        return augment(rng, truth.rgb(image), *truth.targets(image), crop_size)

    return example


def augment(
    rng: np.random.Generator,
    rgb: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    labels: NDArray[np.int64],
    crop_size: int,
) -> Example:
    """A random crop of a random scale, mirrored or not, its colours jittered; masks with no pixel left
    are dropped.

    The shorter side becomes 0.5 to 2 times `crop_size`; what the crop has beyond the image is in no mask.
    """
    pixels, cut = augmentation.random_crop(rng, rgb, masks, crop_size, SCALES, blank=False)
    kept = cut.any((1, 2))
    return Example(pixels, cut[kept], labels[kept])
