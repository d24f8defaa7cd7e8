"""Sentences of learned vectors: the same as the tower's own where the vectors are words."""

import pytest
import torch

from ovtool.errors import UsageError
from ovtool.models import clip as clips
from ovtool.models import learned_text, text
from ovtool.models.learned_text import LearnedText


@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize("pooling", [{}, {"pool_type": "eos", "eos_id": 49407}])
def test_vectors_of_words_are_the_sentence_of_these_words(build, native_config, custom, pooling):
    native_config["text_cfg"] |= pooling
    clip = clips.from_model(build({**native_config, "custom_text": custom}), "one")
    reader = LearnedText.of(clip, 4)
    vectors = torch.stack(
        [reader.word_vectors(["red", "cow", "grass", "sky"]), reader.word_vectors(["boat"])]
    )
    own = ["a photo of red cow grass sky.", "a photo of boat boat boat boat."]
    expected = clip.model.encode_text(
        clip.tokenizer(own, context_length=clip.model.context_length), normalize=True
    )
    torch.testing.assert_close(reader(vectors), expected, rtol=0, atol=1e-5)
    assert (expected[0] @ expected[1]).item() < 0.99  # and it matters which words they are


def test_the_bundled_model_reads_them_too():
    clip = clips.load("tiny", "cpu", torch.float32)
    reader = LearnedText.of(clip, 1)
    found = reader(reader.word_vectors(["cow"])[None])
    expected = text.encode_texts(clip, ["a photo of cow."])
    assert (found @ expected.T).item() > 0.9999
    assert LearnedText.of(clip).length == 30


def test_gradients_reach_the_vectors_and_nothing_else(native):
    reader = LearnedText.of(native, 3)
    vectors = learned_text.initial("normal", reader, 2, 0).requires_grad_(True)
    reader(vectors)[:, 0].sum().backward()
    assert (vectors.grad.abs().amax((1, 2)) > 0).all()
    assert all(one.grad is None for one in native.model.parameters())


def test_the_length_is_thirty_or_what_fits(native):
    assert LearnedText.of(native).length == 18  # 24 places less 6
    assert len(LearnedText.of(native, 18).tokens) == 24
    for length in (19, 0):
        with pytest.raises(UsageError, match=f"--length {length}: .* room for 1 to 18 vectors"):
            LearnedText.of(native, length)


def test_towers_that_read_no_vectors_are_refused(siglip):
    with pytest.raises(UsageError, match="causal text towers, and that of small-siglip is none"):
        LearnedText.of(siglip)


def test_three_beginnings(native):
    reader = LearnedText.of(native, 5)
    found = {
        init: learned_text.initial(init, reader, 3, 7, ["sky", "road"])
        for init in learned_text.INITS
    }
    assert all(one.shape == (3, 5, 32) for one in found.values())
    assert found["uniform"].min() >= 0 and 0.4 < found["uniform"].mean() < 0.6
    assert 0.01 < found["normal"].std() < 0.03
    embedding = native.model.token_embedding.weight
    sky, road = (int(native.tokenizer([word])[0, 1]) for word in ("sky", "road"))
    expected = embedding[[sky, road, sky, road, sky]]
    assert all(torch.equal(one, expected) for one in found["words"])
    again = learned_text.initial("uniform", reader, 3, 7)
    assert torch.equal(again, found["uniform"])
    assert not torch.equal(again, learned_text.initial("uniform", reader, 3, 8))
    with pytest.raises(UsageError, match="unknown --init 'zero'; choose from uniform"):
        learned_text.initial("zero", reader, 3, 7)
