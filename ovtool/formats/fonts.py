"""Fonts for words of any script: Pillow's own for ASCII, else one of matplotlib's or the system's, and of
several scripts one for each.

Arabic and Hebrew run from right to left and letters that join are joined where Pillow has Raqm, as its
wheels do. Without that, a word that needs it has no font, since it would be drawn wrong.
"""

import functools
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageFont, features

_STYLES = ("bold", "italic", "oblique", "light", "thin", "black", "mono", "serif", "condensed")
_UNFIT = ("lastresort", "emoji", "math", "symbol", "display")
_LATIN = str.maketrans({
    "ß": "ss", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L",
    "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i",
})  # fmt: skip
_JOINER = "\u200d"


@dataclass(frozen=True)
class Piece:
    """A stretch of text that one font draws: its file, None for Pillow's own."""

    text: str
    font: str | None = None


def is_plain(text: str) -> bool:
    """Whether Pillow's own font draws a text: ASCII and little else."""
    return all(" " <= letter <= "~" or letter in "‘’“”…" for letter in text)


def pieces(text: str) -> tuple[Piece, ...]:
    """The pieces of a text, each with a font that has its letters: one for all where there is one.

    Of a letter that no font has, the letter without its accents is left if Pillow's own font has that, else
    nothing.
    """
    if is_plain(text):
        return (Piece(text),)
    if (file := find(text)) is not None:
        return (Piece(text, file),)
    parts: list[Piece] = []
    for cluster in _clusters(text):
        last = parts[-1] if parts else None
        if last is not None and (cluster.isspace() or _has(last.font, cluster)):
            parts[-1] = Piece(last.text + cluster, last.font)
            continue
        file = None if is_plain(cluster) else find(cluster)
        kept = cluster if file is not None else _without_accents(cluster).lstrip()
        if last is not None and last.font == file:
            parts[-1] = Piece(last.text + kept, file)
        elif kept:
            parts.append(Piece(kept, file))
    if parts:
        parts[-1] = Piece(parts[-1].text.rstrip(), parts[-1].font)
    return tuple(parts)


def is_from_right(text: str) -> bool:
    """Whether the first letter of a text is of a script that runs from right to left."""
    directions = (unicodedata.bidirectional(letter) for letter in text)
    return next((way for way in directions if way in ("L", "R", "AL")), "L") != "L"


def _clusters(text: str) -> Iterator[str]:
    """The letters of a text, each with what is placed on it or joined to it."""
    cluster = ""
    for letter in text:
        is_mark = unicodedata.category(letter) in ("Mn", "Mc", "Me", "Cf")
        if cluster and not is_mark and not cluster.endswith(_JOINER):
            yield cluster
            cluster = ""
        cluster += letter
    yield cluster


def _has(file: str | None, text: str) -> bool:
    """Whether a font has every letter of a text."""
    if file is None:
        return is_plain(text)
    return {ord(letter) for letter in text if not _is_unseen(letter)} <= _codes(file)


def _without_accents(text: str) -> str:
    """What Pillow's own font has of a text whose letters lose their accents."""
    base = unicodedata.normalize("NFKD", text.translate(_LATIN))
    return "".join(letter for letter in base if is_plain(letter)) if is_plain(base[:1]) else ""


def find(text: str) -> str | None:
    """The file of a font that has every letter of a text and draws it right; None where there is none."""
    letters = frozenset(letter for letter in text if not _is_unseen(letter))
    if not letters or any(unicodedata.category(letter) == "Cs" for letter in letters):
        return None
    if _needs_shaping(text) and not _can_shape():
        return None
    return _with_letters(letters)


@functools.lru_cache(maxsize=256)
def at(size: int, file: str | None = None) -> ImageFont.FreeTypeFont:
    """A font of a size in pixels: that of a file which `find` named, or Pillow's own."""
    font = ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # always, when a size is given
    return font


def _is_unseen(letter: str) -> bool:
    """Whether a character has no shape of its own: blanks, joiners, marks of direction, choices of a form."""
    is_choice = "\ufe00" <= letter <= "\ufe0f" or "\U000e0100" <= letter <= "\U000e01ef"
    return is_choice or letter.isspace() or unicodedata.category(letter) in ("Cf", "Cc")


def _needs_shaping(text: str) -> bool:
    """Whether letters must be joined, placed on each other, or put in another order."""
    composed = unicodedata.normalize("NFC", text)
    return any(
        unicodedata.bidirectional(letter) in ("R", "AL")
        or (unicodedata.category(letter) in ("Mn", "Mc") and not _is_unseen(letter))
        for letter in composed
    )


@functools.cache
def _can_shape() -> bool:
    return bool(features.check("raqm"))


@functools.lru_cache(maxsize=1024)
def _with_letters(letters: frozenset[str]) -> str | None:
    codes = {ord(letter) for letter in letters}
    for file in _files():
        if codes <= _codes(file) and _is_usable(file):
            return file
    return None


@functools.cache
def _files() -> Sequence[str]:
    """The fonts to look in: matplotlib's DejaVu Sans, which every machine has, then the system's as
    matplotlib finds them, upright ones of an even weight first."""
    import matplotlib
    from matplotlib import font_manager

    own = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"

    def rank(file: str) -> tuple[int, str]:
        name = Path(file).stem.casefold()
        return sum(style in name for style in _STYLES), file

    candidates = [
        file
        for file in font_manager.findSystemFonts()
        if not any(word in Path(file).stem.casefold() for word in _UNFIT)
    ]
    return [str(own), *sorted(candidates, key=rank)]


@functools.lru_cache(maxsize=4096)
def _codes(file: str) -> frozenset[int]:
    """The characters that a font has shapes for; none where it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _is_usable(file: str) -> bool:
    """Whether Pillow can draw with a font at any size; those of coloured bitmaps it cannot."""
    try:
        at(17, file).getlength("a")
    except (OSError, ValueError):
        return False
    return True
