"""Classes from the command line, from files and from data sets; templates."""

import pytest

from ovtool.datasets import templates, vocabularies
from ovtool.datasets.vocabularies import Vocabulary
from ovtool.errors import InputError, UsageError


def test_commas_part_classes_and_bars_synonyms():
    parsed = vocabularies.parse_classes(" person |man|  young   woman,tv ")
    assert parsed.classes == (("person", "man", "young woman"), ("tv",))
    assert parsed.names == ("person", "tv")
    assert parsed.words == ("person", "man", "young woman", "tv")
    assert parsed.owner == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--classes is empty"),
        ("  ", "--classes is empty"),
        ("a,,b", "class 2 is empty or only spaces"),
        ("a, ,b", "class 2 is empty or only spaces"),
        ("a,b,", "class 3 is empty or only spaces"),
        ("a|,b", "class 1 is empty or only spaces"),
        ("cat,dog,cat", "'cat' is named twice"),
        ("cat,Cat", "'cat' is named twice"),
        ("cat|kitten,dog|kitten", "'kitten' is named twice"),
    ],
)
def test_classes_that_cannot_be_meant(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        vocabularies.parse_classes(text)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_list_of_names_may_hold_commas():
    assert vocabularies.parse_names(["salt, pepper", "a|b"]).classes == (
        ("salt, pepper",),
        ("a", "b"),
    )
    with pytest.raises(UsageError, match="no class"):
        vocabularies.parse_names([])


def test_a_classes_file_has_a_class_a_line(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffperson; man\r\n\r\ncafé, the\n".encode())
    assert vocabularies.read_classes_file(path).classes == (("person", "man"), ("café, the",))


def test_classes_files_that_are_broken(tmp_path):
    with pytest.raises(InputError, match="cannot read the classes in .*none.txt"):
        vocabularies.read_classes_file(tmp_path / "none.txt")
    path = tmp_path / "classes.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        vocabularies.read_classes_file(path)
    path.write_text("\n  \n")
    with pytest.raises(UsageError, match="names no class"):
        vocabularies.read_classes_file(path)
    path.write_text("cat\ndog;\n")
    with pytest.raises(UsageError, match="line 2 of .* is empty"):
        vocabularies.read_classes_file(path)


def test_background_competes_as_one_last_class_and_yields_to_the_classes():
    words = vocabularies.background_words(None, vocabularies.DEFAULT_BACKGROUND)
    assert words[0] == "background" and "sky" in words
    both = vocabularies.with_background(vocabularies.parse_classes("Sky|heaven,cow"), words)
    assert "sky" not in both.background and "wall" in both.background
    assert both.owner[:3] == [0, 0, 1] and set(both.owner[3:]) == {2}
    assert both.names == ("Sky", "cow")


def test_background_from_the_command_line():
    assert vocabularies.background_words("none", ["sky"]) == ()
    assert vocabularies.background_words("wall, sky") == ("wall", "sky")
    assert vocabularies.background_words(None) == ()
    for wrong in ("", "wall,,sky", "wall,wall"):
        with pytest.raises(UsageError):
            vocabularies.background_words(wrong)


def test_a_vocabulary_needs_names():
    with pytest.raises(UsageError, match="no class"):
        Vocabulary(())
    with pytest.raises(UsageError, match="no name"):
        Vocabulary(((),))


@pytest.mark.parametrize(
    ("name", "count", "at"),
    [
        ("voc20", 20, {0: "aeroplane", 10: "diningtable", 19: "tvmonitor"}),
        ("coco80", 80, {0: "person", 31: "snowboard", 79: "toothbrush"}),
        ("coco171", 171, {79: "toothbrush", 80: "banner", 112: "grass", 170: "wood"}),
        ("ade150", 150, {0: "wall", 7: "bed", 89: "television receiver", 149: "flag"}),
    ],
)
def test_named_vocabularies_have_the_standard_names_in_order(name, count, at):
    names = vocabularies.named(name).names
    assert len(names) == count
    assert {i: names[i] for i in at} == at


def test_names_that_are_no_english_have_a_synonym_that_is():
    words = dict((c[0], c[1:]) for c in vocabularies.named("coco171").classes)
    assert words["wall-brick"] == ("brick wall",) and words["sky-other"] == ("sky",)
    assert all(synonyms for name, synonyms in words.items() if "-" in name)


def test_an_unknown_vocabulary_is_named_with_the_choices():
    with pytest.raises(UsageError, match="unknown vocabulary 'ade'; choose one of voc20"):
        vocabularies.named("ade")


@pytest.mark.parametrize(("name", "count"), [("one", 1), ("pacl", 7), ("vild", 14), ("openai", 80)])
def test_every_template_takes_a_name(name, count):
    sentences = templates.templates(name)
    assert len(set(sentences)) == count
    assert all(s.count("{}") == 1 and "teapot" in s.format("teapot") for s in sentences)


def test_an_unknown_template_set_is_named_with_the_choices():
    with pytest.raises(UsageError, match="unknown template set 'many'; choose one of one, pacl"):
        templates.templates("many")
