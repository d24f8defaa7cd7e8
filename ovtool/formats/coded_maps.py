"""Label maps whose files hold the values of a data set in the data set's own way, and its files of labels."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovtool.errors import InputError
from ovtool.formats import colour_maps, images, label_maps, plain_text

Values = NDArray[np.int32]
_COLOUR_COLUMNS = ("name", "r", "g", "b")


def read_index(path: Path) -> Values:
    """The values of a PNG or TIFF, int32 (H, W), with or without a palette. Colours are those of VOC's palette,
    and its indices the values: such maps come of tools that know no palette.

    Raises:
        InputError: The file cannot be read, or has colours that are not VOC's.
    """
    with images.opened(path) as image:
        if image.mode not in ("RGB", "RGBA"):
            return label_maps.read_values(path)[0]
    colours = read_colours(path)
    values, strange = colour_maps.places(colours, _colour_numbers(label_maps.palette(256)))
    if strange.any():
        raise InputError(
            f"{path} has the colour {colour_text(int(colours[strange][0]))}, which is none of the palette of "
            "VOC; a label map has one class index a pixel, so write the indices"
        )
    return values


def read_colours(path: Path) -> Values:
    """The colours of an image as numbers, red x 65536 + green x 256 + blue, int32 (H, W). Raises InputError."""
    with images.opened(path) as image:
        if image.mode not in ("RGB", "RGBA", "P"):
            raise InputError(
                f"{path} is an image in {image.mode}, and each class of this data set has a colour"
            )
        pixels = np.array(image.convert("RGB"))
    return _colour_numbers(pixels)


def _colour_numbers(pixels: NDArray[np.uint8]) -> Values:
    wide = pixels.astype(np.int32)
    numbers: Values = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return numbers


def colour_text(number: int) -> str:
    """A colour of `read_colours` as people write it."""
    return f"({number >> 16}, {number >> 8 & 255}, {number & 255})"


def read_ade(path: Path) -> Values:
    """The classes of a `_seg.png` of ADE20K, int32 (H, W): red / 10, rounded down, x 256 + green. Raises
    InputError."""
    numbers = read_colours(path)
    values: Values = (numbers >> 16) // 10 * 256 + (numbers >> 8 & 255)
    return values


def read_matlab(path: Path) -> Values:
    """The `LabelMap` of a MATLAB file, int32 (H, W). Raises InputError."""
    content = _matlab(path)
    labels = content.get("LabelMap")
    if labels is None or labels.ndim != 2:
        raise InputError(f"{path} holds no LabelMap of two dimensions; unpack the labels again")
    values: Values = labels.astype(np.int32)
    return values


def _matlab(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    if not path.is_file():
        raise InputError(f"no such file: {path}")
    try:
        content: dict[str, Any] = loadmat(str(path))
    except Exception as error:  # its reader raises whatever a broken file makes of it
        raise InputError(
            f"{path} is no MATLAB file that can be read ({error}); unpack it again"
        ) from None
    return content


def read_label_file(path: Path) -> dict[int, str]:
    """The labels of a data set's own file, number to name.

    It is one of these: a text whose lines are `1: accordion`, or names alone, which are numbered from 1; a CSV of
    names and colours, whose numbers are those of `read_colours`; the index of ADE20K, `index_ade20k.mat`.

    Raises:
        InputError: There is no such file, it cannot be read, or it has no label.
    """
    if path.suffix == ".mat":
        labels = _ade_index(path)
    else:
        text = plain_text.read(path, "; it names the classes of the data set")
        labels = _coloured(path, text) if path.suffix == ".csv" else _numbered(text)
    if not labels:
        raise InputError(f"{path} names no class; unpack the data set again")
    return labels


def _numbered(text: str) -> dict[int, str]:
    labels: dict[int, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        known = re.fullmatch(r"(\d+)\s*:\s*(.+)", line)
        labels[int(known[1]) if known else len(labels) + 1] = known[2] if known else line
    return labels


def _coloured(path: Path, text: str) -> dict[int, str]:
    labels = {}
    for row in csv.DictReader(text.splitlines(), skipinitialspace=True):
        try:
            name, *colour = (str(row[column]).strip() for column in _COLOUR_COLUMNS)
            numbers = np.array([int(value) for value in colour], np.uint8)
        except (KeyError, ValueError, OverflowError):
            columns = ",".join(_COLOUR_COLUMNS)
            raise InputError(
                f"{path} is no table of colours; its first line should be {columns}, and each other line a "
                "name and three numbers from 0 to 255"
            ) from None
        labels[int(_colour_numbers(numbers))] = name
    return labels


def _ade_index(path: Path) -> dict[int, str]:
    content = _matlab(path)
    try:
        names = content["index"]["objectnames"][0, 0].ravel()
        return {number: str(name.item()) for number, name in enumerate(names, start=1)}
    except (KeyError, IndexError, ValueError, AttributeError):
        raise InputError(
            f"{path} is no index of ADE20K, which has a list of objectnames; unpack it again"
        ) from None
