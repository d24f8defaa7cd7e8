"""Records of parts into one COCO file: annotation ids from 1 in order, image ids of their source."""

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
    """A data set from records in order: annotation ids count from 1. Images keep the ids of their records
    where all have one and no two are the same (`parts.image_ids`), else they count from 1 as well.

    Failures make no image; they are listed, with ``file_name`` and ``reason``, in
    ``info["ovtool"]["failures"]``, which is always there. ``info`` itself is not changed.

    Raises:
        InputError: a record that is damaged, as ``parts.check_record`` finds.
    """
    images: list[Mapping[str, Any]] = []
    entries: list[tuple[int, Mapping[str, Any]]] = []  # each with the place of its image
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
        entries += [(len(images), entry) for entry in record["annotations"]]
        images.append(record["image"])
    ids = parts.image_ids(images)
    tool = {**info.get("ovtool", {}), "failures": failures}
    return coco.Dataset(
        {**info, "ovtool": tool},
        [_image(id, image) for id, image in zip(ids, images, strict=True)],
        [_annotation(k, ids[place], entry) for k, (place, entry) in enumerate(entries, start=1)],
        categories,
    )


def _image(image_id: int, entry: Mapping[str, Any]) -> coco.Image:
    extra = {key: value for key, value in entry.items() if key != "id"}
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
