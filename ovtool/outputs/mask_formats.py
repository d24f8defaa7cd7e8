"""Masks in the formats of other tools: the writer of each, and what it cannot hold."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovtool.datasets import vocabularies
from ovtool.datasets.name_matching import KnownNames
from ovtool.errors import InputError, UsageError
from ovtool.formats import (
    atomic,
    coco,
    colour_maps,
    colours,
    cvat,
    file_matching,
    folders,
    label_maps,
    labelled,
    mask_shards,
    panoptic,
    panoptic_files,
    yolo,
)
from ovtool.formats import images as image_files
from ovtool.formats.coco import Dataset
from ovtool.formats.images import ImageItem
from ovtool.settings.convert import Format

VOC_FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
FILES: Mapping[str, str] = {  # the formats that are a file, with its ending
    "coco": ".coco.json",
    "coco-results": ".results.json",
    "coco-panoptic": ".panoptic.json",
    "cvat": ".cvat.xml",
}
_SINGULAR = {
    "scores": "score",
    "crowd flags": "crowd flag",
    "ids of images": "id of an image",
    "ids of classes": "id of a class",
    "supercategories and synonyms": "supercategory or synonym",
}
# What a format has a place for, of what a COCO data set holds.
_HOLDS: Mapping[str, tuple[str, ...]] = {
    "coco-results": (  # the rest of which is in its ground truth
        "scores",
        "masks of one class in an image",
        "ids of images",
        "ids of classes",
        "supercategories and synonyms",
    ),
    "yolo-seg": ("masks of one class in an image",),
    "cvat": ("scores", "crowd flags", "masks of one class in an image", "ids of images"),
    "label-maps": (),
    "voc-submission": ("ids of classes", "supercategories and synonyms"),
}


@dataclass(frozen=True)
class Request:
    """What a writer is asked for.

    Attributes:
        to: The format.
        target: The file or folder; `-` is stdout.
        made_by: The provenance: version, command, settings, and `asked`, the digest of the request.
        images: The folder of the images.
        colours: The table of colours of label maps in RGB.
        advance: Called after each image, where the format goes image by image.
    """

    to: Format
    target: str
    made_by: Mapping[str, Any] = field(default_factory=dict)
    images: Path | None = None
    colours: colour_maps.ColourTable | None = None
    advance: Callable[[], None] = lambda: None


def write(dataset: Dataset, request: Request) -> list[str]:
    """Writes a data set; what could not be kept, a phrase for each kind.

    Raises InputError for names that a format cannot hold, and images that are not there.
    """
    target = Path(request.target)
    lost = not_held(dataset, request.to)
    if request.to == "coco":
        coco.write(_with_provenance(dataset, request.made_by), request.target)
    elif request.to == "coco-results":
        coco.write_results(dataset, request.target)
        lost.append("names of images and classes, for which it needs its ground truth")
        if unscored := sum(mask.score is None for mask in dataset.annotations):
            lost.append(f"that {labelled.counted(unscored, 'mask')} had no score, which is 1 now")
    elif request.to == "cvat":
        lost += cvat.write(dataset, target, request.made_by["asked"], request.advance)
    elif request.to == "coco-panoptic":
        place = panoptic_files.images_folder(target)
        with folders.writing(place, request.made_by) as folder:
            own = _with_provenance(dataset, request.made_by)
            content, others = panoptic.write_images(own, folder, _names(dataset), request.advance)
        atomic.write_text(target, atomic.plain_json(content) + "\n")
        lost += others
    else:
        with folders.writing(target, request.made_by) as folder:
            lost += _write_folder(dataset, folder, request)
    return lost


def not_held(dataset: Dataset, to: Format) -> list[str]:
    """What a data set holds that a format has no place for, a phrase for each kind."""
    if to not in _HOLDS:
        return []
    counts: Counter[tuple[int, int]] = Counter()
    extra: Counter[str] = Counter()
    scores = crowds = 0
    for mask in dataset.annotations:
        counts[mask.image_id, mask.category_id] += 1
        extra.update(key for key in mask.extra if key != "iscrowd")
        scores += mask.score is not None
        crowds += bool(mask.extra.get("iscrowd"))
    if to != "coco-results":
        extra.update(key for image in dataset.images for key in image.extra)
        extra.update(key for category in dataset.categories for key in category.extra)
    words = [c for c in dataset.categories if c.synonyms or c.supercategory]
    there = {
        "scores": scores,
        "crowd flags": crowds,
        "masks of one class in an image": sum(n for n in counts.values() if n > 1),
        "ids of images": sum(i.id != n for n, i in enumerate(dataset.images, start=1)),
        "ids of classes": sum(c.id != n for n, c in enumerate(dataset.categories, start=1)),
        "supercategories and synonyms": len(words),
        f"other fields ({labelled.shortened(sorted(extra), 4)})": extra.total(),
    }
    return [
        labelled.counted(n, _SINGULAR.get(kind, kind), kind)
        for kind, n in there.items()
        if n and kind not in _HOLDS[to]
    ]


def _with_provenance(dataset: Dataset, made_by: Mapping[str, Any]) -> Dataset:
    """The data set with what converted it beside what made it."""
    earlier = dataset.info.get("ovtool")
    if isinstance(earlier, dict):
        own = {**earlier, "asked": made_by["asked"], "converted": dict(made_by["settings"])}
    else:
        own = dict(made_by)
    return coco.Dataset(
        {**dataset.info, "ovtool": own},
        dataset.images,
        dataset.annotations,
        dataset.categories,
        dataset.licenses,
    )


def _names(dataset: Dataset, bare: bool = False) -> dict[int, str]:
    """Of each image by its id, the name of its own files without their ending.

    bare: Without its folders, as VOC names images. Raises InputError where two images would have one.
    """
    stems = {image.id: file_matching.image_stem(image.file_name) for image in dataset.images}
    if bare:
        stems = {id: stem.rpartition("/")[2] for id, stem in stems.items()}
    counts = Counter(stem.casefold() for stem in stems.values())
    doubled = {id for id, stem in stems.items() if counts[stem.casefold()] > 1}
    if doubled and bare:
        raise InputError(
            f"VOC names images by their last name, and {stems[min(doubled)]} is that of two"
        )
    names = {image.id: image.file_name for image in dataset.images}
    return {id: names[id] if id in doubled else stem for id, stem in stems.items()}


def _write_folder(dataset: Dataset, folder: Path, request: Request) -> list[str]:
    if request.to == "label-maps":
        return _write_label_maps(dataset, folder, request)
    if request.to == "voc-submission":
        return _write_voc(dataset, folder, request)
    if request.to == "webdataset":
        if request.images is None:
            raise UsageError(
                "shards hold the images too; give --images DIR, the folder that their names start from"
            )
        mask_shards.write(dataset, folder, _items(dataset, request.images), request.advance)
        return []
    lost = yolo.write(dataset, folder, _names(dataset), request.advance)
    if request.images is None:
        return [*lost, "images, which it expects in images/ (--images DIR copies them)"]
    for name, item in _items(dataset, request.images).items():
        try:
            shutil.copyfile(item.path, folders.place(folder, f"images/{name}"))
        except OSError as error:
            raise InputError(f"cannot copy {item.path}: {error.strerror or error}") from None
    return lost


def _items(dataset: Dataset, images: Path) -> dict[str, ImageItem]:
    return labelled.images_of(labelled.from_dataset(dataset, "the data set"), images)


def _write_label_maps(dataset: Dataset, folder: Path, request: Request) -> list[str]:
    table = request.colours
    names = [category.name for category in dataset.categories]
    order = np.arange(-1, len(names), dtype=np.int32)
    if table is not None:
        lacking = [name for name in names if name not in table.names]
        if lacking:
            raise InputError(
                f"{table.source} has no colour for {labelled.shortened(lacking, 4)}; add a line for each"
            )
        order[1:] = [table.names.index(name) for name in names]

    def write(path: Path, labels: NDArray[np.int32]) -> None:
        if table is None:
            label_maps.write(path, labels, len(names), names)
        else:
            image_files.write_png(path, colour_maps.image(order[labels + 1], table))

    lost = _write_maps(dataset, folder, _names(dataset), write, request.advance)
    if table is None:
        label_maps.write_classes(folder / labelled.CLASSES_FILE, names)
    return lost


def _write_maps(
    dataset: Dataset,
    folder: Path,
    names: Mapping[int, str],
    write: Callable[[Path, NDArray[np.int32]], None],
    advance: Callable[[], None],
) -> list[str]:
    """Writes a PNG for each image, named by its id, and says how many pixels several masks share."""
    maps = labelled.from_dataset(dataset, "the data set")
    shared = int(sum(mask.area for mask in dataset.annotations))
    for image in dataset.images:
        labels = maps.decode(image.file_name)
        shared -= int((labels >= 0).sum())
        write(folders.place(folder, f"{names[image.id]}.png"), labels)
        advance()
    return [labelled.counted(shared, "pixel") + " of masks below others"] if shared else []


def _write_voc(dataset: Dataset, folder: Path, request: Request) -> list[str]:
    """Label maps in VOC's numbers and palette; 0 is the background, and whatever VOC has no class for."""
    voc = KnownNames(vocabularies.named("voc20").classes)
    numbers = np.zeros(len(dataset.categories) + 1, np.int32)  # the first of no class
    drawn = {mask.category_id for mask in dataset.annotations}
    others = []
    for index, category in enumerate(dataset.categories, start=1):
        own = set[int]().union(*(voc.of_word(word) for word in (category.name, *category.synonyms)))
        if len(own) == 1:
            numbers[index] = min(own) + 1
        elif category.id in drawn and not colours.is_background(category.name):
            others.append(category.name)
    if not numbers.any():
        raise InputError(
            f"no mask is of one of VOC's 20 classes: {labelled.shortened(others, 4)}; give masks of them"
        )

    def write(path: Path, labels: NDArray[np.int32]) -> None:
        label_maps.write(path, numbers[labels + 1], len(voc.names) + 1)

    names = _names(dataset, bare=True)
    lost = _write_maps(dataset, folder / VOC_FOLDER, names, write, request.advance)
    if others:
        lost.append(
            f"classes that VOC lacks, which are background: {labelled.shortened(others, 4)}"
        )
    return lost
