"""Images for people: what was found where, under the words' colours, and the scores of a word."""

import bisect
import itertools
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ovtool.formats.colours import Colour, word_colour, word_colours

__all__ = ["heatmap", "overlay", "word_colour", "word_colours"]

Rgb = NDArray[np.uint8]

LONGEST_SIDE = 2048  # what is larger is reduced
NARROWEST = 440  # what is narrower is enlarged, in whole steps; the strip is never narrower
_SMALLEST_FONT = 13
_STRIP = (24, 26, 30)
_TEXT = (236, 238, 242)
_FAINT = (160, 166, 176)
_LATIN = str.maketrans({
    "ß": "ss", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L",
    "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i",
})  # fmt: skip

_HEAT = 0.65  # how much of a heat map is colour, the rest is the grey image
# Anchors of matplotlib's "inferno" (Nathaniel Smith and Stéfan van der Walt, 2015), evenly spaced:
# lightness rises evenly from black to pale yellow.
_INFERNO = np.array([
    (0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85),
    (227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164),
], np.float64)  # fmt: skip


def overlay(
    rgb: Rgb,
    labels: NDArray[Any],
    names: Sequence[str],
    scores: Sequence[float | None] | None = None,
) -> Rgb:
    """An image with its masks in their words' colours, and below it the words that occur.

    rgb: uint8 (H, W, 3). labels: integers (H, W), an index into `names`, or -1 for unlabelled.
    scores: one for each name, shown where not None.

    The image lies at the top left of the result, uint8 (H', W', 3): enlarged by a whole factor if
    it is narrower than 440 pixels, reduced to 2048 if its longer side passes that. Pixels without a
    label are as they were. The strip below is at least 440 pixels wide; it names the words with
    their share of all pixels, the largest first, and the score; as many as fit, then "+N more".
    A name in letters that Pillow's own font lacks is shown as "class" and its index.

    Raises ValueError for arrays of other shapes, or labels without a name.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.shape[:2] != labels.shape or not labels.size:
        raise ValueError(f"picture {rgb.shape} and labels {labels.shape} do not belong together")
    if labels.min() < -1 or labels.max() >= len(names):
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()} are not in -1 to {len(names) - 1}"
        )
    if scores is not None and len(scores) != len(names):
        raise ValueError(f"{len(scores)} scores for {len(names)} names")
    counts = np.bincount(labels.ravel().astype(np.int64) + 1, minlength=len(names) + 1)[1:]
    present = [int(k) for k in np.flatnonzero(counts)]
    chosen = dict(zip(present, word_colours([names[k] for k in present]), strict=True))
    painted = _painted(*_resized(rgb, labels), chosen)
    entries = [
        _Entry(
            _printable(names[k], k),
            _percent(counts[k] / labels.size),
            _number(scores[k] if scores is not None else None),
            chosen[k],
        )
        for k in sorted(present, key=lambda k: (-counts[k], k))
    ]
    height, width = painted.shape[:2]
    strip = _legend(entries, max(width, NARROWEST), height)
    result = np.empty((height + strip.shape[0], strip.shape[1], 3), np.uint8)
    result[:] = _STRIP
    result[:height, :width] = painted
    result[height:] = strip
    return result


def heatmap(rgb: Rgb, score: NDArray[Any]) -> Rgb:
    """A word's score over the grey image: dark where it is 0, bright yellow where it is 1.

    rgb: uint8 (H, W, 3). score: float (H, W) in [0, 1]; what lies outside is clipped, NaN is 0.
    Returns uint8 (H, W, 3), with a scale from 0 to 1 in the lower right corner if there is room.

    Raises ValueError for arrays of other shapes.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.shape[:2] != score.shape or not score.size:
        raise ValueError(f"picture {rgb.shape} and scores {score.shape} do not belong together")
    grey = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    level = np.rint(255 * np.clip(np.nan_to_num(score, nan=0.0), 0, 1)).astype(np.int64)
    table = _inferno(np.linspace(0, 1, 256)).astype(np.float32)
    blended = (1 - _HEAT) * grey[..., None] + _HEAT * table[level]
    picture = Image.fromarray(np.rint(blended).astype(np.uint8))
    _draw_scale(picture)
    return np.array(picture)


def _resized(rgb: Rgb, labels: NDArray[Any]) -> tuple[Rgb, NDArray[np.int32]]:
    """The image and its labels at a size that people can look at."""
    height, width = labels.shape
    longest = max(height, width)
    labels = labels.astype(np.int32)
    if longest > LONGEST_SIDE:
        size = tuple(max(1, round(side * LONGEST_SIDE / longest)) for side in (width, height))
        picture = Image.fromarray(np.ascontiguousarray(rgb)).resize(size, Image.Resampling.BOX)
        reduced = Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)
        return np.array(picture), np.array(reduced)
    factor = max(1, min(-(-NARROWEST // width), LONGEST_SIDE // longest))
    larger = rgb.repeat(factor, axis=0).repeat(factor, axis=1)
    return larger, labels.repeat(factor, axis=0).repeat(factor, axis=1)


def _painted(rgb: Rgb, labels: NDArray[np.int32], colours: Mapping[int, Colour]) -> Rgb:
    """The masks over the image: half their colour, a contour of it all, a dark line within."""
    longest = max(labels.shape)
    line = max(2, round(longest / 500))
    found = labels >= 0
    contour = _grown(_edges(labels), line - 1)
    dark = _grown(contour, max(1, round(longest / 1000))) & ~contour
    table = np.zeros((max(colours, default=0) + 1, 3), np.uint8)
    for label, one in colours.items():
        table[label] = one
    colour = table[np.maximum(labels, 0)]
    blended = ((rgb.astype(np.uint16) + colour) // 2).astype(np.uint8)
    blended[dark] = blended[dark] * 0.55
    blended[contour] = colour[contour]
    return np.where(found[..., None], blended, rgb)


def _edges(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """The pixels with a neighbour, of four, under another label."""
    edges = np.zeros(labels.shape, np.bool_)
    across = labels[1:] != labels[:-1]
    along = labels[:, 1:] != labels[:, :-1]
    edges[1:] |= across
    edges[:-1] |= across
    edges[:, 1:] |= along
    edges[:, :-1] |= along
    return edges


def _grown(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """A mask grown by so many pixels, by a cross and a square in turn: nearly round."""
    for step in range(steps):
        old = mask
        mask = old.copy()
        mask[1:] |= old[:-1]
        mask[:-1] |= old[1:]
        if step % 2:
            old = mask.copy()
        mask[:, 1:] |= old[:, :-1]
        mask[:, :-1] |= old[:, 1:]
    return mask


@dataclass(frozen=True)
class _Entry:
    """A line of the legend."""

    name: str
    share: str
    score: str
    colour: Colour


def _percent(share: float) -> str:
    if share < 0.001:
        return "<0.1 %"
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"


def _number(score: float | None) -> str:
    return "" if score is None else f"{score:.2f}"


def _printable(name: str, index: int) -> str:
    """A name in the letters of the font: accents dropped if need be, else the index in its place."""
    letters = " ".join(name.split()).translate(_LATIN)
    shown = "".join(letter if _has(letter) else _plain(letter) for letter in letters).strip()
    return shown if any(letter.isalnum() for letter in shown) else f"class {index}"


def _plain(letter: str) -> str:
    """A letter without its accents, if the font has that."""
    base = unicodedata.normalize("NFKD", letter)
    return "".join(part for part in base if _has(part)) if _has(base[0]) else ""


def _has(letter: str) -> bool:
    """Whether Pillow's own font draws a character: ASCII and little else."""
    return " " <= letter <= "~" or letter in "‘’“”…"


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # always, when a size is given
    return font


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
    entries: Sequence[_Entry], width: int, height: int, size: int, longest_name: float
) -> _Layout:
    """The layout at one font size, names cut at so many times that, within `height` pixels."""
    font = _font(size)
    margin = round(0.8 * size)
    row_height = round(1.55 * size)
    share_width = max(font.getlength(entry.share) for entry in entries) + size
    score_width = max(font.getlength(entry.score) + size * bool(entry.score) for entry in entries)
    fixed = 1.5 * size + share_width + score_width
    longest = max(font.getlength(entry.name) for entry in entries)
    name_width = min(longest, longest_name * size, width - 2 * margin - fixed)
    columns = int(width // (fixed + name_width + 2 * margin))
    most = max(1, (height - 2 * margin) // row_height)
    rows = min(most, -(-len(entries) // max(1, columns)))
    return _Layout(font, max(1, columns), rows, row_height, name_width, share_width, score_width)


def _legend(entries: Sequence[_Entry], width: int, picture_height: int) -> Rgb:
    """The strip with the legend, uint8 (h, width, 3), as high as its entries need."""
    size = max(_SMALLEST_FONT, round(width / 56))
    if not entries:
        return _note("nothing labelled", width, size)
    smallest = max(_SMALLEST_FONT, round(0.6 * size))
    allowed = max(round(0.45 * picture_height), 10 * size)
    sizes = range(size, smallest - 1, -1)
    for longest_name, attempt in itertools.product((14, 10, 7), sizes):
        layout = _layout(entries, width, allowed, attempt, longest_name)
        if len(entries) <= layout.places:
            break
    shown = list(entries)
    if len(entries) > layout.places:
        shown = shown[: max(0, layout.places - 1)]
    margin = layout.margin
    strip = Image.new("RGB", (width, layout.rows * layout.row_height + 2 * margin), _STRIP)
    draw = ImageDraw.Draw(strip)
    pitch = (width - 2 * margin) / layout.columns
    for place in range(min(len(entries), layout.places)):
        left = margin + place // layout.rows * pitch
        middle = margin + (place % layout.rows + 0.5) * layout.row_height
        if place < len(shown):
            _draw_entry(draw, layout, shown[place], left, middle)
        else:
            rest = f"+{len(entries) - len(shown)} more"
            left += 1.5 * layout.font.size
            draw.text((left, middle), rest, _FAINT, layout.font, anchor="lm")
    return np.array(strip)


def _draw_entry(
    draw: ImageDraw.ImageDraw, layout: _Layout, entry: _Entry, left: float, middle: float
) -> None:
    """A swatch, the name, and to the right of the longest name the share and the score."""
    font = layout.font
    half = 0.45 * font.size
    swatch = (left, middle - half, left + 2 * half, middle + half)
    draw.rounded_rectangle(swatch, radius=0.2 * font.size, fill=entry.colour)
    left += 1.5 * font.size
    draw.text((left, middle), _cut(entry.name, font, layout.name_width), _TEXT, font, anchor="lm")
    left += layout.name_width + layout.share_width
    draw.text((left, middle), entry.share, _FAINT, font, anchor="rm")
    draw.text((left + layout.score_width, middle), entry.score, _FAINT, font, anchor="rm")


def _cut(name: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """A name that is no wider than `width`, with an ellipsis where it was cut."""
    if font.getlength(name) <= width:
        return name
    lengths = range(1, len(name) + 1)
    length = bisect.bisect_right(lengths, width, key=lambda n: font.getlength(name[:n] + "…"))
    return name[:length].rstrip() + "…"


def _note(text: str, width: int, size: int) -> Rgb:
    """A strip that says one thing."""
    font = _font(size)
    strip = Image.new("RGB", (width, round(1.55 * size) + 2 * round(0.8 * size)), _STRIP)
    middle = strip.height / 2
    ImageDraw.Draw(strip).text((round(0.8 * size), middle), text, _FAINT, font, anchor="lm")
    return np.array(strip)


def _inferno(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours (N, 3), 0 to 255, of values (N,) in [0, 1]."""
    stops = np.linspace(0, 1, len(_INFERNO))
    return np.stack([np.interp(value, stops, _INFERNO[:, k]) for k in range(3)], axis=1)


def _draw_scale(picture: Image.Image) -> None:
    """A bar from 0 to 1 in the lower right corner, if that covers little of the image."""
    width, height = picture.size
    size = max(_SMALLEST_FONT, round(width / 60))
    bar_width, bar_height, pad = 6 * size, round(0.7 * size), round(0.5 * size)
    font = _font(size)
    digit = font.getlength("0")
    panel_width = round(bar_width + 2 * digit + 4 * pad)
    panel_height = bar_height + 2 * pad
    if panel_width > 0.6 * width or panel_height > 0.25 * height:
        return
    left, top = width - pad - panel_width, height - pad - panel_height
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle(
        (left, top, left + panel_width, top + panel_height), radius=pad, fill=_STRIP
    )
    blended = (1 - _HEAT) * 128 + _HEAT * _inferno(np.linspace(0, 1, bar_width))  # on middle grey
    colours = np.rint(blended).astype(np.uint8)
    bar = Image.fromarray(np.broadcast_to(colours, (bar_height, bar_width, 3)).copy())
    start = round(left + 2 * pad + digit)
    picture.paste(bar, (start, top + pad))
    middle = top + panel_height / 2
    draw.text((left + pad, middle), "0", _TEXT, font, anchor="lm")
    draw.text((left + panel_width - pad, middle), "1", _TEXT, font, anchor="rm")
