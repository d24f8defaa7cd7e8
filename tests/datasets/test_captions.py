"""Captions: what they leave out, what they make up, and that they say nothing else."""

import re

import numpy as np
import pytest

from ovtool.datasets.captions import caption
from ovtool.datasets.nouns import GROUNDS, table

FRAME = set("a an the some picture photo of there is we see here on and with behind".split())
WORDS = {noun.name: (noun.name, *noun.synonyms) for noun in table()}
OWNER = {word: name for name, words in WORDS.items() for word in words}
SHOWN = ("teapot", "apple", "camel")


def named(text):
    """The nouns that a caption names, by synonym or not, in its order."""
    return [OWNER[word] for word in re.findall(r"[a-z]+", text) if word in OWNER]


@pytest.fixture(scope="module")
def spoken():
    rng = np.random.default_rng(0)
    return [caption(rng, SHOWN, ("grass", "sky")) for _ in range(5000)]


def test_each_object_is_left_out_one_time_in_four(spoken):
    for name in SHOWN:
        assert abs(np.mean([name in named(text) for text in spoken]) - 0.75) < 0.025


def test_each_ground_is_left_out_one_time_in_four(spoken):
    """Captions without any object name what grounds they have, so only those with one are counted."""
    full = [text for text in spoken if named(text)]
    for ground in ("grass", "sky"):
        assert abs(np.mean([ground in re.findall("[a-z]+", text) for text in full]) - 0.75) < 0.03


def test_one_caption_in_ten_names_what_is_not_there(spoken):
    stray = [[name for name in named(text) if name not in SHOWN] for text in spoken]
    assert abs(np.mean([len(names) > 0 for names in stray]) - 0.1) < 0.015
    assert max(map(len, stray)) == 1
    assert len({names[0] for names in stray if names}) > 100  # drawn from the whole table
    grounds = {word for text in spoken for word in re.findall("[a-z]+", text) if word in GROUNDS}
    assert grounds == {"grass", "sky"}


def test_one_noun_in_five_is_said_by_a_synonym():
    noun = next(noun for noun in table() if len(noun.synonyms) == 1)
    rng = np.random.default_rng(1)
    texts = [caption(rng, (noun.name,), ("snow",)) for _ in range(3000)]
    texts = [text for text in texts if noun.name in named(text)]
    assert (
        abs(np.mean([noun.synonyms[0] in re.findall("[a-z]+", text) for text in texts]) - 0.2)
        < 0.03
    )


def test_every_word_is_in_the_table_or_the_grammar():
    rng = np.random.default_rng(2)
    names = list(WORDS)
    said = set()
    for _ in range(3000):
        objects = [names[index] for index in rng.integers(len(names), size=rng.integers(1, 6))]
        grounds = [GROUNDS[index] for index in rng.choice(len(GROUNDS), 2, replace=False)]
        text = caption(rng, objects, grounds)
        assert re.fullmatch(r"[a-z ,]+\.?", text) and "  " not in text, text
        said |= set(re.findall("[a-z]+", text))
    assert said <= FRAME | set(OWNER) | set(GROUNDS)
    assert len(said & set(OWNER)) > 220  # nearly every word of the table comes up


def test_nothing_named_twice():
    rng = np.random.default_rng(3)
    for _ in range(300):
        names = named(caption(rng, ("cow", "cow", "duck"), ("grass",)))
        assert len(set(names)) == len(names)


def test_articles():
    rng = np.random.default_rng(4)
    texts = " ".join(
        caption(rng, (name,), ("sand",))
        for name in ("apple", "unicorn", "grapes")
        for _ in range(300)
    )
    assert "an apple" in texts and "a apple" not in texts
    assert "a unicorn" in texts and "an unicorn" not in texts
    assert "some grapes" in texts and "a grapes" not in texts


def test_a_caption_is_never_empty():
    rng = np.random.default_rng(5)
    for _ in range(500):
        text = caption(rng, ("teapot",), ("wood",))
        assert named(text) or "wood" in text
        assert caption(rng, (), ("wood",)).split()


def test_a_function_of_its_generator():
    def texts(seed):
        rng = np.random.default_rng(seed)
        return [caption(rng, SHOWN, ("grass",)) for _ in range(20)]

    assert texts(6) == texts(6) != texts(7)
