"""COCO's panoptic format as label maps, each image read when it is asked for (`formats/panoptic.py` has the masks)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovtool.errors import InputError
from ovtool.formats import coco, images, panoptic
from ovtool.formats import coco_checks as checks
from ovtool.formats.labelled import LabelledImages


def opened(source: Path, folder: Path) -> LabelledImages:
    """The label maps of a panoptic JSON and the folder of its PNG files.

    Raises:
        InputError: A file is missing or broken.
    """
    where, data = checks.load_json(source)
    if not isinstance(data, dict):
        raise InputError(f"{where} holds {checks.short(data)}, not a COCO object with sections")
    for name in ("images", "annotations", "categories"):
        checks.section(data, name, where)
    categories = coco.parse_categories(data, where)
    by_id = {image.id: image.file_name for image in coco.parse_images(data, where)}
    index = {category.id: k for k, category in enumerate(categories)}
    segments: dict[str, tuple[Path, dict[int, int]]] = {}
    for number, entry in enumerate(data["annotations"]):
        place = f"{where}: annotations entry {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("segments_info"), list):
            raise InputError(f"{place} has no segments_info; is it a panoptic file?")
        checks.check_reference(entry.get("image_id"), "image_id", by_id, "images", place)
        file_name = checks.text(entry, "file_name", place)
        checks.check_file_name(file_name, place)
        own = {
            _id(segment, index, place): segment["category_id"] for segment in entry["segments_info"]
        }
        classes = {id: index[category] for id, category in own.items()}
        segments[by_id[entry["image_id"]]] = (folder / file_name, classes)
    missing = [path for path, _ in segments.values() if not path.is_file()]
    if missing:
        raise InputError(
            f"{where} lacks the PNG files of {len(missing)} of its {len(segments)} images (the first is "
            f"{missing[0]}); put them there"
        )
    return LabelledImages(
        str(source),
        classes=tuple((category.name, *category.synonyms) for category in categories),
        names=tuple(segments),
        decode=lambda name: _labels(*segments[name]),
        has_values=True,
        files=tuple(path for path, _ in segments.values()),
    )


def _id(segment: Any, index: dict[int, int], place: str) -> int:
    if not isinstance(segment, dict) or not isinstance(segment.get("id"), int):
        raise InputError(f"{place} has a segment without an id; give it one")
    category = segment.get("category_id")
    checks.check_reference(category, "category_id", index, "categories", place)
    return int(segment["id"])


def _labels(path: Path, classes: dict[int, int]) -> NDArray[np.int32]:
    """The classes of an image, int32 (H, W), -1 for none. Raises InputError for a segment that is not listed."""
    ids = panoptic.segment_ids(images.read_rgb(path))
    present, place = np.unique(ids, return_inverse=True)
    unknown = [int(id) for id in present if id and int(id) not in classes]
    if unknown:
        raise InputError(
            f"{path} has the segment {unknown[0]}, which its JSON does not list; take both from the data set again"
        )
    values = np.array([classes.get(int(id), -1) for id in present], np.int32)
    labels: NDArray[np.int32] = values[place].reshape(ids.shape)
    return labels
