"""Which words mean the same, a kind of, or something more general than a background word.

Such a background word does not compete where it was not asked for by itself: "person" against "man" would take half
of each man. `related_words.tsv` holds nouns of WordNet (`scripts/bundle/related_words.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources

from ovtool.datasets.irregular_nouns import IRREGULAR
from ovtool.datasets.vocabularies import folded

_PLURALS = (("ies", "y"), ("ves", "f"), ("es", ""), ("s", ""))


def singulars(word: str) -> list[str]:
    """The words of which this one may be the regular plural."""
    return [
        word.removesuffix(plural) + singular
        for plural, singular in _PLURALS
        if word.endswith(plural) and len(word) > len(plural) + 1
    ]


def are_related(word: str, background: str) -> bool:
    """Whether a word names the same as a background word, a kind of it, or something more general.

    A compound is a kind of its last word: a palm tree of tree.
    """
    first, second = _forms(word), _forms(background)
    nouns = frozenset[str]().union(*(_table().get(form, frozenset()) for form in second))
    return any(
        form in nouns or any(form == own or form.endswith(f" {own}") for own in second)
        for form in first
    )


def _forms(word: str) -> set[str]:
    """A word in small letters, and what it may be the plural of."""
    plain = folded(word)
    return {plain, IRREGULAR.get(plain, plain), *singulars(plain)}


@functools.cache
def _table() -> Mapping[str, frozenset[str]]:
    """Background word to the nouns that are related to it."""
    file = resources.files("ovtool.datasets").joinpath("related_words.tsv")
    lines = (line.split("\t") for line in file.read_text(encoding="utf-8").splitlines())
    return {word: frozenset(nouns.split(", ")) for word, nouns in lines}
