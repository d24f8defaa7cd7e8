"""Image-level labels: which classes each image shows, without their places.

They come from a data set's name, from a COCO JSON, of whose annotations only the ids are read, or from a
file of two columns.
"""

from __future__ import annotations

import logging
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ovtool.datasets import label_files, registry, vocabularies
from ovtool.errors import InputError, UsageError, short
from ovtool.formats import coco, coco_repair, file_matching, label_lists, labelled
from ovtool.formats import coco_checks as checks
from ovtool.formats.file_matching import path_of
from ovtool.formats.image_labels import Labelled, LabelledImage
from ovtool.formats.images import ImageItem
from ovtool.inputs import images as image_inputs
from ovtool.inputs.words import WordSet

Categories = tuple[coco.Category, ...]
LabelsByName = dict[str, set[int]]  # file name to the ids of the image's categories
_logger = logging.getLogger("ovtool")


def read(
    spec: str, images: Path | None = None, classes: str | None = None, limit: int | None = None
) -> Labelled:
    """The labels that `spec` names: a data set `NAME[:SPLIT]`, a COCO JSON, or a file of two columns,
    image and labels.

    Images without a label are left out, and a warning says so.

    Args:
        spec: What names the labels.
        images: The folder that the names in a file start from.
        classes: The classes that a file of two columns may name ("cow,boat"), in the order of their ids;
            without them they are its labels, in the order of the alphabet.
        limit: The number of images after which the list ends.

    Raises:
        UsageError: A folder or classes are missing, or are given where they have no use.
        InputError: The file is broken, it holds no label, a label is no class, or images do not exist.
    """
    is_data_set = image_inputs.is_data_set(spec)
    is_json = spec == "-" or Path(spec).suffix.lower() == ".json"
    if is_data_set and images is not None:
        raise UsageError(f"--images is the folder of a file of labels, and {spec} has its own")
    if classes is not None and (is_data_set or is_json):
        raise UsageError(f"--classes is for a file of two columns, and {spec} names its own")
    if is_data_set:
        listed, categories = _data_set(spec)
    else:
        folder = file_matching.folder_of(images, spec, f"--labels {spec}")
        by_name, categories = _coco(spec) if is_json else columns(Path(spec), classes)
        listed = _below(folder, by_name)
    return _checked(spec, listed[:limit], categories)


def _checked(spec: str, listed: list[LabelledImage], categories: Categories) -> Labelled:
    """The images that have a label, all of which exist."""
    if not listed:
        raise InputError(f"{spec} lists no images")
    kept = tuple(image for image in listed if image.category_ids)
    bare = [image.item.name for image in listed if not image.category_ids]
    if not kept:
        raise InputError(
            f"none of the {len(listed)} images of {spec} has a label; name their classes"
        )
    if bare:
        _logger.warning(
            "%d of the %d images of %s have no label and are left out, such as %s",
            len(bare), len(listed), spec, bare[0],
        )  # fmt: skip
    missing = [image.item for image in kept if not image.item.path.exists()]
    if missing:
        raise InputError(
            f"{spec} has labels for {len(missing)} images that do not exist, such as {missing[0].path}; "
            "give the folder that the names start from with --images, or remove them"
        )
    return Labelled(spec, kept, categories)


def _data_set(spec: str) -> tuple[list[LabelledImage], Categories]:
    files = registry.locate(spec)
    if files.objects is not None:
        return _voc(files, files.objects)
    if files.has_label_files:
        return _label_maps(files)
    if files.instances is None or not files.instances.exists():
        raise InputError(f"{spec} has no labels: {files.instances} is not there")
    by_name, categories = _coco(str(files.instances))
    return _below(files.images, dict(sorted(by_name.items()))), categories


def _below(folder: Path, by_name: LabelsByName) -> list[LabelledImage]:
    """The images of a folder with their labels."""
    return [
        LabelledImage(ImageItem(path_of(folder, name), name), tuple(sorted(ids)))
        for name, ids in by_name.items()
    ]


def _coco(source: str) -> tuple[LabelsByName, Categories]:
    """The categories of each image of a COCO JSON; masks and boxes are not looked at."""
    where, data = checks.load_long(source)
    if not isinstance(data, dict):
        raise InputError(f"{where} holds {short(data)}, not a COCO object with sections")
    checks.refuse_others(data, where)
    data, repairs = coco_repair.repaired(data, need_masks=False)
    if repairs:
        _logger.warning("%s", coco_repair.sentence(where, repairs))
    annotations = checks.section(data, "annotations", where)
    images, categories = coco.parse_images(data, where), coco.parse_categories(data, where)
    by_image: dict[int, set[int]] = {image.id: set() for image in images}
    known = {category.id: category for category in categories}
    for index, entry in enumerate(annotations):
        place = f"{where}: annotations entry {index}"
        checks.check_reference(entry.get("image_id"), "image_id", by_image, "images", place)
        checks.check_reference(entry.get("category_id"), "category_id", known, "categories", place)
        by_image[entry["image_id"]].add(entry["category_id"])
    return {image.file_name: by_image[image.id] for image in images}, tuple(categories)


def _voc(files: registry.DataSet, objects: Path) -> tuple[list[LabelledImage], Categories]:
    """The names of the objects in VOC's XML files, those marked difficult among them."""
    names = vocabularies.named("voc20").classes
    ids = {synonyms[0]: number for number, synonyms in enumerate(names, start=1)}
    listed = []
    for item in image_inputs.of_data_set(files):
        path = objects / f"{item.path.stem}.xml"
        if not path.exists():
            raise InputError(f"no such file: {path}; it has the labels of {item.name}")
        present = set(object_names(path))
        if unknown := sorted(present - ids.keys()):
            raise InputError(f"{path} names '{unknown[0]}', which is no class of VOC")
        listed.append(LabelledImage(item, tuple(sorted(ids[name] for name in present))))
    return listed, WordSet(names).categories


def object_names(path: Path) -> list[str]:
    """The names of the objects in an annotation of VOC, "" where one has none.

    Raises:
        InputError: It is not there, or is no XML.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, LookupError, ValueError) as error:  # of an encoding
        raise InputError(f"{path} is no XML: {error}; write it again") from None
    return [(entry.findtext("name") or "").strip() for entry in root.iter("object")]


def _label_maps(files: registry.DataSet) -> tuple[list[LabelledImage], Categories]:
    """The classes in each label map, whose ids are their places from 1; background is none of them."""
    opened = label_files.opened(files)
    listed: LabelsByName = {}
    for name in opened.names:
        present = np.unique(opened.decode(name)).tolist()
        listed[name] = {k + 1 for k in present if k >= 0}
    background = {
        k + 1 for k, names in enumerate(opened.classes) if names == (label_files.BACKGROUND,)
    }
    kept = {name: ids - background for name, ids in listed.items()}
    categories = WordSet(opened.classes).categories
    return _below(files.images, kept), tuple(c for c in categories if c.id not in background)


def columns(path: Path, classes: str | None) -> tuple[LabelsByName, Categories]:
    """A file of two columns, image and labels, with one separator for all of it (`formats.label_lists`).

    Args:
        path: The file.
        classes: The classes that it may name, as of `--classes`; None for its labels.

    Raises:
        InputError: The file is broken, or a label is no class.
        UsageError: The classes are empty, or one is there twice.
    """
    rows = label_lists.read(path)
    if classes is not None:
        given = vocabularies.parse_classes(classes).classes
    else:
        given = tuple((label,) for label in sorted({label for row in rows for label in row.labels}))
    number = {name.casefold(): k for k, names in enumerate(given, start=1) for name in names}
    listed: dict[str, set[int]] = {}
    for row in rows:
        place = f"{path}, line {row.number}"
        checks.check_file_name(row.name, place)
        unknown = [label for label in row.labels if label.casefold() not in number]
        if unknown:
            known = labelled.shortened([names[0] for names in given])
            raise InputError(
                f"{place}: '{unknown[0]}' is none of the classes ({known}); correct the label, or name it "
                "with --classes"
            )
        listed.setdefault(row.name, set()).update(number[label.casefold()] for label in row.labels)
    return listed, WordSet(given).categories
