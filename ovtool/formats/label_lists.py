"""Text files of image-level labels: in each line an image and its labels.

The separator is one for the whole file and is found from all of its lines: a tab if any line has one, else
a comma, else a semicolon, else a blank. Labels are parted by the same one, and by commas. So a label of
several words ("hot dog") stays whole in every file but one that knows nothing but blanks. Lines that begin
with ``#`` are remarks, and a first line that names the columns is skipped.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from ovtool.formats import plain_text

_SEPARATORS = ("\t", ",", ";")
_HEADINGS = frozenset(
    {"image", "images", "file", "filename", "file_name", "name", "path", "image_id"}
)


@dataclass(frozen=True, slots=True)
class LabelledLine:
    """A line: its number from 1, the image's file name, and its labels as they are written."""

    number: int
    name: str
    labels: tuple[str, ...]


def read(path: Path) -> list[LabelledLine]:
    """The lines of a file. Raises InputError where it is not there or no UTF-8 text."""
    text = plain_text.read(path, ", and no data set of that name")
    rows = [
        (number, row)
        for number, row in enumerate(text.splitlines(), start=1)
        if row.strip() and not row.lstrip().startswith("#")
    ]
    separator = next((mark for mark in _SEPARATORS if any(mark in row for _, row in rows)), None)
    lines = [_line(number, row, separator) for number, row in rows]
    if lines and lines[0].name.casefold() in _HEADINGS:
        del lines[0]
    return lines


def _line(number: int, row: str, separator: str | None) -> LabelledLine:
    if separator is None:
        name, *cells = row.split()
    else:
        name, *cells = next(csv.reader([row], delimiter=separator, skipinitialspace=True))
    labels = (label.strip() for cell in cells for label in cell.split(","))
    return LabelledLine(number, name.strip(), tuple(label for label in labels if label))
