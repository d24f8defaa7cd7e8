"""The legend of an overlay: words under their colours, with their share of the image and their score."""

import bisect
import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ovtool.formats import fonts
from ovtool.formats.colours import Colour

Rgb = NDArray[np.uint8]

SMALLEST_FONT = 13
STRIP = (24, 26, 30)
TEXT = (236, 238, 242)
_FAINT = (160, 166, 176)
_SHARE, _SCORE = "share", "score"  # the headings
_LATIN = str.maketrans({
    "ß": "ss", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L",
    "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i",
})  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A line of the legend: `font` is the file of the name's font, None for Pillow's own; a class without a
    colour is one that is not tinted."""

    name: str
    share: str
    score: str
    colour: Colour | None
    font: str | None = None


def entry(name: str, index: int, share: float, score: float | None, colour: Colour | None) -> Entry:
    """The line of a class: its name and index, its share of the image and its score, in [0, 1]."""
    text, font = _printable(name, index)
    return Entry(text, _percent(share), _number(score), colour, font)


def _percent(share: float) -> str:
    if share < 0.001:
        return "<0.1 %"
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"


def _number(score: float | None) -> str:
    return "" if score is None else f"{score:.2f}"


def _printable(name: str, index: int) -> tuple[str, str | None]:
    """A name and the file of the font that draws it: Pillow's own or any other that has its letters, else
    without what no font has, and without accents; else its index in its place."""
    text = " ".join(name.split())
    if any(letter.isalnum() for letter in text):
        if fonts.is_plain(text):
            return text, None
        if (file := fonts.find(text)) is not None:
            return text, file
    letters = text.translate(_LATIN)
    kept = "".join(_plain(letter) for letter in letters).strip()
    return (kept if any(letter.isalnum() for letter in kept) else f"class {index}"), None


def _plain(letter: str) -> str:
    """A letter, without its accents if need be, if Pillow's own font has that."""
    if fonts.is_plain(letter):
        return letter
    base = unicodedata.normalize("NFKD", letter)
    return "".join(part for part in base if fonts.is_plain(part)) if fonts.is_plain(base[0]) else ""


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
    longest = max(fonts.at(size, entry.font).getlength(entry.name) for entry in entries)
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
    font = fonts.at(size, entry.font)
    name = _cut(entry.name, font, layout.name_width)
    canvas.text((left + 1.5 * size, middle), name, TEXT, font, anchor="lm")
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


def _cut(name: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """A name that is no wider than `width`, with an ellipsis where it was cut."""
    if font.getlength(name) <= width:
        return name
    lengths = range(1, len(name) + 1)
    length = bisect.bisect_right(lengths, width, key=lambda n: font.getlength(name[:n] + "…"))
    return name[:length].rstrip() + "…"


def _note(text: str, width: int, size: int) -> Rgb:
    """A strip that says one thing."""
    font = fonts.at(size)
    strip = Image.new("RGB", (width, round(1.55 * size) + 2 * round(0.8 * size)), STRIP)
    middle = strip.height / 2
    ImageDraw.Draw(strip).text((round(0.8 * size), middle), text, _FAINT, font, anchor="lm")
    return np.array(strip)
