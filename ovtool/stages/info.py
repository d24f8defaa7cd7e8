"""`info`: what a file is, what it holds, and what made it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ovtool.errors import InputError
from ovtool.formats import coco, image_search, images, label_maps, labelled, parts, tensors
from ovtool.formats.kinds import FOREIGN, classes_of, entries, is_label_map, kind_of
from ovtool.inputs import any_masks, data_folders

Facts = dict[str, Any]


def run(file: str | Path) -> Facts:
    """What a file or folder is, what it holds and what made it; it is not validated.

    Args:
        file: a COCO JSON, a safetensors file, an image, a label map, or a folder; `-` is stdin.

    Returns:
        Facts that JSON can hold: `file`, `kind` (one of those of `kinds.kind_of`), counts and names, and
        under `made_by` the provenance that the file carries.

    Raises:
        InputError: there is no such file, or it is none of the kinds that ovtool knows.
    """
    source = str(file)
    path = Path(source)
    kind, content = kind_of(source)
    describers: dict[str, Callable[[], Mapping[str, Any]]] = {
        "parts": lambda: _parts(path),
        "label maps": lambda: _label_maps(path),
        "images": lambda: _images(source),
        "data set": lambda: _data_set(path),
        "safetensors": lambda: _safetensors(path),
        "label map": lambda: _label_map(path),
        "image": lambda: dict(zip(("height", "width"), images.read_size(path), strict=True)),
        "COCO masks": lambda: _coco(content),
        "COCO captions": lambda: _coco(content),
        "COCO results": lambda: _results(content),
        **dict.fromkeys(FOREIGN, lambda: _coco(coco.document(any_masks.read(source)))),
        "classes per image": lambda: _words(content),
        "scores": lambda: content,
        "model configuration": lambda: content,
    }
    return {"file": source, "kind": kind, **describers[kind]()}


def _images(folder: str) -> Facts:
    """Images, and label maps among them, counted apart."""
    maps = {str(path) for path in labelled.label_map_files(Path(folder)) if _is_label_map(path)}
    paths = {str(item.path) for item in image_search.find_images([folder])}
    return {"images": len(paths - maps), "label_maps": len(maps)}


def _is_label_map(path: Path) -> bool:
    try:
        return is_label_map(path)
    except InputError:
        return False  # broken: `check` says so


def _data_set(folder: Path) -> Facts:
    files = data_folders.opened(folder)
    counts = Counter(path.suffix for path, _ in files.annotations)
    named = [path.name for path, _ in files.annotations][:20] if counts[".json"] else counts[".xml"]
    return {
        "layout": files.layout,
        "splits": list(files.splits),
        "images": len(files.images),
        "label_maps": len(files.label_maps),
        "annotations": named,
    }


def _coco(content: Mapping[str, Any]) -> Facts:
    """The counts of the sections, the names of the categories, the scores, and what made it."""
    info = content["info"] if isinstance(content.get("info"), dict) else {}
    made_by = dict(info["ovtool"]) if isinstance(info.get("ovtool"), dict) else {}
    failures = made_by.pop("failures", [])
    names = {str(c.get("id")): str(c.get("name")) for c in entries(content, "categories")}
    per_image: Counter[str] = Counter()  # annotations of each image
    per_category: Counter[str] = Counter()
    scores: list[float] = []
    for annotation in entries(content, "annotations"):
        per_image[str(annotation.get("image_id"))] += 1
        if "category_id" in annotation:
            per_category[names.get(str(annotation["category_id"]), "?")] += 1
        if isinstance(score := annotation.get("score"), int | float):
            scores = [min([*scores, score]), max([*scores, score])]
    facts: Facts = {
        "images": sum(1 for _ in entries(content, "images")),
        "annotations": per_image.total(),
        "images_with_annotations": len(per_image),
        "categories": len(names),
    }
    if per_category:
        facts["annotations_of"] = dict(per_category.most_common(20))
    if scores:
        facts["scores"] = {"lowest": scores[0], "highest": scores[1]}
    if failures:
        facts["failures"] = failures
    if info.get("description"):
        facts["description"] = info["description"]
    facts["made_by"] = made_by or None
    return facts


def _results(content: Iterable[Any]) -> Facts:
    count = 0
    images: set[str] = set()
    categories: set[str] = set()
    for entry in content:
        count += 1
        if isinstance(entry, dict):
            images.add(str(entry.get("image_id")))
            categories.add(str(entry.get("category_id")))
    return {
        "annotations": count,
        "images_with_annotations": len(images),
        "categories": len(categories),
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
    listed_tensors = tensors.names(path)
    numbers = sum(int(np.prod(shape, dtype=np.int64)) for _, shape in listed_tensors.values())
    listed = {
        name: f"{dtype} {list(shape)}" for name, (dtype, shape) in list(listed_tensors.items())[:20]
    }
    return {
        "kind_of_tensors": header["kind"],
        "model": header.get("model"),
        "fingerprint": header.get("fingerprint"),
        "tensors": len(listed_tensors),
        "numbers": numbers,
        "bytes": path.stat().st_size,
        "first_tensors": listed,
        "made_by": header,
    }


def _label_map(path: Path) -> Facts:
    """Size, and the share of the image that each class has."""
    labels = label_maps.read(path)
    file = classes_of(path)
    names = [] if file is None else label_maps.read_classes(file)
    values, counts = np.unique(labels, return_counts=True)
    shares = {
        "unlabelled" if k < 0 else names[k] if k < len(names) else str(k): n / labels.size
        for k, n in zip(values.tolist(), counts.tolist(), strict=True)
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
    tool = ((header.get("preface") or {}).get("info") or {}).get("ovtool")
    return {
        "items": header.get("items"),
        "digest": header.get("digest"),
        "made_by": tool or {"settings": header.get("settings")},
    }
