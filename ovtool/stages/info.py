"""`info`: what a file is, told from its content and not from its name."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ovtool.errors import InputError
from ovtool.formats import coco_checks, images, label_maps, labelled, parts, tensors

Facts = dict[str, Any]


def run(source: str) -> Facts:
    """What a file or folder is, what it holds and what made it; it is not validated.

    Returns:
        Facts that JSON can hold: `file`, `kind` (one of those of `kind_of`), counts and names, and
        under `made_by` the provenance that the file carries.

    Raises:
        InputError: no such file, or none of the kinds that ovtool knows.
    """
    path = Path(source)
    kind, content = kind_of(source)
    describers: dict[str, Callable[[], Mapping[str, Any]]] = {
        "parts": lambda: _parts(path),
        "label maps": lambda: _label_maps(path),
        "pictures": lambda: {"pictures": len(images.find_images([source]))},
        "safetensors": lambda: _safetensors(path),
        "label map": lambda: _label_map(path),
        "picture": lambda: dict(zip(("height", "width"), images.read_size(path), strict=True)),
        "COCO masks": lambda: _coco(content),
        "COCO captions": lambda: _coco(content),
        "COCO results": lambda: _results(content),
        "classes per image": lambda: _words(content),
        "scores": lambda: content,
        "model configuration": lambda: content,
    }
    return {"file": source, "kind": kind, **describers[kind]()}


def kind_of(source: str) -> tuple[str, Any]:
    """The kind of a file or folder, and for JSON its parsed content.

    Kinds: `COCO masks`, `COCO captions`, `COCO results`, `classes per image`, `scores`,
    `model configuration`, `safetensors`, `parts`, `label map`, `label maps`, `picture`,
    `pictures`. Raises InputError where there is no file, or it is none of these.
    """
    path = Path(source)
    if source != "-" and path.is_dir():
        return _kind_of_folder(path), None
    head = b"{" if source == "-" else _head(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40:
        return "safetensors", None
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        if path.suffix == ".jsonl":
            raise InputError(f"{path} is one part of a run, if anything: give its folder")
        return _kind_of_json(*coco_checks.load_json(source))
    if path.suffix == ".safetensors":
        return "safetensors", None  # damaged: its reader says how
    if path.suffix == ".json":
        coco_checks.load_json(source)  # damaged likewise
    return ("label map" if _is_label_map(path) else "picture"), None


def _kind_of_folder(folder: Path) -> str:
    if parts.is_parts_folder(folder):
        return "parts"
    return "label maps" if (folder / labelled.CLASSES_FILE).is_file() else "pictures"


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as handle:
            return handle.read(512)
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _kind_of_json(where: str, content: Any) -> tuple[str, Any]:
    if isinstance(content, list):
        return "COCO results", content
    if "images" in content or "annotations" in content:
        captions = any("caption" in entry for entry in _entries(content, "annotations")[:1])
        return ("COCO captions" if captions else "COCO masks"), content
    if "metric" in content:
        return "scores", content
    if "model_cfg" in content:
        return "model configuration", content
    if content and all(isinstance(words, list) for words in content.values()):
        return "classes per image", content
    raise InputError(
        f"{where} is JSON, but nothing that ovtool knows: it has "
        + labelled.shortened(sorted(content))
    )


def _is_label_map(path: Path) -> bool:
    """A palette PNG in the colours of VOC, or a one-channel PNG with classes.txt in a folder above."""
    with images.opened(path) as image:
        if image.format != "PNG":
            return False
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


def _entries(content: Mapping[str, Any], section: str) -> list[dict[str, Any]]:
    """What is well-formed in a section."""
    entries = content.get(section)
    return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []


def _coco(content: Mapping[str, Any]) -> Facts:
    """The counts of the sections, the names of the categories, the scores, and what made it."""
    info = content["info"] if isinstance(content.get("info"), dict) else {}
    made_by = dict(info["ovtool"]) if isinstance(info.get("ovtool"), dict) else {}
    failures = made_by.pop("failures", [])
    annotations, categories = _entries(content, "annotations"), _entries(content, "categories")
    scores = [a["score"] for a in annotations if isinstance(a.get("score"), int | float)]
    names = {str(c.get("id")): str(c.get("name")) for c in categories}
    each = Counter(names.get(str(a["category_id"]), "?") for a in annotations if "category_id" in a)
    facts: Facts = {
        "images": len(_entries(content, "images")),
        "annotations": len(annotations),
        "images_with_annotations": len({str(a.get("image_id")) for a in annotations}),
        "categories": len(categories),
    }
    if each:
        facts["annotations_of"] = dict(each.most_common(20))
    if scores:
        facts["scores"] = {"lowest": min(scores), "highest": max(scores)}
    if failures:
        facts["failures"] = failures
    if info.get("description"):
        facts["description"] = info["description"]
    facts["made_by"] = made_by or None
    return facts


def _results(content: list[Any]) -> Facts:
    entries = [entry for entry in content if isinstance(entry, dict)]
    return {
        "annotations": len(content),
        "images_with_annotations": len({str(entry.get("image_id")) for entry in entries}),
        "categories": len({str(entry.get("category_id")) for entry in entries}),
        "made_by": None,
    }


def _words(content: Mapping[str, list[Any]]) -> Facts:
    counts = [len(words) for words in content.values()]
    distinct = {str(word) for words in content.values() for word in words}
    return {
        "images": len(content),
        "words": len(distinct),
        "words_an_image": {"fewest": min(counts), "most": max(counts)},
    }


def _safetensors(path: Path) -> Facts:
    """The header, and name, type and shape of each tensor, none of which is read."""
    header = tensors.read_header(path)
    found = tensors.names(path)
    numbers = sum(int(np.prod(shape, dtype=np.int64)) for _, shape in found.values())
    listed = {name: f"{dtype} {list(shape)}" for name, (dtype, shape) in list(found.items())[:20]}
    return {
        "kind_of_tensors": header["kind"],
        "model": header.get("model"),
        "fingerprint": header.get("fingerprint"),
        "tensors": len(found),
        "numbers": numbers,
        "bytes": path.stat().st_size,
        "first_tensors": listed,
        "made_by": header,
    }


def _label_map(path: Path) -> Facts:
    """Size, and the share of the picture that each class has."""
    labels = label_maps.read(path)
    file = classes_of(path)
    names = [] if file is None else label_maps.read_classes(file)
    found, counts = np.unique(labels, return_counts=True)
    shares = {
        "unlabelled" if k < 0 else names[k] if k < len(names) else str(k): n / labels.size
        for k, n in zip(found.tolist(), counts.tolist(), strict=True)
    }
    height, width = labels.shape
    return {"height": height, "width": width, "classes_file": file and str(file), "shares": shares}


def _label_maps(folder: Path) -> Facts:
    source = labelled.open_source(str(folder))
    return {
        "label_maps": len(source.names),
        "classes": len(source.classes),
        "names": [words[0] for words in source.classes][:20],
    }


def _parts(folder: Path) -> Facts:
    """What the parts hold together, and the settings that all were made with."""
    header = parts.read_header(folder)
    records = Counter("failures" if "failure" in r else "images" for r in parts.read_folder(folder))
    return {"images": records["images"], "failures": records["failures"], **_header_facts(header)}


def _header_facts(header: Mapping[str, Any]) -> Facts:
    tool = (header.get("preface") or {}).get("info", {}).get("ovtool")
    return {
        "items": header.get("items"),
        "digest": header.get("digest"),
        "made_by": tool or {"settings": header.get("settings")},
    }
