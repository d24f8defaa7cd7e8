"""The grammar that the tagger was trained on, and that its test captions are not of it."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def grammar():
    """`scripts/bundle/caption_grammar.py`, which is no part of the package."""
    sys.path.insert(0, str(ROOT / "scripts" / "bundle"))
    try:
        path = ROOT / "scripts" / "bundle" / "caption_grammar.py"
        spec = importlib.util.spec_from_file_location("caption_grammar", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "scripts" / "bundle"))


def joined(words, spaces):
    return "".join(word + " " * space for word, space in zip(words, spaces, strict=True))


def test_the_same_seed_gives_the_same_captions(grammar):
    assert grammar.captions(50, 3) == grammar.captions(50, 3) != grammar.captions(50, 4)


def test_captions_are_cut_as_spacy_cuts_them(grammar):
    import spacy

    tokenizer = spacy.blank("en").tokenizer
    wrong = [
        words
        for words, _, spaces in grammar.captions(600, 1)
        if [token.text for token in tokenizer(joined(words, spaces))] != words
    ]
    assert len(wrong) < 6, wrong[:3]


def test_every_word_has_a_tag_and_most_captions_nouns(grammar):
    import train_tagger  # beside it, on the path that the fixture set

    made = grammar.captions(600, 2)
    tags = {tag for _, tags, _ in made for tag in tags}
    assert tags <= train_tagger.TAGS.keys()
    assert all(len(words) == len(tags) == len(spaces) for words, tags, spaces in made)
    assert all({"NN", "NNS"} & set(tags) for _, tags, _ in made)


def test_the_captions_of_the_test_are_not_of_the_grammar(grammar):
    lines = (ROOT / "tests" / "data" / "captions_tagged.tsv").read_text().splitlines()[1:]
    written = {
        line.split("\t")[1].replace("[", "").replace("]", "").rstrip(".").lower() for line in lines
    }
    made = grammar.captions(8000, 0)
    assert not written & {joined(words, spaces).rstrip(".").lower() for words, _, spaces in made}


@pytest.mark.parametrize(
    "word, expected",
    [("dog", "dogs"), ("bus", "buses"), ("puppy", "puppies"), ("toy", "toys"), ("knife", "knives"),
     ("traffic_light", "traffic_lights"), ("wine_glass", "wine_glasses"), ("scissors", "scissors")],
)  # fmt: skip
def test_plurals(grammar, word, expected):
    assert grammar.plural(word) == expected
