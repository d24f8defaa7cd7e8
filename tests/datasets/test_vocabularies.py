"""Classes from the command line, from files and from data sets; templates."""

import pytest

from ovtool.datasets import templates, vocabularies
from ovtool.datasets.vocabularies import Vocabulary
from ovtool.errors import InputError, UsageError
from ovtool.inputs.words import WordSet


def test_commas_part_classes_and_bars_synonyms():
    parsed = vocabularies.parse_classes(" person |man|  young   woman,tv ")
    assert parsed.classes == (("person", "man", "young woman"), ("tv",))
    assert parsed.names == ("person", "tv")


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
    with pytest.raises(InputError, match="no such file: .*none.txt"):
        vocabularies.read_classes_file(tmp_path / "none.txt")
    path = tmp_path / "classes.txt"
    path.write_bytes(b"\xe9t\xe9\n")
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
    assert both.classes == (("Sky", "heaven"), ("cow",))


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


@pytest.mark.parametrize("name", vocabularies.known())
def test_both_kinds_of_names_are_of_the_same_classes(name):
    official, clip = vocabularies.named(name), vocabularies.named(name, "clip")
    assert official.ids == clip.ids and len(official.classes) == len(clip.classes)
    every = vocabularies.all_names(name)
    assert every.names == official.names
    for own, shown, known in zip(official.classes, clip.classes, every.classes, strict=True):
        assert set(own) <= set(known) and (set(shown) & set(known))


def test_names_that_published_code_shows_to_a_clip():
    """From cls_voc20.txt of SCLIP's configs; plain words where there is no such file."""
    shown = dict(zip(range(1, 21), vocabularies.named("voc20", "clip").classes, strict=True))
    assert shown[4] == ("ship",) and shown[11] == ("table",) and shown[1] == ("aeroplane",)
    assert shown[15][:2] == ("person", "person in shirt") and len(shown[20]) == 5
    stuff = dict(
        zip(
            *(vocabularies.named("coco171", kind).names for kind in ("official", "clip")),
            strict=True,
        )
    )
    assert stuff["wall-brick"] == "brick wall" and stuff["grass"] == "grass"


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


@pytest.mark.parametrize(
    "text",
    ["cow,grass", "cow，grass", "cow、grass", "cow، grass", "“cow”, “grass”", "'cow,grass'", '"cow","grass"',
     '["cow", "grass"]', "„cow“,«grass»"],
)  # fmt: skip
def test_words_as_other_keyboards_and_shells_give_them(text):
    assert vocabularies.parse_classes(text).names == ("cow", "grass")


@pytest.mark.parametrize("text", ["dog's bed", '5" disk', "[cow", "[1]", "3", "'tis"])
def test_quotation_marks_of_a_name_stay(text):
    assert vocabularies.parse_classes(text).names == (text,)


@pytest.mark.parametrize("text", ["", "  ", "[]", " [ ] "])
def test_no_words_are_called_so(text):
    with pytest.raises(UsageError, match="--classes is empty; name some, such as"):
        vocabularies.parse_classes(text)


GRAMMAR = [
    ("door;double door", ("door", "double door")),
    ("door|double door", ("door", "double door")),
    ("door | double  door;doors", ("door", "double door", "doors")),
    (r"A\;B", ("A;B",)),
    (r"A\|B", ("A|B",)),
    (r"back\\slash", ("back\\slash",)),
    (r"a\b", (r"a\b",)),
    ("fire_truck", ("fire_truck",)),
    ("fire_truck|fire truck", ("fire_truck", "fire truck")),
    (r"\#1", ("#1",)),
    ("C#", ("C#",)),
    ("горячая собака|热狗", ("горячая собака", "热狗")),
]


@pytest.mark.parametrize(("text", "names"), GRAMMAR)
def test_the_words_of_a_class_are_written_alike_everywhere(tmp_path, text, names):
    (tmp_path / "classes.txt").write_text(f"first\n{text}\n", encoding="utf-8")
    expected = (("first",), names)
    assert vocabularies.parse_classes(f"first,{text}").classes == expected
    assert vocabularies.read_classes_file(tmp_path / "classes.txt").classes == expected
    assert vocabularies.parse_names(["first", text]).classes == expected
    assert vocabularies.background_words(f"first,{text}") == ("first", *names)


def test_a_comma_of_a_name(tmp_path):
    assert vocabularies.parse_classes(r"salt\, pepper|spices,tv").classes == (
        ("salt, pepper", "spices"),
        ("tv",),
    )
    (tmp_path / "classes.txt").write_text("salt, pepper;spices\nsalt\\, sugar\n")
    assert vocabularies.read_classes_file(tmp_path / "classes.txt").classes == (
        ("salt, pepper", "spices"),
        ("salt, sugar",),
    )


def test_comments_are_skipped_in_files(tmp_path):
    text = "# animals\ncow\n  # things\n\nteapot;pot\n"
    (tmp_path / "classes.txt").write_text(text)
    assert vocabularies.read_classes_file(tmp_path / "classes.txt").classes == (
        ("cow",),
        ("teapot", "pot"),
    )
    (tmp_path / "classes.txt").write_text("# nothing\n")
    with pytest.raises(UsageError, match="names no class"):
        vocabularies.read_classes_file(tmp_path / "classes.txt")


def test_names_are_read_with_blanks_for_underscores():
    assert vocabularies.spoken("fire_truck") == "fire truck"
    assert vocabularies.spoken("wall-brick") == "wall-brick"
    assert vocabularies.spoken("_a__b_") == "a b"


@pytest.mark.parametrize("text", ["fire_truck,fire truck", "caf\u00e9,cafe\u0301", "a b,A_B"])
def test_two_spellings_of_one_name_are_no_two_classes(text):
    with pytest.raises(UsageError, match="named twice"):
        vocabularies.parse_classes(text)


def test_background_yields_to_another_spelling_too():
    classes = vocabularies.parse_classes("brick_wall")
    assert vocabularies.with_background(classes, ["brick wall", "sky"]).background == ("sky",)


# From the annotation files of COCO 2017 and the label list of COCO-Stuff.
@pytest.mark.parametrize(
    ("vocabulary", "ids"),
    [
        ("coco80", {"person": 1, "fire hydrant": 11, "stop sign": 13, "backpack": 27, "handbag": 31,
                    "bottle": 44, "wine glass": 46, "bed": 65, "dining table": 67, "toilet": 70,
                    "tv": 72, "sink": 81, "refrigerator": 82, "book": 84, "toothbrush": 90}),
        ("coco171", {"person": 1, "toothbrush": 90, "banner": 92, "grass": 124, "sky-other": 157,
                     "tree": 169, "wood": 182}),
        ("voc20", {"aeroplane": 1, "tvmonitor": 20}),
        ("ade150", {"wall": 1, "flag": 150}),
        ("pc59", {"aeroplane": 1, "pottedplant": 40, "wood": 59}),
        ("cityscapes19", {"road": 7, "fence": 13, "bus": 28, "train": 31, "bicycle": 33}),
        ("camvid11", {"sky": 0, "bicyclist": 10}),
    ],
)  # fmt: skip
def test_vocabularies_have_the_ids_of_their_data_sets(vocabulary, ids):
    found = vocabularies.named(vocabulary)
    known = dict(zip(found.names, found.ids, strict=True))
    assert {name: known[name] for name in ids} == ids
    assert list(found.ids) == sorted(set(found.ids))
    assert vocabularies.with_background(found, ["void"]).ids == found.ids


def test_classes_without_official_ids_count_from_one():
    assert WordSet(vocabularies.parse_classes("b,a").classes).category_ids == (1, 2)
    with pytest.raises(ValueError, match="1 ids for 2 classes"):
        Vocabulary((("a",), ("b",)), ids=(1,))
