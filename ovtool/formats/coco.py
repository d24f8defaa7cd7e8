"""COCO JSON: images, categories and masks in one file, read with every check, written one way.

The conventions are those that COCO's own tools, CVAT, datumaro, FiftyOne and detectron2 agree on:
five sections always, ids from 1, compressed RLE with ``iscrowd`` 0, a tight ``bbox``, the ``area``
of the mask, relative file names with forward slashes.
"""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovtool.errors import InputError
from ovtool.formats import atomic, parts, rle
from ovtool.formats import coco_checks as checks
from ovtool.formats.rle import Rle

_IMAGE = ("id", "file_name", "width", "height")
_CATEGORY = ("id", "name", "supercategory", "synonyms")
_ANNOTATION = (
    "id", "image_id", "category_id", "segmentation", "bbox", "area", "iscrowd", "score"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Image:
    """An image: ``file_name`` relative with forward slashes, sizes in pixels, as it is shown."""

    id: int
    file_name: str
    width: int
    height: int
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Category:
    """A class: its name as the user wrote it, and other words for it."""

    id: int
    name: str
    supercategory: str = ""
    synonyms: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Annotation:
    """A mask of a category on an image.

    ``bbox`` is x, y, width, height and ``area`` the number of set pixels, both in pixels; ``score``
    is None for a ground truth. ``extra`` holds ``iscrowd`` where a file that was read had it at 1.
    """

    id: int
    image_id: int
    category_id: int
    segmentation: Rle
    bbox: tuple[float, float, float, float]
    area: float
    score: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A whole file; ``info["ovtool"]`` says what made it."""

    info: Mapping[str, Any]
    images: Sequence[Image]
    annotations: Sequence[Annotation]
    categories: Sequence[Category]
    licenses: Sequence[Mapping[str, Any]] = ()


def annotation(
    id: int, image_id: int, category_id: int, rle_: Rle, score: float | None, **extra: Any
) -> Annotation:
    """An annotation of a mask, its box and area filled in."""
    box, area = rle.bounding_box(rle_), float(rle.area(rle_))
    return Annotation(id, image_id, category_id, rle_, box, area, score, extra)


def read(
    source: Path | str,
    *,
    need_masks: bool = True,
    root: Path | None = None,
    truth: Dataset | None = None,
) -> Dataset:
    """A COCO file, ``-`` (stdin) or a folder of parts, checked in full.

    Polygons and list RLE become compressed RLE. Missing ``info``, ``licenses``, boxes and areas are
    filled. With ``need_masks`` False annotations may lack a mask, and then carry an empty one, and
    the section may be missing. ``root``: the folder of the images, which must hold some of them.
    ``truth``: images and categories for a bare list of results, which has none (``read_results``).

    Raises:
        InputError: whatever is wrong, with file, section, id and mend.
    """
    if str(source) != "-" and Path(source).is_dir():
        dataset = parse(parts.document(Path(source)), str(source))
        _check_root(dataset, root, str(source))
        return dataset
    where, data = checks.load_json(source)
    if isinstance(data, list):
        if truth is None:
            raise InputError(
                f"{where} is a bare list of results, without images and categories: "
                "give it together with its ground truth"
            )
        return read_results(data, truth, where=where)
    if not isinstance(data, dict):
        raise InputError(f"{where} holds {checks.short(data)}, not a COCO object with sections")
    dataset = parse(data, where, need_masks=need_masks)
    _check_root(dataset, root, where)
    return dataset


def parse(data: Mapping[str, Any], where: str, *, need_masks: bool = True) -> Dataset:
    """A data set from parsed JSON; ``where`` names it in messages. Otherwise as ``read``."""
    info, licenses = data.get("info") or {}, data.get("licenses") or []
    if not isinstance(info, dict):
        raise InputError(f"{where}: info is {checks.short(info)}, not an object; make it {{}}")
    if not isinstance(licenses, list):
        raise InputError(f"{where}: licenses is {checks.short(licenses)}, not a list; make it []")
    if not need_masks:
        data = {"annotations": [], **data}
    for name in ("images", "annotations", "categories"):
        checks.section(data, name, where)
    images = parse_images(data, where)
    categories = parse_categories(data, where)
    by_id = {image.id: image for image in images}
    known = {category.id: category for category in categories}
    annotations = [
        _annotation(place, id, entry, by_id, known, need_masks)
        for place, id, entry in checks.entries_with_ids(data, "annotations", where)
    ]
    return Dataset(info, images, annotations, categories, licenses)


def parse_images(data: Mapping[str, Any], where: str) -> list[Image]:
    """The checked section ``images`` of parsed JSON."""
    images = []
    for place, id, entry in checks.entries_with_ids(data, "images", where):
        file_name = checks.text(entry, "file_name", place)
        checks.check_file_name(file_name, place)
        width, height = checks.side(entry, "width", place), checks.side(entry, "height", place)
        images.append(Image(id, file_name, width, height, _extra(entry, _IMAGE)))
    checks.check_names(((i.id, i.file_name) for i in images), "images", "file_name", where)
    return images


def parse_categories(data: Mapping[str, Any], where: str) -> list[Category]:
    """The checked section ``categories`` of parsed JSON."""
    categories = []
    for place, id, entry in checks.entries_with_ids(data, "categories", where):
        name = checks.text(entry, "name", place)
        parent, synonyms = entry.get("supercategory") or "", entry.get("synonyms") or []
        if not isinstance(parent, str):
            raise InputError(f"{place}: supercategory is {checks.short(parent)}; make it a text")
        if not isinstance(synonyms, list) or not all(isinstance(word, str) for word in synonyms):
            raise InputError(f"{place}: synonyms must be a list of texts")
        extra = _extra(entry, _CATEGORY)
        categories.append(Category(id, name, parent, tuple(synonyms), extra))
    checks.check_names(((c.id, c.name) for c in categories), "categories", "name", where)
    return categories


def read_results(
    results: Sequence[Any], truth: Dataset, *, where: str = "the list of results"
) -> Dataset:
    """A bare COCO list of results as a data set with the images and categories of its truth.

    Each entry has ``image_id``, ``category_id``, ``score`` and ``segmentation``; ids are given in
    order from 1. Boxes are those of the masks, whatever the entries say. Raises InputError.
    """
    images = {image.id: image for image in truth.images}
    categories = {category.id: category for category in truth.categories}
    annotations = []
    for index, entry in enumerate(results):
        place = f"{where}: entry {index}"
        if not isinstance(entry, dict):
            raise InputError(f"{place} is {checks.short(entry)}, not an object; remove it")
        if "score" not in entry:
            raise InputError(f"{place} has no score: results need one each, so add it")
        bare = {key: value for key, value in entry.items() if key not in ("id", "bbox", "area")}
        annotations.append(_annotation(place, index + 1, bare, images, categories, True))
    return Dataset({}, truth.images, annotations, truth.categories, truth.licenses)


def write(dataset: Dataset, target: Path | str) -> None:
    """Writes a data set as COCO JSON, atomically, or to stdout for ``-``.

    Always five sections, one entry a line, keys in one order, floats of the entries rounded to six
    decimals: equal data sets give equal bytes.

    Raises:
        InputError: the target cannot be written, or the data set breaks a rule: ids from 1 and
            unique, references that exist, masks of their image's size, names that differ.
    """
    check(dataset, str(target))
    if str(target) == "-":
        for line in _lines(dataset, "standard output"):
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        return
    atomic.remove_stale(Path(target))
    with atomic.writing(Path(target)) as handle:
        handle.writelines(_lines(dataset, str(target)))


def document(dataset: Dataset) -> dict[str, Any]:
    """A data set as the content of a COCO JSON, as ``write`` writes it. Raises InputError as there."""
    check(dataset, "the data set")
    return {
        "info": dict(dataset.info),
        **{name: list(entries) for name, entries in _sections(dataset)},
    }


def check(dataset: Dataset, where: str) -> None:
    """Checks ids, references, names and mask sizes of a data set; InputError as ``read``."""
    checks.check_ids((image.id for image in dataset.images), "images", where)
    checks.check_ids((category.id for category in dataset.categories), "categories", where)
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
                f"{place}: the mask has size {entry.segmentation['size']}, but its image is {size}: "
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


def category_entry(category: Category) -> dict[str, Any]:
    """A category as its JSON object."""
    entry: dict[str, Any] = {
        "id": category.id, "name": category.name, "supercategory": category.supercategory
    }  # fmt: skip
    if category.synonyms:
        entry["synonyms"] = list(category.synonyms)
    return entry | _rounded_extra(category.extra, _CATEGORY)


def image_entry(image: Image) -> dict[str, Any]:
    """An image as its JSON object."""
    entry = {name: getattr(image, name) for name in _IMAGE}
    return entry | _rounded_extra(image.extra, _IMAGE)


def annotation_entry(entry: Annotation) -> dict[str, Any]:
    """An annotation as its JSON object."""
    found: dict[str, Any] = {
        "id": entry.id,
        "image_id": entry.image_id,
        "category_id": entry.category_id,
        "segmentation": {
            "size": list(entry.segmentation["size"]),
            "counts": entry.segmentation["counts"],
        },
        "bbox": _rounded([float(value) for value in entry.bbox]),
        "area": _rounded(float(entry.area)),
        "iscrowd": int(entry.extra.get("iscrowd", 0)),
    }
    if entry.score is not None:
        found["score"] = _rounded(float(entry.score))
    return found | _rounded_extra(entry.extra, _ANNOTATION)


def _annotation(
    place: str,
    id: int,
    entry: Mapping[str, Any],
    images: Mapping[int, Image],
    categories: Mapping[int, Category],
    need_masks: bool,
) -> Annotation:
    """A checked annotation; ``place`` names it in messages."""
    image_id, category_id = entry.get("image_id"), entry.get("category_id")
    checks.check_reference(image_id, "image_id", images, "images", place)
    checks.check_reference(category_id, "category_id", categories, "categories", place)
    image = images[entry["image_id"]]
    segmentation = entry.get("segmentation")
    if not segmentation and need_masks:
        said = "is missing" if "segmentation" not in entry else f"is {checks.short(segmentation)}"
        raise InputError(f"{place}: segmentation {said}; give it polygons or an RLE, or remove it")
    try:
        mask = rle.compress(segmentation or [], image.height, image.width)
    except InputError as error:
        raise InputError(f"{place}: {error}; write the mask again, or remove it") from None
    box = checks.box(entry["bbox"], place) if entry.get("bbox") else None
    area = checks.number(entry["area"], "area", place) if entry.get("area") is not None else None
    score = entry.get("score")
    crowd = entry.get("iscrowd") or 0
    if crowd not in (0, 1):
        raise InputError(f"{place}: iscrowd is {checks.short(crowd)}: it must be 0 or 1")
    extra = _extra(entry, _ANNOTATION) | ({"iscrowd": 1} if crowd else {})
    return Annotation(
        id,
        image.id,
        entry["category_id"],
        mask,
        rle.bounding_box(mask) if box is None else box,
        float(rle.area(mask)) if area is None else area,
        None if score is None else checks.number(score, "score", place),
        extra,
    )


def _check_root(dataset: Dataset, root: Path | None, where: str) -> None:
    if root is None:
        return
    if not root.is_dir():
        raise InputError(f"no folder {root} with the images of {where}")
    if dataset.images and not any((root / image.file_name).exists() for image in dataset.images):
        raise InputError(
            f"{root} holds none of the images of {where}, such as {dataset.images[0].file_name}: "
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


def _extra(entry: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in known}


def _rounded_extra(extra: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    return {key: _rounded(value) for key, value in sorted(_extra(extra, known).items())}


def _rounded(value: Any) -> Any:
    """Floats at six decimals, keys sorted, however deep."""
    if isinstance(value, float):
        return round(float(value), 6) + 0.0  # no minus zero
    if isinstance(value, Mapping):
        return {key: _rounded(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value
