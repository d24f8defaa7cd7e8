"""Repairs of what exporters write: parsed COCO JSON in, COCO JSON as `coco.parse` takes it out.

What is repaired says the same in another way, or nothing that anybody needs: numbers written as floats or
texts, masks in another notation (a text of JSON, Python's `b'...'` around runs, a list around an RLE or around all
polygons, points as objects), annotations counted from 0, a crowd flag that is true or false, a polygon that is not in a list of
polygons or is a list of points, file names with the backslashes of Windows, annotations that have a box and
no mask beside others with masks, and the second category of one name where no annotation has it, as Roboflow
writes it for a project that is named like its class. Image and category ids stay those of the file, 0 among them. Whatever could
be meant in two ways is left as it is, and `coco.parse` refuses it.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from ovtool.formats import strict_json
from ovtool.formats.json_sections import Entries

Annotations: TypeAlias = "list[Any] | Entries"

NUMBERS = "numbers"
TEXTS = "numbers as texts"
ANNOTATION_IDS = "annotation ids"
BACKSLASHES = "backslashes"
FLAT = "flat polygons"
POINTS = "polygons of points"
NOTATION = "notation of masks"
TWINS = "twin categories"
BOX_ONLY = "box only"
PNG_NAMES = "names of PNGs"
ZEROS = "segments with the id 0"
EMPTY = "segments without a pixel"
AREAS = "areas"
BOXES = "boxes"

# one and several, as the end of "... repaired in memory: "
_SENTENCES = {
    NUMBERS: ("{} number that was a float or a text is now an integer",
              "{} numbers that were floats or texts are now integers"),
    TEXTS: ("{} box, area or score that was a text is now a number",
            "{} boxes, areas or scores that were texts are now numbers"),
    ANNOTATION_IDS: ("{} annotation id below 1 was numbered again, as are all annotations, from 1",
                     "{} annotation ids below 1 were numbered again, as are all annotations, from 1"),
    BACKSLASHES: ("{} file name was written with forward slashes",
                  "{} file names were written with forward slashes"),
    FLAT: ("{} polygon was put in a list of polygons",
           "{} polygons were each put in a list of polygons"),
    POINTS: ("{} polygon of points [x, y] was written as x, y, x, y",
             "{} polygons of points [x, y] were written as x, y, x, y"),
    NOTATION: ("{} mask in another notation was read as polygons or an RLE",
               "{} masks in another notation were read as polygons or RLEs"),
    TWINS: ("{} category that no annotation has, and that has the name of another, is left out",
            "{} categories that no annotation has, and that have the names of others, are left out"),
    BOX_ONLY: ("{} annotation with a box and no mask is left out",
               "{} annotations with a box and no mask are left out"),
    PNG_NAMES: ("{} name of a PNG was missing, or another than in its folder",
                "{} names of PNGs were missing, or others than in their folder"),
    ZEROS: ("{} segment with the id 0 has the pixels of that colour",
            "{} segments with the id 0 have the pixels of that colour"),
    EMPTY: ("{} segment without a pixel is left out", "{} segments without a pixel are left out"),
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
_NUMBER = re.compile(r"\s*-?[0-9]{1,18}(?:\.[0-9]{1,18})?\s*")


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
    for name in ("images", "categories"):
        entries = data.get(name)
        if isinstance(entries, list):
            sections[name] = [with_integers(entry, _INTEGERS[name], counts) for entry in entries]
    images = sections.get("images")
    if isinstance(images, list):
        sections["images"] = [_with_slashes(entry, counts) for entry in images]
    annotations = sections.get("annotations")
    if isinstance(annotations, list | Entries):
        sections["annotations"] = _annotations(annotations, counts, need_masks, is_numbered=True)
        sections |= _without_twins(sections, counts)
    return sections, dict(counts)


def repaired_results(results: Annotations) -> tuple[Annotations, dict[str, int]]:
    """A bare list of results, as ``repaired`` does with annotations; ids are not looked at."""
    counts: Counter[str] = Counter()
    return _annotations(results, counts, need_masks=True, is_numbered=False), dict(counts)


def sentence(where: str, counts: Mapping[str, int], how: str = " in memory") -> str:
    """One line that says what was repaired, and how: in memory, or in a file that was written."""
    said = (
        _SENTENCES[kind][count != 1].format(f"{count:,}")
        for kind, count in sorted(counts.items(), key=lambda pair: list(_SENTENCES).index(pair[0]))
    )
    return f"{where} was repaired{how}: {'; '.join(said)}"


def with_integers(entry: Any, fields: Sequence[str], counts: Counter[str]) -> Any:
    """An entry whose fields are integers where they were floats, texts or, of `iscrowd`, truth values."""
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
    if is_flag and isinstance(value, str) and value.strip().casefold() in ("true", "false"):
        return int(value.strip().casefold() == "true")
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


def _without_twins(sections: Mapping[str, Any], counts: Counter[str]) -> dict[str, Any]:
    """The section ``categories`` without those that have the name of another and no annotation, where one of
    the name is of the supercategory ``none``, Roboflow's mark of the whole project; nothing where none is."""
    listed = sections.get("categories")
    if not isinstance(listed, list | Entries):
        return {}
    named = [
        entry
        for entry in listed
        if isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and type(entry.get("id")) is int
    ]
    projects = {entry["name"] for entry in named if entry.get("supercategory") == "none"}
    same = [entry for entry in named if entry["name"] in projects]
    if len(same) == len(projects):
        return {}
    ids = (own.get("category_id") for own in sections["annotations"] if isinstance(own, dict))
    used = {id for id in ids if type(id) is int}
    stays = {entry["name"]: entry["id"] for entry in same}  # the last, where no annotation has any
    stays |= {entry["name"]: entry["id"] for entry in same if entry["id"] in used}
    twins = [entry for entry in same if entry["id"] not in {*used, stays[entry["name"]]}]
    counts.update({TWINS: len(twins)} if twins else {})
    return {"categories": [entry for entry in listed if entry not in twins]}


def _with_plain_mask(entry: Any, counts: Counter[str]) -> Any:
    """An annotation with numbers for texts in its box, area and score, and its mask in COCO's notation."""
    if not isinstance(entry, dict):
        return entry
    changed = {
        field: number
        for field in ("area", "score", "bbox")
        if (number := _as_numbers(entry.get(field))) is not entry.get(field)
    }
    counts.update({TEXTS: len(changed)} if changed else {})
    given = entry.get("segmentation")
    mask = _plain_mask(given)
    if mask is not given:
        counts[NOTATION] += 1
        changed["segmentation"] = mask
    return {**entry, **changed} if changed else entry


def _plain_mask(mask: Any) -> Any:
    """A mask in COCO's notation; the mask itself where it is, or is something else."""
    if isinstance(mask, str) and mask.lstrip()[:1] in ("[", "{"):
        try:
            mask = strict_json.loads(mask)
        except ValueError:
            return mask
    if isinstance(mask, list) and len(mask) == 1:
        inner = mask[0]
        is_deeper = isinstance(inner, list) and bool(inner) and isinstance(inner[0], list)
        if isinstance(inner, dict) and "counts" in inner:
            mask = inner
        elif is_deeper and len(inner[0]) > 4 and not isinstance(inner[0][0], list):
            mask = inner
    if isinstance(mask, dict):
        counts, size = mask.get("counts"), _as_numbers(mask.get("size"))
        if isinstance(counts, str) and counts[:2] in ("b'", 'b"') and counts[-1:] == counts[1:2]:
            counts = counts[2:-1].replace("\\\\", "\\").replace("\\'", "'")
        is_same = counts is mask.get("counts") and size is mask.get("size")
        return mask if is_same else {**mask, "counts": counts, "size": size}
    if not isinstance(mask, list) or not any(map(_needs_numbers, mask)):
        return mask
    return [_polygon_of(polygon) for polygon in mask]


def _needs_numbers(polygon: Any) -> bool:
    return isinstance(polygon, list) and bool(polygon) and isinstance(polygon[0], str | dict)


def _polygon_of(polygon: Any) -> Any:
    """A polygon of texts as numbers, and one of objects with x and y as x, y, x, y."""
    if isinstance(polygon, list) and all(
        isinstance(own, dict) and {"x", "y"} <= own.keys() for own in polygon
    ):
        polygon = [own[side] for own in polygon for side in ("x", "y")]
    return _as_numbers(polygon)


def _as_numbers(value: Any) -> Any:
    """A text of a number, or a list of such, as numbers; any other value itself."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value) if "." in value else int(value)
    if isinstance(value, list) and any(isinstance(own, str) for own in value):
        numbers = [_as_numbers(own) for own in value]
        return value if any(isinstance(own, str) for own in numbers) else numbers
    return value


def _with_polygons(entry: Any, counts: Counter[str]) -> Any:
    """An annotation with its polygons as a list of lists x, y, x, y: for one polygon that is not in a list, as
    VIA writes it, and for polygons of points [x, y]."""
    if not isinstance(entry, dict):
        return entry
    polygons = entry.get("segmentation")
    if not isinstance(polygons, list) or not polygons:
        return entry
    if type(polygons[0]) in (int, float):
        counts[FLAT] += 1
        return {**entry, "segmentation": [polygons]}
    if _are_points(polygons):
        polygons = [polygons]
    if not any(map(_are_points, polygons)):
        return entry
    counts[POINTS] += sum(map(_are_points, polygons))
    flat = [
        [side for point in own for side in point] if _are_points(own) else own for own in polygons
    ]
    return {**entry, "segmentation": flat}


def _are_points(polygon: Any) -> bool:
    """Whether this is a polygon as a list of three or more points [x, y]."""
    is_long = isinstance(polygon, list) and len(polygon) > 2
    return is_long and all(
        isinstance(point, list)
        and len(point) == 2
        and {type(side) for side in point} <= {int, float}
        for point in polygon
    )


def _annotations(
    given: Annotations, counts: Counter[str], need_masks: bool, is_numbered: bool
) -> Annotations:
    """The annotations, each repaired; less those that have a box alone, if any has a mask (``need_masks``);
    and numbered from 1 in their order where one has the id 0, which COCO tools read as no match
    (``is_numbered``). Other faults are left for `coco.parse`. What is no list in memory is looked through
    once here, and repaired again when it is drawn."""

    def repaired(counts: Counter[str]) -> Iterator[Any]:
        for entry in given:
            whole = with_integers(entry, _INTEGERS["annotations"], counts)
            yield _with_polygons(_with_plain_mask(whole, counts), counts)

    ids: list[Any] = []
    is_bare = bytearray()
    has_masks = False
    for entry in repaired(counts):
        ids.append(entry.get("id") if isinstance(entry, dict) else None)
        is_bare.append(_is_bare(entry))
        has_masks = has_masks or (isinstance(entry, dict) and bool(entry.get("segmentation")))
    is_left_out = need_masks and has_masks and any(is_bare)
    if is_left_out:
        counts[BOX_ONLY] += sum(is_bare)
        ids = [id for id, bare in zip(ids, is_bare, strict=True) if not bare]
    is_from_zero = is_numbered and 0 in ids and _are_sound(ids)
    counts.update({ANNOTATION_IDS: 1} if is_from_zero else {})

    def kept() -> Iterator[Any]:
        entries = repaired(Counter())
        if is_left_out:
            entries = (entry for entry in entries if not _is_bare(entry))
        for number, entry in enumerate(entries, start=1):
            yield {**entry, "id": number} if is_from_zero else entry

    return list(kept()) if isinstance(given, list) else Entries(kept)


def _is_bare(entry: Any) -> bool:
    """Whether an annotation has a box and no mask."""
    is_entry = isinstance(entry, dict)
    return is_entry and bool(entry.get("bbox")) and not entry.get("segmentation")


def _are_sound(ids: Sequence[Any]) -> bool:
    return all(type(id) is int and id >= 0 for id in ids) and len(set(ids)) == len(ids)
