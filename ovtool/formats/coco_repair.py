"""Repairs of what exporters write: parsed COCO JSON in, COCO JSON as `coco.parse` takes it out.

What is repaired says the same in another way, or nothing that anybody needs: numbers written as floats or
texts, annotations counted from 0, a crowd flag that is true or false, a polygon that is not in a list of
polygons, file names with the backslashes of Windows, annotations that have a box and no mask beside others
with masks. Image and category ids stay those of the file, 0 among them. Whatever could
be meant in two ways is left as it is, and `coco.parse` refuses it.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

NUMBERS = "numbers"
ANNOTATION_IDS = "annotation ids"
BACKSLASHES = "backslashes"
FLAT = "flat polygons"
BOX_ONLY = "box only"
AREAS = "areas"
BOXES = "boxes"

# one and several, as the end of "... repaired in memory: "
_SENTENCES = {
    NUMBERS: ("{} number that was a float or a text is now an integer",
              "{} numbers that were floats or texts are now integers"),
    ANNOTATION_IDS: ("{} annotation id below 1 was numbered again, as are all annotations, from 1",
                     "{} annotation ids below 1 were numbered again, as are all annotations, from 1"),
    BACKSLASHES: ("{} file name was written with forward slashes",
                  "{} file names were written with forward slashes"),
    FLAT: ("{} polygon was put in a list of polygons",
           "{} polygons were each put in a list of polygons"),
    BOX_ONLY: ("{} annotation with a box and no mask is left out",
               "{} annotations with a box and no mask are left out"),
    AREAS: ("{} area that was not that of its mask is computed from the mask",
            "{} areas that were not those of their masks are computed from the masks"),
    BOXES: ("{} box that was not that of its mask is computed from the mask",
            "{} boxes that were not those of their masks are computed from the masks"),
}  # fmt: skip
_INTEGERS = {
    "images": ("id", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "iscrowd"),
    "categories": ("id",),
}
_DIGITS = re.compile(r"\s*[0-9]{1,18}\s*")


def repaired(
    data: Mapping[str, Any], *, need_masks: bool = True
) -> tuple[dict[str, Any], dict[str, int]]:
    """Parsed COCO JSON without the faults named above; the input stays as it is.

    Args:
        need_masks: whether annotations that have a box and no mask are left out. They stay where no
            annotation has a mask, for `coco.parse` to refuse.

    Returns:
        The sections, and how many repairs there were of each kind (``NUMBERS``, ...).
    """
    counts: Counter[str] = Counter()
    sections = dict(data)
    for name, fields in _INTEGERS.items():
        entries = data.get(name)
        if isinstance(entries, list):
            sections[name] = [_with_integers(entry, fields, counts) for entry in entries]
    images = sections.get("images")
    if isinstance(images, list):
        sections["images"] = [_with_slashes(entry, counts) for entry in images]
    annotations = sections.get("annotations")
    if isinstance(annotations, list):
        annotations = [_with_polygons(entry, counts) for entry in annotations]
        if need_masks:
            annotations = _with_masks(annotations, counts)
        sections["annotations"] = _numbered(annotations, counts)
    return sections, dict(counts)


def repaired_results(results: Sequence[Any]) -> tuple[list[Any], dict[str, int]]:
    """A bare list of results, as ``repaired`` does with annotations; ids are not looked at."""
    counts: Counter[str] = Counter()
    entries = [
        _with_polygons(_with_integers(entry, _INTEGERS["annotations"], counts), counts)
        for entry in results
    ]
    return _with_masks(entries, counts), dict(counts)


def sentence(where: str, counts: Mapping[str, int], how: str = " in memory") -> str:
    """One line that says what was repaired, and how: in memory, or in a file that was written."""
    said = (
        _SENTENCES[kind][count != 1].format(f"{count:,}")
        for kind, count in sorted(counts.items(), key=lambda pair: list(_SENTENCES).index(pair[0]))
    )
    return f"{where} was repaired{how}: {'; '.join(said)}"


def _with_integers(entry: Any, fields: Sequence[str], counts: Counter[str]) -> Any:
    if not isinstance(entry, dict):
        return entry
    changed = {}
    for field in fields:
        value = entry.get(field)
        whole = _whole(value, is_flag=field == "iscrowd")
        if whole is not value:
            changed[field] = whole
    counts.update({NUMBERS: len(changed)} if changed else {})
    return {**entry, **changed} if changed else entry


def _whole(value: Any, is_flag: bool) -> Any:
    """The integer that a float or a text stands for, else the value itself."""
    if type(value) is bool:
        return int(value) if is_flag else value
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value


def _with_slashes(entry: Any, counts: Counter[str]) -> Any:
    """An image whose name has the backslashes of Windows alone, with forward slashes for them."""
    name = entry.get("file_name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or "\\" not in name or "/" in name:
        return entry
    counts[BACKSLASHES] += 1
    return {**entry, "file_name": name.replace("\\", "/")}


def _with_polygons(entry: Any, counts: Counter[str]) -> Any:
    """An annotation whose one polygon is not in a list, as VIA writes it, with it in one."""
    if not isinstance(entry, dict):
        return entry
    polygon = entry.get("segmentation")
    if not isinstance(polygon, list) or not polygon or type(polygon[0]) not in (int, float):
        return entry
    counts[FLAT] += 1
    return {**entry, "segmentation": [polygon]}


def _with_masks(annotations: list[Any], counts: Counter[str]) -> list[Any]:
    """The annotations less those that have a box alone, if any has a mask."""
    is_mask = [isinstance(entry, dict) and bool(entry.get("segmentation")) for entry in annotations]
    if not any(is_mask):
        return annotations
    kept = [
        entry
        for entry, masked in zip(annotations, is_mask, strict=True)
        if masked or not isinstance(entry, dict) or not entry.get("bbox")
    ]
    if len(kept) < len(annotations):
        counts[BOX_ONLY] += len(annotations) - len(kept)
    return kept


def _numbered(annotations: list[Any], counts: Counter[str]) -> list[Any]:
    """The annotations, numbered from 1 in their order where one has the id 0, which COCO tools read as no
    match. Other faults of ids are left for `coco.parse`."""
    ids = [entry.get("id") if isinstance(entry, dict) else None for entry in annotations]
    is_sound = all(type(number) is int and number >= 0 for number in ids) and len(set(ids)) == len(
        ids
    )
    if 0 not in ids or not is_sound:
        return annotations
    counts[ANNOTATION_IDS] += 1
    return [{**entry, "id": number} for number, entry in enumerate(annotations, start=1)]
