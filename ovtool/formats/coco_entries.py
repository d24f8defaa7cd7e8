"""What a COCO file holds, as frozen data, and each entry as the JSON object that is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ovtool.formats import rle
from ovtool.formats.rle import Rle

IMAGE_FIELDS = ("id", "file_name", "width", "height")
CATEGORY_FIELDS = ("id", "name", "supercategory", "synonyms")
ANNOTATION_FIELDS = (
    "id", "image_id", "category_id", "segmentation", "bbox", "area", "iscrowd", "score"
)  # fmt: skip

NOTHING_ELSE: Mapping[str, Any] = {}  # all entries of a long file have one, not an empty one each


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
    """A whole file; ``info["ovtool"]`` says what made it.

    ``repairs``: what was repaired on reading, kind (`coco_repair`) to number.
    """

    info: Mapping[str, Any]
    images: Sequence[Image]
    annotations: Sequence[Annotation]
    categories: Sequence[Category]
    licenses: Sequence[Mapping[str, Any]] = ()
    repairs: Mapping[str, int] = field(default_factory=dict, compare=False)


def annotation(
    id: int, image_id: int, category_id: int, rle_: Rle, score: float | None, **extra: Any
) -> Annotation:
    """An annotation of a mask, its box and area filled in."""
    box, area = rle.bounding_box(rle_), float(rle.area(rle_))
    return Annotation(id, image_id, category_id, rle_, box, area, score, extra)


def category_entry(category: Category) -> dict[str, Any]:
    """A category as its JSON object."""
    entry: dict[str, Any] = {
        "id": category.id, "name": category.name, "supercategory": category.supercategory
    }  # fmt: skip
    if category.synonyms:
        entry["synonyms"] = list(category.synonyms)
    return entry | _rounded_extra(category.extra, CATEGORY_FIELDS)


def image_entry(image: Image) -> dict[str, Any]:
    """An image as its JSON object."""
    entry = {name: getattr(image, name) for name in IMAGE_FIELDS}
    return entry | _rounded_extra(image.extra, IMAGE_FIELDS)


def annotation_entry(entry: Annotation) -> dict[str, Any]:
    """An annotation as its JSON object."""
    content: dict[str, Any] = {
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
        content["score"] = _rounded(float(entry.score))
    return content | _rounded_extra(entry.extra, ANNOTATION_FIELDS)


def extra_fields(entry: Mapping[str, Any], known: Sequence[str]) -> Mapping[str, Any]:
    """What an entry has beside the known fields."""
    return {key: value for key, value in entry.items() if key not in known} or NOTHING_ELSE


def _rounded_extra(extra: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    return {key: _rounded(value) for key, value in sorted(extra_fields(extra, known).items())}


def _rounded(value: Any) -> Any:
    """Floats at six decimals, keys sorted, however deep."""
    if isinstance(value, float):
        return round(float(value), 6) + 0.0  # no minus zero
    if isinstance(value, Mapping):
        return {key: _rounded(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value
