"""Which words mean the same as a background word, a kind of it, or something more general.

Beside such a word a built-in background word does not compete: "person" against "man" would take half of each man.
`related_words.tsv` holds nouns of WordNet (`scripts/bundle/related_words.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources

from ovtool.datasets.name_matching import singulars
from ovtool.datasets.vocabularies import folded


def are_related(word: str, background: str) -> bool:
    """Whether a word names the same as a background word, a kind of it, or something more general.

    A compound is a kind of its last word: a palm tree is a tree.
    """
    words, backgrounds = ({folded(name), *singulars(folded(name))} for name in (word, background))
    nouns = {noun for own in backgrounds for noun in _table().get(own, ())}
    ends = tuple(f" {own}" for own in backgrounds)
    return any(name in nouns | backgrounds or name.endswith(ends) for name in words)


def background_of(word: str) -> str | None:
    """The background word of which a word names a kind: "road" of "alley"; None where there is none, or where the
    word is so general that it has to do with several.
    """
    return _kinds().get(folded(word))


@functools.cache
def _kinds() -> Mapping[str, str]:
    """Noun to the one background word that it is related to, of two the rarer."""
    related: dict[str, list[str]] = {}
    for background, nouns in _table().items():
        for noun in nouns:
            related.setdefault(noun, []).append(background)
    few = {noun: words for noun, words in related.items() if len(words) <= 2}
    return {noun: min(words, key=lambda word: len(_table()[word])) for noun, words in few.items()}


@functools.cache
def _table() -> Mapping[str, tuple[str, ...]]:
    """Background word to the nouns that are related to it."""
    file = resources.files("ovtool.datasets").joinpath("related_words.tsv")
    lines = (line.split("\t") for line in file.read_text(encoding="utf-8").splitlines())
    return {word: tuple(nouns.split(", ")) for word, nouns in lines}
