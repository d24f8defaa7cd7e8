"""Vocabularies: the classes that an image is segmented by, their synonyms, and the words they
compete with.

The named vocabularies hold the class names of public data sets in their standard order
(`vocabularies.tsv`): Pascal VOC (Everingham et al. 2010), Pascal Context (Mottaghi et al. 2014), COCO (Lin et
al. 2014), COCO-Stuff (Caesar et al. 2018), ADE20K (Zhou et al. 2017), Cityscapes (Cordts et al. 2016) and
CamVid (Brostow et al. 2009). The first name of a class is the data set's own spelling; where that is no
English (``diningtable``, ``wall-brick``), the plain words follow as a synonym. Each knows the ids that
the data set itself gives its classes.

Words have one grammar wherever they are written. On the command line a comma parts classes, and ``\\,`` is
a comma of a name; in a file a new line does, and a line that begins with ``#`` is a comment; in a JSON list
every entry is a class. ``|`` or ``;`` parts the synonyms of a class. A backslash before any of these takes
away its meaning. A name is kept as it is written; the model reads ``fire_truck`` as "fire truck"
(`spoken`).
"""

import functools
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Literal

from ovtool.errors import UsageError
from ovtool.formats import plain_text


@dataclass(frozen=True)
class Vocabulary:
    """Classes to tell apart, and background words that compete with them and are dropped.

    `classes` holds a tuple of synonyms for each class, of which the first is the class's name. All
    `background` words together form one more class, the last, if there are any. `ids` are the
    classes' official ids, where they have any.

    Raises UsageError where a name is empty or said twice, or where there is no class.
    """

    classes: tuple[tuple[str, ...], ...]
    background: tuple[str, ...] = ()
    ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.classes:
            raise UsageError('no class to look for; name some, such as --classes "teapot,apple"')
        seen: dict[str, tuple[int, str]] = {}
        for k, synonyms in enumerate((*self.classes, self.background)):
            for name in synonyms:
                if not name.strip():
                    raise UsageError("a class name is empty; remove the doubled or stray separator")
                key = folded(name)
                if key not in seen:
                    seen[key] = (k, name)
                    continue
                owner, first = seen[key]  # two spellings of a name may be synonyms of one class
                if owner != k or first.casefold() == name.casefold():
                    raise UsageError(f"the class '{first}' is named twice; remove one of them")
        if self.ids is not None and len(self.ids) != len(self.classes):
            raise ValueError(f"{len(self.ids)} ids for {len(self.classes)} classes")
        if not all(self.classes):
            raise UsageError("a class has no name; give each class at least one")

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each class, in order; background is not among them."""
        return tuple(synonyms[0] for synonyms in self.classes)


def spoken(name: str) -> str:
    """A name as a model reads it: underscores are blanks, as in ``fire_truck``."""
    return " ".join(name.replace("_", " ").split())


def folded(name: str) -> str:
    """What two spellings of one name have in common: letter case, underscores, blanks and the form of
    Unicode aside."""
    return unicodedata.normalize("NFC", spoken(name).casefold())


_COMMA = "[,，、،]"
_ESCAPED = re.compile(r"\\([,，、،|;#\\])")
_SYNONYM = r"[|;]"
_QUOTES = "\"'“”„‘’«»「」"


def _split(text: str, separator: str) -> list[str]:
    """The text cut at each separator (a pattern of one letter) that no backslash precedes."""
    return re.split(rf"(?<!\\){separator}", text)


def split_synonyms(text: str) -> tuple[str, ...]:
    """The names in the text of one class, outer blanks off and inner blanks single; some may be empty.

    >>> split_synonyms("door; double  door|doors")
    ('door', 'double door', 'doors')
    """
    parts = (_ESCAPED.sub(r"\1", part) for part in _split(text, _SYNONYM))
    return tuple(" ".join(part.split()) for part in parts)


def _synonyms(text: str, where: str) -> tuple[str, ...]:
    """The names of one class. Raises UsageError where one is empty or holds what no text does."""
    names = split_synonyms(text)
    if not all(names):
        raise UsageError(f"{where} is empty or only spaces; name it or remove its separator")
    if any(unicodedata.category(sign) in ("Cc", "Cs") and not sign.isspace() for sign in text):
        raise UsageError(
            f"{where} holds a control character or a byte that is not UTF-8; remove it"
        )
    return names


def parse_classes(text: str) -> Vocabulary:
    """The vocabulary of ``--classes``: a comma between classes, also one of Chinese, Japanese or Arabic, and ``|`` or
    ``;`` between synonyms. Quotation marks around all or a class are no part of it, and a list of JSON is read.

    >>> parse_classes("person|man,tv").classes
    (('person', 'man'), ('tv',))

    Raises UsageError where the text, a class or a synonym is empty, or a name comes twice.
    """
    listed = None
    with suppress(ValueError):
        listed = json.loads(text)
    if not text.strip() or listed == []:
        raise UsageError('--classes is empty; name some, such as --classes "teapot,apple"')
    if isinstance(listed, list) and all(isinstance(name, str) for name in listed):
        return parse_names(listed)
    parts = (_unquoted(part) for part in _split(_unquoted(text), _COMMA))
    return Vocabulary(tuple(_synonyms(part, f"class {i}") for i, part in enumerate(parts, start=1)))


def joined(names: Iterable[str]) -> str:
    """The text of ``--classes`` that `parse_classes` reads as these classes, commas in their names among them."""
    return ",".join(re.sub(_COMMA, r"\\\g<0>", name) for name in names)


def _unquoted(text: str) -> str:
    """A text without quotation marks around it, which a shell that does not know them leaves."""
    text = text.strip()
    quotes = [place for place, sign in enumerate(text) if sign in _QUOTES]
    return text[1:-1] if len(text) > 2 and quotes == [0, len(text) - 1] else text


def parse_names(names: Iterable[str]) -> Vocabulary:
    """The vocabulary of a list of names, one class each; ``|`` or ``;`` parts synonyms in a name."""
    listed = enumerate(names, start=1)
    return Vocabulary(tuple(_synonyms(name, f"class {i}") for i, name in listed))


def read_classes_file(path: Path) -> Vocabulary:
    """The vocabulary of a UTF-8 text file: one class a line, ``|`` or ``;`` between synonyms; blank lines
    and those that begin with ``#`` are skipped.

    Raises InputError where the file cannot be read, UsageError where a class is empty or named twice.
    """
    lines = plain_text.lines(path)
    classes = tuple(
        _synonyms(line, f"line {number} of {path}")
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    )
    if not classes:
        raise UsageError(f"{path} names no class; write one a line")
    return Vocabulary(classes)


# The stuff words with which SCLIP and NACLIP name the background of Pascal VOC, and the grounds that
# they lack; the plain word comes first.
DEFAULT_BACKGROUND: tuple[str, ...] = tuple(
    (
        "background,sky,wall,tree,wood,grass,road,sea,river,mountain,sand,desk,bed,building,cloud,"
        "lamp,door,window,wardrobe,ceiling,shelf,curtain,stair,floor,hill,rail,fence,"
        "water,snow,bricks,carpet,marble,asphalt"
    ).split(",")
)


def background_words(text: str | None, default: Sequence[str] = ()) -> tuple[str, ...]:
    """The words of ``--background``: ``none`` for no words, a comma list, or None for `default`."""
    if text is None:
        return tuple(default)
    if text.strip().casefold() == "none":
        return ()
    if not text.strip():
        raise UsageError('--background is empty; write words, such as "wall,sky", or "none"')
    return tuple(name for synonyms in parse_classes(text).classes for name in synonyms)


def with_background(vocabulary: Vocabulary, words: Sequence[str]) -> Vocabulary:
    """The same classes against these background words, less those that are classes themselves."""
    taken = {folded(name) for synonyms in vocabulary.classes for name in synonyms}
    kept = tuple(word for word in words if folded(word) not in taken)
    return Vocabulary(vocabulary.classes, kept, vocabulary.ids)


Names = Literal["official", "clip"]
# vocabularies that are made of several of `vocabularies.tsv`
_JOINED: Mapping[str, tuple[str, ...]] = {"coco171": ("coco80", "stuff91")}


def known() -> tuple[str, ...]:
    """The names of all vocabularies: those of `vocabularies.tsv`, and those that are made of several of them."""
    return (*_rows(), *_JOINED)


def named(name: str, names: Names = "official") -> Vocabulary:
    """The vocabulary of a data set, with the ids that the data set gives its classes.

    Args:
        name: One of `known`.
        names: `official` takes the names of the data set, with the plain words as synonyms where a name is no
            English; `clip` what published code shows to a CLIP in their place: the names of SCLIP's files for VOC
            and COCO, elsewhere the plain words alone.

    Raises:
        UsageError: The vocabulary is unknown.
    """
    if name not in known():
        raise UsageError(f"unknown vocabulary '{name}'; choose one of {', '.join(known())}")
    rows = [row for part in _JOINED.get(name, (name,)) for row in _rows()[part]]
    classes = tuple(row.clip if names == "clip" else row.official for row in rows)
    return Vocabulary(classes, ids=tuple(row.id for row in rows))


def all_names(name: str) -> Vocabulary:
    """The classes of a vocabulary by their official names, with all other names that are known as synonyms: what a
    prediction may have called them. A name of two classes belongs to the one whose own name it is."""
    official = named(name)
    owned = {folded(word) for synonyms in official.classes for word in synonyms}
    classes = []
    for own, other in zip(official.classes, named(name, "clip").classes, strict=True):
        classes.append(own + tuple(word for word in other if folded(word) not in owned))
    return replace(official, classes=tuple(classes))


@dataclass(frozen=True, slots=True)
class _Row:
    """A class: its official id, its names, and those that a CLIP is shown."""

    id: int
    official: tuple[str, ...]
    clip: tuple[str, ...]


def package_text(name: str) -> str:
    """A text file of this folder."""
    return resources.files("ovtool.datasets").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _rows() -> Mapping[str, tuple[_Row, ...]]:
    """The rows of `vocabularies.tsv`, which are a vocabulary, an id, official names and those for a CLIP."""
    rows: dict[str, list[_Row]] = {}
    for line in package_text("vocabularies.tsv").splitlines():
        vocabulary, number, official, *clip = line.split("\t")
        own = split_synonyms(official)
        plain = split_synonyms(clip[0]) if clip else own[1:] or own
        rows.setdefault(vocabulary, []).append(_Row(int(number), own, plain))
    return {vocabulary: tuple(listed) for vocabulary, listed in rows.items()}
