"""Records of parts into one COCO file; here ids are given, from 1 and in order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ovtool.errors import InputError
from ovtool.formats import coco, parts, rle


def preface(info: Mapping[str, Any], categories: Sequence[coco.Category]) -> dict[str, Any]:
    """What every part keeps of the file to be merged: its ``info`` and its categories."""
    return {"info": dict(info), "categories": [coco.category_entry(c) for c in categories]}


def merge_records(
    records: Iterable[parts.Record], info: Mapping[str, Any], categories: Sequence[coco.Category]
) -> coco.Dataset:
    """A data set from records in order: image and annotation ids count from 1.

    Failures make no image; they are listed, with ``file_name`` and ``reason``, in
    ``info["ovtool"]["failures"]``, which is always there. ``info`` itself is not changed.

    Raises:
        InputError: a record that is damaged, as ``parts.check_record`` finds.
    """
    images: list[coco.Image] = []
    annotations: list[coco.Annotation] = []
    failures: list[Mapping[str, Any]] = []
    for record in records:
        try:
            parts.check_record(record)
        except InputError as error:
            raise InputError(
                f"a part is damaged ({error}); run the command again with --resume"
            ) from None
        if "failure" in record:
            failures.append(record["failure"])
            continue
        image_id = len(images) + 1
        images.append(_image(image_id, record["image"]))
        for entry in record["annotations"]:
            annotations.append(_annotation(len(annotations) + 1, image_id, entry))
    tool = {**info.get("ovtool", {}), "failures": failures}
    return coco.Dataset({**info, "ovtool": tool}, images, annotations, categories)


def _image(image_id: int, entry: Mapping[str, Any]) -> coco.Image:
    extra = dict(entry)
    file_name, width, height = (extra.pop(key) for key in ("file_name", "width", "height"))
    return coco.Image(image_id, file_name, width, height, extra)


def _annotation(annotation_id: int, image_id: int, entry: Mapping[str, Any]) -> coco.Annotation:
    extra = {key: value for key, value in entry.items() if key not in ("id", "image_id")}
    mask, category_id = extra.pop("segmentation"), extra.pop("category_id")
    score, box, area = extra.pop("score", None), extra.pop("bbox", None), extra.pop("area", None)
    if box is None:
        box = rle.bounding_box(mask)
    if area is None:
        area = float(rle.area(mask))
    x, y, width, height = box
    bbox = (float(x), float(y), float(width), float(height))
    return coco.Annotation(annotation_id, image_id, category_id, mask, bbox, area, score, extra)
