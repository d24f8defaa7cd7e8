"""Label maps whose classes are colours (RGB PNG), and the table of colours that says which is which.

A line of the table is a colour and a name, in either order, parted by tabs, commas or spaces: `64 128 64 Animal`
as CamVid has it, or `animal,64,128,64`. The classes are numbered in the order of the lines. A colour without a
name is that of pixels without a class.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovtool.errors import InputError
from ovtool.formats import images, labelled, plain_text
from ovtool.formats.labelled import LabelledImages

_PART = r"[\s,;]+"
_FIRST = re.compile(rf"(\d+){_PART}(\d+){_PART}(\d+)(?:{_PART}(.*))?")
_LAST = re.compile(
    rf"(.+?)(?:{_PART}|:)(\d+){_PART}(\d+){_PART}(\d+)(?::[^:]*){{0,2}}"
)  # CVAT adds two cells
_HEADING = re.compile(
    r"(name|class)?[\s,;]*r(ed)?[\s,;]+g(reen)?[\s,;]+b(lue)?[\s,;]*(name|class)?", re.I
)
_CODE = np.array([65536, 256, 1])


@dataclass(frozen=True)
class ColourTable:
    """The colours of classes.

    Attributes:
        source: The file, for messages.
        names: Of the classes, in order.
        colours: Of the classes, sRGB 0 to 255, in the same order.
        unlabelled: Colours of pixels without a class.
    """

    source: str
    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    unlabelled: tuple[tuple[int, int, int], ...] = ()


def read_table(path: Path) -> ColourTable:
    """A table from its file. Raises InputError for lines without a colour, and colours or names that are there
    twice."""
    lines = plain_text.lines(path, "; it is the table of colours")
    named: dict[str, tuple[int, int, int]] = {}
    unlabelled: list[tuple[int, int, int]] = []
    for number, line in enumerate((line.strip() for line in lines), start=1):
        if not line or line.startswith("#") or _HEADING.fullmatch(line):
            continue
        first, last = _FIRST.fullmatch(line), _LAST.fullmatch(line)
        cells = first.groups() if first else (*last.groups()[1:], last[1]) if last else None
        if cells is None or not all(int(cell) <= 255 for cell in cells[:3]):
            raise InputError(
                f"{path}: line {number} has no colour of three numbers up to 255; write R G B NAME"
            )
        red, green, blue = (int(cell) for cell in cells[:3])
        colour, name = (red, green, blue), (cells[3] or "").strip()
        if colour in (*named.values(), *unlabelled) or name in named:
            raise InputError(
                f"{path}: line {number} has a colour or a name of a line before; remove one of them"
            )
        if name:
            named[name] = colour
        else:
            unlabelled.append(colour)
    if not named:
        raise InputError(f"{path} names no class; write R G B NAME, a class a line")
    return ColourTable(str(path), tuple(named), tuple(named.values()), tuple(unlabelled))


def open_folder(folder: Path, table: ColourTable) -> LabelledImages:
    """The label maps in a folder and those below it. Raises InputError where there are none."""
    paths = labelled.label_maps_by_stem(folder)
    return LabelledImages(
        str(folder),
        classes=tuple((name,) for name in table.names),
        names=tuple(paths),
        decode=lambda name: labels_of(paths[name], table),
        by_stem=True,
        files=tuple(paths.values()),
    )


def labels_of(path: Path, table: ColourTable) -> NDArray[np.int32]:
    """The classes of the pixels of an image, int32 (H, W), -1 where there is none.

    Raises InputError for a colour that the table lacks.
    """
    codes = images.read_rgb(path) @ _CODE
    known = [*table.colours, *table.unlabelled]
    labels, is_strange = places(codes, np.array(known) @ _CODE)
    if is_strange.any():
        red, green, blue = (int(value) for value in images.read_rgb(path)[is_strange][0])
        raise InputError(
            f"{path} has {int(is_strange.sum()):,} pixels of colours that {table.source} lacks, the first "
            f"{red} {green} {blue}; add them, without a name where they are of no class"
        )
    labels[labels >= len(table.colours)] = -1
    return labels


def places(
    numbers: NDArray[np.integer], known: NDArray[np.integer]
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Where each number stands among known ones, int32, and whether it is none of them; both of its shape."""
    order = np.argsort(known)
    spot = np.searchsorted(known, numbers, sorter=order).clip(max=len(known) - 1)
    place = order[spot].astype(np.int32)
    return place, known[place] != numbers


def image(labels: NDArray[np.int32], table: ColourTable) -> NDArray[np.uint8]:
    """Labels (H, W), -1 for none, in the colours of a table: uint8 (H, W, 3)."""
    none = table.unlabelled[0] if table.unlabelled else (0, 0, 0)
    drawn: NDArray[np.uint8] = np.array([*table.colours, none], np.uint8)[labels]
    return drawn
