"""Beside which words a background word does not compete."""

import pytest

from ovtool.datasets.related_words import are_related, background_of


@pytest.mark.parametrize(
    "word, background",
    [
        ("man", "person"),  # a kind of it
        ("Women", "person"),
        ("desk", "table"),
        ("coffee table", "table"),  # a compound
        ("palm trees", "tree"),
        ("furniture", "table"),  # more general
        ("sidewalk", "pavement"),  # the same
        ("lake", "water"),
        ("brick", "bricks"),
        ("sky", "sky"),
    ],
)
def test_words_that_mean_the_same_a_kind_or_more(word, background):
    assert are_related(word, background)


@pytest.mark.parametrize(
    "word, background",
    [("cat", "person"), ("sofa", "table"), ("printer", "person"), ("dog", "bricks"), ("car", "x")],
)
def test_all_others(word, background):
    assert not are_related(word, background)


@pytest.mark.parametrize(
    ("word", "background"),
    [("alley", "road"), ("Skyscraper", "building"), ("pond", "water"), ("mother", "person")]
    + [("boy", "person"), ("shakespeare", None)]  # the name of a person is no kind
    + [("object", None), ("entity", None), ("quux", None)],
)
def test_the_background_word_of_a_kind(word, background):
    assert background_of(word) == background
