"""The frozen table of nouns of the collage world, and its grounds.

The table feeds the scene law, the captions, the distractors and the training alike; it is data
(`collage_nouns.tsv`), and changing it changes every figure that was measured with it.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

GROUNDS = tuple("grass water wood bricks sky sand snow carpet marble asphalt rails gravel".split())


@dataclass(frozen=True)
class Noun:
    """One noun of the table.

    name: the word, lower case, singular where English allows it.
    code_points: the emoji that draw it, as lower-case hexadecimal code points.
    icon_names: for each code point, the names under which icon packages without code points keep it.
    synonyms: other words for it, which captions use at times.
    base: whether it belongs to the base set, which stands for a fixed label set.
    ground: the ground that it is often found on, or None.
    """

    name: str
    code_points: tuple[str, ...]
    icon_names: tuple[tuple[str, ...], ...]
    synonyms: tuple[str, ...]
    base: bool
    ground: str | None


def _filled(cell: str, separator: str) -> tuple[str, ...]:
    return () if cell == "-" else tuple(cell.split(separator))


@cache
def table() -> tuple[Noun, ...]:
    """All nouns, in the table's order, which is the order of their category ids."""
    text = files("ovtool.datasets").joinpath("collage_nouns.tsv").read_text(encoding="utf-8")
    nouns = []
    for line in text.splitlines()[1:]:
        name, code_points, icons, synonyms, base, ground = line.split("\t")
        nouns.append(
            Noun(
                name=name,
                code_points=tuple(code_points.split()),
                icon_names=tuple(_filled(cell, ",") for cell in icons.split()),
                synonyms=_filled(synonyms, "|"),
                base=base == "1",
                ground=None if ground == "-" else ground,
            )
        )
    return tuple(nouns)


def class_names() -> tuple[str, ...]:
    """Every class of a semantic annotation: the nouns, then the grounds."""
    return tuple(noun.name for noun in table()) + GROUNDS


# The 20 classes of the preset `cooccur`: two or more on each of eight grounds, so that a ground
# predicts its objects without naming one of them.
COOCCUR_NOUNS = tuple(
    (
        "boat duck whale train tram plane balloon kite cow horse rabbit camel crab cactus car bus "
        "penguin snowman teapot cheese"
    ).split()
)
