"""The textured grounds of the collage world, made from noise alone.

Every texture is a function of a random generator and a size; lengths inside it are fractions of the
image's side, so that a ground looks the same at 128 and at 512 pixels.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovtool.datasets.nouns import GROUNDS

Texture = NDArray[np.float32]  # (side, side, 3), about 0..255
Colour = tuple[int, int, int]  # what a layer adds may be negative
VARIANTS = 12  # sheets of each ground in each split


def _noise(rng: np.random.Generator, side: int, rows: float, columns: float) -> Texture:
    """Smooth noise in [-1, 1], with about `rows` x `columns` bumps across the sheet: (side, side)."""
    grid = rng.uniform(-1, 1, (max(2, round(rows)), max(2, round(columns)))).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC))


def _paint(base: Colour, *layers: tuple[Texture, Colour]) -> Texture:
    """A base colour plus layers, each a map (side, side) times the colour it adds at 1."""
    side = len(layers[0][0])
    sheet = np.broadcast_to(_colour(base), (side, side, 3)).copy()
    for amount, colour in layers:
        sheet += amount[..., None] * _colour(colour)
    return sheet


def _colour(rgb: Colour) -> NDArray[np.float32]:
    return np.array(rgb, np.float32)


def _axes(side: int) -> tuple[Texture, Texture]:
    """Row and column of each pixel as fractions of the sheet, each (side, side)."""
    steps = (np.arange(side, dtype=np.float32) + 0.5) / side
    rows, columns = np.meshgrid(steps, steps, indexing="ij")
    return rows.astype(np.float32, copy=False), columns.astype(np.float32, copy=False)


def _grass(rng: np.random.Generator, side: int) -> Texture:
    blades = _noise(rng, side, 50, 200) * 0.6 + _noise(rng, side, 90, 260) * 0.4
    return _paint((78, 140, 48), (blades, (38, 55, 25)), (_noise(rng, side, 6, 6), (25, 18, 8)))


def _water(rng: np.random.Generator, side: int) -> Texture:
    rows, columns = _axes(side)
    bend = _noise(rng, side, 8, 6) * 0.9 + 0.4 * np.sin(columns * 40 + rng.uniform(0, 6))
    waves = np.sin(rows * rng.uniform(110, 170) + bend * 3)
    crests = np.clip(waves - 0.55, 0, 1) * 2
    return _paint((30, 105, 170), (waves, (8, 20, 25)), (crests, (70, 70, 60)))


def _wood(rng: np.random.Generator, side: int) -> Texture:
    rows, _ = _axes(side)
    planks = rng.integers(7, 11)
    index = np.minimum((rows * planks).astype(np.int64), planks - 1)
    tone = rng.uniform(-1, 1, planks).astype(np.float32)[index]
    seam = ((rows * planks) % 1 < 0.05).astype(np.float32)
    grain = _noise(rng, side, 160, 6) * 0.6 + _noise(rng, side, 60, 4) * 0.4
    return _paint(
        (168, 115, 65), (tone, (18, 14, 9)), (grain, (28, 24, 17)), (seam, (-85, -65, -45))
    )


def _bricks(rng: np.random.Generator, side: int) -> Texture:
    rows, columns = _axes(side)
    courses = int(rng.integers(18, 25))
    course = np.floor(rows * courses)
    along = columns * courses / 2.2 + 0.5 * (course % 2)
    mortar = np.maximum((rows * courses) % 1 < 0.13, along % 1 < 0.06).astype(np.float32)
    tones = rng.uniform(-1, 1, (courses + 1, courses + 2)).astype(np.float32)
    tone = tones[course.astype(np.int64), np.floor(along).astype(np.int64)]
    rough = _noise(rng, side, 150, 150)
    brick = _paint((158, 72, 52), (tone, (28, 18, 14)), (rough, (14, 12, 10)))
    joints: Texture = mortar[..., None] * (_colour((196, 188, 176)) - brick)
    return brick + joints


def _sky(rng: np.random.Generator, side: int) -> Texture:
    rows, _ = _axes(side)
    cloud = (
        _noise(rng, side, 6, 5) + 0.5 * _noise(rng, side, 14, 11) + 0.25 * _noise(rng, side, 30, 24)
    )
    cloud = np.clip((cloud - 0.15) * 1.6, 0, 1)
    clear = _paint((105, 172, 235), (rows, (60, 40, 14)))
    white: Texture = cloud[..., None] * (_colour((246, 248, 250)) - clear)
    return clear + white


def _sand(rng: np.random.Generator, side: int) -> Texture:
    rows, columns = _axes(side)
    bend = _noise(rng, side, 5, 5)
    ripples = np.sin((rows + 0.25 * columns) * rng.uniform(50, 80) + bend * 4)
    grains = rng.normal(0, 1, (side, side)).astype(np.float32)
    return _paint((222, 194, 140), (ripples, (11, 11, 11)), (grains, (7, 7, 7)))


def _snow(rng: np.random.Generator, side: int) -> Texture:
    drifts = _noise(rng, side, 8, 6)
    sparkle = (rng.random((side, side)) > 0.992).astype(np.float32)
    return _paint((234, 240, 247), (drifts, (14, 10, 5)), (sparkle, (-40, -28, -8)))


def _carpet(rng: np.random.Generator, side: int) -> Texture:
    rows, columns = _axes(side)
    repeats = rng.integers(9, 15)
    diamond = np.abs((rows * repeats) % 1 - 0.5) + np.abs((columns * repeats) % 1 - 0.5)
    figure = (np.abs(diamond - 0.5) < 0.12).astype(np.float32)
    weave = np.sin(rows * 480) * np.sin(columns * 480)
    reds = [(150, 40, 55), (110, 45, 95), (60, 60, 115)]
    base = reds[rng.integers(len(reds))]
    return _paint(base, (figure, (75, 65, 35)), (weave.astype(np.float32), (12, 12, 12)))


def _marble(rng: np.random.Generator, side: int) -> Texture:
    warp = (
        _noise(rng, side, 5, 5) + 0.5 * _noise(rng, side, 12, 12) + 0.3 * _noise(rng, side, 28, 28)
    )
    veins = np.exp(-((warp / 0.09) ** 2)) + 0.5 * np.exp(-(((warp - 0.45) / 0.05) ** 2))
    clouds = _noise(rng, side, 7, 7)
    return _paint((224, 222, 220), (veins, (-80, -76, -68)), (clouds, (9, 9, 10)))


def _asphalt(rng: np.random.Generator, side: int) -> Texture:
    rows, columns = _axes(side)
    grains = rng.normal(0, 1, (side, side)).astype(np.float32)
    dash = (np.abs(columns * 4 % 1 - 0.5) < 0.03) & ((rows * 6) % 1 < 0.55)
    patches = _noise(rng, side, 7, 7)
    return _paint(
        (78, 80, 84),
        (grains, (13, 13, 13)),
        (patches, (9, 9, 9)),
        (dash.astype(np.float32), (140, 140, 130)),
    )


def _rails(rng: np.random.Generator, side: int) -> Texture:
    rows, columns = _axes(side)
    stones = _noise(rng, side, 130, 130)
    ballast = _paint((128, 118, 108), (stones, (38, 36, 34)))
    sleeper = (rows * 22) % 1 < 0.42
    across = (columns * 4) % 1
    sleeper &= np.abs(across - 0.5) < 0.4
    ballast[sleeper] = _colour((92, 66, 48)) + stones[sleeper][:, None] * 10
    rail = (np.abs(across - 0.25) < 0.035) | (np.abs(across - 0.75) < 0.035)
    ballast[rail] = _colour((178, 182, 190))
    return ballast


def _gravel(rng: np.random.Generator, side: int) -> Texture:
    stones = np.clip(_noise(rng, side, 60, 60) * 1.8, -1, 1)
    tint = _noise(rng, side, 60, 60)
    return _paint((150, 143, 134), (stones, (58, 56, 54)), (tint, (18, 4, -14)))


_PAINTERS: dict[str, Callable[[np.random.Generator, int], Texture]] = {
    "grass": _grass,
    "water": _water,
    "wood": _wood,
    "bricks": _bricks,
    "sky": _sky,
    "sand": _sand,
    "snow": _snow,
    "carpet": _carpet,
    "marble": _marble,
    "asphalt": _asphalt,
    "rails": _rails,
    "gravel": _gravel,
}


@lru_cache(maxsize=512)
def sheet(split_code: int, ground: str, variant: int, size: int) -> NDArray[np.uint8]:
    """A sheet of texture, twice the image's side: uint8 (2 size, 2 size, 3)."""
    rng = np.random.default_rng([split_code, GROUNDS.index(ground), variant, 977])
    return np.clip(_PAINTERS[ground](rng, 2 * size), 0, 255).astype(np.uint8)


def ground_patch(
    rng: np.random.Generator, split_code: int, ground: str, size: int
) -> NDArray[np.float32]:
    """An image of one ground: a random crop of a random sheet, mirrored, tinted; (size, size, 3)."""
    texture = sheet(split_code, ground, int(rng.integers(VARIANTS)), size)
    top, left = rng.integers(0, size + 1, 2)
    patch = texture[top : top + size, left : left + size].astype(np.float32)
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    return patch * rng.uniform(0.9, 1.1, 3).astype(np.float32) * np.float32(rng.uniform(0.8, 1.15))
