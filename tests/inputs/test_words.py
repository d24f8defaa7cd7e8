"""The words of a run: where they come from, what competes with them, what cannot be meant."""

import json
from pathlib import Path

import pytest

from ovtool.datasets import registry
from ovtool.datasets.vocabularies import DEFAULT_BACKGROUND
from ovtool.errors import InputError, UsageError
from ovtool.formats.images import ImageItem
from ovtool.inputs import words as word_inputs
from ovtool.models.word_table import WordTable
from ovtool.settings.words import Words

ITEMS = [ImageItem(Path(f"/x/{name}"), name) for name in ("a.jpg", "b.jpg")]


def gather(**options):
    return word_inputs.gather(ITEMS, ["/x"], Words(**options))


def test_classes_compete_with_the_stuff_list():
    found = gather(classes="person|man,grass")
    assert found.classes == (("person", "man"), ("grass",))
    assert found.background == tuple(word for word in DEFAULT_BACKGROUND if word != "grass")
    assert found.of_image("a.jpg") == (0, 1)
    names, owner = found.rows("a.jpg")
    assert names[:3] == ["person", "man", "grass"] and names[3:] == list(found.background)
    assert owner == [0, 0, 1] + [2] * len(found.background)


def test_a_background_word_that_an_image_has_as_a_class_is_no_background_there():
    words = word_inputs.WordSet(
        (("cow",), ("Grass", "lawn")), ("sky", "grass"), per_image={"a.jpg": (1,), "b.jpg": (0,)}
    )
    assert words.rows("a.jpg") == (["Grass", "lawn", "sky"], [0, 0, 1])
    assert words.rows("b.jpg") == (["cow", "sky", "grass"], [0, 1, 1])


@pytest.mark.parametrize(
    "background, expected",
    [("none", ()), ("wall, sky", ("wall", "sky")), ("Wall,person", ("Wall",))],
)
def test_the_background_can_be_chosen(background, expected):
    assert gather(classes="person,tv", background=background).background == expected


def test_files_and_known_vocabularies(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("teapot\n\nsofa; couch\n")
    found = gather(classes_file=path)
    assert found.classes == (("teapot",), ("sofa", "couch"))
    assert found.background == DEFAULT_BACKGROUND
    named = gather(vocabulary="voc20")
    assert len(named.classes) == 20 and named.background == ()
    assert gather(vocabulary="voc20", background="sky").background == ("sky",)


def test_categories_keep_order_and_synonyms():
    categories = gather(classes="person|man|woman,tv").categories
    assert [(c.id, c.name, c.synonyms) for c in categories] == [
        (1, "person", ("man", "woman")),
        (2, "tv", ()),
    ]


def write(tmp_path, table):
    path = tmp_path / "words.json"
    path.write_text(table if isinstance(table, str) else json.dumps(table))
    return path


def test_words_of_each_image(tmp_path):
    table = {
        "b.jpg": ["Cow", "man"],
        "a.jpg": ["person|man", "cow", "sky"],
        "other.jpg": ["x"],
    }
    found = gather(classes_per_image=write(tmp_path, table), background="sky,wall")
    assert found.classes == (("person", "man"), ("cow",), ("sky",), ("man",))
    assert found.of_image("a.jpg") == (0, 1, 2) and found.of_image("b.jpg") == (1, 3)
    assert found.names == ("person", "man", "cow", "sky")
    # a word competes in those images where it is no class
    assert found.rows("a.jpg")[0][4:] == ["wall"]
    assert found.rows("b.jpg") == (["cow", "man", "sky", "wall"], [0, 1, 2, 2])
    assert gather(classes_per_image=write(tmp_path, table)).background == ()


def test_a_data_set_brings_its_own_words(tmp_path, monkeypatch):
    path = write(tmp_path, {"a.jpg": ["cow"], "b.jpg": ["cow", "tv"]})
    files = registry.DataSet("collage:demo", tmp_path, classes_per_image=path)
    monkeypatch.setattr(registry, "locate", lambda text: files)
    found = word_inputs.gather(ITEMS, ["collage:demo"])
    assert found.per_image == {"a.jpg": (0,), "b.jpg": (0, 1)} and found.background == ()
    assert word_inputs.gather(ITEMS, ["collage:demo"], Words(classes="cow")).per_image is None


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, 'no words to look for; give --classes "teapot,apple"'),
        ({"classes": "a", "vocabulary": "voc20"}, "--classes and --vocabulary both name the words"),
        ({"classes": ""}, "--classes is empty"),
        ({"classes": "a,  ,b"}, "class 2 is empty or only spaces"),
        ({"classes": "a,b,A"}, "the class 'a' is named twice"),
        ({"classes": "a|b,b"}, "the class 'b' is named twice"),
        ({"classes": "a", "background": " "}, "--background is empty"),
        ({"classes": "a", "background": "sky,Sky"}, "'sky' is named twice"),
        ({"vocabulary": "voc21"}, "'voc21' is not one of 'voc20', 'coco80'"),
    ],
)
def test_words_that_cannot_be_meant(options, message):
    with pytest.raises(UsageError, match=message):
        gather(**options)


@pytest.mark.parametrize(
    "table, kind, message",
    [
        ({"a.jpg": ["cow"]}, InputError, "words.json has no list of words for b.jpg; add one"),
        ({"c.jpg": ["cow"]}, InputError, "for a.jpg and 1 more; add one"),
        ({"a.jpg": "cow"}, InputError, "'a.jpg' has no list of words"),
        (["cow"], InputError, "no JSON object of file names"),
        ("{", InputError, "is not JSON"),
        (
            {"a.jpg": ["cow", "Cow"], "b.jpg": ["x"]},
            UsageError,
            "a.jpg: the class 'cow' is named tw",
        ),
        ({"a.jpg": ["cow|"], "b.jpg": ["x"]}, UsageError, "a.jpg: class 1 is empty"),
        (
            {"a.jpg": ["cow|bull"], "b.jpg": ["cow"]},
            UsageError,
            "'cow' has other synonyms for b.jpg than for an image before it; write them alike",
        ),
    ],
)
def test_lists_that_cannot_be_meant(tmp_path, table, kind, message):
    with pytest.raises(kind, match=message):
        gather(classes_per_image=write(tmp_path, table))


def test_files_that_are_not_there(tmp_path):
    for option in ("classes_file", "classes_per_image"):
        with pytest.raises(InputError, match="gone.txt"):
            gather(**{option: tmp_path / "gone.txt"})


def test_a_default_background_does_not_compete_with_related_words():
    default = word_inputs.gather([], words=Words(classes="man|puppet,desk,cat"))
    own = ("person", "table", "sky", "kitty")
    assert default.before(own).background == ("sky", "kitty")
    assert default.before(own, WordTable.of(["cat", "kitty"], [7, 7])).background == ("sky",)
    chosen = word_inputs.gather([], words=Words(classes="man", background="person"))
    assert chosen.before(own).background == ("person",)


def test_a_default_background_gives_way_to_the_stuff_of_a_small_model():
    default = word_inputs.gather([], words=Words(classes="teapot,apple"))
    assert default.before(("wood", "snow")).background == ("wood", "snow")
    assert default.before(()).background == default.background
    chosen = word_inputs.gather([], words=Words(classes="teapot", background="wall"))
    assert chosen.before(("wood",)).background == ("wall",)
    off = word_inputs.gather([], words=Words(classes="teapot", background="none"))
    assert off.before(("wood",)).background == ()
    assert (
        word_inputs.gather([], words=Words(vocabulary="voc20")).before(("wood",)).background == ()
    )


def test_words_as_a_text_a_list_or_settings():
    assert word_inputs.as_settings("cow,tv").classes == "cow,tv"
    assert word_inputs.as_settings(Words(vocabulary="voc20")) == Words(vocabulary="voc20")
    listed = word_inputs.as_settings(["cow|bull", "salt, and pepper"])
    assert word_inputs.gather([], words=listed).classes == (("cow", "bull"), ("salt, and pepper",))
    names = ("红、绿", "كوب، صحن", "a，b", 'the "best" cup')  # commas that part the words of a text
    listed = word_inputs.as_settings(names)
    assert word_inputs.gather([], words=listed).classes == tuple((name,) for name in names)
    for wrong in (3, None, {"cow": 1}, ["cow", 3]):
        with pytest.raises(UsageError, match="give a text such as 'teapot,apple', a list of texts"):
            word_inputs.as_settings(wrong)


def test_the_categories_of_a_coco_file_are_its_words(tmp_path):
    path = tmp_path / "own.json"
    categories = [{"id": 7, "name": "cup, white"}, {"id": 3, "name": "cat", "synonyms": ["kitten"]}]
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    given = word_inputs.gather(ITEMS, (), Words(), path)
    assert given.classes == (("cup, white",), ("cat", "kitten"))
    assert given.ids == (7, 3) and given.background == ()
    other = word_inputs.gather(ITEMS, (), Words(classes="dog"), path)
    assert other.classes == (("dog",),)


@pytest.mark.parametrize("categories", [None, [], [{"id": 1, "name": "object"}]])
def test_a_coco_file_of_images_or_proposals_has_no_words(tmp_path, categories):
    path = tmp_path / "own.json"
    path.write_text(
        json.dumps(
            {"images": [], "annotations": []}
            | ({} if categories is None else {"categories": categories})
        )
    )
    with pytest.raises(InputError, match="own.json names no classes to look for; give --classes"):
        word_inputs.gather(ITEMS, (), Words(), path)
