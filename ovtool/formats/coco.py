"""COCO JSON: images, categories and masks in one file, read with every check, written one way.

The conventions are those that COCO's own tools, CVAT, datumaro, FiftyOne and detectron2 agree on:
five sections always, annotation ids from 1, compressed RLE with ``iscrowd`` 0, a tight ``bbox``, the
``area`` of the mask, relative file names with forward slashes. Image and category ids are the source's
own, which may count from 0. What exporters write otherwise is repaired on reading (`coco_repair`).
"""

import hashlib
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ovtool.errors import InputError, short
from ovtool.formats import atomic, coco_annotations, coco_repair, json_sections, parts
from ovtool.formats import coco_checks as checks
from ovtool.formats.coco_entries import (
    CATEGORY_FIELDS,
    IMAGE_FIELDS,
    Annotation,
    Category,
    Dataset,
    Image,
    annotation,
    annotation_entry,
    category_entry,
    extra_fields,
    image_entry,
)  # fmt: skip
from ovtool.formats.coco_repair import Annotations
from ovtool.formats.file_matching import path_of
from ovtool.formats.json_sections import Entries

__all__ = [
    "Annotation", "Category", "Dataset", "Image", "annotation", "annotation_entry", "category_entry",
    "check", "digest", "image_entry", "of_json", "parse", "parse_categories", "parse_images", "read", "read_images",
    "read_results", "write", "write_results",
]  # fmt: skip

_logger = logging.getLogger("ovtool")


def read(
    source: Path | str,
    *,
    need_masks: bool = True,
    root: Path | None = None,
    truth: Dataset | None = None,
) -> Dataset:
    """A COCO file, ``-`` (stdin) or a folder of parts, repaired (`coco_repair`) and checked in full.

    Polygons and list RLE become compressed RLE. Missing ``info`` and ``licenses`` are filled; boxes
    and areas are those of the masks, whatever the file says. One warning says what was repaired. With
    ``need_masks`` False annotations may lack a mask, and then carry an empty one, and
    the section may be missing. ``root``: the folder of the images, which must hold some of them.
    ``truth``: images and categories for a bare list of results, which has none (``read_results``).

    Raises:
        InputError: whatever is wrong, with file, section, id and mend.
    """
    if str(source) != "-" and Path(source).is_dir():
        dataset = parse(parts.document(Path(source)), str(source))
        _check_root(dataset.images, root, str(source))
        return dataset
    where, data = checks.load_long(source)
    dataset = of_json(where, data, need_masks=need_masks, truth=truth)
    _check_root(dataset.images, root, where)
    return dataset


def of_json(
    where: str, data: Any, *, need_masks: bool = True, truth: Dataset | None = None
) -> Dataset:
    """A data set from parsed JSON, whatever it holds, repaired and checked as by ``read``; ``where`` names it in
    messages."""
    if isinstance(data, list | Entries):
        checks.refuse_tools(data, where)
        if truth is None:
            raise InputError(
                f"{where} is a bare list of results, without images and categories; "
                "give it together with its ground truth"
            )
        dataset = read_results(data, truth, where=where)
    elif isinstance(data, dict):
        if need_masks:
            checks.refuse_others(data, where)
        sections, repairs = coco_repair.repaired(data, need_masks=need_masks)
        dataset = parse(sections, where, need_masks=need_masks)
        dataset = replace(dataset, repairs={**repairs, **dataset.repairs})
    else:
        raise InputError(f"{where} holds {short(data)}, not a COCO object with sections")
    if dataset.repairs:
        _logger.warning("%s", coco_repair.sentence(where, dataset.repairs))
    return dataset


def read_images(source: Path | str, root: Path | None = None) -> Sequence[Image]:
    """The images of a COCO file, as ``read`` gives them; its other sections are neither held nor checked.

    Raises:
        InputError: as ``read``, for the images.
    """
    try:
        sections = json_sections.read(Path(source), ("images",))
    except ValueError:  # `read` says where
        sections = None
    if sections is None or "images" not in sections:
        return read(source, need_masks=False, root=root).images
    sections, repairs = coco_repair.repaired(sections)
    if repairs:
        _logger.warning("%s", coco_repair.sentence(str(source), repairs))
    images = parse_images(sections, str(source))
    _check_root(images, root, str(source))
    return images


def parse(data: Mapping[str, Any], where: str, *, need_masks: bool = True) -> Dataset:
    """A data set from parsed JSON; ``where`` names it in messages. Otherwise as ``read``, but nothing is
    repaired beside areas and boxes."""
    info, licenses = checks.info_and_licenses(data, where)
    if not need_masks:
        data = {"annotations": [], **data}
    for name in ("images", "annotations", "categories"):
        checks.section(data, name, where)  # is there
    images = parse_images(data, where)
    categories = parse_categories(data, where)
    by_id = {image.id: image for image in images}
    known = {category.id: category for category in categories}
    repairs: Counter[str] = Counter()
    entries = checks.entries_with_ids(data, "annotations", where)
    annotations = coco_annotations.parsed(entries, by_id, known, need_masks, repairs)
    return Dataset(info, images, annotations, categories, licenses, dict(repairs))


def parse_images(data: Mapping[str, Any], where: str) -> list[Image]:
    """The checked section ``images`` of parsed JSON."""
    images = []
    for place, id, entry in checks.entries_with_ids(data, "images", where):
        if "file_name" not in entry and isinstance(entry.get("coco_url"), str):  # of LVIS
            entry = {**entry, "file_name": "/".join(entry["coco_url"].split("/")[-2:])}
        file_name = sys.intern(checks.text(entry, "file_name", place))  # of truth and prediction
        checks.check_file_name(file_name, place)
        width, height = checks.side(entry, "width", place), checks.side(entry, "height", place)
        images.append(Image(id, file_name, width, height, extra_fields(entry, IMAGE_FIELDS)))
    checks.check_names(((i.id, i.file_name) for i in images), "images", "file_name", where)
    return images


def parse_categories(data: Mapping[str, Any], where: str) -> list[Category]:
    """The checked section ``categories`` of parsed JSON."""
    categories = []
    for place, id, entry in checks.entries_with_ids(data, "categories", where):
        name = checks.text(entry, "name", place)
        parent, synonyms = entry.get("supercategory") or "", entry.get("synonyms") or []
        if not isinstance(parent, str):
            raise InputError(f"{place}: supercategory is {short(parent)}; make it a text")
        if not isinstance(synonyms, list) or not all(isinstance(word, str) for word in synonyms):
            raise InputError(f"{place}: synonyms must be a list of texts")
        extra = extra_fields(entry, CATEGORY_FIELDS)
        categories.append(Category(id, name, parent, tuple(synonyms), extra))
    checks.check_names(((c.id, c.name) for c in categories), "categories", "name", where)
    return categories


def read_results(
    results: Annotations, truth: Dataset, *, where: str = "the list of results"
) -> Dataset:
    """A bare COCO list of results as a data set with the images and categories of its truth.

    Each entry has ``image_id``, ``category_id``, ``score`` and ``segmentation``; ids are given in
    order from 1. Boxes are those of the masks, whatever the entries say; entries with a box and no
    mask are left out where others have one. Raises InputError.
    """
    results, repairs = coco_repair.repaired_results(results)
    images = {image.id: image for image in truth.images}
    categories = {category.id: category for category in truth.categories}
    entries = _results(results, where)
    annotations = coco_annotations.parsed(entries, images, categories, True, Counter())
    return Dataset({}, truth.images, annotations, truth.categories, truth.licenses, repairs)


def _results(results: Annotations, where: str) -> Iterator[coco_annotations.Placed]:
    for index, entry in enumerate(results):
        place = f"{where}: entry {index}"
        if not isinstance(entry, dict):
            raise InputError(f"{place} is {short(entry)}, not an object; remove it")
        if "score" not in entry:
            raise InputError(f"{place} has no score: results need one each, so add it")
        bare = {key: value for key, value in entry.items() if key not in ("id", "bbox", "area")}
        yield place, index + 1, bare


def write(dataset: Dataset, target: Path | str) -> None:
    """Writes a data set as COCO JSON, atomically, or to stdout for ``-``.

    Always five sections, one entry a line, keys in one order, floats of the entries rounded to six
    decimals: equal data sets give equal bytes.

    Raises:
        InputError: the target cannot be written, or the data set breaks a rule: annotation ids from 1,
            others from 0, all unique, references that exist, masks of their image's size, names that differ.
    """
    check(dataset, str(target))
    _write_lines(_lines(dataset, str(target)), target)


def write_results(dataset: Dataset, target: Path | str) -> None:
    """Writes the annotations as COCO's bare list of results, which ``COCO.loadRes`` takes, as ``write``
    does: ``image_id``, ``category_id``, ``segmentation`` and ``score`` (1 where there is none).

    There is no ``bbox``: with one, pycocotools takes its area for that of the mask.
    """
    check(dataset, str(target))
    _write_lines(_result_lines(dataset), target)


def document(dataset: Dataset) -> dict[str, Any]:
    """A data set as the content of a COCO JSON, as ``write`` writes it. Raises InputError as there."""
    check(dataset, "the data set")
    return {
        "info": dict(dataset.info),
        **{name: list(entries) for name, entries in _sections(dataset)},
    }


def check(dataset: Dataset, where: str) -> None:
    """Checks ids, references, names and mask sizes of a data set; InputError as ``read``."""
    checks.check_ids((image.id for image in dataset.images), "images", where, 0)
    checks.check_ids((category.id for category in dataset.categories), "categories", where, 0)
    checks.check_ids((entry.id for entry in dataset.annotations), "annotations", where)
    images = {image.id: image for image in dataset.images}
    categories = {category.id: category for category in dataset.categories}
    for image in dataset.images:
        checks.check_file_name(image.file_name, f"{where}: images id {image.id}")
    checks.check_names(((i.id, i.file_name) for i in dataset.images), "images", "file_name", where)
    checks.check_names(((c.id, c.name) for c in dataset.categories), "categories", "name", where)
    for entry in dataset.annotations:
        place = f"{where}: annotations id {entry.id}"
        checks.check_reference(entry.image_id, "image_id", images, "images", place)
        checks.check_reference(entry.category_id, "category_id", categories, "categories", place)
        checks.box(entry.bbox, place)
        checks.number(entry.area, "area", place)
        if entry.score is not None:
            checks.number(entry.score, "score", place)
        size = [images[entry.image_id].height, images[entry.image_id].width]
        if entry.segmentation["size"] != size:
            raise InputError(
                f"{place}: the mask has size {entry.segmentation['size']}, but its image is {size}; "
                "scale one to the other"
            )


def digest(dataset: Dataset) -> str:
    """16 hexadecimal digits of the images and annotations of a data set, however its file is laid out."""
    content = hashlib.sha256()
    for image in dataset.images:
        content.update(atomic.canonical_json(image_entry(image)).encode())
    for entry in dataset.annotations:
        content.update(atomic.canonical_json(annotation_entry(entry)).encode())
    return content.hexdigest()[:16]


def _check_root(images: Sequence[Image], root: Path | None, where: str) -> None:
    if root is None:
        return
    if not root.is_dir():
        raise InputError(f"no folder {root} with the images of {where}")
    if images and not any(path_of(root, image.file_name).exists() for image in images):
        raise InputError(
            f"{root} holds none of the images of {where}, such as {images[0].file_name}; "
            "give the folder that the file names start from"
        )


def _sections(dataset: Dataset) -> list[tuple[str, Iterator[dict[str, Any]]]]:
    """The four sections beside ``info``, in order, with their entries as JSON objects."""
    return [
        ("licenses", (dict(entry) for entry in dataset.licenses)),
        ("images", (image_entry(image) for image in dataset.images)),
        ("annotations", (annotation_entry(entry) for entry in dataset.annotations)),
        ("categories", (category_entry(category) for category in dataset.categories)),
    ]


def _lines(dataset: Dataset, where: str) -> Iterator[bytes]:
    """The file, line by line: ``info``, then each section with an entry a line."""
    try:
        yield f'{{"info":{atomic.canonical_json(dict(dataset.info))}'.encode()
        for name, entries in _sections(dataset):
            yield f',\n"{name}":['.encode()
            for index, entry in enumerate(entries):
                yield (",\n" if index else "\n").encode() + atomic.plain_json(entry).encode()
            yield b"]"
    except ValueError as error:  # NaN, or a name that is not UTF-8
        raise InputError(f"cannot write {where} as JSON: {error}") from None
    yield b"}\n"


def _result_lines(dataset: Dataset) -> Iterator[bytes]:
    """The list of results, an entry a line."""
    yield b"["
    for index, entry in enumerate(dataset.annotations):
        whole = annotation_entry(entry)
        kept = {key: whole[key] for key in ("image_id", "category_id", "segmentation")}
        kept["score"] = whole.get("score", 1.0)
        yield (",\n" if index else "\n").encode() + atomic.plain_json(kept).encode()
    yield b"\n]\n"


def _write_lines(lines: Iterator[bytes], target: Path | str) -> None:
    """Writes a file atomically, or to stdout for ``-``."""
    atomic.remove_stale(Path(target))
    with atomic.writing(Path(target)) as handle:
        handle.writelines(lines)
