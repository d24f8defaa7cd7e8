"""Colours of words: one for each word, the same in every image, run and machine.

Label maps and overlays share the colours of a run's classes (`class_colours`). They are chosen in OKLCH, the polar form of Oklab (Björn Ottosson, "A perceptual color space for
image processing", 2020), in which equal steps look equally large.
"""

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

_LEVELS = np.arange(0.50, 0.881, 0.02)  # lightness: neither near black nor near white
_MAX_CHROMA = 0.21
_VIVID = 0.13  # the least chroma of a word's own colour: no brown, no grey
_APART = 0.12  # distance in Oklab at which two colours cannot be confused; 0.02 can just be seen
_LEAST_APART = 0.04

BACKGROUND = (96, 96, 96)  # of the class `background` in a label map; overlays leave it untinted
UNLABELLED = (0, 0, 0)  # of pixels without a class, which no class is near

_LAB_TO_LMS = np.array([
    [1.0, 0.3963377774, 0.2158037573],
    [1.0, -0.1055613458, -0.0638541728],
    [1.0, -0.0894841775, -1.2914855480],
])  # fmt: skip
_LMS_TO_RGB = np.array([
    [4.0767416621, -3.3077115913, 0.2309699292],
    [-1.2684380046, 2.6097574011, -0.3413193965],
    [-0.0041960863, -0.7034186147, 1.7076147010],
])  # fmt: skip


def word_colour(word: str) -> Colour:
    """A word's own colour, sRGB 0 to 255: vivid, and a function of the casefolded word alone."""
    digest = hashlib.sha256(word.casefold().encode("utf-8", "surrogatepass")).digest()
    hue = int.from_bytes(digest[:4], "big") % 360
    chroma = _max_chroma()[hue]
    vivid = np.flatnonzero(chroma >= _VIVID)
    level = int(vivid[int.from_bytes(digest[4:8], "big") % len(vivid)])
    return _colour(_oklab(_LEVELS[level], chroma[level], hue))


def is_background(name: str) -> bool:
    """Whether a class is `background`, which is grey in label maps and never tinted in overlays."""
    return name.strip().casefold() == "background"


def class_colours(names: Sequence[str]) -> list[Colour]:
    """The colours of a run's classes, in their order, in its label maps and overlays alike."""
    return list(_class_colours(tuple(names)))


@functools.lru_cache(maxsize=16)
def _class_colours(names: tuple[str, ...]) -> tuple[Colour, ...]:
    words = iter(word_colours([name for name in names if not is_background(name)]))
    return tuple(BACKGROUND if is_background(name) else next(words) for name in names)


def word_colours(words: Sequence[str]) -> list[Colour]:
    """Colours of words that are shown together, so far apart that they can be told from each other.

    Each word keeps its own colour unless an earlier one has one too like it; then it takes the
    nearest that is free. What counts as alike grows finer with the number of words, but words that
    follow each other always differ clearly. One word given twice has one colour.
    """
    different = list(dict.fromkeys(word.casefold() for word in words))
    if not different:
        return []
    apart = max(_LEAST_APART, min(_APART, 0.25 / len(different) ** (1 / 3)))
    own = _to_oklab(np.array([word_colour(word) for word in different]))
    kept: list[int] = []
    for index, colour in enumerate(own):
        is_free = _distances(own[kept], colour).min(initial=np.inf) >= apart
        is_near = kept[-1:] == [index - 1] and _distances(own[index - 1], colour) < _APART
        if is_free and not is_near:
            kept.append(index)
    others = _others()
    room = _distances(others[:, None], own[kept]).min(axis=1)  # to the nearest taken
    picked = own.copy()
    for index in sorted(set(range(len(own))) - set(kept)):
        step = _distances(others, own[index])
        beside = [place for place in (index - 1, index + 1) if 0 <= place < len(own)]
        is_clear = (_distances(others[:, None], picked[beside]) >= _APART).all(axis=1)
        free = is_clear & (room >= apart)
        rest = np.where(is_clear, room, -1.0)
        best = np.where(free, step, np.inf).argmin() if free.any() else rest.argmax()
        picked[index] = others[best]
        room = np.minimum(room, _distances(others, others[best]))
    by_word = {word: _colour(lab) for word, lab in zip(different, picked, strict=True)}
    return [by_word[word.casefold()] for word in words]


def _distances(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between colours in Oklab (..., 3)."""
    return np.asarray(np.linalg.norm(first - second, axis=-1))


@functools.cache
def _max_chroma() -> NDArray[np.float64]:
    """The largest chroma in sRGB, at most 0.21, of every degree of hue and level: (360, levels)."""
    lightness, hue = np.broadcast_arrays(_LEVELS[None], np.arange(360)[:, None])
    low = np.zeros(lightness.shape)
    high = np.full(lightness.shape, 2 * _MAX_CHROMA)
    for _ in range(30):
        middle = (low + high) / 2
        rgb = _linear_rgb(_oklab(lightness, middle, hue))
        inside = ((rgb >= 0) & (rgb <= 1)).all(axis=-1)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.minimum(low, _MAX_CHROMA)


@functools.cache
def _others() -> NDArray[np.float64]:
    """Colours to move to, in Oklab: every sixth degree, every other level, vivid and muted."""
    hue, level = np.meshgrid(np.arange(0, 360, 6), np.arange(0, len(_LEVELS), 2), indexing="ij")
    chroma = _max_chroma()[hue, level]
    strong = _oklab(_LEVELS[level], chroma, hue).reshape(-1, 3)
    muted = _oklab(_LEVELS[level], 0.6 * chroma, hue).reshape(-1, 3)
    return np.concatenate([strong, muted])


def _oklab(lightness: object, chroma: object, hue: object) -> NDArray[np.float64]:
    """OKLCH, hue in degrees, to Oklab (..., 3)."""
    angle = np.deg2rad(np.asarray(hue, np.float64))
    strength = np.asarray(chroma, np.float64)
    parts = np.broadcast_arrays(
        np.asarray(lightness, np.float64), strength * np.cos(angle), strength * np.sin(angle)
    )
    return np.stack(parts, axis=-1)


def _linear_rgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((lab @ _LAB_TO_LMS.T) ** 3 @ _LMS_TO_RGB.T)


def _colour(lab: NDArray[np.float64]) -> Colour:
    """Oklab (3,) to sRGB of 8 bits."""
    linear = np.clip(_linear_rgb(lab), 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (int(value) for value in np.rint(255 * encoded))
    return red, green, blue


def _to_oklab(colours: NDArray[np.integer]) -> NDArray[np.float64]:
    """sRGB of 8 bits (N, 3) to Oklab (N, 3)."""
    encoded = colours / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.cbrt(linear @ np.linalg.inv(_LMS_TO_RGB).T) @ np.linalg.inv(_LAB_TO_LMS).T)
