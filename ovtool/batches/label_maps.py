"""What a segmenter learns from: images with a label map each, augmented, in batches.

Labels come from COCO masks (pseudo masks or any others) or from a folder of label maps; -1 is ignored.
An example is a function of (seed, step, row), so that a run that was cut off goes on, and many processes
share a batch by taking its rows.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.batches import masked_images, readable
from ovtool.batches.epochs import Epochs
from ovtool.batches.kept import Rgb
from ovtool.batches.readable import LENIENT, Check, Expected
from ovtool.datasets import label_files
from ovtool.errors import InputError, MismatchError
from ovtool.formats import coco, file_matching, labelled, learnable
from ovtool.formats.images import ImageItem
from ovtool.formats.labelled import LabelledImages
from ovtool.training import augmentation
from ovtool.training.run import Failure

IGNORED = -1

LabelMap = NDArray[np.int32]


@dataclass(frozen=True)
class Labels:
    """Images with a label map each.

    Attributes:
        names: Of the classes.
        table: The number of each class by the source's number, int32, unlabelled last.
        images: The images, rows as those of `keys`.
        keys: The name of each image in the source.
        decode: The label map of a key, int32 (H, W), in the source's numbers.
        left_out: How many images had nothing but ignored pixels.
        digest: Of all labels.
        failures: Images that cannot be read or have another size than their labels, with reasons.
    """

    names: tuple[str, ...]
    table: NDArray[np.int32]
    images: Sequence[ImageItem]
    keys: Sequence[str]
    decode: Callable[[str], LabelMap]
    left_out: int
    digest: str
    failures: Sequence[Failure] = ()

    def example(self, row: int) -> tuple[Rgb, LabelMap]:
        """An image, uint8 (H, W, 3), and its labels, int32 (H, W), whose sizes were compared before. Raises
        InputError where the image cannot be read."""
        labels = self.decode(self.keys[row])
        return self.images[row].rgb(), self.table[labels]


@dataclass(frozen=True)
class Batch:
    """Images uint8 (B, S, S, 3) and labels int64 (B, S, S), -1 ignored."""

    pixels: Tensor
    labels: Tensor


ExampleOf = Callable[[int, int], tuple[Rgb, LabelMap]]  # (step, row of the batch)


@dataclass(frozen=True)
class Batches:
    """The rows `rows` of the batch of any step, as `batches.loader` asks for them."""

    example_of: ExampleOf
    rows: range

    def __getitem__(self, step: int) -> Batch:
        examples = [self.example_of(step, row) for row in self.rows]
        return Batch(
            torch.from_numpy(np.stack([rgb for rgb, _ in examples])),
            torch.from_numpy(np.stack([labels for _, labels in examples]).astype(np.int64)),
        )


# --- reading ------------------------------------------------------------------------------------------
def read(
    source: str, images: Path | None, with_background: bool = False, check: Check = LENIENT
) -> Labels:
    """The labels of a COCO JSON, a folder of parts or of label maps, or a data set's name; images that
    cannot be read are left out.

    Args:
        source: The path, or the name of a data set.
        images: The folder that the names of the images start from; None for a data set, which has its own.
        with_background: What nothing covers is the class `background`, which is put first where the
            source has none; otherwise it is ignored.
        check: How the images are looked at.

    Raises:
        UsageError: There is no folder, or a single class.
        InputError: Files are missing, no image can be read, or all pixels are ignored.
    """
    opened, folder = _open(source, images)
    items = labelled.images_of(opened, folder)
    names = tuple(words[0] for words in opened.classes)
    learnable.check_classes(names, with_background, source)
    own = np.arange(len(names), dtype=np.int32)
    table = np.append(own, np.int32(IGNORED))
    if with_background:
        background = learnable.background_of(names)
        if background is None:
            names, table, background = (learnable.BACKGROUND, *names), np.append(own + 1, 0), 0
        table[-1] = background
    kept, failures, digest = _checked(opened, items, table, check)
    learnable.check_covered(bool(kept), source)
    return Labels(
        names=names,
        table=table.astype(np.int32),
        images=[replace(items[key], exif=check.exif) for key in kept],
        keys=kept,
        decode=opened.decode,
        left_out=len(items) - len(kept) - len(failures),
        digest=digest,
        failures=failures,
    )


def read_truth(
    source: str, images: Path | None, names: Sequence[str], check: Check = LENIENT
) -> Labels:
    """Labels to measure a segmenter of the classes `names` on, with its numbers.

    What nothing covers is background, unless the source names a background itself: then it is ignored. A
    class that the segmenter does not know is background where it has that, and ignored elsewhere.

    Raises:
        MismatchError: Not one class is known. The rest is as `read`.
    """
    opened, _ = _open(source, images)
    has_own = learnable.background_of([words[0] for words in opened.classes]) is not None
    labels = read(source, images, not has_own, check)
    place = {name.casefold(): index for index, name in enumerate(names)}
    background = learnable.background_of(names)
    rest = IGNORED if background is None else background
    index = [place.get(name.casefold()) for name in labels.names]
    if all(number is None or number == background for number in index):
        raise MismatchError(
            f"{source} has none of the classes that are learned ({labelled.shortened(names)}); validate "
            "on labels of the same classes"
        )
    own = np.array([rest if number is None else number for number in index] + [IGNORED], np.int32)
    return replace(labels, names=tuple(names), table=own[labels.table])


def _open(source: str, images: Path | None) -> tuple[LabelledImages, Path]:
    files = masked_images.data_set(source, images)
    if files is not None:
        return label_files.opened(files), files.images
    folder = file_matching.folder_of(images, source, source)
    return labelled.open_source(source), folder


def _checked(
    opened: LabelledImages, items: dict[str, ImageItem], table: NDArray[np.int32], check: Check
) -> tuple[list[str], tuple[Failure, ...], str]:
    """The names of the label maps that have a pixel that counts and an image that can be read, the images
    that cannot, and a digest of all labels. Raises InputError."""
    kept, expected, broken = [], [], []
    if opened.dataset is not None:
        images = {image.id: image for image in opened.dataset.images}
        covered = {
            images[entry.image_id].file_name for entry in opened.dataset.annotations if entry.area
        }
        sizes = {image.file_name: (image.height, image.width) for image in images.values()}
        kept = [name for name in items if name in covered or table[-1] != IGNORED]
        expected = [Expected(items[name], sizes[name]) for name in kept]
        digest = coco.digest(opened.dataset)
    else:
        content = hashlib.sha256("\n".join(name for name, *_ in opened.classes).encode())
        for name, item in items.items():
            try:
                labels = opened.decode(name)
            except InputError as error:
                reason = str(error).replace(f"{opened.source}{os.sep}", "")
                broken.append({"file_name": item.name, "reason": reason})
                continue
            _check_labels(opened, name, labels)
            content.update(name.encode() + labels.tobytes())
            if (table[labels] != IGNORED).any():
                kept.append(name)
                expected.append(Expected(item, (labels.shape[0], labels.shape[1])))
        digest = content.hexdigest()[:16]
    failures = check.failures(expected, opened.source, known=broken)
    left_out = readable.names(failures)
    return [name for name in kept if items[name].name not in left_out], failures, digest


def _check_labels(opened: LabelledImages, name: str, labels: LabelMap) -> None:
    """Raises InputError for a label that no class has."""
    if labels.max() >= len(opened.classes):
        raise InputError(
            f"{opened.source}: {name} holds the label {labels.max()}, but {labelled.CLASSES_FILE} names "
            f"{len(opened.classes)} classes; complete it"
        )


# --- augmentation -------------------------------------------------------------------------------------
def examples_of(
    labels: Labels,
    rows: Sequence[int],
    seed: int,
    batch_size: int,
    crop_size: int,
    scales: tuple[float, float],
) -> ExampleOf:
    """Augmented crops of `crop_size` pixels: every image once an epoch, in an order drawn by seed."""
    order = Epochs(len(rows), batch_size, seed)

    def example(step: int, row: int) -> tuple[Rgb, LabelMap]:
        image = rows[order.item(step, row)]
        return augment(order.generator(step, row), *labels.example(image), crop_size, scales)

    return example


def augment(
    rng: np.random.Generator,
    rgb: Rgb,
    labels: LabelMap,
    crop_size: int,
    scales: tuple[float, float],
) -> tuple[Rgb, LabelMap]:
    """A random crop of a random scale, mirrored or not, its colours jittered.

    The shorter side becomes `scales` times `crop_size`; what the crop has beyond the image is grey and
    ignored.
    """
    return augmentation.random_crop(rng, rgb, labels, crop_size, scales, IGNORED)
