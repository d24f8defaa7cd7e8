"""Sentences in the manner of image captions, with the tag of every word, from a grammar.

They teach a tagger what newspapers and letters do not: articles that are missing, lists, compounds,
words such as surfboard and teapot. The collage captions of `ovtool.datasets.captions` are among
them, tagged by their own small grammar.
"""

import random
from functools import cache

from caption_words import (
    ABSTRACT,
    ADJECTIVES,
    ANIMALS,
    EVENTS,
    FOOD,
    GROUPS,
    IRREGULAR,
    NUMBERS,
    PEOPLE,
    PLACES,
    PLURAL_ONLY,
    PREPOSITIONS,
    STATES,
    THINGS,
    UNCOUNTED,
    VEHICLES,
    VERBS_ALONE,
    VERBS_WITH_OBJECT,
    VIEWS,
)

Tagged = list[tuple[str, str]]  # words with their Penn tags

SCENERY = THINGS + VEHICLES + FOOD
_COUNTED = [word for word in SCENERY + ANIMALS + PEOPLE if word not in UNCOUNTED]


@cache
def _verbs(text: str) -> list[list[str]]:
    return [entry.split() for entry in text.split("|")]


@cache
def _collage_words() -> tuple[frozenset[str], frozenset[str]]:
    """All nouns of the collage world, and those of them that are plural."""
    from ovtool.datasets.captions import _PLURAL
    from ovtool.datasets.nouns import GROUNDS, table

    words = {word for noun in table() for word in (noun.name, *noun.synonyms)}
    return frozenset((*words, *GROUNDS)), frozenset((*_PLURAL, "bricks", "rails"))


def plural(word: str) -> str:
    """The plural of a noun; of a compound, that of its last word."""
    head, _, last = word.rpartition("_")
    if last in PLURAL_ONLY or last in UNCOUNTED:
        made = last
    elif last in IRREGULAR:
        made = IRREGULAR[last]
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        made = last + "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        made = last[:-1] + "ies"
    else:
        made = last + "s"
    return f"{head}_{made}" if head else made


class Grammar:
    """Captions drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def one(self, words: list[str]) -> str:
        return self.rng.choice(words)

    def noun(self, word: str, many: bool = False) -> Tagged:
        """A noun with the tags of its parts; adjectives and participles in compounds keep theirs."""
        tag = "NNS" if many or word in PLURAL_ONLY else "NN"
        parts = (plural(word) if many else word).split("_")
        modifiers = {"hot": "JJ", "french": "JJ", "polar": "JJ", "whipped": "VBN", "remote": "JJ"}
        head = [(part, modifiers.get(part, "NN")) for part in parts[:-1]]
        return [*head, (parts[-1], tag)]

    def adjectives(self) -> Tagged:
        if not self.chance(0.4):
            return []
        tagged: Tagged = [(self.one(ADJECTIVES), "JJ")]
        if self.chance(0.15):
            other = (self.one(ADJECTIVES), "JJ")
            tagged += [("and", "CC"), other] if self.chance(0.5) else [other]
        return tagged

    def phrase(self, words: list[str], articles: float = 0.8) -> Tagged:
        """A noun phrase around one of the words."""
        word = self.one(words)
        draw = self.rng.random()
        inner = self.adjectives()
        if self.chance(0.06) and word not in PLURAL_ONLY:  # another noun before it
            inner += self.noun(self.one(THINGS + FOOD + PLACES))
        if word in UNCOUNTED:
            lead: Tagged = [(self.one(["some", "the", "the", "her", "its"]), "DT")]
            if lead[0][0] in ("her", "its"):
                lead = [(lead[0][0], "PRP$")]
            return [*(lead if self.chance(0.4) else []), *inner, *self.noun(word)]
        if draw < 0.12:
            return [(self.one(NUMBERS), "CD"), *inner, *self.noun(word, many=True)]
        if draw < 0.3 or word in PLURAL_ONLY:
            quantity = self.one(["some", "several", "many", "the", "", "", "", "various"])
            tags = {"some": "DT", "the": "DT"}
            lead = [(quantity, tags.get(quantity, "JJ"))] if quantity else []
            return [*lead, *inner, *self.noun(word, many=True)]
        tagged = [*inner, *self.noun(word)]
        if not self.chance(articles):
            return tagged
        if self.chance(0.08):
            return [(self.one(["his", "her", "its", "their"]), "PRP$"), *tagged]
        first = tagged[0][0]
        article = "the" if self.chance(0.25) else "an" if first[0] in "aeiou" else "a"
        return [(article, "DT"), *tagged]

    def listed(self, words: list[str], articles: float) -> Tagged:
        """Two to five phrases with commas and an `and`."""
        count = self.rng.choice([2, 2, 3, 3, 4, 5])
        comma = self.chance(0.5)
        bare = self.chance(0.35)
        tagged: Tagged = []
        for index in range(count):
            if index == count - 1:
                tagged += [(",", ",")] if comma and count > 2 else []
                tagged += [(self.one(["and", "and", "and", "&", "or"]), "CC")]
            elif index:
                tagged += [(",", ",")]
            if bare:
                word = self.one(words)
                tagged += self.noun(word, many=self.chance(0.35) and word not in UNCOUNTED)
            else:
                tagged += self.phrase(words, articles)
        return tagged

    def place(self, articles: float) -> Tagged:
        """A preposition and where."""
        draw = self.rng.random()
        if draw < 0.08:
            where = self.rng.choice(
                [
                    [("on", "IN"), ("top", "NN"), ("of", "IN")],
                    [("in", "IN"), ("front", "NN"), ("of", "IN")],
                    [("on", "IN"), ("the", "DT"), ("side", "NN"), ("of", "IN")],
                    [("in", "IN"), ("the", "DT"), ("middle", "NN"), ("of", "IN")],
                    [("at", "IN"), ("the", "DT"), ("edge", "NN"), ("of", "IN")],
                ]
            )
            return [*where, *self.phrase(PLACES + THINGS, articles)]
        if draw < 0.16:
            return [("next", "JJ"), ("to", "IN"), *self.phrase(PLACES + THINGS, articles)]
        if draw < 0.22:
            when = self.one(ABSTRACT)
            return [(self.one(["in", "at", "during"]), "IN"), ("the", "DT"), (when, "NN")]
        if draw < 0.26:
            return self.rng.choice(
                [
                    [("together", "RB")],
                    [("outside", "RB")],
                    [("at", "IN"), ("night", "NN")],
                    [("next", "JJ"), ("to", "IN"), ("each", "DT"), ("other", "JJ")],
                    [("during", "IN"), ("the", "DT"), ("day", "NN")],
                    [("in", "IN"), ("the", "DT"), ("background", "NN")],
                ]
            )
        return [(self.one(PREPOSITIONS), "IN"), *self.phrase(PLACES + THINGS + VEHICLES, articles)]

    def group(self) -> Tagged:
        """`a herd of cows`, `three slices of pizza`, `a close up of a cat`."""
        draw = self.rng.random()
        if draw < 0.2:
            view = self.one(VIEWS)
            return [("a", "DT"), *self.adjectives(), (view, "NN"), ("of", "IN")] + self.phrase(
                SCENERY + ANIMALS + PEOPLE + PLACES
            )
        word, tag = self.one(GROUPS), "NN"
        lead: Tagged = [("a", "DT")] if self.chance(0.9) else []
        if not lead and self.chance(0.5):
            lead, word, tag = [(self.one(NUMBERS), "CD")], plural(word), "NNS"
        inside = self.one(_COUNTED)
        tail = self.noun(inside, many=True)
        return [*lead, *self.adjectives(), (word, tag), ("of", "IN"), *self.adjectives(), *tail]

    def subject(self, articles: float) -> Tagged:
        draw = self.rng.random()
        if draw < 0.15:
            return self.group()
        if draw < 0.25:
            return self.listed(PEOPLE + ANIMALS, articles)
        words = PEOPLE if draw < 0.55 else ANIMALS if draw < 0.8 else VEHICLES
        return self.phrase(words, articles)

    def action(self, articles: float) -> Tagged:
        """What is done: `riding a wave`, `sits on a bench`, `is holding a bat`."""
        form = self.rng.random()
        auxiliary: Tagged = []
        if self.chance(0.5):
            _, ing, s, *_ = verb = self.rng.choice(_verbs(VERBS_WITH_OBJECT))
            tail = self.phrase(SCENERY + ANIMALS, articles)
        else:
            _, ing, s, *_ = verb = self.rng.choice(_verbs(VERBS_ALONE))
            tail = []
        if form < 0.5:
            word = [(ing, "VBG")]
        elif form < 0.65:
            auxiliary = [("is", "VBZ")] if self.chance(0.7) else [("are", "VBP")]
            word = [(ing, "VBG")]
        elif form < 0.8:
            word = [(s, "VBZ")]
        elif form < 0.9:
            word = [(verb[0], "VBP")]
        elif form < 0.95:
            auxiliary = [(self.one(["trying", "about", "getting", "ready"]), "JJ"), ("to", "TO")]
            auxiliary[0] = (auxiliary[0][0], "VBG" if auxiliary[0][0].endswith("ing") else "JJ")
            word = [(verb[0], "VB")]
        else:
            word = [(ing, "VBG"), ("and", "CC"), (self.rng.choice(_verbs(VERBS_ALONE))[1], "VBG")]
        return [*auxiliary, *word, *tail]

    def sentence(self) -> Tagged:
        """One caption, lower case, without a full stop."""
        articles = self.rng.choice([0.95, 0.95, 0.9, 0.5, 0.1])
        draw = self.rng.random()
        if draw < 0.38:
            end = self.place(articles) if self.chance(0.75) else []
            return [*self.subject(articles), *self.action(articles), *end]
        if draw < 0.5:
            be = ("is", "VBZ") if self.chance(0.5) else ("are", "VBP")
            tail = self.listed(SCENERY + ANIMALS, articles)
            if self.chance(0.4):
                tail = self.phrase(SCENERY + ANIMALS)
            return [("there", "EX"), be, *tail, *(self.place(articles) if self.chance(0.3) else [])]
        if draw < 0.62:
            parts = self.listed(FOOD if self.chance(0.5) else THINGS, articles)
            base = self.phrase(THINGS + PLACES)
            return [*base, (self.one(["with", "of", "and"]), "IN"), *parts]
        if draw < 0.74:
            state = [(self.one(STATES), "VBN")]
            lead = self.rng.choice([[], [], [("is", "VBZ")], [("that", "WDT"), ("is", "VBZ")]])
            return [*self.phrase(SCENERY + PLACES, articles), *lead, *state, *self.place(articles)]
        if draw < 0.84:
            return [*self.phrase(SCENERY, articles), *self.place(articles)]
        if draw < 0.9:
            return [*self.group(), *(self.place(articles) if self.chance(0.5) else [])]
        if draw < 0.95:
            return self.listed(SCENERY + ANIMALS, articles)
        event = self.one(EVENTS)
        return [*self.subject(articles), ("during", "IN"), ("a", "DT"), (event, "NN")]

    def collage(self) -> Tagged:
        """A caption of the collage world, tagged by its words."""
        import numpy as np

        from ovtool.datasets.captions import caption
        from ovtool.datasets.nouns import GROUNDS, table

        words, plurals = _collage_words()
        rng = np.random.default_rng(self.rng.randrange(2**32))
        objects = [table()[i].name for i in rng.choice(len(table()), rng.integers(1, 5))]
        text = caption(rng, objects, [GROUNDS[rng.integers(len(GROUNDS))]])
        tags = {"with": "IN", "on": "IN", "of": "IN", "behind": "RB", "here": "RB", "and": "CC",
                "a": "DT", "an": "DT", "the": "DT", "some": "DT", "there": "EX", "is": "VBZ",
                "we": "PRP", "see": "VBP", "picture": "NN", "photo": "NN", ",": ",", ".": "."}  # fmt: skip
        tagged: Tagged = []
        for word in text.replace(",", " ,").replace(".", " .").split():
            known = "NNS" if word in plurals else "NN" if word in words else None
            tagged.append((word, known or tags.get(word, "NN")))
        return tagged

    def caption(self) -> Tagged:
        """One caption as people write them: with a capital and a full stop, or without."""
        tagged = self.collage() if self.chance(0.12) else self.sentence()
        if self.chance(0.5) and tagged[-1][1] != ".":
            tagged = [*tagged, (".", ".")]
        if self.chance(0.65):
            word, tag = tagged[0]
            tagged = [(word[0].upper() + word[1:], tag), *tagged[1:]]
        return _split_hyphens(tagged)


def _split_hyphens(words: Tagged) -> Tagged:
    """Words as spaCy cuts them: a hyphen between letters is a word of its own."""
    tagged: Tagged = []
    for word, tag in words:
        first, *rest = word.split("-")
        if not rest:
            tagged.append((word, tag))
            continue
        tagged.append((first, "JJ" if tag == "JJ" else "NN"))
        for part in rest:
            tagged += [("-", "HYPH"), (part, "NN" if tag == "JJ" else tag)]
    return tagged


def text(words: Tagged) -> tuple[list[str], list[bool]]:
    """The words of a caption, and whether a space follows each."""
    forms = [word for word, _ in words]
    spaces = [True] * len(forms)
    spaces[-1] = False
    for index, (_, tag) in enumerate(words):
        if index and tag in (",", ".", "HYPH"):
            spaces[index - 1] = False
        if tag == "HYPH":
            spaces[index] = False
    return forms, spaces


def captions(count: int, seed: int) -> list[tuple[list[str], list[str], list[bool]]]:
    """Captions as words, tags and spaces."""
    grammar = Grammar(seed)
    made = [grammar.caption() for _ in range(count)]
    cut = [text(words) for words in made]
    return [
        (forms, [tag for _, tag in words], spaces)
        for words, (forms, spaces) in zip(made, cut, strict=True)
    ]
