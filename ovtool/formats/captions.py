"""COCO captions: a JSON of images, and annotations with a `caption` and an `image_id` each."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ovtool.errors import InputError, short
from ovtool.formats import coco_checks as checks
from ovtool.formats import coco_repair

_logger = logging.getLogger("ovtool")


@dataclass(frozen=True, slots=True)
class Caption:
    """One sentence about an image."""

    id: int
    text: str


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """An image with its captions in the order of their ids; `id` and `file_name` as the file says."""

    id: int
    file_name: str
    captions: tuple[Caption, ...]


@dataclass(frozen=True, slots=True)
class Captions:
    """A whole file; `source` names it in messages. Images without a caption are among them."""

    source: str
    images: Sequence[CaptionedImage]


def read(source: Path | str) -> Captions:
    """A COCO captions JSON, or `-` (stdin), repaired (`coco_repair`) and checked in full.

    Raises InputError with file, section, id and mend: no JSON, no captions, doubled or missing ids,
    an image that is not listed.
    """
    where, data = checks.load_long(source)
    if not isinstance(data, dict):
        raise InputError(f"{where} holds {short(data)}, not a COCO object with sections")
    data, repairs = coco_repair.repaired(data, need_masks=False)
    if repairs:
        _logger.warning("%s", coco_repair.sentence(where, repairs))
    names: dict[int, str] = {}
    for place, id, entry in checks.entries_with_ids(data, "images", where):
        names[id] = checks.text(entry, "file_name", place)
        checks.check_file_name(names[id], place)
    checks.check_names(names.items(), "images", "file_name", where)
    spoken: dict[int, list[Caption]] = {id: [] for id in names}
    for place, id, entry in checks.entries_with_ids(data, "annotations", where):
        image_id, text = entry.get("image_id"), entry.get("caption")
        checks.check_reference(image_id, "image_id", spoken, "images", place)
        assert isinstance(image_id, int)  # which is what was checked
        if not isinstance(text, str):
            raise InputError(f"{place} has no caption: is {where} a file of captions?")
        if text.strip():
            spoken[image_id].append(Caption(id, text))
    images = tuple(
        CaptionedImage(id, name, tuple(sorted(spoken[id], key=lambda caption: caption.id)))
        for id, name in names.items()
    )
    if not any(image.captions for image in images):
        raise InputError(f"{where} holds no captions: each needs an image_id and a text")
    return Captions(where, images)
