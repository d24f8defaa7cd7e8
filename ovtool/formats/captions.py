"""Captions of images: COCO's JSON, annotations with a `caption` and an `image_id` each, or a table (`caption_tables`)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ovtool.errors import InputError, short
from ovtool.formats import caption_tables, coco_repair, wrong_kind
from ovtool.formats import coco_checks as checks

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
    """A COCO captions JSON, or `-` (stdin), repaired (`coco_repair`) and checked in full; or a table of image and
    caption, whose images are numbered in the order of their first rows.

    Raises InputError with file, section, id and mend: no JSON, no captions, doubled or missing ids,
    an image that is not listed.
    """
    if str(source) != "-" and is_table(Path(source)):
        return _of_table(Path(source))
    where, data = checks.load_long(source)
    if not isinstance(data, dict):
        raise InputError(f"{where} holds {short(data)}, not a COCO object with sections")
    if what := wrong_kind.instead_of_captions(data.get("annotations")):
        raise InputError(f"{where} {what}")
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


def is_table(path: Path) -> bool:
    """Whether a file is a table of captions: not called JSON, and of text that is none. What can be read once alone,
    such as a pipe, is taken for JSON."""
    if path.suffix.lower() == ".json" or not path.is_file():
        return False
    try:
        with open(path, "rb") as handle:
            head = handle.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return False  # of which the reader of JSON says more
    return head[:1] not in (b"", b"{", b"[")


def _of_table(path: Path) -> Captions:
    spoken: dict[str, list[Caption]] = {}
    number = 0
    for number, (name, text) in enumerate(caption_tables.read(path), start=1):
        name = name.replace("\\", "/")
        if name not in spoken:
            checks.check_file_name(name, f"{path}, caption {number}")
        captions = spoken.setdefault(name, [])
        if text:
            captions.append(Caption(number, text))
    if not any(spoken.values()):
        raise InputError(f"{path} holds no captions: each row needs a file name and a sentence")
    listed = enumerate(spoken.items(), start=1)
    images = tuple(CaptionedImage(id, name, tuple(own)) for id, (name, own) in listed)
    return Captions(str(path), images)
