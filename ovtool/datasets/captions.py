"""Captions of collage scenes, from a small grammar.

A caption leaves each object out one time in four, and one caption in ten names something that is not
there: captions on the web are no better.
"""

from collections.abc import Sequence

import numpy as np

from ovtool.datasets.nouns import GROUNDS, Noun, table

LEAVE_OUT = 0.25
STRAY_WORD = 0.1
SYNONYM = 0.2

_ONE_GROUND = ("{} on {}", "{} and {}", "{}, with {} behind", "a picture of {} on {}", "{} with {}")
_NO_GROUND = ("{}", "a picture of {}", "there is {}", "a photo of {}.", "we see {} here")
_PLURAL = frozenset(
    ("grapes", "cherries", "fries", "noodles", "glasses", "skis", "headphones", "dice")
)


def spoken(rng: np.random.Generator, noun: Noun) -> str:
    """The noun as a caption says it, with its article; a synonym at times."""
    word = noun.name
    if noun.synonyms and rng.random() < SYNONYM:
        word = noun.synonyms[rng.integers(len(noun.synonyms))]
    if noun.name in _PLURAL:
        return f"some {word}"
    if rng.random() < 0.25:
        return f"the {word}"
    return f"an {word}" if word[0] in "aeiou" and not word.startswith("un") else f"a {word}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def caption(rng: np.random.Generator, objects: Sequence[str], grounds: Sequence[str]) -> str:
    """One caption of a scene that shows `objects` (names, doubled ones allowed) on `grounds`."""
    nouns = {noun.name: noun for noun in table()}
    present = list(dict.fromkeys(objects))
    named = [nouns[name] for name in present if rng.random() >= LEAVE_OUT]
    if rng.random() < STRAY_WORD:
        absent = [noun for noun in table() if noun.name not in present]
        named.append(absent[rng.integers(len(absent))])
    order = rng.permutation(len(named))
    words = [spoken(rng, named[index]) for index in order]
    seen = [ground for ground in grounds if ground in GROUNDS and rng.random() >= LEAVE_OUT]
    if words and seen:
        form = _ONE_GROUND[rng.integers(len(_ONE_GROUND))]
        return form.format(_listed(words), _listed(seen))
    if not words and not seen:
        words = [spoken(rng, nouns[present[0]])] if present else [grounds[0]]
    return _NO_GROUND[rng.integers(len(_NO_GROUND))].format(_listed(words or seen))
