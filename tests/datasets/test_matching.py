"""Truth and prediction as one numbering: which class is which, however it is spelt, and which image."""

import numpy as np
import pytest

from ovtool.datasets.matching import Classes, match_images
from ovtool.datasets.name_matching import KnownNames
from ovtool.errors import InputError, MismatchError
from ovtool.formats.labelled import LabelledImages


def side(source, classes=("a",), names=("a.jpg",), by_stem=False):
    listed = tuple(one if isinstance(one, tuple) else (one,) for one in classes)
    return LabelledImages(
        source, listed, tuple(names), lambda name: np.zeros((1, 1), np.int32), by_stem
    )


def classes(predicted, true, with_background=False):
    return Classes(side("T", true), side("P", predicted), with_background, ())


def numbers(found, count):
    """The true class of each predicted one."""
    return found.prediction(np.arange(count, dtype=np.int32), "x").tolist()


SPELLINGS = [
    ("traffic_light", "traffic light"),
    ("traffic-light", "Traffic Light"),
    ("Traffic_Light", "traffic light"),
    ("TV", "tv"),
    ("caf\u00e9", "cafe\u0301"),
    ("rail", "rails"),
    ("rails", "rail"),
    ("bricks", "brick"),
    ("grape", "grapes"),
    ("cherries", "cherry"),
    ("vases", "vase"),
    ("axes", "axe"),
    ("buses", "bus"),
    ("wine glasses", "wine glass"),
    ("men", "man"),
    ("cacti", "cactus"),
    ("knives", "knife"),
    ("leaves", "leaf"),
    ("potatoes", "potato"),
    ("door", "door;double door"),
    ("double door", "door;double door"),
    ("building, edifice", "building"),
    ("tvmonitor", "tv monitor"),
    ("potted plant", "pottedplant"),
]


@pytest.mark.parametrize(("predicted", "true"), SPELLINGS)
def test_other_spellings_are_matched_and_said(predicted, true):
    found = classes(["cat", predicted], [true, "cat"])
    assert numbers(found, 2) == [1, 0]
    assert found.respelled == ((predicted, true),) and found.unmatched == ()
    (line,) = found.notes()
    assert f"'{predicted}' is '{true}'" in line
    found.check_in_common()


@pytest.mark.parametrize(
    ("predicted", "true"),
    [
        ("glass", "grass"),
        ("bus", "bu"),
        ("grass", "gras"),
        ("chair", "armchair"),
        ("as", "a"),
        ("light", "traffic light"),
    ],
)
def test_other_words_are_not_matched(predicted, true):
    found = classes(["cat", predicted], [true, "cat"])
    assert numbers(found, 2) == [1, -1]
    assert [name for name, _ in found.unmatched] == [predicted]


def test_the_very_name_comes_first():
    found = classes(["glasses", "glass", "Glass"], ["glass", "glasses"])
    assert numbers(found, 3) == [1, 0, 0]
    assert found.respelled == (("Glass", "glass"),)
    # where the truth knows one of them alone, the other is another class
    assert numbers(classes(["glasses", "glass"], ["glass"]), 2) == [-1, 0]
    # in a set of the very names nothing is said
    assert classes(["a", "b"], ["b", "a", "c"]).notes() == []


def test_declared_synonyms_are_no_other_spelling():
    found = classes([("heaven", "Sky"), "lawn"], ["sky", ("grass", "lawn")])
    assert numbers(found, 2) == [0, 1]
    assert found.notes() == []


def test_names_that_could_be_two_classes_are_not_guessed():
    found = classes(["cat", "door"], ["cat", "door;gate", "door;hatch"])
    assert numbers(found, 2) == [0, -1]
    with pytest.raises(MismatchError, match="could be any of cow, sky"):
        classes([("animal", "cow", "sky")], ["cow", "sky"])


def test_classes_of_no_truth_are_listed_with_the_nearest():
    found = classes(["cat", "zeppelin", "trafic lamp"], ["cat", "traffic lamps and lights"])
    assert found.unmatched == (("zeppelin", None), ("trafic lamp", "traffic lamps and lights"))
    (line,) = found.notes()
    assert "2 of the 3 predicted classes are none of the truth" in line
    assert "'trafic lamp' (nearest: 'traffic lamps and lights')" in line


def test_no_class_in_common_is_refused_with_the_likely_cause():
    found = classes(["object"], ["cat", "dog"])
    with pytest.raises(MismatchError, match="object, and cat, dog.*did you mean --metric recall"):
        found.check_in_common()
    classes([], ["cat"]).check_in_common()  # nothing is predicted, and nothing amiss
    classes(["background", "x"], ["cat"], with_background=True).check_in_common()


def test_words_to_choose_from_are_matched_alike():
    found = classes(["cat"], ["cat", "traffic light", "rails"])
    labels = np.array([0, 1, 2], np.int32)
    assert found.truth(labels, "x", ["traffic_light", "rail"]).tolist() == [-1, 1, 2]
    assert found.truth(labels, "x", ["Cat"]).tolist() == [0, -1, -1]


def test_the_nearest_of_known_names():
    known = KnownNames([("traffic light",), ("rails",)])
    assert known.nearest("traffic_ligth") == "traffic light"
    assert known.nearest("zebra") is None


@pytest.mark.parametrize(
    ("predicted", "true", "pairs"),
    [
        (["a.jpg", "b.jpg"], ["b.jpg", "a.jpg"], {"a.jpg": "a.jpg", "b.jpg": "b.jpg"}),
        (["a.png"], ["a.jpg"], {"a.png": "a.jpg"}),
        (["a.jpg", "b.jpg"], ["a.jpg", "x/b.jpg"], {"a.jpg": "a.jpg"}),
        (["a.jpg"], ["x/a.jpg"], {"a.jpg": "x/a.jpg"}),
    ],
)
def test_images(predicted, true, pairs):
    assert match_images(side("T", names=true), side("P", names=predicted)) == pairs


def test_names_of_label_maps_may_have_dots():
    maps, jpegs = ["IMG.1", "IMG.2"], ["IMG.2.jpg", "IMG.1.jpg"]
    pairs = match_images(side("T", names=jpegs), side("P", names=maps, by_stem=True))
    assert pairs == {"IMG.1": "IMG.1.jpg", "IMG.2": "IMG.2.jpg"}


def test_maps_of_one_folder_are_not_those_of_another():
    with pytest.raises(InputError, match="no image in common"):
        match_images(side("T", names=["y/a.jpg"]), side("P", names=["x/a"], by_stem=True))
    with pytest.raises(InputError, match="cannot be told apart"):
        match_images(side("T", names=["a"], by_stem=True), side("P", names=["a.jpg", "a.png"]))


def test_label_maps_that_add_one_ending_are_of_their_images():
    truth = side("T", names=("a_1_L", "b_2_L"), by_stem=True)
    assert match_images(truth, side("P", names=("a_1.jpg", "b_2.jpg"))) == {
        "a_1.jpg": "a_1_L",
        "b_2.jpg": "b_2_L",
    }
