"""The nouns of captions: what the bundled tagger finds, and what other pipelines must bring."""

import time
from pathlib import Path

import pytest
import spacy
from spacy.language import Language

from ovtool.errors import InputError, ModelError
from ovtool.models import nouns, sources

TAGGED = Path(__file__).parents[1] / "data" / "captions_tagged.tsv"
NO_STOP = frozenset()


@pytest.fixture(scope="module")
def tagger():
    return nouns.load()


def found(tagger, text, **options):
    (words,) = nouns.find(tagger, [text], **options)
    return words


def lemmas(tagger, text, **options):
    return [noun.lemma for noun in found(tagger, text, **options)]


def tagged_by_hand():
    """The captions of the file, each with the spans of its common nouns."""
    for line in TAGGED.read_text(encoding="utf-8").splitlines()[1:]:
        text, spans = "", set()
        for piece in line.split("\t")[1].split("["):
            noun, closed, rest = piece.partition("]")
            if closed:
                spans.add((len(text), len(text) + len(noun)))
            text += noun + rest
        yield text, spans


def test_the_file_of_captions_is_what_it_says():
    captions = list(tagged_by_hand())
    assert len(captions) == len({text for text, _ in captions}) == 100
    assert sum(len(spans) for _, spans in captions) > 300
    assert all(text[start:stop].isalpha() for text, spans in captions for start, stop in spans)


def test_common_nouns_of_captions_tagged_by_hand(tagger):
    captions = list(tagged_by_hand())
    right = predicted = true = 0
    words = nouns.find(tagger, [text for text, _ in captions], stop=NO_STOP)
    for (_, spans), here in zip(captions, words, strict=True):
        places = {(noun.start, noun.stop) for noun in here}
        right += len(places & spans)
        predicted, true = predicted + len(places), true + len(spans)
    assert 2 * right / (predicted + true) >= 0.95


def test_a_list_without_articles_gives_all_its_nouns(tagger):
    assert lemmas(tagger, "There are apple, orange, and teapot") == ["apple", "orange", "teapot"]


def test_a_noun_has_its_lemma_and_its_place(tagger):
    text = "Two Children feed geese beside bricks, knives and glasses."
    words = found(tagger, text)
    assert all(text[noun.start : noun.stop] == noun.surface for noun in words)
    assert [noun.surface for noun in words] == ["Children", "geese", "bricks", "knives", "glasses"]
    assert [noun.lemma for noun in words] == ["child", "goose", "brick", "knife", "glass"]


def test_places_hold_in_every_caption_and_mode(tagger):
    texts = [text for text, _ in tagged_by_hand()]
    for chunks in (False, True):
        for text, words in zip(texts, nouns.find(tagger, texts, chunks=chunks), strict=True):
            assert all(text[noun.start : noun.stop] == noun.surface for noun in words)
            assert all(noun.lemma == noun.lemma.lower() for noun in words)


@pytest.mark.parametrize("text", ["", "  ", "!!!", "riding happily"])
def test_a_text_without_nouns_gives_none(tagger, text):
    assert found(tagger, text) == ()


def test_joined_words_count_whole_and_only_if_all_nouns(tagger):
    text = "Two boys in t-shirts near a red double-decker bus"
    assert lemmas(tagger, text) == ["boy", "t-shirt", "bus"]


def test_stop_words_leave_out_what_names_no_region(tagger):
    text = "a photo of a group of dogs in front of a house"
    assert lemmas(tagger, text) == ["dog", "house"]
    assert lemmas(tagger, text, stop=NO_STOP) == ["photo", "group", "dog", "front", "house"]
    assert lemmas(tagger, text, stop=frozenset(["dog"])) == ["photo", "group", "front", "house"]


def test_proper_nouns_by_choice(tagger):
    text = "A bus in London passes the tower."
    assert lemmas(tagger, text) == ["bus", "tower"]
    assert lemmas(tagger, text, pos=("PROPN",)) == ["london"]
    assert lemmas(tagger, text, pos=("NOUN", "PROPN")) == ["bus", "london", "tower"]


def test_phrases_by_their_tags(tagger):
    assert not tagger.has_parser
    text = "a small brown dog and two baseball players near the red double-decker bus, black cats"
    phrases = lemmas(tagger, text, chunks=True)
    assert phrases == [
        "small brown dog",
        "baseball player",
        "red double-decker bus",
        "black cat",
    ]  # fmt: skip
    assert lemmas(tagger, "a nice view of old houses", chunks=True) == ["old house"]


@Language.component("handmade")
def handmade(doc):
    """Tags and heads of one sentence."""
    heads = [3, 3, 3, 4, 4, 6, 4]
    deps = ["det", "amod", "amod", "nsubj", "ROOT", "nummod", "dobj"]
    tags = ["DET", "ADJ", "ADJ", "NOUN", "VERB", "NUM", "NOUN"]
    lemmas = ["a", "small", "brown", "dog", "chase", "two", "cat"]
    if len(doc) == 7:
        for token, head, dep, pos, lemma in zip(doc, heads, deps, tags, lemmas, strict=True):
            token.head, token.dep_, token.pos_, token.lemma_ = doc[head], dep, pos, lemma
    return doc


def test_phrases_by_a_parser():
    language = spacy.blank("en")
    language.add_pipe("handmade", name="parser")
    pipeline = nouns.Pipeline("made", "f", language)
    assert pipeline.has_parser
    text = "A small brown dog chases two cats"
    assert lemmas(pipeline, text, chunks=True) == ["small brown dog", "cat"]
    assert lemmas(pipeline, text, chunks=True, stop=frozenset(["dog"])) == ["cat"]


def test_texts_are_drawn_as_they_are_needed(tagger):
    drawn = []

    def texts():
        for number in range(10 * nouns.CAPTIONS_AT_ONCE):
            drawn.append(number)
            yield f"{number} dogs"

    next(nouns.find(tagger, texts()))
    assert len(drawn) < 4 * nouns.CAPTIONS_AT_ONCE


def test_a_text_means_the_same_whatever_stands_beside_it(tagger):
    texts = [text for text, _ in tagged_by_hand()]
    together = list(nouns.find(tagger, texts))
    assert together[::7] == [found(tagger, text) for text in texts[::7]]


def test_stop_words_from_a_file(tmp_path):
    path = tmp_path / "stop.txt"
    path.write_text("Photo\n\n# of people\n view  # a comment\n", encoding="utf-8")
    assert nouns.read_stop_words(path) == {"photo", "view"}


def test_stop_words_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no such file: .*none.txt"):
        nouns.read_stop_words(tmp_path / "none.txt")
    (tmp_path / "b.txt").write_bytes(b"dog\n\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8 text at byte 4"):
        nouns.read_stop_words(tmp_path / "b.txt")
    with pytest.raises(InputError, match="cannot read"):
        nouns.read_stop_words(tmp_path)


def test_a_pipeline_that_is_not_installed():
    with pytest.raises(ModelError, match="`python -m spacy download en_core_web_xyz`"):
        nouns.load("en_core_web_xyz")


def test_a_pipeline_of_ones_own_and_one_that_tags_nothing(tmp_path, tagger):
    tagger.language.to_disk(tmp_path / "own")
    own = nouns.load(str(tmp_path / "own"))
    assert (own.name, own.fingerprint) == ("ovtool_tagger", tagger.fingerprint)
    assert lemmas(own, "two dogs") == ["dog"]
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(ModelError, match="no parts of speech"):
        nouns.load(str(tmp_path / "blank"))


def test_the_bundled_pipeline_is_small_and_holds_no_pickle():
    files = [p for p in (sources.bundled_folder() / nouns.BUNDLED).rglob("*") if p.is_file()]
    assert sum(path.stat().st_size for path in files) <= 7_000_000
    assert not any(path.read_bytes()[:1] == b"\x80" and path.suffix == ".pkl" for path in files)
    assert not any(b"_reconstruct" in path.read_bytes() for path in files)


@pytest.mark.slow
def test_thousands_of_captions_a_second(tagger):
    texts = [text for text, _ in tagged_by_hand()] * 60
    list(nouns.find(tagger, texts[:600]))
    began = time.process_time()
    assert sum(1 for _ in nouns.find(tagger, texts)) == len(texts)
    assert len(texts) / (time.process_time() - began) > 1500  # of one core, so 3,000 of two


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scissors, cookies and vases next to sunglasses", "scissors cookie vase sunglasses"),
        ("two men in jeans and trousers with axes", "man jeans trousers axe"),
        ("cacti and mice on bricks by the rails", "cactus mouse brick rail"),
        ("a bowl of grapes and cherries, two knives", "bowl grape cherry knife"),
        ("salt &amp; pepper on a table &#38; a cup", "salt pepper table cup"),
    ],
)
def test_lemmas_are_words(tagger, text, expected):
    assert lemmas(tagger, text) == expected.split()


def test_places_are_those_of_the_text_with_its_entities(tagger):
    text = "an apple &amp; a pear"
    apple, pear = found(tagger, text)
    assert (text[apple.start : apple.stop], text[pear.start : pear.stop]) == ("apple", "pear")


@pytest.mark.parametrize(
    "text",
    [
        "ein Hund auf dem Gras",
        "un chat assis sur une table en bois",
        "un perro corre por la playa con una pelota",
        "een hond rent over het strand",
        "una donna con un cappello rosso cammina",
        "um homem andando de bicicleta na rua",
        "\u0434\u0432\u0430 \u043a\u043e\u0442\u0430 \u043d\u0430 \u0434\u0438\u0432\u0430\u043d\u0435",
    ],
)
def test_a_sentence_of_another_language_has_no_noun(tagger, text):
    assert found(tagger, text) == ()


def test_no_english_caption_is_taken_for_another_language(tagger):
    documents = tagger.language.pipe(text for text, _ in tagged_by_hand())
    assert all(nouns._is_english(document, tagger.english) for document in documents)
