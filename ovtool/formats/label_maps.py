"""Label maps: one class index a pixel, as PNG, with the names beside them in ``classes.txt``.

8 bit with a palette, 255 unlabelled; 16-bit grey, 65535 unlabelled, above 254 classes. The palette is that
of the classes' names, which overlays have too (`colours.class_colours`), and black for unlabelled; where
the names are not known it is that of VOC.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovtool.errors import InputError
from ovtool.formats import atomic, colours, images, plain_text

UNLABELLED = -1
MAX_CLASSES_8_BIT = 254
MAX_CLASSES = 65_535
_COMMENT = re.compile(r"\\*#")  # how a comment begins, or a name with a backslash before it


def write(
    path: Path, labels: NDArray[Any], num_classes: int, names: Sequence[str] | None = None
) -> None:
    """Writes labels (H, W) of any integer dtype, 0 to ``num_classes`` - 1 or -1 for unlabelled.

    ``names``: of the classes, whose colours the palette then has.

    Raises:
        InputError: the place cannot be written, or there are more than 65,535 classes.
        ValueError: labels out of range or of another shape.
    """
    if num_classes > MAX_CLASSES:
        raise InputError(f"cannot write {path}: a label map holds at most {MAX_CLASSES:,} classes")
    images.save_png(path, image(labels, num_classes, names))


def image(
    labels: NDArray[Any], num_classes: int, names: Sequence[str] | None = None
) -> Image.Image:
    """Labels (H, W) as the image that ``write`` writes: mode P, or I;16 above 254 classes.

    Raises ValueError for labels out of range or of another shape.
    """
    if labels.ndim != 2:
        raise ValueError(f"labels must be (H, W), not {labels.shape}")
    if labels.size and not (-1 <= labels.min() and labels.max() < num_classes):
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()} are not in -1 to {num_classes - 1}"
        )
    if num_classes > MAX_CLASSES_8_BIT:
        return Image.fromarray(np.where(labels < 0, 65535, labels).astype(np.uint16))
    coded = Image.fromarray(np.where(labels < 0, 255, labels).astype(np.uint8))
    coded.putpalette((palette(256) if names is None else class_palette(names)).tobytes())
    return coded


def read(path: Path) -> NDArray[np.int32]:
    """A label map as int32 (H, W), -1 where it is unlabelled (255, or 65535 of 16 bits).

    Palette colours are ignored: the index is the label. Grey PNGs are read the same way.

    Raises:
        InputError: no such file, damaged, not a PNG (a JPEG changes labels), or a colour image.
    """
    labels, depth = read_values(path, ("PNG",))
    labels[labels == (65535 if depth == 16 else 255 if depth == 8 else -1)] = UNLABELLED
    return labels


def read_values(
    path: Path, formats: Sequence[str] = ("PNG", "TIFF")
) -> tuple[NDArray[np.int32], int]:
    """The values of a label map as they are, int32 (H, W), and the bits of each; palette colours are ignored.

    Raises:
        InputError: as `read`; the file is of none of the formats.
    """
    with images.opened(path) as image:
        if image.format not in formats:
            raise InputError(
                f"{path} is {image.format}, not {' or '.join(formats)}: a label map must keep every value"
            )
        depth = _bit_depth(path) if image.format == "PNG" else 16 if image.mode != "L" else 8
        if image.mode in ("RGB", "RGBA", "LA") and depth == 8:
            return _of_equal_channels(np.array(image).astype(np.int32), path), depth
        if image.mode not in ("P", "L", "1", "I", "I;16"):
            raise InputError(
                f"{path} is an image in {image.mode}, and a label map has one class index a pixel"
            )
        image.load()
        labels = np.array(image).astype(np.int32)
        if depth < 8 and image.mode in ("L", "1"):  # Pillow stretches small grey values to 0..255
            stretch = 1 if image.mode == "1" else 255 // (2**depth - 1)
            return labels // stretch, depth
    return labels, depth


def _of_equal_channels(values: NDArray[np.int32], path: Path) -> NDArray[np.int32]:
    """The labels of a grey map that a program saved in colour or with an opacity, (H, W, C): its channels are equal,
    and nothing is transparent."""
    channels = values.shape[2]
    colours_, opacity = values[..., : channels - (channels % 2 == 0)], values[..., -1:]
    if (colours_ != colours_[..., :1]).any() or (channels % 2 == 0 and (opacity != 255).any()):
        raise InputError(
            f"{path} is an image in colours, and a label map has one class index a pixel; of colours that stand for "
            "classes `ovtool convert --colours` makes one"
        )
    return colours_[..., 0]


def palette(n: int) -> NDArray[np.uint8]:
    """The first ``n`` colours of the PASCAL VOC palette, uint8 (n, 3).

    The bits of an index, three at a time, become the bits of red, green and blue from the top
    (``VOClabelcolormap`` of the VOC development kit).
    """
    indices = np.arange(n)
    table = np.zeros((n, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            table[:, channel] |= ((indices >> (3 * bit + channel) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return table


def class_palette(names: Sequence[str]) -> NDArray[np.uint8]:
    """The palette of at most 254 named classes, uint8 (256, 3); black where there is no class."""
    table = np.full((256, 3), colours.UNLABELLED, dtype=np.uint8)
    table[: len(names)] = np.array(colours.class_colours(names), np.uint8).reshape(-1, 3)
    return table


def write_classes(path: Path, names: Sequence[str]) -> None:
    """Writes the names of the classes, one a line, in the order of their indices."""
    for name in names:
        if not name.strip() or len(name.splitlines()) != 1:
            raise InputError(
                f"the class {name!r} is not a name of one line, as {path.name} holds them; rename it"
            )
    atomic.write_text(path, classes_text(names))


def classes_text(names: Sequence[str]) -> str:
    """What a file of classes holds; a name that begins as a comment does has a backslash before it."""
    return "".join(f"{_escaped(name)}\n" for name in names)


def _escaped(name: str) -> str:
    return f"\\{name}" if _COMMENT.match(name) else name


def read_classes(path: Path) -> list[str]:
    """The names of the classes, one a line; lines that begin with ``#`` are comments, as in all lists of words.

    Raises:
        InputError: no such file, not UTF-8 text, none in it, an empty line between, or a name twice.
    """
    lines = plain_text.lines(Path(path), "; it should name the classes, one a line")
    while lines and not lines[-1].strip():
        lines.pop()
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if name.startswith("#"):
            continue
        if not name:
            raise InputError(f"{path}: line {number} is empty, but every line is a class index")
        name = name[1:] if _COMMENT.match(name) else name
        if name in seen:
            raise InputError(f"{path}: {name!r} is on line {seen[name]} and again on line {number}")
        seen[name] = number
    if not seen:
        raise InputError(f"{path} names no class; write one a line")
    return list(seen)


def _bit_depth(path: Path) -> int:
    with open(path, "rb") as handle:
        return handle.read(25)[24]  # signature 8, chunk length and name 8, width and height 8
