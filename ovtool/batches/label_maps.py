"""What a segmenter learns from: images with a label map each, augmented, in batches.

Labels come from COCO masks (pseudo masks or any others) or from a folder of label maps; -1 is ignored.
An example is a function of (seed, step, row), so that a run that was cut off goes on, and many processes
share a batch by taking its rows.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ovtool.datasets import registry
from ovtool.datasets.matching import image_stem
from ovtool.errors import InputError, MismatchError, UsageError
from ovtool.formats import coco, labelled
from ovtool.formats import images as pictures
from ovtool.formats.images import ImageItem
from ovtool.formats.labelled import LabelledImages
from ovtool.models import segmenter
from ovtool.training import augmentation

IGNORED = -1
MOST_HELD_OUT = 64

Rgb = NDArray[np.uint8]
LabelMap = NDArray[np.int32]


@dataclass(frozen=True)
class Labels:
    """Images with a label map each.

    names: of the classes, `table` their numbers by the source's, unlabelled last. images, keys: rows
    alike, the image and its name in the source. left_out: how many images had nothing but ignored
    pixels. digest: of all labels.
    """

    source: str
    names: tuple[str, ...]
    table: NDArray[np.int32]
    pictures: Sequence[ImageItem]
    keys: Sequence[str]
    decode: Callable[[str], LabelMap]
    left_out: int
    digest: str

    def example(self, row: int) -> tuple[Rgb, LabelMap]:
        """An image, uint8 (H, W, 3), and its labels, int32 (H, W). Raises InputError where the image
        cannot be read, or has another size than its labels."""
        item, labels = self.pictures[row], self.decode(self.keys[row])
        rgb = pictures.read_rgb(item.path)
        _check_size(item, (rgb.shape[0], rgb.shape[1]), labels, self.source)
        return rgb, self.table[labels]


@dataclass(frozen=True)
class Batch:
    """Images uint8 (B, S, S, 3) and labels int64 (B, S, S), -1 ignored."""

    pixels: Tensor
    labels: Tensor


ExampleOf = Callable[[int, int], tuple[Rgb, LabelMap]]  # (step, row of the batch)


class Batches(IterableDataset[Batch]):
    """The rows `rows` of every batch from step `first` on, for ever."""

    def __init__(self, example_of: ExampleOf, first: int, rows: range) -> None:
        self.example_of, self.first, self.rows = example_of, first, rows

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        start, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        step = self.first + start
        while True:
            found = [self.example_of(step, row) for row in self.rows]
            yield Batch(
                torch.from_numpy(np.stack([rgb for rgb, _ in found])),
                torch.from_numpy(np.stack([labels for _, labels in found]).astype(np.int64)),
            )
            step += stride


def stream(example_of: ExampleOf, first: int, rows: range, workers: int = 0) -> Iterator[Batch]:
    """Batches in order, made by `workers` other processes, or by this one (0)."""
    batches = Batches(example_of, first, rows)
    if not workers:
        return iter(batches)
    return iter(DataLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=4))


# --- reading ------------------------------------------------------------------------------------------
def read(source: str, images: Path | None, with_background: bool = False) -> Labels:
    """The labels of a COCO JSON, a folder of parts or of label maps, or a data set's name.

    images: the folder that the names of the images start from; None for a data set, which has its own.
    with_background: what nothing covers is the class `background`, which is put first where the source
        has none; otherwise it is ignored.

    Raises UsageError (no folder; a single class), InputError (files that are broken or missing, labels
    of another size than their image, a source in which all is ignored).
    """
    found, folder = _open(source, images)
    items = _pictures(found, folder)
    names = tuple(words[0] for words in found.classes)
    own = np.arange(len(names), dtype=np.int32)
    table = np.append(own, np.int32(IGNORED))
    if with_background:
        background = segmenter.background_of(names)
        if background is None:
            names, table, background = (segmenter.BACKGROUND, *names), np.append(own + 1, 0), 0
        table[-1] = background
    if len(names) < 2:
        raise UsageError(
            f"{source} has one class, {', '.join(names) or 'not even one'}: a segmenter tells two or more apart; "
            "give --with-background, and what no mask covers is a class of its own"
        )
    kept, digest = _checked(found, items, table)
    if not kept:
        raise InputError(
            f"{source}: every pixel is ignored, since no mask covers any: make the masks again, in doubt "
            "with a lower --confidence of refine, or give --with-background"
        )
    return Labels(
        source, names, table.astype(np.int32), [items[key] for key in kept], kept,
        found.decode, len(items) - len(kept), digest,
    )  # fmt: skip


def read_truth(source: str, images: Path | None, names: Sequence[str]) -> Labels:
    """Labels to measure a segmenter of the classes `names` on, with its numbers.

    What nothing covers is background, unless the source names a background itself: then it is ignored. A
    class that the segmenter does not know is background where it has that, and ignored elsewhere.

    Raises MismatchError where not one class is known, and as `read`.
    """
    found, _ = _open(source, images)
    has_own = segmenter.background_of([words[0] for words in found.classes]) is not None
    labels = read(source, images, with_background=not has_own)
    place = {name.casefold(): index for index, name in enumerate(names)}
    background = segmenter.background_of(names)
    rest = IGNORED if background is None else background
    index = [place.get(name.casefold()) for name in labels.names]
    if all(one is None or one == background for one in index):
        raise MismatchError(
            f"{source} has none of the classes that are learned ({labelled.shortened(names)}): validate "
            "on labels of the same classes"
        )
    own = np.array([rest if one is None else one for one in index] + [IGNORED], np.int32)
    return replace(labels, names=tuple(names), table=own[labels.table])


def split(labels: Labels, share: float, seed: int) -> tuple[list[int], list[int]]:
    """The rows to train on, and those held out: a share of them, drawn by seed, at most 64."""
    count = len(labels.pictures)
    shuffled = np.random.default_rng([seed, 11]).permutation(count).tolist()
    held = min(MOST_HELD_OUT, count - 1, round(share * count))
    return sorted(shuffled[held:]), sorted(shuffled[:held])


def _open(source: str, images: Path | None) -> tuple[LabelledImages, Path]:
    if registry.is_name(source) and not Path(source).exists():
        if images is not None:
            raise UsageError(f"--images is the folder of a COCO JSON, and {source} has its own")
        files = registry.locate(source)
        masks = files.semantic or files.instances
        if masks is None:
            raise InputError(f"{source} has no masks to learn from: name another data set")
        return labelled.open_source(str(masks)), files.images
    if images is None:
        raise UsageError(f"{source} needs --images DIR, the folder that its file names start from")
    if not images.is_dir():
        raise InputError(f"no such folder: {images}; --images is where the names of {source} start")
    return labelled.open_source(source), images


def _pictures(found: LabelledImages, folder: Path) -> dict[str, ImageItem]:
    """The image of each label map, by its name in the source. Raises InputError."""
    if not found.by_stem:
        items = {name: ImageItem(folder / name, name) for name in found.names}
        there = {name: item for name, item in items.items() if item.path.exists()}
    else:
        by_stem = {image_stem(item.name): item for item in pictures.find_images([str(folder)])}
        there = {name: by_stem[name] for name in found.names if name in by_stem}
    missing = [name for name in found.names if name not in there]
    if missing:
        raise InputError(
            f"{folder} lacks {len(missing)} of the {len(found.names)} pictures of {found.source} "
            f"(the first is {missing[0]}): give the folder that the names start from"
        )
    return there


def _checked(
    found: LabelledImages, items: dict[str, ImageItem], table: NDArray[np.int32]
) -> tuple[list[str], str]:
    """The names of the label maps that have a pixel that counts, and a digest of all. Raises InputError."""
    if found.dataset is not None:
        names = {image.id: image.file_name for image in found.dataset.images}
        covered = {names[each.image_id] for each in found.dataset.annotations if each.area}
        kept = [name for name in items if name in covered or table[-1] != IGNORED]
        return kept, coco.digest(found.dataset)
    digest, kept = hashlib.sha256("\n".join(name for name, *_ in found.classes).encode()), []
    for name, item in items.items():
        labels = found.decode(name)
        _check_size(item, pictures.read_size(item.path), labels, found.source)
        if labels.max() >= len(found.classes):
            raise InputError(
                f"{found.source}: {name} holds the label {labels.max()}, but {labelled.CLASSES_FILE} names "
                f"{len(found.classes)} classes: complete it"
            )
        digest.update(name.encode() + labels.tobytes())
        if (table[labels] != IGNORED).any():
            kept.append(name)
    return kept, digest.hexdigest()[:16]


def _check_size(item: ImageItem, size: tuple[int, int], labels: LabelMap, source: str) -> None:
    if labels.shape != size:
        raise InputError(
            f"{item.name} has {size[1]} x {size[0]} pixels, and its labels in {source} "
            f"{labels.shape[1]} x {labels.shape[0]}: give the pictures that the labels were made for"
        )


# --- augmentation -------------------------------------------------------------------------------------
def examples_of(
    labels: Labels,
    rows: Sequence[int],
    seed: int,
    batch_size: int,
    side: int,
    scales: tuple[float, float],
) -> ExampleOf:
    """Augmented crops of `side` pixels: every image once an epoch, in an order drawn by seed."""
    count = len(rows)

    @lru_cache(maxsize=2)
    def order(epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([seed, epoch, 12]).permutation(count)

    def example(step: int, row: int) -> tuple[Rgb, LabelMap]:
        epoch, place = divmod(step * batch_size + row, count)
        rng = np.random.default_rng([seed, step, row, 13])
        return augment(rng, *labels.example(rows[int(order(epoch)[place])]), side, scales)

    return example


def augment(
    rng: np.random.Generator,
    rgb: Rgb,
    labels: LabelMap,
    side: int,
    scales: tuple[float, float],
) -> tuple[Rgb, LabelMap]:
    """A random crop of a random scale, mirrored or not, its colours jittered.

    The shorter side becomes `scales` times `side`; what the crop has beyond the image is grey and
    ignored.
    """
    return augmentation.random_crop(rng, rgb, labels, side, scales, IGNORED)
