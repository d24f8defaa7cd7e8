"""`check`: whether files are whole and right. Everything in them is read."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ovtool.errors import OvtoolError
from ovtool.formats import coco, coco_checks, images, kinds, label_maps, labelled, tensors
from ovtool.inputs import images as sources


def run(files: str | Path | Sequence[str | Path]) -> list[dict[str, Any]]:
    """Validates files or folders in full.

    Args:
        files: one or several, of the kinds that `info` tells apart; `-` is stdin.

    Returns:
        For each of them `file`, `kind` (None if the file is not there, or nothing that ovtool knows) and
        `defects`: one line for each, with what, where and how to mend it; none if all is right.
    """
    return [_report(file) for file in sources.names_of(files)]


def _report(source: str) -> dict[str, Any]:
    kind = None
    try:
        kind, content = kinds.kind_of(source)
        defects = list(_defects(kind, source, content))
    except OvtoolError as error:
        defects = [str(error)]
    return {"file": source, "kind": kind, "defects": defects}


def _defects(kind: str, source: str, content: Any) -> Iterator[str]:
    path = Path(source)
    where = "standard input" if source == "-" else source
    if kind == "COCO masks":
        yield from _coco(content, where)
    elif kind == "COCO captions":
        yield from _captions(content, where)
    elif kind == "COCO results":
        yield from _results(content, where)
    elif kind == "classes per image":
        labelled.check_classes_per_image(content, where)
    elif kind == "safetensors":
        yield from _safetensors(path)
    elif kind == "parts":
        coco.read(path)  # complete, and a right COCO file when merged
    elif kind == "label map":
        yield from _label_map(path, kinds.classes_of(path))
    elif kind == "label maps":
        yield from _label_maps(path)
    elif kind == "picture":
        images.read_rgb(path)
    elif kind == "pictures":
        for item in images.find_images([source]):
            yield from _caught(images.read_rgb, item.path)


def _caught(function: Any, *arguments: Any) -> list[str]:
    """The one defect that a reader finds, or none."""
    try:
        function(*arguments)
    except OvtoolError as error:
        return [str(error)]
    return []


def _coco(content: Mapping[str, Any], where: str) -> Iterator[str]:
    """Defects of the sections, then of each annotation on its own."""
    sections = [
        *_caught(coco.parse_images, content, where),
        *_caught(coco.parse_categories, content, where),
        *_caught(_annotation_ids, content, where),
        *_caught(coco.parse, {**content, "images": [], "categories": [], "annotations": []}, where),
    ]
    yield from sections
    if sections:
        return  # what refers to them cannot be judged
    by_id = {image["id"]: image for image in content["images"]}
    known = {category["id"]: category for category in content["categories"]}
    for annotation in content["annotations"]:
        image = by_id.get(_id(annotation, "image_id"))
        category = known.get(_id(annotation, "category_id"))
        alone = {
            "images": [] if image is None else [image],
            "categories": [] if category is None else [category],
            "annotations": [annotation],
        }
        yield from _caught(coco.parse, alone, where)


def _id(annotation: Mapping[str, Any], field: str) -> int | None:
    value = annotation.get(field)
    return value if type(value) is int else None


def _annotation_ids(content: Mapping[str, Any], where: str) -> None:
    for _ in coco_checks.entries_with_ids(content, "annotations", where):
        pass


def _captions(content: Mapping[str, Any], where: str) -> Iterator[str]:
    sections = [
        *_caught(coco.parse_images, content, where),
        *_caught(_annotation_ids, content, where),
    ]
    yield from sections
    if sections:
        return
    known = {image["id"]: image for image in content["images"]}
    for place, _, entry in coco_checks.entries_with_ids(content, "annotations", where):
        yield from _caught(
            coco_checks.check_reference, entry.get("image_id"), "image_id", known, "images", place
        )
        yield from _caught(coco_checks.text, entry, "caption", place)


def _results(content: list[Any], where: str) -> Iterator[str]:
    """What can be said of a bare list without its ground truth: each entry has what it needs."""
    for index, entry in enumerate(content):
        place = f"{where}: entry {index}"
        if not isinstance(entry, dict):
            yield f"{place} is {coco_checks.short(entry)}, not an object; remove it"
            continue
        lacking = [key for key in ("image_id", "category_id", "score") if key not in entry]
        if "segmentation" not in entry and "bbox" not in entry:
            lacking.append("segmentation")
        if lacking:
            yield f"{place} has no {', '.join(lacking)}; add what is missing, or remove it"


def _safetensors(path: Path) -> Iterator[str]:
    """Defects of the header, and tensors that hold NaN or infinities."""
    _, loaded = tensors.load(path)
    for name, tensor in loaded.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            yield f"{path}: tensor {name} holds NaN or infinite numbers; make the file again"


def _label_map(path: Path, classes_file: Path | None) -> Iterator[str]:
    labels = label_maps.read(path)
    if classes_file is None:
        return
    names = label_maps.read_classes(classes_file)
    if labels.max() >= len(names):
        yield (
            f"{path} holds the label {labels.max()}, but {classes_file} names only {len(names)} "
            "classes: complete it"
        )


def _label_maps(folder: Path) -> Iterator[str]:
    classes_file = folder / labelled.CLASSES_FILE
    label_maps.read_classes(classes_file)
    for path in labelled.label_map_files(folder):
        try:
            yield from _label_map(path, classes_file)
        except OvtoolError as error:
            yield str(error)
