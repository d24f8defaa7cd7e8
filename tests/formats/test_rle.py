"""RLE against a slow coder that follows the COCO API's C code letter by letter."""

import time
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from ovtool.errors import InputError
from ovtool.formats import rle


def slow_runs(mask: np.ndarray) -> list[int]:
    runs, current, length = [], False, 0
    for value in mask.T.ravel():  # columns
        if bool(value) != current:
            runs.append(length)
            current, length = not current, 0
        length += 1
    return [*runs, length]


def slow_string(runs: list[int]) -> str:
    text = ""
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            text += chr((bits | 0x20 if more else bits) + 48)
    return text


def slow_encode(mask: np.ndarray) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": slow_string(slow_runs(mask))}


def random_masks(seed: int, n: int = 40) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(n):
        height, width = rng.integers(1, 40, 2)
        coarse = rng.random((height // rng.integers(1, 9) + 1, width // rng.integers(1, 9) + 1))
        zoom = np.kron(coarse > rng.random(), np.ones((9, 9), bool))[:height, :width]
        mask = np.zeros((height, width), bool)
        mask[: zoom.shape[0], : zoom.shape[1]] = zoom
        masks.append(mask)
    return masks


EDGES = [
    np.zeros((3, 5), bool),
    np.ones((3, 5), bool),
    np.ones((1, 1), bool),
    np.eye(7, dtype=bool),
    np.arange(3000 * 2).reshape(3000, 2) == 5999,
    np.arange(3000 * 2).reshape(3000, 2) != 2222,
]


@pytest.mark.parametrize("mask", [*random_masks(0), *EDGES], ids=lambda m: f"{m.shape}")
def test_encode_and_decode_agree_with_the_slow_coder(mask: np.ndarray) -> None:
    found = rle.encode(mask)
    assert found == slow_encode(mask)
    assert type(found["size"][0]) is int
    decoded = rle.decode(found, *mask.shape)
    assert decoded.dtype == bool and (decoded == mask).all()
    assert (
        rle.decode({"size": list(mask.shape), "counts": slow_runs(mask)}, *mask.shape) == mask
    ).all()
    assert rle.area(found) == mask.sum() and type(rle.area(found)) is int


def test_own_compression_is_that_of_pycocotools() -> None:
    for mask in [*random_masks(1), *EDGES]:
        runs = slow_runs(mask)
        listed = {"size": list(mask.shape), "counts": runs}
        theirs = coco_mask.frPyObjects(listed, *mask.shape)["counts"].decode()
        assert rle.compress(listed, *mask.shape)["counts"] == theirs == slow_string(runs)
        assert rle._expand(theirs).tolist() == runs


def test_long_runs_round_trip() -> None:
    # differences of up to 29 bits, of both signs
    runs = [1, 400_000_000, 3, 2, 100_000_000, 1, 7]
    height = sum(runs)
    listed = {"size": [height, 1], "counts": runs}
    found = rle.compress(listed, height, 1)
    assert found["counts"] == slow_string(runs)
    assert rle.area(found) == 400_000_003
    assert rle._expand(found["counts"]).tolist() == runs


@pytest.mark.parametrize("layout", ["C", "F", "strided"])
def test_encode_many(layout: str) -> None:
    masks = np.random.default_rng(2).random((5, 17, 23)) > 0.6
    given = {"C": masks, "F": np.asfortranarray(masks), "strided": masks.repeat(2, 2)[:, :, ::2]}
    assert rle.encode_many(given[layout]) == [slow_encode(mask) for mask in masks]
    assert rle.encode_many(np.zeros((0, 3, 3), bool)) == []


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int16, np.uint8])
def test_encode_label_map(dtype: type) -> None:
    rng = np.random.default_rng(3)
    for size in ((1, 1), (1, 9), (9, 1), (33, 20), (64, 64)):
        labels = rng.integers(0, 6, size)
        if size == (64, 64):
            labels = labels[:8, :8].repeat(8, 0).repeat(8, 1)
        if dtype is not np.uint8:
            labels = labels - 1
        wanted = [4, 0, 2, 9, 4]
        found = rle.encode_label_map(labels.astype(dtype), wanted)
        present = [index for index in (4, 0, 2, 9) if (labels == index).any()]
        assert found == {index: slow_encode(labels == index) for index in present}
        assert list(found) == present
    assert rle.encode_label_map(np.full((4, 4), -1), [0, 1]) == {}


def test_encode_label_map_of_large_labels() -> None:
    labels = np.array([[70_000, 3], [70_000, 1]])
    assert rle.encode_label_map(labels, [70_000])[70_000] == slow_encode(labels == 70_000)


def test_encode_label_map_is_fast() -> None:
    labels = np.random.default_rng(4).integers(0, 20, (32, 32)).repeat(16, 0).repeat(16, 1)
    times = []
    for _ in range(15):
        start = time.perf_counter()
        rle.encode_label_map(labels, range(20))
        times.append(time.perf_counter() - start)
    assert min(times) < 0.010  # 1.5 ms on one idle core; pycocotools needs 6


def test_boxes() -> None:
    mask = np.zeros((10, 20), bool)
    mask[2:5, 3:9] = True
    found = rle.bounding_box(rle.encode(mask))
    assert found == (3.0, 2.0, 6.0, 3.0) and all(type(side) is float for side in found)
    empty = rle.encode(np.zeros((10, 20), bool))
    assert rle.bounding_box(empty) == (0.0, 0.0, 0.0, 0.0)


def test_polygons() -> None:
    square = [0.0, 0.0, 0, 9, 9, 9, 9, 0]
    mask = rle.decode([square], 12, 12)
    assert mask.sum() == 81  # edges, not centres
    two = rle.decode([square, [10, 10, 10, 12, 12, 12, 12, 10]], 12, 12)
    assert two.sum() == 85
    # fewer than three points: dropped, not read as a box
    assert rle.decode([[1, 1, 5, 5]], 12, 12).sum() == 0
    assert rle.decode([[1, 1, 5, 5], square], 12, 12).sum() == 81
    assert rle.decode([], 12, 12).sum() == 0


GOOD = slow_encode(np.eye(8, dtype=bool))
BAD = {
    "another size": ({"size": [8, 9], "counts": GOOD["counts"]}, r"size is \[8, 9\].* \[8, 8\]"),
    "no size": ({"counts": "a"}, "not polygons or an RLE"),
    "size is a text": ({"size": "8x8", "counts": "a"}, "size is '8x8'"),
    "cut off": ({"size": [8, 8], "counts": GOOD["counts"][:-1]}, "corrupt"),
    "cut within a number": ({"size": [8, 8], "counts": "P"}, "cut off"),
    "too long": ({"size": [8, 8], "counts": GOOD["counts"] + "1"}, "do not add up to 8 x 8"),
    "negative": ({"size": [8, 8], "counts": "N"}, "do not add up"),
    "huge": ({"size": [8, 8], "counts": "ooooooooooooo0"}, "longer than any image"),
    "wraps around": ({"size": [8, 8], "counts": "oooooo"[:5] + "?" + "oooooo"[:5] + "?"}, "do not"),
    "other characters": ({"size": [8, 8], "counts": "\x01\x02"}, "other characters"),
    "not ASCII": ({"size": [8, 8], "counts": "äö"}, "not a string of runs"),
    "empty": ({"size": [8, 8], "counts": ""}, "corrupt"),
    "a number": ({"size": [8, 8], "counts": 64}, "not a string of runs"),
    "list too short": ({"size": [8, 8], "counts": [1, 2]}, "do not add up"),
    "list negative": ({"size": [8, 8], "counts": [-1, 65]}, "whole numbers"),
    "list of floats": ({"size": [8, 8], "counts": [64.0]}, "whole numbers"),
    "null": (None, "segmentation is None"),
    "odd polygon": ([[1, 2, 3, 4, 5, 6, 7]], "x, y, x, y"),
    "flat polygon": ([1, 2, 3, 4, 5, 6], "polygon 1 is not a list"),
    "NaN polygon": ([[1, 2, 3, 4, 5, float("nan")]], "numbers near the image"),
    "far polygon": ([[1, 2, 3, 4, 5, 1e15]], "numbers near the image"),
    "texts": ([["1", "2", "3", "4", "5", "6"]], "numbers near the image"),
}


@pytest.mark.parametrize("name", BAD)
def test_corrupt_segmentations_are_refused(name: str) -> None:
    segmentation, message = BAD[name]
    with pytest.raises(InputError, match=message) as error:
        rle.decode(segmentation, 8, 8)
    assert "\n" not in str(error.value)


def slow_expand(text: str) -> list[int]:
    runs: list[int] = []
    place = 0
    while place < len(text):
        value, digit, more = 0, 0, True
        while more:
            bits = ord(text[place]) - 48
            value |= (bits & 0x1F) << 5 * digit
            more = bool(bits & 0x20)
            place, digit = place + 1, digit + 1
            if not more and bits & 0x10:
                value |= -1 << 5 * digit
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def test_damaged_strings_are_refused_or_read_as_what_they_say() -> None:
    rng = np.random.default_rng(6)
    good = slow_encode(rng.random((12, 9)) > 0.5)["counts"]
    passed = 0
    for attempt in range(4000):
        text = bytearray(good.encode())
        if attempt % 2:
            text = bytearray(rng.integers(48, 112, rng.integers(1, 12), dtype=np.uint8))
        for _ in range(rng.integers(1, 3)):
            text[rng.integers(len(text))] = rng.integers(48, 112)
        try:
            mask = rle.decode({"size": [12, 9], "counts": text.decode()}, 12, 9)
        except InputError:
            continue
        passed += 1
        runs = slow_expand(text.decode())
        assert mask.T.ravel().tolist() == [
            bool(i % 2) for i, n in enumerate(runs) for _ in range(n)
        ]
    assert passed > 10


def test_many_masks_are_judged_as_each_one_is() -> None:
    rng = np.random.default_rng(0)
    masks = [rle.encode(mask) for mask in random_masks(3)]
    for mask in masks[:]:
        text = mask["counts"]
        for _ in range(20):
            letters = list(text)
            place = int(rng.integers(len(letters)))
            letters[place] = chr(int(rng.integers(40, 120)))
            cut = letters[: int(rng.integers(1, len(letters) + 1))]
            masks += [{**mask, "counts": "".join(letters)}, {**mask, "counts": "".join(cut)}]
        masks.append({**mask, "counts": text + "o" * 40 + "0"})

    def is_taken(mask: rle.Rle) -> bool:
        try:
            return rle.compress(mask, *mask["size"]) == mask
        except InputError:
            return False

    slow = [is_taken(mask) for mask in masks]
    assert 40 < sum(slow) < len(slow)
    assert rle.are_sound(masks).tolist() == slow
    for place in range(0, len(masks), 7):
        assert rle.are_sound(masks[place : place + 7]).tolist() == slow[place : place + 7]
    assert rle.are_sound([]).tolist() == []
    sound = [mask for mask, is_sound in zip(masks, slow, strict=True) if is_sound][:255]
    singly = [(rle.bounding_box(mask), float(rle.area(mask))) for mask in sound]
    assert rle.measured(sound) == singly


def test_pictures_too_large_for_the_format_are_refused() -> None:
    with pytest.raises(InputError, match="more than a COCO mask can have"):
        rle.decode({"size": [100_000, 100_000], "counts": "0"}, 100_000, 100_000)
