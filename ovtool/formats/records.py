"""Records: what a run keeps of one image in a part, its masks or the reason of its failure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from ovtool.errors import InputError, short
from ovtool.formats import coco_checks as checks
from ovtool.formats import rle, schema

Record: TypeAlias = Mapping[str, Any]
_DONE: schema.Schema = {
    "image": {"id?": schema.ID, "file_name": str, "height": schema.SIDE, "width": schema.SIDE},
    "annotations": [dict],
}
_FAILED: schema.Schema = {"failure": {"file_name": str, "reason": str}}


def image_record(
    file_name: str, height: int, width: int, annotations: Sequence[Mapping[str, Any]], **extra: Any
) -> dict[str, Any]:
    """The record of an image that went well.

    Each annotation has ``category_id``, ``segmentation`` (compressed RLE), and by choice ``score``,
    ``bbox`` and ``area`` (filled in on merging) and keys of its own; ``extra`` goes to the image.
    """
    image = {"file_name": file_name, "width": width, "height": height, **extra}
    return {"image": image, "annotations": list(annotations)}


def with_source_ids(records: Iterable[Record], ids: Mapping[str, int]) -> Iterator[Record]:
    """Records as they pass, each image with the id that ``ids`` has for its file name, if any."""
    for record in records:
        image: Mapping[str, Any] = record.get("image") or {}
        known = ids.get(image.get("file_name", ""))
        yield record if known is None else {**record, "image": {**image, "id": known}}


def image_ids(images: Sequence[Mapping[str, Any]]) -> list[int]:
    """The ids of the images of records: their own where every image has one and no two have the same, else
    from 1 in order."""
    own = [image.get("id") for image in images]
    kept = [image_id for image_id in own if image_id is not None]
    is_own = len(kept) == len(own) and len(set(kept)) == len(own)
    return kept if is_own else list(range(1, len(own) + 1))


def failure_record(file_name: str, reason: object) -> dict[str, Any]:
    """The record of an image that failed, with the reason as one line."""
    return {"failure": {"file_name": file_name, "reason": " ".join(str(reason).split())}}


def is_record(record: Record) -> bool:
    """Whether what a file holds has the parts of a record; `check_record` looks at its values too."""
    return schema.fits(record, _FAILED if "failure" in record else _DONE)


def check_record(record: Record) -> None:
    """Check a record that was read from a file, before its masks are used.

    Raises:
        InputError: sizes, names, boxes or scores that are none, or a mask that is no compressed RLE of
            its image's size. pycocotools would crash on such a mask.
    """
    if isinstance(record.get("failure"), dict):
        for field in ("file_name", "reason"):
            checks.text(record["failure"], field, "a failure")
        return
    image, annotations = record.get("image"), record.get("annotations")
    if not isinstance(image, dict) or not isinstance(annotations, list):
        raise InputError(f"a record is {short(record)}: it must have an image and annotations")
    place = checks.text(image, "file_name", "an image")
    height, width = checks.side(image, "height", place), checks.side(image, "width", place)
    if image.get("id") is not None:
        checks.check_ids([image["id"]], "images", place, 0)
    for entry in annotations:
        if not isinstance(entry, dict) or type(entry.get("category_id")) is not int:
            raise InputError(f"{place}: an annotation is {short(entry)}, without a category")
        mask: Any = entry.get("segmentation")
        is_text = isinstance(mask, dict) and isinstance(mask.get("counts"), str)
        if not is_text or not isinstance(mask.get("size"), list):
            raise InputError(f"{place}: a mask is {short(mask)}, not a compressed RLE")
        if any(type(side) is not int for side in mask["size"]):
            raise InputError(f"{place}: the size of a mask is {short(mask['size'])}")
        rle.compress(mask, height, width)
        for field in ("score", "area"):
            if entry.get(field) is not None:
                checks.number(entry[field], field, place)
        if entry.get("bbox") is not None:
            checks.box(entry["bbox"], place)
