"""COCO run-length masks: encoding, decoding, area and box.

A compressed RLE is ``{"size": [height, width], "counts": str}``. The counts are the lengths of runs
of zeros and ones in turn, down the columns, beginning with zeros; in the string each is a
difference to the count two before it, in groups of five bits, lowest first, offset by 48 (as
``rleToString`` of the COCO API writes them). pycocotools trusts what it is given, and reads past
the end of its buffers for corrupt counts, so counts from files are checked here before it sees them.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ovtool.errors import InputError, short

Box: TypeAlias = tuple[float, float, float, float]  # x and y of the corner, width, height
MAX_PIXELS = 2**29 - 1  # the COCO API then reads each count within 32 bits


class Rle(TypedDict):
    """A compressed mask: ``size`` is [height, width], ``counts`` an ASCII string."""

    size: list[int]
    counts: str


def encode(mask: NDArray[Any]) -> Rle:
    """A boolean mask (H, W) as compressed RLE."""
    return encode_many(mask[None])[0]


def encode_many(masks: NDArray[Any]) -> list[Rle]:
    """Boolean masks (N, H, W) as N compressed RLEs; all sizes above 0.

    Only the box of a mask is read down its columns, and all masks are compressed together.
    """
    if masks.ndim != 3:
        raise ValueError(f"masks must be (N, H, W), not {masks.shape}")
    if not len(masks):
        return []
    masks = masks.astype(np.bool_, copy=False)
    height, width = masks.shape[1:]
    has_pixels = np.asarray(masks.any(axis=2))  # (N, H)
    runs = [_runs(mask, rows) for mask, rows in zip(masks, has_pixels, strict=True)]
    texts = _compress(np.concatenate(runs), np.array([own.size for own in runs]))
    return [{"size": [height, width], "counts": text} for text in texts]


def _runs(mask: NDArray[np.bool_], rows: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The run lengths of a mask (H, W) down its columns, of which `rows` (H,) says where it has pixels."""
    height, width = mask.shape
    filled = np.flatnonzero(rows)
    if not filled.size:
        return np.array([height * width])
    # with an empty row above or below the box, so that no run goes on in the next column; without
    # one the box has all rows, and runs do go on
    top, bottom = max(int(filled[0]) - 1, 0), min(int(filled[-1]) + 2, height)
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    flat = np.ascontiguousarray(mask[top:bottom, left:right].T).ravel()
    framed = np.zeros(flat.size + 2, np.bool_)
    framed[1:-1] = flat
    edges = np.flatnonzero(framed[1:] != framed[:-1])  # where runs of ones start and stop, in turn
    edges[1::2] -= 1  # the last pixel of a run
    column, row = np.divmod(edges, bottom - top)
    places = (column + left) * height + row + top
    places[1::2] += 1
    if places[-1] < height * width:
        places = np.append(places, height * width)
    counts: NDArray[np.int64] = np.diff(places, prepend=0)
    return counts


def encode_label_map(labels: NDArray[Any], indices: Sequence[int]) -> dict[int, Rle]:
    """The masks of a label map (H, W) of integers: one RLE per label of ``indices`` that occurs.

    The runs of all labels are found in one pass over the map and compressed together, so the cost
    hardly grows with the number of labels. The result is in the order of ``indices``.
    """
    height, width = labels.shape
    flat = np.ascontiguousarray(labels.T).ravel()  # down the columns
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    stops = np.append(starts[1:], flat.size)
    wanted = np.flatnonzero(np.isin(flat[starts], np.asarray(indices, dtype=np.int64)))
    if not wanted.size:
        return {}
    order = wanted[_stable_order(flat[starts[wanted]])]
    starts, stops, owners = starts[order], stops[order], flat[starts[order]]

    is_first = np.concatenate(([True], owners[1:] != owners[:-1]))
    is_last = np.append(is_first[1:], True)
    gaps = starts - np.where(is_first, 0, np.concatenate(([0], stops[:-1])))
    counts = np.stack([gaps, stops - starts], axis=1).ravel()
    # the zeros after a label's last run
    rest = flat.size - stops
    after = is_last & (rest > 0)
    counts = np.insert(counts, 2 * np.flatnonzero(after) + 2, rest[after])
    sizes = np.add.reduceat(2 + after.astype(np.int64), np.flatnonzero(is_first))

    labels_present = [int(label) for label in owners[is_first]]
    texts = dict(zip(labels_present, _compress(counts, sizes), strict=True))
    unique = dict.fromkeys(int(index) for index in indices)
    return {i: {"size": [height, width], "counts": texts[i]} for i in unique if i in texts}


def compress(segmentation: Any, height: int, width: int) -> Rle:
    """Any COCO segmentation of an image, checked, as compressed RLE.

    Accepts compressed RLE, list RLE and polygons (lists of x, y; those of fewer than three points
    are dropped). ``[]`` is a mask with no pixel.

    Raises:
        InputError: another size, counts that are no runs of ``height * width`` pixels, or polygons
            that are no lists of finite numbers near the image.
    """
    if height * width > MAX_PIXELS:
        raise InputError(f"{height} x {width} pixels are more than a COCO mask can have")
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, height, width)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise InputError(
            f"segmentation is {short(segmentation)}, not polygons or an RLE with size and counts"
        )
    size, counts = segmentation["size"], segmentation["counts"]
    if not isinstance(size, list | tuple) or list(size) != [height, width]:
        raise InputError(f"RLE size is {short(size)}, but the image is [{height}, {width}]")
    if isinstance(counts, list):
        runs = _list_counts(counts)
        text = _compress(runs, np.array([runs.size]))[0]
    else:
        runs = _expand(counts)
        text = counts.decode("ascii") if isinstance(counts, bytes) else str(counts)
    pixels = height * width
    if ((runs < 0) | (runs > pixels)).any() or int(runs.sum()) != pixels:
        raise InputError(
            f"RLE counts are corrupt: the runs do not add up to {height} x {width} pixels"
        )
    return {"size": [height, width], "counts": text}


def are_sound(masks: Sequence[Rle]) -> NDArray[np.bool_]:
    """Whether ``compress`` would take each mask for an image of its size, (len(masks),): many together are
    looked at several times faster than one by one. Counts are ASCII, none is empty."""
    if not masks:
        return np.zeros(0, dtype=np.bool_)
    sizes = np.array([len(mask["counts"]) for mask in masks])
    pixels = np.array([mask["size"][0] * mask["size"][1] for mask in masks])
    text = "".join(mask["counts"] for mask in masks).encode("ascii")
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    starts = np.cumsum(sizes) - sizes
    is_sound: NDArray[np.bool_] = np.logical_and.reduceat((codes >= 0) & (codes < 64), starts)
    is_sound &= (codes[starts + sizes - 1] & 32) == 0
    if not is_sound.all():  # what follows needs whole numbers
        is_sound[is_sound] = are_sound([masks[i] for i in np.flatnonzero(is_sound).tolist()])
        return is_sound

    values, stops, digits = _numbers(codes)
    firsts = np.searchsorted(stops, starts)  # the first number of each mask
    counts = np.diff(firsts, append=stops.size)
    runs = _undo_differences(values, firsts, counts)
    is_sound &= np.maximum.reduceat(digits, firsts) <= 6
    is_sound &= np.minimum.reduceat(runs, firsts) >= 0
    is_sound &= np.maximum.reduceat(runs, firsts) <= pixels
    is_sound &= np.add.reduceat(runs, firsts) == pixels
    return is_sound


def _undo_differences(
    values: NDArray[np.int64], firsts: NDArray[np.intp], counts: NDArray[np.intp]
) -> NDArray[np.int64]:
    """The runs of masks whose numbers from the fourth on are differences to the one two before.

    Args:
        values: the numbers of all masks, one mask after another.
        firsts: the place of each mask's first number.
        counts: how many it has.
    """
    place = np.arange(values.size) - np.repeat(firsts, counts)
    chain = np.where(
        place == 0, 0, 1 + (place % 2 == 0)
    )  # the first, the odd, the even from the third on
    chain += 3 * np.repeat(np.arange(firsts.size), counts)
    order = np.argsort(chain, kind="stable")
    sums = np.cumsum(values[order])
    starts = np.flatnonzero(np.diff(chain[order], prepend=-1))
    before = sums[starts] - values[order][starts]
    runs = np.empty_like(values)
    runs[order] = sums - np.repeat(before, np.diff(starts, append=values.size))
    return runs


def decode(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Any COCO segmentation as a boolean mask (H, W); accepts and raises what ``compress`` does."""
    runs = _expand(compress(segmentation, height, width)["counts"])
    values = np.arange(runs.size) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def area(rle: Rle) -> int:
    """The number of pixels of a mask."""
    return int(coco_mask.area(rle))


def measured(masks: Sequence[Rle]) -> list[tuple[Box, float]]:
    """The tight box (`bounding_box`) and the number of pixels of each of at most 255 masks (pycocotools
    counts no more in one call), faster together than one by one."""
    if not masks:
        return []
    boxes, areas = coco_mask.toBbox(list(masks)).tolist(), coco_mask.area(list(masks)).tolist()
    return [((x, y, w, h), float(area)) for (x, y, w, h), area in zip(boxes, areas, strict=True)]


def bounding_box(rle: Rle) -> Box:
    """The tight box of a mask in pixels: x, y of its corner, width, height; zeros if empty."""
    x, y, width, height = (float(value) for value in coco_mask.toBbox(rle))
    return x, y, width, height


def _text(rle: Any) -> Rle:
    height, width = rle["size"]
    return {"size": [int(height), int(width)], "counts": rle["counts"].decode("ascii")}


def _stable_order(labels: NDArray[Any]) -> NDArray[np.intp]:
    if -(2**15) <= labels.min() and labels.max() < 2**15:
        labels = labels.astype(np.int16)  # numpy sorts 16 bits by radix, many times faster
    return np.argsort(labels, kind="stable")


def _compress(counts: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[str]:
    """Strings of several masks: their counts one after another, and how many each has."""
    ends = np.cumsum(sizes)
    place = np.arange(counts.size) - np.repeat(ends - sizes, sizes)  # within its mask
    rest = counts.astype(np.int64)
    deep = np.flatnonzero(place > 2)
    rest[deep] -= counts[deep - 2]

    codes, used = [], [np.ones(counts.size, dtype=np.bool_)]
    while used[-1].any():  # one digit of five bits of every number, where it has so many
        bits = (rest & 31).astype(np.uint8)
        rest >>= 5
        more = used[-1] & (rest != np.where(bits & 16, -1, 0))
        codes.append(bits + (more.astype(np.uint8) << 5) + np.uint8(48))
        used.append(more)
    is_used = np.stack(used[:-1], axis=1)
    text = np.stack(codes, axis=1)[is_used].tobytes().decode("ascii")
    stops = np.cumsum(is_used.sum(axis=1))[ends - 1]
    bounds = [0, *stops.tolist()]
    return [text[start:stop] for start, stop in zip(bounds, bounds[1:], strict=False)]


def _expand(counts: Any) -> NDArray[np.int64]:
    """The run lengths of a compressed string; the inverse of ``_compress`` for one mask."""
    try:
        data = counts if isinstance(counts, bytes) else counts.encode("ascii")
    except (AttributeError, UnicodeEncodeError):
        raise InputError(f"RLE counts are {short(counts)}, not a string of runs") from None
    codes = np.frombuffer(data, dtype=np.uint8).astype(np.int64) - 48
    if not codes.size or ((codes < 0) | (codes > 63)).any() or codes[-1] & 32:
        raise InputError("RLE counts are corrupt: the string is cut off or holds other characters")
    runs, _, digits = _numbers(codes)
    if digits.max() > 6:
        raise InputError("RLE counts are corrupt: a run is longer than any image")
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def _numbers(
    codes: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.intp]]:
    """The numbers that digits of six bits spell, each with the place of its last digit and how many it has;
    one of more than six digits is wrong."""
    stops = np.flatnonzero((codes & 32) == 0)
    digits = np.diff(stops, prepend=-1)
    firsts = stops + 1 - digits
    place = np.arange(codes.size) - np.repeat(firsts, digits)
    values = np.add.reduceat((codes & 31) << (5 * np.minimum(place, 6)), firsts)
    values -= np.where(codes[stops] & 16, np.int64(1) << (5 * np.minimum(digits, 6)), 0)
    return values, stops, digits


def _list_counts(counts: list[Any]) -> NDArray[np.int64]:
    if not counts or not all(type(run) is int and 0 <= run <= MAX_PIXELS for run in counts):
        raise InputError("RLE counts are corrupt: they must be whole numbers from 0")
    return np.array(counts, dtype=np.int64)


def _from_polygons(polygons: list[Any], height: int, width: int) -> Rle:
    kept = []
    reach = 4 * max(height, width)  # pycocotools walks along every edge, however long
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) % 2:
            raise InputError(f"polygon {short(polygon)} is not a list of x, y, x, y, ...")
        if not all(type(value) in (int, float) and -reach <= value <= reach for value in polygon):
            raise InputError(f"polygon {short(polygon)} is not made of numbers near the image")
        if len(polygon) >= 6:
            kept.append(polygon)
    if not kept:
        empty = np.array([height * width])
        return {"size": [height, width], "counts": _compress(empty, np.array([1]))[0]}
    return _text(coco_mask.merge(coco_mask.frPyObjects(kept, height, width)))
