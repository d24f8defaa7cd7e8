"""Text embeddings: the same as open_clip's, shorter, kept on disk."""

import logging

import open_clip
import pytest
import torch
from torch.nn.functional import normalize

from ovtool.datasets.templates import templates
from ovtool.datasets.vocabularies import Vocabulary, parse_classes
from ovtool.errors import UsageError
from ovtool.models import clip as clips
from ovtool.models import text

SENTENCES = ["cat", "a photo of a very small teapot on a table.", "", "a dog and a cat"]
TEXTS = {
    "clip": {},
    "eos": {"pool_type": "eos", "eos_id": 49407},
    "bidirectional": {"no_causal_mask": True, "pool_type": "last"},
    "first": {"pool_type": "first"},
    "biased projection": {"proj_bias": True},
}


def embed(clip, vocabulary, templates="one", cache=True):
    """The vectors of all words, and a warning of those that the model never learned."""
    names = [name for synonyms in vocabulary.classes for name in synonyms]
    text.warn_unlearned(clip, names)
    return text.embed_words(clip, [*names, *vocabulary.background], templates, cache)


def variant(build, config, name, custom):
    config["text_cfg"] = {**config["text_cfg"], **TEXTS[name]}
    return clips.from_model(build({**config, "custom_text": custom}), f"{name} {custom}")


@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize("name", list(TEXTS))
def test_sentences_are_encoded_as_open_clip_does(name, custom, build, native_config, monkeypatch):
    if name == "bidirectional" and not custom:
        pytest.skip("open_clip's CLIP class is always causal")
    clip = variant(build, native_config, name, custom)
    monkeypatch.setattr(text, "TOKENS_AT_ONCE", 12)  # several batches, of different lengths
    tokens = open_clip.tokenize(SENTENCES, context_length=24)
    expected = clip.model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(text.encode_texts(clip, SENTENCES), expected, rtol=0, atol=1e-5)


def test_causal_towers_read_no_padding(native, monkeypatch):
    lengths = []
    original = text._encode
    monkeypatch.setattr(text, "_encode", lambda m, t: lengths.append(t.shape[1]) or original(m, t))
    monkeypatch.setattr(text, "TOKENS_AT_ONCE", 1)
    text.encode_texts(native, ["cat", "a photo of a cat", "a cat"])
    assert lengths == [7, 4, 3]  # with start and end of text, the longest first


def test_no_sentences_are_no_embeddings(native):
    assert text.encode_texts(native, []).shape == (0, 24)


@pytest.mark.parametrize("name", ["one", "pacl", "vild"])
def test_a_name_is_the_mean_of_its_sentences(name, native):
    vocabulary = parse_classes("teapot|kettle,apple")
    expected = []
    for word in ("teapot", "kettle", "apple"):
        sentences = [t.format(word) for t in templates(name)]
        tokens = open_clip.tokenize(sentences, context_length=24)
        each = native.model.encode_text(tokens, normalize=True)
        expected.append(normalize(each.mean(0), dim=0))
    got = embed(native, vocabulary, name, cache=False)
    torch.testing.assert_close(got, torch.stack(expected), rtol=0, atol=1e-5)


def test_background_words_are_embedded_last(native):
    vocabulary = Vocabulary((("cat",), ("dog", "hound")), background=("sky",))
    got = embed(native, vocabulary)
    assert got.shape == (4, 24)
    torch.testing.assert_close(got[3:], text.embed_words(native, ["sky"], cache=False))


def test_a_name_that_is_too_long_is_the_one_named(native):
    long = " ".join(["word"] * 400)
    with pytest.raises(
        UsageError, match="the class 'word word .* is too long: small reads 24 tokens"
    ):
        embed(native, Vocabulary((("cat",), (long,))))
    with pytest.raises(UsageError) as caught:
        embed(native, Vocabulary((("cat",), (long,))))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("count", [21, 22, 23, 24])
def test_the_last_sentence_that_fits_is_taken(count, native):
    """Start and end of text leave 22 of the 24 tokens."""
    sentence = " ".join(["cat"] * count)
    if count > 22:
        with pytest.raises(UsageError, match="too long"):
            text.encode_texts(native, [sentence])
    else:
        text.encode_texts(native, [sentence])


def test_embeddings_are_kept_and_read_again(native, own_cache, monkeypatch):
    first = text.embed_words(native, ["cat", "dog"], "pacl")
    (kept,) = (own_cache / "text").iterdir()
    assert kept.suffix == ".safetensors"
    monkeypatch.setattr(text, "_embed", lambda *_: pytest.fail("it was kept"))
    assert torch.equal(text.embed_words(native, ["cat", "dog"], "pacl"), first)


def test_other_words_templates_and_models_are_kept_apart(native, build, native_config, own_cache):
    text.embed_words(native, ["cat"])
    text.embed_words(native, ["cat", "dog"])
    text.embed_words(native, ["cat"], "pacl")
    text.embed_words(clips.from_model(build(native_config, seed=1), "small"), ["cat"])
    half = clips.from_model(build(native_config), "small", dtype=torch.bfloat16)
    assert half.fingerprint == native.fingerprint
    text.embed_words(half, ["cat"])
    assert len(list((own_cache / "text").iterdir())) == 5


@pytest.mark.parametrize("damage", [b"", b"no safetensors", None])
def test_a_broken_cache_file_is_written_again(damage, native, own_cache):
    first = text.embed_words(native, ["cat", "dog"])
    (kept,) = (own_cache / "text").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-20] if damage is None else damage)
    assert torch.equal(text.embed_words(native, ["cat", "dog"]), first)
    assert kept.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_no_error(native, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("OVTOOL_CACHE", str(tmp_path / "file"))
    assert text.embed_words(native, ["cat"]).shape == (1, 24)


def test_without_cache_nothing_is_kept(native, own_cache):
    text.embed_words(native, ["cat"], cache=False)
    assert not (own_cache / "text").exists()


def test_words_never_learned_are_named_in_one_warning(build, native_config, caplog):
    learned = ["teapot", "Apple", "polar bear"]
    clip = clips.from_model(
        build(native_config), "learner", recommended=clips.Recommended(words=learned)
    )
    text._warn.cache_clear()
    vocabulary = Vocabulary((("TEAPOT", "ewok"), ("bear",), ("flux-capacitor",)), ("asphalt",))
    with caplog.at_level(logging.WARNING, logger="ovtool"):
        embed(clip, vocabulary)
        embed(clip, vocabulary)
    (record,) = caplog.records
    message = record.getMessage()
    assert "ewok, flux-capacitor" in message and "learner" in message and "\n" not in message
    assert "bear" not in message and "asphalt" not in message


def test_a_model_without_a_list_warns_of_nothing(native, caplog):
    embed(native, parse_classes("ewok"))
    assert not caplog.records
