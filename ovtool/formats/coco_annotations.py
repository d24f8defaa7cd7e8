"""Annotations of COCO JSON, checked: many masks together, which is several times faster than one by one."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

from ovtool.errors import InputError, short
from ovtool.formats import coco_checks as checks
from ovtool.formats import coco_repair, rle
from ovtool.formats.coco_entries import (
    ANNOTATION_FIELDS,
    Annotation,
    Category,
    Image,
    extra_fields,
)
from ovtool.formats.mask_store import Masks
from ovtool.formats.rle import Box, Rle

Placed: TypeAlias = tuple[str, int, Mapping[str, Any]]  # the place for messages, the id, the entry
# a sound mask with its box and area; no box where a file need not have masks
Measured: TypeAlias = tuple[Rle, Box | None, float]
_BATCH = 128  # `rle.measured` takes no more than 255
_LONG_MASK = 50_000  # letters, beyond which a mask is looked at alone


def judged(
    entries: Iterable[Placed],
    images: Mapping[int, Image],
    categories: Mapping[int, Category],
    need_masks: bool = True,
    repairs: Counter[str] | None = None,
) -> Iterator[tuple[Mapping[str, Any], Annotation | InputError]]:
    """Each entry with its annotation, or with what is wrong in it.

    Args:
        entries: as `coco_checks.entries_with_ids` gives them; no more than a few hundred are held.
        images: those of the file, by their ids.
        categories: the same.
        need_masks: whether an annotation without a mask is a fault; else its mask is empty.
        repairs: counts the areas and boxes that are not those of their masks.
    """
    counts = Counter() if repairs is None else repairs
    drawn = iter(entries)
    while batch := list(islice(drawn, _BATCH)):
        masks = _measured([entry for _, _, entry in batch], images)
        for (place, id, entry), mask in zip(batch, masks, strict=True):
            try:
                references = _references(entry, images, categories, place)
                if mask is None:
                    mask = _mask(entry, references[0], need_masks, place)
                yield entry, _annotation(place, id, entry, references, mask, counts)
            except InputError as error:
                yield entry, error


def parsed(
    entries: Iterable[Placed],
    images: Mapping[int, Image],
    categories: Mapping[int, Category],
    need_masks: bool,
    repairs: Counter[str],
) -> Masks:
    """The annotations of entries; arguments as for `judged`. Raises InputError for the first that is wrong."""
    annotations = Masks()
    for _, result in judged(entries, images, categories, need_masks, repairs):
        if isinstance(result, InputError):
            raise result
        annotations.append(result)
    return annotations


def _measured(
    entries: Sequence[Mapping[str, Any]], images: Mapping[int, Image]
) -> list[Measured | None]:
    """The masks of entries that are sound compressed RLEs; None for what `_mask` must look at."""
    sizes: dict[tuple[int, int], list[int]] = {}  # equal ones are one list in memory
    masks: dict[int, Rle] = {}
    for index, entry in enumerate(entries):
        mask, image_id = entry.get("segmentation"), entry.get("image_id")
        image = images.get(image_id) if type(image_id) is int else None
        if (
            image is None
            or not isinstance(mask, dict)
            or image.height * image.width > rle.MAX_PIXELS
        ):
            continue
        counts, size = mask.get("counts"), (image.height, image.width)
        if not isinstance(counts, str) or not 0 < len(counts) <= _LONG_MASK:
            continue
        if counts.isascii() and mask.get("size") == [*size]:
            masks[index] = {"size": sizes.setdefault(size, [*size]), "counts": counts}
    sound = [
        index
        for index, is_sound in zip(masks, rle.are_sound([*masks.values()]), strict=True)
        if is_sound
    ]
    measures = rle.measured([masks[index] for index in sound])
    results: list[Measured | None] = [None] * len(entries)
    for index, (box, area) in zip(sound, measures, strict=True):
        results[index] = masks[index], box, area
    return results


def _references(
    entry: Mapping[str, Any],
    images: Mapping[int, Image],
    categories: Mapping[int, Category],
    place: str,
) -> tuple[Image, int]:
    """The image of an entry, and the id of its category."""
    image_id, category_id = entry.get("image_id"), entry.get("category_id")
    checks.check_reference(image_id, "image_id", images, "images", place)
    checks.check_reference(category_id, "category_id", categories, "categories", place)
    return images[entry["image_id"]], entry["category_id"]


def _mask(entry: Mapping[str, Any], image: Image, need_masks: bool, place: str) -> Measured:
    """The mask of an entry in any of COCO's ways."""
    segmentation = entry.get("segmentation")
    if not segmentation and need_masks:
        said = "is missing" if "segmentation" not in entry else f"is {short(segmentation)}"
        raise InputError(f"{place}: segmentation {said}; give it polygons or an RLE, or remove it")
    try:
        mask = rle.compress(segmentation or [], image.height, image.width)
    except InputError as error:
        raise InputError(f"{place}: {error}; write the mask again, or remove it") from None
    return mask, rle.bounding_box(mask) if segmentation else None, float(rle.area(mask))


def _annotation(
    place: str,
    id: int,
    entry: Mapping[str, Any],
    references: tuple[Image, int],
    measured: Measured,
    repairs: Counter[str],
) -> Annotation:
    """A checked annotation; ``place`` names it in messages, and ``repairs`` counts areas and boxes that
    are not those of the mask."""
    mask, tight, pixels = measured
    box = checks.box(entry["bbox"], place) if entry.get("bbox") else None
    area = checks.number(entry["area"], "area", place) if entry.get("area") is not None else None
    score = entry.get("score")
    crowd = entry.get("iscrowd") or 0
    if crowd not in (0, 1):
        raise InputError(f"{place}: iscrowd is {short(crowd)}: it must be 0 or 1")
    extra = extra_fields(entry, ANNOTATION_FIELDS)
    if crowd:
        extra = {**extra, "iscrowd": 1}
    if tight is None and box is None:
        tight = rle.bounding_box(mask)
    if tight is not None:
        if area is not None and not checks.is_near_area(area, pixels, tight):
            repairs[coco_repair.AREAS] += 1
        if box is not None and not checks.is_near_box(box, tight):
            repairs[coco_repair.BOXES] += 1
        box, area = tight, pixels
    assert box is not None  # one or the other is there
    image, category_id = references
    return Annotation(
        id,
        image.id,
        category_id,
        mask,
        box,
        0.0 if area is None else area,
        None if score is None else checks.number(score, "score", place),
        extra,
    )
