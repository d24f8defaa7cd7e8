"""Images whose every pixel has a class or none, whatever the file: COCO JSON, parts, label maps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovtool.errors import InputError
from ovtool.formats import coco, label_maps, parts, rle
from ovtool.formats import coco_checks as checks

CLASSES_FILE = "classes.txt"
UNLABELLED_VALUES = (255, 65535)  # what label maps of 8 and 16 bit hold where there is no class


@dataclass(frozen=True)
class LabelledImages:
    """Label maps to be had one by one.

    `classes` holds the name of each class and its synonyms; `names` the images: relative file names
    or, with `by_stem`, those without their ending. `decode` takes a name and returns int32 (H, W):
    the index of the class, -1 for none; with `has_values` there may be indices beyond the classes.
    `dataset` is the COCO file behind them, if it is one.
    """

    source: str
    classes: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    decode: Callable[[str], NDArray[np.int32]]
    by_stem: bool = False
    has_values: bool = False
    dataset: coco.Dataset | None = None


def open_source(source: str, truth: LabelledImages | None = None) -> LabelledImages:
    """A COCO JSON (`-` is stdin), a folder of parts, or a folder of label maps with classes.txt.

    Args:
        truth: what a bare COCO results list takes its images and categories from.

    Raises:
        InputError: no such file, or whatever is wrong in it.
    """
    folder = Path(source)
    if source != "-" and folder.is_dir() and not parts.is_parts_folder(folder):
        return _open_folder(folder)
    dataset = coco.read(source, truth=None if truth is None else truth.dataset)
    return from_dataset(dataset, source)


def from_dataset(dataset: coco.Dataset, source: str) -> LabelledImages:
    """The images of a COCO data set; where masks overlap, the later annotation lies on top."""
    index = {category.id: k for k, category in enumerate(dataset.categories)}
    images = {image.file_name: image for image in dataset.images}
    masks: dict[int, list[coco.Annotation]] = {image.id: [] for image in dataset.images}
    for annotation in dataset.annotations:
        masks[annotation.image_id].append(annotation)

    def decode(name: str) -> NDArray[np.int32]:
        image = images[name]
        labels = np.full((image.height, image.width), -1, dtype=np.int32)
        for annotation in masks[image.id]:
            mask = rle.decode(annotation.segmentation, image.height, image.width)
            labels[mask] = index[annotation.category_id]
        return labels

    return LabelledImages(
        source,
        classes=tuple((c.name, *c.synonyms) for c in dataset.categories),
        names=tuple(images),
        decode=decode,
        dataset=dataset,
    )


def _open_folder(folder: Path) -> LabelledImages:
    """Label maps, PNG, in a folder and those below it."""
    classes_file = folder / CLASSES_FILE
    if not classes_file.is_file():
        raise InputError(
            f"{folder} is neither a folder of parts nor one of label maps: it has no {CLASSES_FILE}; "
            "put one there, a class a line in the order of the labels"
        )
    classes = label_maps.read_classes(classes_file)
    paths = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in label_map_files(folder)
    }
    if not paths:
        raise InputError(f"{folder} holds no label map (*.png)")
    return LabelledImages(
        str(folder),
        classes=tuple((name,) for name in classes),
        names=tuple(paths),
        decode=lambda name: label_maps.read(paths[name]),
        by_stem=True,
        has_values=True,
    )


def label_map_files(folder: Path) -> list[Path]:
    """The PNG files in a folder and those below it, in the order of their names."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() == ".png")
    return sorted(path for path in found if path.is_file())


def read_classes_per_image(path: Path) -> dict[str, list[str]]:
    """A JSON object: file name to the words that this image is segmented with.

    Raises:
        InputError: no such file, no JSON, or something else than lists of words.
    """
    where, table = checks.load_json(path)
    check_classes_per_image(table, where)
    return dict(table)


def check_classes_per_image(table: object, where: str) -> None:
    """Raises InputError unless `table` is an object of lists of words."""
    if not isinstance(table, dict) or not table:
        raise InputError(f"{where} is no JSON object of file names, each with its list of words")
    for name, words in table.items():
        is_list = isinstance(words, list) and all(isinstance(word, str) for word in words)
        if not is_list or not words or not all(word.strip() for word in words):
            raise InputError(
                f"{where}: '{name}' has no list of words; write one, with a word or more"
            )


def shortened(names: Sequence[str], most: int = 8) -> str:
    """Names as the end of a sentence: the first few, and how many more there are."""
    listed = ", ".join(names[:most])
    return listed + (f" and {len(names) - most} more" if len(names) > most else "")
