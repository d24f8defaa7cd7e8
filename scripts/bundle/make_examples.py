#!/usr/bin/env python3
"""Composes the images of `examples/` from Twemoji and the collage grounds; always the same bytes.

    scripts/bundle/make_examples.py [--photographs]

With --photographs it draws instead what `tiny` makes of three photographs that come with scikit-image,
side by side: what it cannot do.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ovtool.datasets import art, collage, grounds
from ovtool.datasets.nouns import table
from ovtool.segmenter import Segmenter

FOLDER = Path(__file__).parents[2] / "examples"
WIDTH, HEIGHT = 640, 480


@dataclass(frozen=True)
class Thing:
    """A drawing in an image: its noun, which of its drawings, its centre, longer side and turn."""

    noun: str
    x: int
    y: int
    side: int
    turn: float = 0.0
    drawing: int = 0
    mirrored: bool = False


# Each image: the ground behind, the ground in front, where the second begins (a row), and things.
SCENES: dict[str, tuple[str, str, int, tuple[Thing, ...]]] = {
    "breakfast": (
        "wood",
        "wood",
        480,
        (
            Thing("bread", 130, 150, 170, 6),
            Thing("teapot", 335, 175, 230, -3),
            Thing("croissant", 540, 150, 150, 12),
            Thing("coffee", 520, 345, 180, 0),
            Thing("apple", 130, 350, 170, -5),
            Thing("tangerine", 325, 385, 130, 4),
        ),
    ),
    "harbour": (
        "sky",
        "water",
        210,
        (
            Thing("plane", 140, 85, 150, 10),
            Thing("balloon", 520, 90, 130),
            Thing("boat", 190, 270, 230),
            Thing("ship", 480, 260, 200, 0, 0, True),
            Thing("duck", 330, 400, 120),
            Thing("dolphin", 540, 410, 140, -8),
        ),
    ),
    "farm": (
        "bricks",
        "grass",
        170,
        (
            Thing("tree", 90, 150, 220),
            Thing("tractor", 500, 175, 210),
            Thing("cow", 270, 265, 200, 0, 1),
            Thing("sheep", 120, 375, 150),
            Thing("rooster", 400, 385, 130, 0),
            Thing("rabbit", 550, 390, 130, 0, 1),
        ),
    ),
}

# Photographs of scikit-image and the words that they are segmented with.
PHOTOGRAPHS = {
    "coffee.png": "coffee,spoon",
    "chelsea.png": "cat,dog",
    "rocket.jpg": "rocket,tree",
}


def compose(name: str) -> Image.Image:
    """One image, RGB, WIDTH x HEIGHT."""
    behind, front, row, things = SCENES[name]
    code = collage.SPLIT_CODES["demo"]
    canvas = grounds.sheet(code, behind, 3, WIDTH)[:HEIGHT, :WIDTH].copy()
    canvas[row:] = grounds.sheet(code, front, 3, WIDTH)[: HEIGHT - row, :WIDTH]
    scene = Image.fromarray(canvas).convert("RGBA")
    points = {noun.name: noun.code_points for noun in table()}
    for thing in things:
        drawing = Image.fromarray(art.twemoji(points[thing.noun][thing.drawing]))
        scale = thing.side / max(drawing.size)
        size = (round(drawing.width * scale), round(drawing.height * scale))
        drawing = drawing.resize(size, Image.Resampling.LANCZOS)
        if thing.mirrored:
            drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        drawing = drawing.rotate(thing.turn, Image.Resampling.BICUBIC, expand=True)
        corner = (thing.x - drawing.width // 2, thing.y - drawing.height // 2)
        scene.alpha_composite(drawing, (max(0, corner[0]), max(0, corner[1])))
    return scene.convert("RGB")


def photographs() -> Image.Image:
    """The overlays of the photographs, side by side, each 300 pixels high."""
    import skimage.data

    source = Path(skimage.data.__file__).parent
    shrunk = []
    for name, words in sorted(PHOTOGRAPHS.items()):
        image = Segmenter(words, model="tiny")(source / name).overlay()
        shrunk.append(image.resize((round(300 * image.width / image.height), 300)))
    sheet = Image.new("RGB", (sum(one.width for one in shrunk), 300))
    left = 0
    for scene in shrunk:
        sheet.paste(scene, (left, 0))
        left += scene.width
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", action="store_true", help="what tiny makes of photographs")
    FOLDER.mkdir(exist_ok=True)
    if parser.parse_args().photographs:
        photographs().save(FOLDER / "photographs.jpg", quality=88)
        return
    for name in SCENES:
        pixels = np.asarray(compose(name))
        Image.fromarray(pixels).save(FOLDER / f"{name}.jpg", quality=92, subsampling=0)
        print(FOLDER / f"{name}.jpg")


if __name__ == "__main__":
    main()
