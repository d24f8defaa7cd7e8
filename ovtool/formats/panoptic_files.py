"""COCO's panoptic JSON as it is found: the segments of each image beside its PNG, repaired and checked.

Beside what `coco_repair` mends everywhere, numbers of segments may be floats or texts, and the file of an image may
be named with its folder, with the ending of the image, or not at all. A segment with the id 0, which is the colour
of no segment, counts where its area is that of the black pixels; one without a pixel is left out beside others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovtool.errors import InputError, short
from ovtool.formats import coco, coco_repair, file_matching, images, rle
from ovtool.formats import coco_checks as checks
from ovtool.formats.coco_annotations import Placed
from ovtool.formats.coco_entries import Category, Image
from ovtool.formats.json_sections import Entries

MAX_ID = 256**3 - 1
_SEGMENT = ("id", "category_id", "iscrowd")


@dataclass(frozen=True)
class Panoptic:
    """A panoptic JSON whose images and categories are checked; `repairs` counts what was repaired, of segments while
    they are drawn."""

    where: str
    folder: Path
    images: Mapping[int, Image]
    categories: Mapping[int, Category]
    content: Mapping[str, Any]
    repairs: Counter[str]


@dataclass(frozen=True)
class Segmented:
    """An image, the place of its entry for messages, its PNG and its segments, each an object with ids."""

    image: Image
    spot: str
    png: Path
    segments: list[dict[str, Any]]


def images_folder(path: Path) -> Path:
    """The folder of the PNGs of a panoptic JSON."""
    return path.with_suffix("")


def is_panoptic(content: object) -> bool:
    """Whether parsed JSON holds segments of images in place of masks."""
    listed = content.get("annotations") if isinstance(content, dict) else None
    first = next(iter(listed), None) if isinstance(listed, list | Entries) else None
    return isinstance(first, dict) and "segments_info" in first


def opened(path: Path, content: Mapping[str, Any], folder: Path | None = None) -> Panoptic:
    """A parsed JSON; `folder` is that of the PNGs, None for `images_folder`. Raises InputError."""
    where, place = str(path), folder or images_folder(path)
    if not place.is_dir():
        raise InputError(
            f"no folder {place} with the PNGs of {path}; put them there, or give their folder with --images"
        )
    checks.info_and_licenses(content, where)
    sections, repairs = coco_repair.repaired({**content, "annotations": None})
    listed = {image.id: image for image in coco.parse_images(sections, where)}
    known = {category.id: category for category in coco.parse_categories(sections, where)}
    return Panoptic(where, place, listed, known, content, Counter(repairs))


def refuse(error: InputError) -> None:
    """Raises what is wrong in a file, for one that is taken as a whole or not at all."""
    raise error


def segmented(file: Panoptic, fault: Callable[[InputError], None] = refuse) -> Iterator[Segmented]:
    """The entries of a file, in order; what is wrong with one is handed to `fault`, and that PNGs are missing at the
    end."""
    missing: list[str] = []
    for index, given in enumerate(checks.section(file.content, "annotations", file.where)):
        try:
            entry = _segmented(file, given, f"{file.where}: annotations[{index}]")
        except InputError as error:
            fault(error)
            continue
        if entry.png.is_file():
            yield entry
        else:
            missing.append(entry.png.name)
    if missing:
        count = f"{len(missing)} of the {index + 1} PNG files of {file.where}"
        fault(InputError(f"{file.folder} lacks {count}, such as {missing[0]}; put them there"))


def placed(file: Panoptic, fault: Callable[[InputError], None] = refuse) -> Iterator[Placed]:
    """The segments as annotations with masks, numbered from 1, for `coco_annotations.judged`."""
    number = 0
    for entry in segmented(file, fault):
        try:
            masks = _masks(file, entry)
        except InputError as error:
            fault(error)
            continue
        for segment in entry.segments:
            if segment["id"] in masks:
                number += 1
                mask = {"image_id": entry.image.id, "segmentation": masks[segment["id"]]}
                yield f"{entry.spot} segment {segment['id']}", number, {**segment, **mask}


def segment_ids(rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The ids of the segments that the colours of pixels (H, W, 3) say, int64 (H, W)."""
    ids: NDArray[np.int64] = rgb.astype(np.int64) @ np.array([1, 256, 65536])
    return ids


def has_zero(entry: Segmented, ids: NDArray[np.int64]) -> bool:
    """Whether the black pixels of the PNG of an image, whose pixels have the ids (H, W), are its segment with the id 0.
    Raises InputError where that has another area."""
    zero = next((segment for segment in entry.segments if segment["id"] == 0), None)
    black = int((ids == 0).sum())
    if zero is None or not black:
        return False
    if zero.get("area") != black:
        raise InputError(
            f"{entry.spot} has a segment with the id 0, and {entry.png} {black} pixels of that colour, which is "
            "that of no segment; number segments from 1"
        )
    return True


def _segmented(file: Panoptic, entry: Mapping[str, Any], spot: str) -> Segmented:
    counts: Counter[str] = Counter()
    entry = coco_repair.with_integers(entry, ("image_id",), counts)
    checks.check_reference(entry.get("image_id"), "image_id", file.images, "images", spot)
    image = file.images[entry["image_id"]]
    segments = entry.get("segments_info")
    if not isinstance(segments, list) or not all(isinstance(own, dict) for own in segments):
        raise InputError(f"{spot} has no list segments_info with an object for each segment")
    segments = [coco_repair.with_integers(own, _SEGMENT, counts) for own in segments]
    seen: set[int] = set()
    for segment in segments:
        id = segment.get("id")
        if type(id) is not int or not 0 <= id <= MAX_ID or id in seen:
            raise InputError(
                f"{spot} has a segment with the id {short(id)}; give each one of its own, from 1 to {MAX_ID}"
            )
        seen.add(id)
        place = f"{spot} segment {id}"
        category = segment.get("category_id")
        checks.check_reference(category, "category_id", file.categories, "categories", place)
    png = _png(file.folder, entry, image, spot, counts)
    file.repairs.update(counts)
    return Segmented(image, spot, png, segments)


def _png(
    folder: Path, entry: Mapping[str, Any], image: Image, spot: str, counts: Counter[str]
) -> Path:
    """The PNG of an entry by its name, else by a name that is meant; as it is named where none is there."""
    stem = PurePosixPath(image.file_name).with_suffix(".png")
    name = entry.get("file_name", str(stem))
    slashed = name.replace("\\", "/") if isinstance(name, str) else ""
    meant = PurePosixPath(slashed)
    if not meant.name.strip():
        raise InputError(f"{spot}: file_name is {short(name)}; name the PNG of the image")
    for other in (meant, meant.with_suffix(".png"), PurePosixPath(meant.name), stem):
        for candidate in (str(other), f"{other.stem}.png"):
            if checks.is_file_name(candidate) and (path := file_matching.place(folder, candidate)):
                is_own = candidate == name and "file_name" in entry
                counts.update({} if is_own else {coco_repair.PNG_NAMES: 1})
                return path
    checks.check_file_name(slashed, spot)
    return folder / slashed


def _masks(file: Panoptic, entry: Segmented) -> dict[int, rle.Rle]:
    """The masks of segments by their ids, of those that have a pixel."""
    ids = {segment["id"] for segment in entry.segments}
    rgb = images.read_rgb(entry.png)
    if rgb.shape[:2] != (entry.image.height, entry.image.width):
        raise InputError(
            f"{entry.png} has {rgb.shape[1]} x {rgb.shape[0]} pixels, but its image {entry.image.width} x "
            f"{entry.image.height}; write it at the size of the image"
        )
    canvas = segment_ids(rgb)
    strange = np.setdiff1d(canvas, [0, *ids])
    if strange.size:
        raise InputError(
            f"{entry.png} has pixels of the segment {strange[0]}, which {entry.spot} does not list; add it there"
        )
    file.repairs.update({coco_repair.ZEROS: 1} if has_zero(entry, canvas) else {})
    masks = rle.encode_label_map(canvas, sorted(ids))
    empty = len(ids - masks.keys())
    if empty and not masks:
        raise InputError(
            f"{entry.png} has no pixel of the {empty} segments of {entry.spot}; mend it"
        )
    file.repairs.update({coco_repair.EMPTY: empty} if empty else {})
    return masks
