"""COCO's panoptic format: a JSON of segments, and beside it a PNG an image whose colours are their ids.

The id of a segment is R + 256 G + 256² B, and 0 is no segment. `x.json` has its images in `x/`, where
panopticapi looks for them. Each pixel has one segment at most: where masks overlap, `labelled.painting_order`
says which keeps it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovtool.errors import InputError
from ovtool.formats import coco, folders, images, labelled, rle
from ovtool.formats import coco_checks as checks
from ovtool.formats.coco_entries import Annotation, Dataset, Image
from ovtool.formats.json_sections import Entries
from ovtool.formats.mask_store import Masks, by_image

STUFF = ("ground", "stuff")  # supercategories
MAX_ID = 256**3 - 1
_SEGMENT = ("id", "category_id", "area", "bbox", "iscrowd")


def images_folder(path: Path) -> Path:
    """The folder of the PNGs of a panoptic JSON."""
    return path.with_suffix("")


def is_panoptic(content: object) -> bool:
    """Whether parsed JSON holds segments of images in place of masks."""
    listed = content.get("annotations") if isinstance(content, dict) else None
    first = next(iter(listed), None) if isinstance(listed, list | Entries) else None
    return isinstance(first, dict) and "segments_info" in first


def write_images(
    dataset: Dataset, folder: Path, names: Mapping[int, str], advance: Callable[[], None]
) -> tuple[dict[str, Any], list[str]]:
    """Writes the PNGs into a folder; what the JSON holds, and what could not be kept, a phrase for each kind.

    names: of each image by its id, the name of its PNG without the ending. advance: called after each image.
    """
    annotations, cut, hidden = [], 0, 0
    for image, masks in by_image(dataset):
        ids = _ids(masks)
        canvas = np.zeros((image.height, image.width), np.int64)
        for mask in labelled.painting_order(masks):
            canvas[rle.decode(mask.segmentation, image.height, image.width)] = ids[mask.id]
        there = rle.encode_label_map(canvas, [ids[mask.id] for mask in masks])
        segments = []
        for mask in masks:
            visible = there.get(ids[mask.id])
            hidden += visible is None
            if visible is not None:
                cut += rle.area(visible) < mask.area
                segments.append(_segment(mask, ids[mask.id], visible))
        colours = np.stack([canvas, canvas >> 8, canvas >> 16], axis=-1).astype(np.uint8)
        name = f"{names[image.id]}.png"
        images.write_png(folders.place(folder, name), colours)
        annotations.append({"image_id": image.id, "file_name": name, "segments_info": segments})
        advance()
    things = [_with_isthing(coco.category_entry(category)) for category in dataset.categories]
    content = {
        "info": dict(dataset.info),
        "licenses": list(dataset.licenses),
        "images": [coco.image_entry(image) for image in dataset.images],
        "annotations": annotations,
        "categories": things,
    }
    lost = [f"the pixels of {labelled.counted(cut, 'mask')} that others hide"] if cut else []
    if hidden:
        lost.append(f"{labelled.counted(hidden, 'mask')} of which no pixel is left")
    return content, lost


def read(path: Path, content: Mapping[str, Any], folder: Path | None = None) -> Dataset:
    """The segments of a parsed JSON as masks.

    folder: Of the PNGs; None is `images_folder`.

    Raises InputError for segments that the PNG lacks, ids of it that are no segment, and other sizes.
    """
    where, place = str(path), folder or images_folder(path)
    if not place.is_dir():
        raise InputError(f"no folder {place} with the PNGs of {path}; give it with --images")
    listed = coco.parse_images(content, where)
    categories = coco.parse_categories(content, where)
    by_id = {image.id: image for image in listed}
    known = {category.id: category for category in categories}
    annotations = Masks()
    for index, entry in enumerate(checks.section(content, "annotations", where)):
        spot = f"{where}: annotations[{index}]"
        checks.check_reference(entry.get("image_id"), "image_id", by_id, "images", spot)
        name = checks.text(entry, "file_name", spot)
        checks.check_file_name(name, spot)
        image = by_id[entry["image_id"]]
        masks = rle.encode_label_map(*_canvas(place / name, image, entry, spot))
        for segment in entry["segments_info"]:
            if segment["id"] not in masks:
                raise InputError(
                    f"{spot}: {name} has no pixel of the segment {segment['id']}; remove it"
                )
            checks.check_reference(
                segment.get("category_id"), "category_id", known, "categories", spot
            )
            extra = {
                key: value for key, value in segment.items() if key not in (*_SEGMENT, "score")
            }
            crowd = {"iscrowd": 1} if segment.get("iscrowd") else {}
            score = segment.get("score")
            annotations.append(
                coco.annotation(
                    len(annotations) + 1,
                    image.id,
                    segment["category_id"],
                    masks[segment["id"]],
                    None if score is None else checks.number(score, "score", spot),
                    **extra,
                    **crowd,
                )
            )
    info, licences = content.get("info") or {}, content.get("licenses") or []
    return Dataset(info, listed, annotations, categories, licences)


def segment_ids(rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The ids of the segments that the colours of pixels (H, W, 3) say, int64 (H, W)."""
    ids: NDArray[np.int64] = rgb.astype(np.int64) @ np.array([1, 256, 65536])
    return ids


def _ids(masks: list[Annotation]) -> dict[int, int]:
    """The id of the segment of each mask: its own, or a number where an id has no colour."""
    if all(mask.id <= MAX_ID for mask in masks):
        return {mask.id: mask.id for mask in masks}
    return {mask.id: number for number, mask in enumerate(masks, start=1)}


def _segment(mask: Annotation, id: int, visible: rle.Rle) -> dict[str, Any]:
    entry = coco.annotation_entry(mask)
    extra = {k: v for k, v in entry.items() if k not in (*_SEGMENT, "image_id", "segmentation")}
    return {
        "id": id,
        "category_id": mask.category_id,
        "area": rle.area(visible),
        "bbox": [int(value) for value in rle.bounding_box(visible)],
        "iscrowd": entry["iscrowd"],
        **extra,
    }


def _with_isthing(entry: dict[str, Any]) -> dict[str, Any]:
    return {**entry, "isthing": entry.get("isthing", int(entry["supercategory"] not in STUFF))}


def _canvas(
    path: Path, image: Image, entry: Mapping[str, Any], spot: str
) -> tuple[NDArray[np.int64], list[int]]:
    """The ids of the pixels of a PNG, int64 (H, W), and those of the segments that are listed for it."""
    segments = entry.get("segments_info")
    listed = segments if isinstance(segments, list) else [None]
    given = [segment.get("id") if isinstance(segment, dict) else None for segment in listed]
    ids = [id for id in given if type(id) is int and 0 < id <= MAX_ID]
    if len(ids) < len(given):
        raise InputError(f"{spot} has no list of segments with ids from 1 to {MAX_ID:,}; mend it")
    rgb = images.read_rgb(path)
    if rgb.shape[:2] != (image.height, image.width):
        raise InputError(
            f"{path} has {rgb.shape[1]} x {rgb.shape[0]} pixels, but its image {image.width} x "
            f"{image.height}; write it at the size of the image"
        )
    canvas = segment_ids(rgb)
    strange = np.setdiff1d(canvas, [0, *ids])
    if strange.size:
        raise InputError(
            f"{path} has pixels of the segment {strange[0]}, which {spot} does not list; add it there"
        )
    return canvas, ids
