"""COCO's panoptic format: a JSON of segments, and beside it a PNG an image whose colours are their ids.

The id of a segment is R + 256 G + 256² B, and 0 is no segment. `x.json` has its images in `x/`, where
panopticapi looks for them. Each pixel has one segment at most: where masks overlap, `labelled.painting_order`
says which keeps it.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ovtool.errors import InputError
from ovtool.formats import (
    coco,
    coco_annotations,
    coco_repair,
    folders,
    images,
    labelled,
    panoptic_files,
    rle,
)
from ovtool.formats import coco_checks as checks
from ovtool.formats.coco_entries import Annotation, Dataset
from ovtool.formats.mask_store import by_image
from ovtool.formats.panoptic_files import MAX_ID, opened

STUFF = ("ground", "stuff")  # supercategories
_logger = logging.getLogger("ovtool")
_SEGMENT = ("id", "category_id", "area", "bbox", "iscrowd")


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
    """The segments of a parsed JSON as masks, repaired (`panoptic_files`); one warning says what was.

    folder: Of the PNGs; None is `images_folder`.

    Raises InputError for PNGs that are missing, ids of one that are no segment, and other sizes.
    """
    file = opened(path, content, folder)

    entries = panoptic_files.placed(file)
    annotations = coco_annotations.parsed(entries, file.images, file.categories, True, file.repairs)
    if file.repairs:
        _logger.warning("%s", coco_repair.sentence(file.where, file.repairs))
    info, licences = checks.info_and_licenses(content, str(path))
    images, categories = list(file.images.values()), list(file.categories.values())
    return Dataset(info, images, annotations, categories, licences, dict(file.repairs))


def defects(path: Path, content: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong in a parsed JSON and the PNGs of `images_folder`, and what would be repaired; a line each."""
    file = opened(path, content)
    faults: list[InputError] = []
    places: dict[int, str] = {}

    def kept() -> Iterator[coco_annotations.Placed]:
        for place, number, entry in panoptic_files.placed(file, faults.append):
            places[number] = place
            yield place, number, entry

    measures: Counter[str] = Counter()
    judged = coco_annotations.judged(kept(), file.images, file.categories, True, measures)
    for entry, result in judged:
        if isinstance(result, InputError):
            yield str(result)
        else:
            place = places.pop(result.id)
            yield from checks.wrong_measures(entry, result.area, result.bbox, place)
    yield from map(str, faults)
    if file.repairs:
        yield coco_repair.sentence(file.where, file.repairs, "; `ovtool check --fix` writes what")


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
