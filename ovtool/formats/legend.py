"""The legend of an overlay: words under their colours, with their share of the image and their score."""

import bisect
import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ovtool.formats import fonts
from ovtool.formats.colours import Colour
from ovtool.formats.fonts import Piece

Rgb = NDArray[np.uint8]

SMALLEST_FONT = 13
STRIP = (24, 26, 30)
TEXT = (236, 238, 242)
_FAINT = (160, 166, 176)
_SHARE, _SCORE = "share", "score"  # the headings


@dataclass(frozen=True)
class Entry:
    """A line of the legend, its name in pieces; a class without a colour is one that is not tinted."""

    pieces: Sequence[Piece]
    share: str
    score: str
    colour: Colour | None

    @property
    def name(self) -> str:
        """What is drawn of the name."""
        return "".join(piece.text for piece in self.pieces)


def entry(name: str, index: int, share: float, score: float | None, colour: Colour | None) -> Entry:
    """The line of a class: its name and index, its share of the image and its score, in [0, 1]."""
    return Entry(_printable(name, index), _percent(share), _number(score), colour)


def _percent(share: float) -> str:
    if share < 0.001:
        return "<0.1 %"
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"


def _number(score: float | None) -> str:
    return "" if score is None else f"{score:.2f}"


def _printable(name: str, index: int) -> Sequence[Piece]:
    """What fonts have of a name; its index in its place where that is no letter, digit or sign of its own."""
    pieces = fonts.pieces(" ".join(name.split()))
    kept = "".join(piece.text for piece in pieces)
    is_seen = any(letter.isalnum() or unicodedata.category(letter) == "So" for letter in kept)
    return pieces if is_seen else (Piece(f"class {index}"),)


@dataclass(frozen=True)
class _Layout:
    """How entries stand on the strip: column by column, in pixels."""

    font: ImageFont.FreeTypeFont
    columns: int
    rows: int
    row_height: int
    name_width: float
    share_width: float
    score_width: float

    @property
    def places(self) -> int:
        """How many entries fit."""
        return self.columns * self.rows

    @property
    def margin(self) -> int:
        """What lies around everything, and twice that between columns."""
        return round(0.8 * self.font.size)


def _layout(
    entries: Sequence[Entry], width: int, height: int, size: int, longest_name: float
) -> _Layout:
    """The layout at one font size, names cut at so many times that, within `height` pixels and the
    headings."""
    font = fonts.at(size)
    margin = round(0.8 * size)
    row_height = round(1.55 * size)
    has_scores = any(entry.score for entry in entries)
    shares = [_SHARE, *(entry.share for entry in entries)]
    scores = [_SCORE * has_scores, *(entry.score for entry in entries)]
    share_width = max(font.getlength(share) for share in shares) + size
    score_width = max(font.getlength(score) for score in scores) + size * has_scores
    fixed = 1.5 * size + share_width + score_width
    longest = max(_length(entry.pieces, size) for entry in entries)
    name_width = min(longest, longest_name * size, width - 2 * margin - fixed)
    columns = max(1, int(width // (fixed + name_width + 2 * margin)))
    most = max(1, (height - 2 * margin) // row_height)
    rows = min(most, -(-len(entries) // columns))
    spare = (width - 2 * margin) / columns - fixed - 2 * margin  # names are cut at the column's end
    name_width = max(name_width, min(longest, spare))
    return _Layout(font, columns, rows, row_height, name_width, share_width, score_width)


def draw(entries: Sequence[Entry], width: int, picture_height: int) -> Rgb:
    """The strip with the legend, uint8 (h, width, 3), as high as its entries need."""
    size = max(SMALLEST_FONT, round(width / 56))
    if not entries:
        return _note("nothing labelled", width, size)
    smallest = max(SMALLEST_FONT, round(0.6 * size))
    allowed = max(round(0.45 * picture_height), 10 * size)
    sizes = range(size, smallest - 1, -1)
    for longest_name, attempt in itertools.product((14, 10, 7), sizes):
        layout = _layout(entries, width, allowed, attempt, longest_name)
        if len(entries) <= layout.places:
            break
    drawn = list(entries)
    if len(entries) > layout.places:
        drawn = drawn[: max(0, layout.places - 1)]
    margin, row = layout.margin, layout.row_height
    strip = Image.new("RGB", (width, (layout.rows + 1) * row + 2 * margin), STRIP)
    canvas = ImageDraw.Draw(strip)
    pitch = (width - 2 * margin) / layout.columns
    for place in range(min(len(entries), layout.places)):
        column, line = divmod(place, layout.rows)
        left, middle = margin + column * pitch, margin + (line + 1.5) * row
        if line == 0:
            score = _SCORE if layout.score_width else ""
            _draw_numbers(canvas, layout, (_SHARE, score), left, middle - row)
        if place < len(drawn):
            _draw_entry(canvas, layout, drawn[place], left, middle)
        else:
            rest = f"+{len(entries) - len(drawn)} more"
            left += 1.5 * layout.font.size
            canvas.text((left, middle), rest, _FAINT, layout.font, anchor="lm")
    return np.array(strip)


def _draw_entry(
    canvas: ImageDraw.ImageDraw, layout: _Layout, entry: Entry, left: float, middle: float
) -> None:
    """A swatch, hollow for a class that is not tinted, the name, the share and the score."""
    size = round(layout.font.size)
    half = 0.45 * size
    swatch = (left, middle - half, left + 2 * half, middle + half)
    outline = _FAINT if entry.colour is None else None
    canvas.rounded_rectangle(swatch, radius=0.2 * size, fill=entry.colour, outline=outline)
    place = left + 1.5 * size
    pieces = _cut(entry.pieces, size, layout.name_width)
    for piece in reversed(pieces) if fonts.is_from_right(entry.name) else pieces:
        canvas.text((place, middle), piece.text, TEXT, fonts.at(size, piece.font), anchor="lm")
        place += _length([piece], size)
    _draw_numbers(canvas, layout, (entry.share, entry.score), left, middle)


def _draw_numbers(
    canvas: ImageDraw.ImageDraw,
    layout: _Layout,
    texts: tuple[str, str],
    left: float,
    middle: float,
) -> None:
    """The share and the score, or their headings, to the right of the longest name."""
    right = left + 1.5 * layout.font.size + layout.name_width + layout.share_width
    for text, place in zip(texts, (right, right + layout.score_width), strict=True):
        canvas.text((place, middle), text, _FAINT, layout.font, anchor="rm")


def _length(pieces: Sequence[Piece], size: int) -> float:
    """How wide a name is drawn, in pixels."""
    return sum(fonts.at(size, piece.font).getlength(piece.text) for piece in pieces)


def _cut(pieces: Sequence[Piece], size: int, width: float) -> Sequence[Piece]:
    """A name that is no wider than `width`, with an ellipsis where it was cut."""
    if _length(pieces, size) <= width:
        return pieces
    ellipsis = Piece("…")

    def first(length: int) -> list[Piece]:
        kept = []
        for piece in pieces:
            kept.append(replace(piece, text=piece.text[: max(0, length)]))
            length -= len(piece.text)
        return [piece for piece in kept if piece.text]

    lengths = range(1, sum(len(piece.text) for piece in pieces) + 1)
    fits = bisect.bisect_right(lengths, width, key=lambda n: _length([*first(n), ellipsis], size))
    return [*first(fits), ellipsis]


def _note(text: str, width: int, size: int) -> Rgb:
    """A strip that says one thing."""
    font = fonts.at(size)
    strip = Image.new("RGB", (width, round(1.55 * size) + 2 * round(0.8 * size)), STRIP)
    middle = strip.height / 2
    ImageDraw.Draw(strip).text((round(0.8 * size), middle), text, _FAINT, font, anchor="lm")
    return np.array(strip)
