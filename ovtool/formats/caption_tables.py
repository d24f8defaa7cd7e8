"""Captions as a table, a row a sentence: image and caption, as Flickr8k and Flickr30k come and spreadsheets export.

One character parts all rows: a tab, `|` or a comma, which the first row decides. A row that names the columns (`image,caption`)
says which are meant, whatever others there are; without one they are the first and the last. The number that Flickr8k
puts after a name (`a.jpg#0`) is no part of it.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ovtool.errors import InputError, short
from ovtool.formats import plain_text

IMAGES = ("image", "image_name", "image_path", "file_name", "filename", "filepath", "file", "path")
CAPTIONS = ("caption", "comment", "text", "title", "sentence", "description")
_NUMBERED = re.compile(r"(.+\.\w{3,5})#\d+")
_FILE = re.compile(r".+\.(jpe?g|png|webp|bmp|gif|tiff?|avif|heic)(#\d+)?", re.IGNORECASE)
_RUN_ON = re.compile(r"\d+\s+(?=\D)")  # a number of Flickr30k whose separator is missing
_LONGEST = 5000  # letters of a caption; beyond it a quotation mark is open


def read(path: Path) -> Iterator[tuple[str, str]]:
    """The rows of a table: a file name as it stands there, and a caption, which may be empty.

    Raises:
        InputError: It is no UTF-8 text, its columns are not known, or a row names no image.
    """
    text = plain_text.read(path)
    start = next((line for line in text.splitlines() if line.strip()), "")
    separator = next((mark for mark in "\t|," if mark in start), ",")
    rows = _rows(path, text, separator)
    number, first = next(rows, (1, []))
    names = [cell.strip().casefold().replace(" ", "_") for cell in first]
    image = next((names.index(name) for name in IMAGES if name in names), None)
    caption = next((names.index(name) for name in CAPTIONS if name in names), None)
    if image is None and caption is None and len(first) > 1 and _FILE.fullmatch(first[0].strip()):
        image, caption, rows = 0, len(first) - 1, _rows(path, text, separator)
    if image is None or caption is None:
        raise InputError(
            f"{path} is no table of captions, nor JSON: its first row is {short(', '.join(first))}; write image,caption "
            "above, and a file name and a sentence in each row below"
        )
    width = len(first)
    for number, row in rows:
        if caption == width - 1 and len(row) > width:  # a sentence with the separator in it
            row = [*row[:caption], separator.join(row[caption:])]
        elif caption == width - 1 == len(row) and _RUN_ON.match(row[-1].strip()):
            row = [*row[:-1], "", _RUN_ON.sub("", row[-1].strip(), count=1)]
        name = _plain(row[image]) if len(row) > image else ""
        if not name or len(row) <= caption:
            raise InputError(
                f"{path}, line {number}: {short(separator.join(row))} has no image and caption; mend it"
            )
        numbered = _NUMBERED.fullmatch(name)
        yield (numbered[1] if numbered else name), _plain(row[caption])


def _rows(path: Path, text: str, separator: str) -> Iterator[tuple[int, Sequence[str]]]:
    """The rows that are not blank, each with the number of its last line."""
    lines = io.StringIO(text, newline="")
    if separator == ",":
        rows = csv.reader(lines)
    else:
        rows = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE)
    try:
        for row in rows:
            if any(len(cell) > _LONGEST for cell in row):
                raise csv.Error
            if any(cell.strip() for cell in row):
                yield rows.line_num, row
    except csv.Error:
        raise InputError(
            f"{path}, up to line {rows.line_num}: a quotation mark is not closed, or a cell has more than "
            f"{_LONGEST} letters; mend it"
        ) from None


def _plain(cell: str) -> str:
    """A cell without blanks around it, and without quotation marks that no reader took off."""
    cell = cell.strip()
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"').strip() if is_quoted else cell
