"""What a file is, told from its content and not from its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ovtool.errors import InputError, short
from ovtool.formats import (
    atomic,
    coco_checks,
    cvat,
    images,
    json_sections,
    label_maps,
    labelled,
    mask_shards,
    panoptic_files,
    parts,
    yolo,
)
from ovtool.formats.json_sections import Entries

FOREIGN = ("COCO panoptic", "CVAT masks", "YOLO masks", "shards of masks")  # which `convert` reads


def kind_of(source: str) -> tuple[str, Any]:
    """The kind of a file or folder, and for JSON its content, of which lists of annotations are not held (`coco_checks.load_long`).

    Args:
        source: a path; `-` is stdin.

    Returns:
        One of `COCO masks`, `COCO captions`, `COCO results`, those of `FOREIGN`, `classes per image`, `scores`, `model
        configuration`, `safetensors`, `parts`, `label map`, `label maps`, `image`, `images` and `data set`;
        and the content of a JSON, else None.

    Raises:
        InputError: there is no file, or it is none of these.
    """
    path = Path(source)
    if source != "-" and path.is_dir():
        return _kind_of_folder(path), None
    head = b"{" if source == "-" else _head(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40:
        return "safetensors", None
    if source != "-" and cvat.is_cvat(path):
        return "CVAT masks", None
    if path.suffix == ".tar":
        return "shards of masks", None
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        if path.suffix == ".jsonl":
            raise InputError(f"{path} is one part of a run, if anything; give its folder")
        return _kind_of_json(*coco_checks.load_long(source))
    if path.suffix == ".safetensors":
        return "safetensors", None  # damaged: its reader says how
    if path.suffix == ".json":
        coco_checks.load_json(source)  # damaged likewise
    return ("label map" if is_label_map(path) else "image"), None


def kind_of_long(path: Path) -> str | None:
    """The kind of a JSON of any length as `kind_of` says it, told by its keys and first annotation; None for what
    is broken, has no annotation in its section of them, or is no kind of JSON."""
    outline = json_sections.glimpse(path, "annotations")
    is_empty = isinstance(outline, dict) and not outline.get("annotations", True)
    try:
        return None if outline is None or is_empty else _kind_of_json(str(path), outline)[0]
    except InputError:
        return None


def _kind_of_folder(folder: Path) -> str:
    if parts.is_parts_folder(folder):
        return "parts"
    if yolo.is_yolo(folder):
        return "YOLO masks"
    if (folder / labelled.CLASSES_FILE).is_file():
        return "label maps"
    if mask_shards.is_shards(folder):
        return "shards of masks"
    is_data_set = any(folder.glob("annotations/*.json")) or (folder / "JPEGImages").is_dir()
    return "data set" if is_data_set else "images"


def _head(path: Path) -> bytes:
    atomic.require_file(path)
    try:
        with open(path, "rb") as handle:
            return handle.read(512)
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _kind_of_json(where: str, content: Any) -> tuple[str, Any]:
    coco_checks.refuse_tools(content, where)
    if isinstance(content, list | Entries):
        return "COCO results", content
    if not isinstance(content, dict):
        raise InputError(f"{where} holds {short(content)}, not an object or a list")
    if panoptic_files.is_panoptic(content):
        return "COCO panoptic", content
    if "metric" in content:
        return "scores", content
    if "images" in content or "annotations" in content:
        first = next(entries(content, "annotations"), {})
        return ("COCO captions" if "caption" in first else "COCO masks"), content
    if "model_cfg" in content:
        return "model configuration", content
    if content and all(isinstance(words, list) for words in content.values()):
        return "classes per image", content
    raise InputError(
        f"{where} is JSON, but nothing that ovtool knows: it has "
        + labelled.shortened(sorted(content))
    )


def is_label_map(path: Path) -> bool:
    """A palette PNG that ovtool wrote, or in the colours of VOC, or a one-channel PNG with classes.txt in a folder above."""
    with images.opened(path) as image:
        if image.format != "PNG":
            return False
        if image.mode == "P" and images.is_result(path):
            return True
        if image.mode == "P":
            colours = np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)
            if np.array_equal(colours, label_maps.palette(len(colours))):
                return True
        is_grey = image.mode in ("P", "L", "I", "I;16")
    return is_grey and classes_of(path) is not None


def classes_of(path: Path) -> Path | None:
    """The classes.txt of a label map: beside it or in one of the two folders above."""
    above = (folder / labelled.CLASSES_FILE for folder in list(path.absolute().parents)[:3])
    return next((file for file in above if file.is_file()), None)


def entries(content: Mapping[str, Any], section: str) -> Iterator[dict[str, Any]]:
    """The entries of a section that are objects; what else stands there is left out."""
    listed = content.get(section)
    for entry in listed if isinstance(listed, list | Entries) else ():
        if isinstance(entry, dict):
            yield entry
