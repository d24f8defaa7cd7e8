"""The collage world: scenes of emoji art on textured grounds, under one frozen law.

A scene is a function of (split, seed, index, size, preset): the same arguments give the same pixels.
Lengths are fractions of the image's side, so the law is the same at every size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovtool.datasets.grounds import ground_patch
from ovtool.datasets.nouns import COOCCUR_NOUNS, GROUNDS, Noun, table

SPLIT_CODES: dict[str, int] = {"train": 1, "val": 2, "test": 3, "demo": 4}
Drawings = Mapping[str, Sequence[Image.Image]]  # noun -> its drawings, RGBA


@dataclass(frozen=True)
class SceneLaw:
    """What scenes are like. The defaults are the law of record; changing them changes every figure.

    objects: the least and the most objects of a scene, drawn uniformly.
    sides: the least and the greatest longer side of an object, as a fraction of the image's side.
    rotation: the greatest turn, in degrees, either way.
    visible: the least share of an object's pixels that is seen, after occlusion and the border.
    home_rate: how often an object that has a ground of its own lies on it.
    second_ground: how often a scene has two grounds before any object asks for one.
    nouns: the names to draw objects from.
    """

    objects: tuple[int, int] = (1, 5)
    sides: tuple[float, float] = (0.18, 0.60)
    rotation: float = 20.0
    visible: float = 0.5
    home_rate: float = 0.6
    second_ground: float = 0.5
    nouns: tuple[str, ...] = tuple(noun.name for noun in table())


LAW = SceneLaw()
# One large object an image: what zero-shot classification is measured on.
SINGLE = replace(LAW, objects=(1, 1), sides=(0.40, 0.60), visible=1.0)


def law_of(preset: str | None, split: str) -> SceneLaw:
    """The law of a preset: None is the law of record; `cooccur` ties objects to their grounds, with
    rate 0.9 in train and 0.5 elsewhere, over 20 nouns; `single` is one large object an image."""
    if preset == "cooccur":
        rate = 0.9 if split == "train" else 0.5
        return replace(LAW, home_rate=rate, nouns=tuple(COOCCUR_NOUNS), objects=(1, 3))
    return SINGLE if preset == "single" else LAW


@dataclass(frozen=True)
class Scene:
    """One image and its truth.

    pixels: uint8 (size, size, 3), RGB.
    objects: the noun of each object, back to front.
    object_map: int16 (size, size), the index of the object that is seen there, or -1.
    grounds: the names of the grounds, one or two.
    ground_map: int16 (size, size), the index of the ground that is there, objects or not.
    """

    pixels: NDArray[np.uint8]
    objects: tuple[str, ...]
    object_map: NDArray[np.int16]
    grounds: tuple[str, ...]
    ground_map: NDArray[np.int16]


def scene_generator(split: str, seed: int, index: int) -> np.random.Generator:
    """The random generator of one scene; scenes of different splits never share one."""
    return np.random.default_rng([SPLIT_CODES[split], seed, index])


def _plan(
    rng: np.random.Generator, law: SceneLaw
) -> tuple[list[str], list[tuple[Noun, str | None]]]:
    """Which grounds, and which objects with the ground they must lie on (None: anywhere).

    An object at home makes its ground one of the scene's; one that is not at home lies elsewhere.
    """
    nouns = {noun.name: noun for noun in table()}
    claimed: list[str] = []
    wanted: list[tuple[Noun, bool]] = []
    for _ in range(rng.integers(law.objects[0], law.objects[1] + 1)):
        at_home = bool(rng.random() < law.home_rate)
        for _ in range(50):
            noun = nouns[law.nouns[rng.integers(len(law.nouns))]]
            ground = noun.ground
            if ground is None or not at_home or ground in claimed or len(claimed) < 2:
                break
        if noun.ground is not None and at_home and noun.ground not in claimed:
            claimed.append(noun.ground)
        wanted.append((noun, at_home))
    away = {noun.ground for noun, at_home in wanted if not at_home}
    count = max(len(claimed), 1 + int(rng.random() < law.second_ground))
    # A ground that some object must keep off is drawn only where another is there for it to lie on.
    free = [ground for ground in GROUNDS if ground not in claimed and ground not in away]
    while len(claimed) < count or (away and not set(claimed) - away and len(claimed) < 2):
        claimed.append(free.pop(rng.integers(len(free))))
    places: list[tuple[Noun, str | None]] = []
    for noun, at_home in wanted:
        if noun.ground is None:
            places.append((noun, None))
        elif at_home:
            places.append((noun, noun.ground))
        else:
            others = [ground for ground in claimed if ground != noun.ground]
            places.append((noun, others[rng.integers(len(others))] if others else None))
    return claimed, places


def _ground_map(rng: np.random.Generator, size: int, count: int) -> NDArray[np.int16]:
    """Where each of one or two grounds is: a wavy line across the image parts two."""
    if count == 1:
        return np.zeros((size, size), np.int16)
    steps = (np.arange(size, dtype=np.float32) + 0.5) / size
    wave = 0.04 * np.sin(steps * rng.uniform(4, 12) + rng.uniform(0, 6))
    line = rng.uniform(0.35, 0.65) + rng.uniform(-0.25, 0.25) * (steps - 0.5) + wave
    below = (steps[:, None] > line[None, :]).astype(np.int16)
    return below.T if rng.random() < 0.3 else below


def _pose(
    rng: np.random.Generator, law: SceneLaw, drawing: Image.Image, size: int
) -> NDArray[np.float32]:
    """The drawing scaled, mirrored, turned and jittered: float32 RGBA (h, w, 4), alpha in [0, 1]."""
    longer = rng.uniform(*law.sides) * size
    scale = longer / max(drawing.size)
    width, height = (max(2, round(side * scale)) for side in drawing.size)
    posed = drawing.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    if rng.random() < 0.5:
        posed = posed.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    angle = rng.uniform(-law.rotation, law.rotation)
    posed = posed.rotate(angle, Image.Resampling.BILINEAR, expand=True)
    pixels = np.asarray(posed).astype(np.float32)
    pixels[..., :3] *= rng.uniform(0.88, 1.12, 3).astype(np.float32) * np.float32(
        rng.uniform(0.85, 1.15)
    )
    pixels[..., 3] /= 255
    return pixels


def _place(
    rng: np.random.Generator,
    sprite_shape: tuple[int, ...],
    size: int,
    visible: float,
    allowed: NDArray[np.bool_] | None,
) -> tuple[int, int]:
    """The top left corner of a sprite: at least the share `visible` of its height and of its width is
    in the image, and its centre is on `allowed` if that is given."""
    corner = (0, 0)
    for _ in range(12):
        top, left = (
            int(np.floor(rng.uniform((visible - 1) * side, size - visible * side)))
            for side in sprite_shape[:2]
        )
        corner = (top, left)
        row = min(max(top + sprite_shape[0] // 2, 0), size - 1)
        column = min(max(left + sprite_shape[1] // 2, 0), size - 1)
        if allowed is None or allowed[row, column]:
            break
    return corner


def compose(
    rng: np.random.Generator,
    law: SceneLaw,
    drawings: Drawings,
    split_code: int,
    size: int,
    restyle: Callable[[np.random.Generator, Image.Image], Image.Image] | None = None,
) -> Scene:
    """One scene under the law, `size` pixels a side.

    drawings: the RGBA drawings of every noun of the law.
    split_code: which sheets of ground texture to take; those of different splits differ.
    restyle: what to do to each drawing before it is posed; training augments with it.
    """
    grounds, places = _plan(rng, law)
    ground_map = _ground_map(rng, size, len(grounds))
    canvas = ground_patch(rng, split_code, grounds[0], size)
    for index, ground in enumerate(grounds[1:], start=1):
        other = ground_map == index
        canvas[other] = ground_patch(rng, split_code, ground, size)[other]
    canvas += rng.normal(0, rng.uniform(1, 6), (size, size, 1)).astype(np.float32)

    object_map = np.full((size, size), -1, np.int16)
    names: list[str] = []
    whole: list[int] = []  # pixels of each object when nothing hides it
    for noun, own_ground in places:
        choices = drawings[noun.name]
        drawing = choices[int(rng.integers(len(choices)))]
        if restyle is not None:
            drawing = restyle(rng, drawing)
        sprite = _pose(rng, law, drawing, size)
        allowed = None if own_ground is None else ground_map == grounds.index(own_ground)
        pixels = int((sprite[..., 3] > 0.5).sum())
        for _ in range(12 if names else 100):  # a scene without any object is none
            corner = _place(rng, sprite.shape, size, law.visible, allowed)
            seen = _paste_map(object_map, sprite[..., 3] > 0.5, corner, len(names))
            counts = np.bincount(seen[seen >= 0], minlength=len(names) + 1)
            if all(
                count >= law.visible * full
                for count, full in zip(counts, [*whole, pixels], strict=True)
            ):
                object_map = seen
                _blend(canvas, sprite, corner)
                names.append(noun.name)
                whole.append(pixels)
                break
    return Scene(
        pixels=np.clip(canvas, 0, 255).astype(np.uint8),
        objects=tuple(names),
        object_map=object_map,
        grounds=tuple(grounds),
        ground_map=ground_map,
    )


def _overlap(
    corner: tuple[int, int], shape: tuple[int, ...], size: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of the image that a sprite covers, and the part of the sprite that covers it."""
    (top, left), (height, width) = corner, shape[:2]
    rows = slice(max(top, 0), min(top + height, size))
    columns = slice(max(left, 0), min(left + width, size))
    inner = (
        slice(rows.start - top, rows.stop - top),
        slice(columns.start - left, columns.stop - left),
    )
    return (rows, columns), inner


def _paste_map(
    object_map: NDArray[np.int16], mask: NDArray[np.bool_], corner: tuple[int, int], index: int
) -> NDArray[np.int16]:
    """A copy of the object map with a new object in front."""
    seen = object_map.copy()
    outer, inner = _overlap(corner, mask.shape, len(object_map))
    seen[outer][mask[inner]] = index
    return seen


def _blend(
    canvas: NDArray[np.float32], sprite: NDArray[np.float32], corner: tuple[int, int]
) -> None:
    """Draws the sprite on the canvas, in place."""
    outer, inner = _overlap(corner, sprite.shape, len(canvas))
    part = sprite[inner]
    canvas[outer] += part[..., 3:] * (part[..., :3] - canvas[outer])
