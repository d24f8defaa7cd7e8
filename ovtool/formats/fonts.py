"""Fonts for words of any script: Pillow's own for ASCII, else one of matplotlib's or the system's.

Arabic and Hebrew run from right to left and letters that join are joined where Pillow has Raqm, as its
wheels do. Without that, a word that needs it has no font, since it would be drawn wrong.
"""

import functools
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from PIL import ImageFont, features

_STYLES = ("bold", "italic", "oblique", "light", "thin", "black", "mono", "serif", "condensed")
_UNFIT = ("lastresort", "emoji", "math", "symbol", "display")


def is_plain(text: str) -> bool:
    """Whether Pillow's own font draws a text: ASCII and little else."""
    return all(" " <= letter <= "~" or letter in "‘’“”…" for letter in text)


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
    """Whether a character has no shape of its own: blanks, joiners, marks of direction."""
    return letter.isspace() or unicodedata.category(letter) in ("Cf", "Cc")


def _needs_shaping(text: str) -> bool:
    """Whether letters must be joined, placed on each other, or put in another order."""
    composed = unicodedata.normalize("NFC", text)
    return any(
        unicodedata.bidirectional(letter) in ("R", "AL")
        or unicodedata.category(letter) in ("Mn", "Mc")
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
