"""Class names that mean the same, however they are spelt.

A name is looked for in this order, and the first match counts: the very name; letter case, the
form of Unicode, and blanks, underscores and hyphens aside; the declared synonyms; a name among several
that are written as one (``door;double door``); no blanks at all (``tvmonitor``); singular for plural
(``rail``, ``rails``).
"""

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet

from ovtool.datasets import irregular_nouns

IRREGULAR = {**irregular_nouns.IRREGULAR, "people": "person"}

Keys = Callable[[str], set[str]]


class KnownNames:
    """Names and synonyms of classes, to be found again under other spellings."""

    def __init__(self, classes: Sequence[Sequence[str]]) -> None:
        """`classes`: for each class its name, and then its synonyms."""
        self.names = [words[0] for words in classes]
        self._synonyms = _indexed(((k, words[1:]) for k, words in enumerate(classes)), _plain)
        of_names = [(k, words[:1]) for k, words in enumerate(classes)]
        of_all = list(enumerate(classes))
        self._spellings = [(keys, _indexed(of_names, keys)) for keys in (_exact, _cased, _plain)]
        self._similar = [(keys, _indexed(of_all, keys)) for keys in (_several, _compact)]
        self._plain_of_all = _indexed(of_all, _plain)
        self._singulars_of_all = _indexed(of_all, singulars)

    def of_spelling(self, name: str) -> int | None:
        """The class of this name, its spelling aside; None where none or several match."""
        for keys, index in self._spellings:
            matches = _union(index, keys(name))
            if matches:
                return next(iter(matches)) if len(matches) == 1 else None
        return None

    def of_synonym(self, word: str) -> set[int]:
        """The classes that have a word as a synonym, its spelling aside."""
        return _union(self._synonyms, _plain(word))

    def of_word(self, word: str) -> set[int]:
        """The classes that a word can mean: the class of that name, else those it is a synonym of, else a class
        that is written in a similar way."""
        named = self.of_spelling(word)
        if named is not None:
            return {named}
        return self.of_synonym(word) or self.similar([word])

    def similar(self, words: Iterable[str], taken: AbstractSet[int] = frozenset()) -> set[int]:
        """The only class that is written in a similar way as a word of these, in a set; of those `taken`
        by a better match, none. The set is empty where several match."""
        words = list(words)
        for keys, index in self._similar:
            matches = set[int]().union(*(_union(index, keys(word)) for word in words)) - taken
            if matches:
                return matches if len(matches) == 1 else set()
        matches = set()
        for word in words:
            matches |= _union(self._singulars_of_all, _plain(word))
            matches |= _union(self._plain_of_all, singulars(word))
        matches -= taken
        return matches if len(matches) == 1 else set()

    def nearest(self, name: str) -> str | None:
        """The name that is written most alike, for a message, or None where none is."""
        by_key = {next(iter(_plain(known))): known for known in self.names}
        close = difflib.get_close_matches(next(iter(_plain(name))), by_key, n=1, cutoff=0.6)
        return by_key[close[0]] if close else None


def singulars(name: str) -> set[str]:
    """What the name may be the plural of, as its spelling has it: the last word is looked at.

    >>> sorted(singulars("wine glasses"))
    ['wine glass', 'wine glasse']
    """
    (plain,) = _plain(name)
    start, _, last = plain.rpartition(" ")
    ends = {IRREGULAR[last]} if last in IRREGULAR else set()
    if len(last) > 3 and last.endswith("s") and not last.endswith(("ss", "us", "is")):
        ends.add(last[:-1])
    if len(last) > 3 and last.endswith("es"):
        ends.add(last[:-2])
    if len(last) > 4 and last.endswith("ies"):
        ends.add(last[:-3] + "y")
    if len(last) > 4 and last.endswith("ves"):
        ends |= {last[:-3] + "f", last[:-3] + "fe"}
    if len(last) > 4 and last.endswith("i"):
        ends.add(last[:-1] + "us")
    return {f"{start} {word}".strip() for word in ends}


def _exact(name: str) -> set[str]:
    return {name}


def _cased(name: str) -> set[str]:
    """Letter case and extra blanks aside."""
    return {" ".join(name.casefold().split())}


def _plain(name: str) -> set[str]:
    """The form of Unicode, and blanks, underscores and hyphens aside too."""
    composed = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return {re.sub(r"[\s_\-\u2010-\u2015]+", " ", composed).strip() or composed}


def _several(name: str) -> set[str]:
    """The parts of several names that are written as a single name."""
    return set().union(*(_plain(part) for part in re.split(r"[;|,/]", name) if part.strip()))


def _compact(name: str) -> set[str]:
    (plain,) = _plain(name)
    return {plain.replace(" ", "")}


def _indexed(classes: Iterable[tuple[int, Sequence[str]]], keys: Keys) -> dict[str, set[int]]:
    index: dict[str, set[int]] = {}
    for k, words in classes:
        for word in words:
            for key in keys(word):
                index.setdefault(key, set()).add(k)
    return index


def _union(index: dict[str, set[int]], keys: Iterable[str]) -> set[int]:
    return set[int]().union(*(index.get(key, set()) for key in keys))
