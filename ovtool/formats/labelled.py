"""Images whose every pixel has a class or none, whatever the file: COCO JSON, parts, label maps.

Masks become a map in one order (`painting_order`), from the lowest to the topmost:

1. Crowd regions (``iscrowd`` 1) lie below all objects. A crowd says that its pixels are of its class, and
   nothing of where an object begins or ends: so it counts as its class where no object lies on it, and
   no measure looks for it as an object. `methods.recall` leaves it out for the same reason.
2. Of masks with a score the higher lies on top, whatever their order in the file; lists of results are
   often written best first. A mask without a score counts as 1, as in `methods.recall`.
3. Else the later annotation of the file lies on top.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovtool.errors import InputError
from ovtool.formats import coco, file_matching, image_search, label_maps, parts, rle
from ovtool.formats import coco_checks as checks
from ovtool.formats.file_matching import Names, image_stem
from ovtool.formats.images import ImageItem
from ovtool.formats.mask_store import masks_of

CLASSES_FILE = "classes.txt"
UNLABELLED_VALUES = (255, 65535)  # what label maps of 8 and 16 bit hold where there is no class


@dataclass(frozen=True)
class LabelledImages:
    """Label maps to be had one by one.

    `classes` holds the name of each class and its synonyms; `names` the images: relative file names
    or, with `by_stem`, those without their ending. `decode` takes a name and returns int32 (H, W):
    the index of the class, -1 for none; with `has_values` there may be indices beyond the classes.
    `dataset` is the COCO file behind them, if it is one; `files` the label maps, if it is a folder of them.
    """

    source: str
    classes: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    decode: Callable[[str], NDArray[np.int32]]
    by_stem: bool = False
    has_values: bool = False
    dataset: coco.Dataset | None = None
    files: tuple[Path, ...] = ()


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
    """The images of a COCO data set; where masks overlap, `painting_order` says which lies on top."""
    index = {category.id: k for k, category in enumerate(dataset.categories)}
    by_name = {image.file_name: image for image in dataset.images}
    masks_of_image = masks_of(dataset)

    def decode(name: str) -> NDArray[np.int32]:
        image = by_name[name]
        labels = np.full((image.height, image.width), -1, dtype=np.int32)
        for annotation in painting_order(masks_of_image(image.id)):
            mask = rle.decode(annotation.segmentation, image.height, image.width)
            labels[mask] = index[annotation.category_id]
        return labels

    return LabelledImages(
        source,
        classes=tuple((c.name, *c.synonyms) for c in dataset.categories),
        names=tuple(by_name),
        decode=decode,
        dataset=dataset,
    )


def painting_order(annotations: Sequence[coco.Annotation]) -> list[coco.Annotation]:
    """The masks of an image from the lowest to the topmost, as the head of this file says."""

    def height(annotation: coco.Annotation) -> tuple[bool, float]:
        is_object = not annotation.extra.get("iscrowd")
        return is_object, 1.0 if annotation.score is None else annotation.score

    return sorted(annotations, key=height)


def _open_folder(folder: Path) -> LabelledImages:
    """Label maps, PNG, in a folder and those below it."""
    classes_file = folder / CLASSES_FILE
    if not classes_file.is_file():
        raise InputError(
            f"{folder} is neither a folder of parts nor one of label maps: it has no {CLASSES_FILE}; "
            "put one there, a class a line in the order of the labels"
        )
    classes = label_maps.read_classes(classes_file)
    paths = label_maps_by_stem(folder)
    return LabelledImages(
        str(folder),
        classes=tuple((name,) for name in classes),
        names=tuple(paths),
        decode=lambda name: label_maps.read(paths[name]),
        by_stem=True,
        has_values=True,
        files=tuple(paths.values()),
    )


def label_maps_by_stem(folder: Path) -> dict[str, Path]:
    """The label maps in a folder and those below it, by their names without the ending. Raises InputError for
    two of one name, and where there are none."""
    paths: dict[str, Path] = {}
    for path in label_map_files(folder):
        name = image_stem(path.relative_to(folder).as_posix())
        if name in paths:
            raise InputError(
                f"{folder}: {paths[name].name} and {path.name} are both the label map of '{name}'; "
                "remove one of them"
            )
        paths[name] = path
    if not paths:
        raise InputError(f"{folder} holds no label map (*.png)")
    return paths


def images_of(labels: LabelledImages, folder: Path) -> dict[str, ImageItem]:
    """The image of each label map in a folder, by the map's name (`file_matching`). A label map is never
    taken for an image, so that both may lie in one folder.

    Raises:
        InputError: images that are not there, and two of which either could be meant.
    """
    items: dict[str, ImageItem] = {}
    if not labels.by_stem:
        for name in labels.names:
            if (path := file_matching.place(folder, name)) is not None:
                items[name] = ImageItem(path, name)
    else:
        maps = {os.path.realpath(path) for path in labels.files}
        there = {
            item.name: item
            for item in image_search.find_images([str(folder)])
            if os.path.realpath(item.path) not in maps
        }
        wanted = Names(labels.source, labels.names, bare=True)
        known = Names(str(folder), list(there))
        matched = file_matching.match(wanted, known)
        matched = matched or file_matching.match(wanted, known, file_matching.ADDED)
        items = {name: there[file] for name, file in matched.items()}
    missing = [name for name in labels.names if name not in items]
    if missing:
        raise InputError(
            f"{folder} lacks {len(missing)} of the {len(labels.names)} images of {labels.source} "
            f"(the first is {missing[0]}); give the folder that the names start from"
        )
    return {name: items[name] for name in labels.names}


def label_map_files(folder: Path) -> list[Path]:
    """The PNG files in a folder and those below it, in the order of their names."""
    paths = (path for path in folder.rglob("*") if path.suffix.lower() == ".png")
    return sorted(path for path in paths if path.is_file())


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


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun: `1 mask`, `2 masks`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def shortened(names: Sequence[str], most: int = 8) -> str:
    """Names as the end of a sentence: the first few, and how many more there are."""
    listed = ", ".join(names[:most])
    return listed + (f" and {len(names) - most} more" if len(names) > most else "")
