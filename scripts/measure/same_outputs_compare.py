"""How two files, or two folders of files, that ovtool wrote differ, apart from what says how they were made.

Compared are tensors, to the bit; images, annotations and categories of COCO JSON; all numbers and names
of other JSON; pixels and palettes of images; and any other file, byte by byte. Not compared is the
provenance: `info` of COCO JSON, headers of safetensors (but for what maps are of), and `PROVENANCE`.
"""

import json
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# keys of JSON that say how a result was made, and by which files
PROVENANCE = {"ovtool", "version", "command", "settings", "fingerprint", "pacl", "prompts"}
COCO = ("images", "annotations", "categories", "licenses")
IMAGES = {".png", ".jpg", ".jpeg"}
FLOATS = {"F16": np.float16, "F32": np.float32, "F64": np.float64}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a safetensors file holds it: its type (`F32`), its shape and its bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def folder_differences(old: Path, new: Path, plots: Collection[str] = ()) -> list[str]:
    """Compares all files of two folders, by their relative names.

    Args:
        old: A folder.
        new: A folder.
        plots: Relative names of files of which only the existence is compared.

    Returns:
        A sentence for each file that differs or is in one folder only; none for equal folders.
    """
    names = {
        side: {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        for side, folder in (("old", old), ("new", new))
    }
    differences = [f"{name} is made by the old side only" for name in names["old"] - names["new"]]
    differences += [f"{name} is made by the new side only" for name in names["new"] - names["old"]]
    for name in sorted(names["old"] & names["new"]):
        if name not in plots and (difference := file_difference(old / name, new / name)):
            differences.append(f"{name}: {difference}")
    return sorted(differences)


def file_difference(old: Path, new: Path) -> str | None:
    """The first difference of two files of one kind, which their suffix tells, or None."""
    suffix = old.suffix.lower()
    if suffix == ".json":
        return json_difference(json.loads(old.read_text()), json.loads(new.read_text()))
    if suffix == ".safetensors":
        return tensors_difference(old, new)
    if suffix in IMAGES:
        return image_difference(old, new)
    return None if old.read_bytes() == new.read_bytes() else "the bytes differ"


def json_difference(old: Any, new: Any) -> str | None:
    """The first difference of two JSON documents, provenance aside, or None.

    Of a COCO data set only the sections in `COCO` are compared, and there every key counts.
    """
    if _is_coco(old) and _is_coco(new):
        for section in COCO:
            if difference := _value_difference(old.get(section), new.get(section), section, set()):
                return difference
        return None
    return _value_difference(old, new, "", PROVENANCE)


def tensors_difference(old: Path, new: Path) -> str | None:
    """The first difference of the tensors of two safetensors files, or None.

    Of the headers only `kind` is compared, and of class activation maps the images and categories.
    """
    old_header, old_tensors = read_tensors(old)
    new_header, new_tensors = read_tensors(new)
    if old_header.get("kind") != new_header.get("kind"):
        return f"the kind is {old_header.get('kind')} in old, {new_header.get('kind')} in new"
    if old_header.get("kind") == "cams":
        for section in ("images", "categories"):
            one, other = _setting(old_header, section), _setting(new_header, section)
            if difference := _value_difference(one, other, f"header {section}", set()):
                return difference
    if old_tensors.keys() != new_tensors.keys():
        return f"the tensors have other names: {sorted(old_tensors.keys() ^ new_tensors.keys())}"
    differing = [name for name in old_tensors if old_tensors[name] != new_tensors[name]]
    if not differing:
        return None
    first = differing[0]
    sentence = _tensor_difference(first, old_tensors[first], new_tensors[first])
    return sentence + (f", and {len(differing) - 1} other tensors do" if differing[1:] else "")


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    """The header that ovtool wrote in a safetensors file ({} for none), and its tensors by name."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    entries = json.loads(content[8 : 8 + length])
    header = json.loads(entries.pop("__metadata__", {}).get("ovtool", "{}"))
    stored = {}
    for name, entry in sorted(entries.items()):
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        stored[name] = StoredTensor(entry["dtype"], tuple(entry["shape"]), content[start:end])
    return header, stored


def image_difference(old: Path, new: Path) -> str | None:
    """The first difference of two images in mode, size, palette or pixels, or None."""
    with Image.open(old) as one, Image.open(new) as other:
        if (one.mode, one.size) != (other.mode, other.size):
            return f"{one.mode} of {one.size} in old, {other.mode} of {other.size} in new"
        if one.getpalette() != other.getpalette():
            return "the palettes differ"
        differing = np.asarray(one) != np.asarray(other)
    pixels = differing.any(axis=-1) if differing.ndim == 3 else differing
    return f"{pixels.sum()} of {pixels.size} pixels differ" if pixels.any() else None


def _is_coco(document: Any) -> bool:
    return isinstance(document, dict) and {"images", "annotations", "categories"} <= document.keys()


def _setting(header: Mapping[str, Any], name: str) -> Any:
    return header.get(name, header.get("settings", {}).get(name))


def _value_difference(old: Any, new: Any, place: str, ignored: Collection[str]) -> str | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted((old.keys() | new.keys()) - set(ignored)):
            inner = f"{place}.{key}" if place else key
            if key not in old or key not in new:
                return f"{inner} is in {'old' if key in old else 'new'} only"
            if difference := _value_difference(old[key], new[key], inner, ignored):
                return difference
        return None
    if isinstance(old, list) and isinstance(new, list):
        for index, (one, other) in enumerate(zip(old, new, strict=False)):
            if difference := _value_difference(one, other, f"{place}[{index}]", ignored):
                return difference
        return None if len(old) == len(new) else f"{place} has {len(old)} and {len(new)} entries"
    if old == new or (old != old and new != new):  # NaN is equal to NaN here
        return None
    return f"{place} is {_short(old)} in old, {_short(new)} in new"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _tensor_difference(name: str, old: StoredTensor, new: StoredTensor) -> str:
    if (old.dtype, old.shape) != (new.dtype, new.shape):
        return f"{name} is {old.dtype} {old.shape} in old, {new.dtype} {new.shape} in new"
    if (kind := FLOATS.get(old.dtype)) is None:
        return f"{name} differs"
    one, other = (np.frombuffer(each.data, kind).astype(np.float64) for each in (old, new))
    return f"{name} differs by up to {np.abs(one - other).max():.2g}"
