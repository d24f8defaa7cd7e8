"""What speed is compared with gives the same result as the package."""

import numpy as np
import pytest
import torch
from benchmarks import alignment, images, refinement
from reference import alignment as plain_alignment
from reference import crops, gradcam, language, masks, superpixels, windows
from reference import refinement as plain_refinement
from torch.nn.functional import normalize

from ovtool.formats import rle
from ovtool.methods import dense_crf, masked_crops, metrics, pixel_adaptive, random_walk
from ovtool.methods import windows as sliding
from ovtool.models import clip as clips
from ovtool.models import gradcam as gradients
from ovtool.models import text

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


@pytest.fixture(scope="module")
def photo():
    return next(images.photographs(96, 72))


def test_a_crop_that_is_not_resized_is_the_same(photo):
    """Pillow resizes with a wider filter, so resized crops differ; all else is the same."""
    mask = np.zeros((1, 72, 96), bool)
    mask[0, 10:42, 20:52] = np.hypot(*np.ogrid[-15.5:16.5, -15.5:16.5]) <= 16.1
    pixels = crops.normalised([photo], MEAN, STD)[0]
    ours, _ = masked_crops.masked_crops(pixels, torch.from_numpy(mask), 32)
    theirs = crops.normalised(crops.cut(photo, mask, 32, MEAN), MEAN, STD)
    assert (ours - theirs).abs().max() < 0.5 / 255 / min(
        STD
    ) + 1e-6  # the mean colour in whole numbers


def test_resized_crops_are_alike(photo):
    pixels = crops.normalised([photo], MEAN, STD)[0]
    some = images.tilted_masks(5, 72, 96)
    ours, _ = masked_crops.masked_crops(pixels, torch.from_numpy(some), 64)
    theirs = crops.normalised(crops.cut(photo, some, 64, MEAN), MEAN, STD)
    assert torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1] > 0.98


def test_crops_are_embedded_alike(photo):
    clip = clips.load("tiny")
    whole = np.ones((1, 72, 72), bool)
    look = (clip.image_size, clip.mean, clip.std)
    theirs = crops.embedded(clip.model, photo[:, :72], whole, *look)
    assert theirs.shape == (1, clip.embed_dim)
    torch.testing.assert_close(theirs.norm(dim=-1), torch.ones(1))


def test_run_lengths_are_the_same():
    some = images.tilted_masks(7, 40, 61)
    some[0], some[1, :, 5:9] = False, True
    assert rle.encode_many(some) == masks.run_lengths(some)


def test_the_confusion_matrix_is_the_same():
    random = np.random.default_rng(0)
    prediction, truth = random.integers(0, 5, (2, 30, 40))
    truth[random.random(truth.shape) < 0.2] = -1
    ours = metrics.confusion(prediction, truth, 5)
    assert (masks.confusion(prediction, truth, 5, -1) == ours[:, :5]).all()


def test_superpixels_cover_the_image_at_every_level(photo):
    """Another method, so other regions: what they must be is a partition, and a coarser one at each level."""
    found = np.stack(superpixels.regions(photo))
    assert (found.sum(0) == len(superpixels.LEVELS)).all()


def test_windows_are_the_same():
    generator = torch.Generator().manual_seed(0)
    pixels, weight = torch.randn(1, 3, 70, 90, generator=generator), torch.randn(4, 3)

    def score(crop):
        return torch.einsum("kc,bchw->bkhw", weight, crop[:, :, ::8, ::8])

    theirs = windows.slide(pixels, 32, 24, 4, score)
    (ours,) = sliding.score_windows(pixels, 32, 24, score)
    torch.testing.assert_close(ours.rows(0, 70), theirs, rtol=1e-4, atol=1e-5)


def test_pamr_is_the_same(photo):
    image = torch.from_numpy(photo).permute(2, 0, 1).float() / 255
    maps = images.blobs(3, 72, 96, 0)
    theirs = plain_refinement.pamr(image, maps, 3, (1, 2, 4))
    torch.testing.assert_close(
        pixel_adaptive.pamr(image, maps, 3, (1, 2, 4)), theirs, rtol=1e-3, atol=1e-4
    )


def test_the_random_walk_is_the_same(photo):
    image = torch.from_numpy(photo[::6, ::6].copy()).permute(2, 0, 1).double()
    maps = torch.rand(2, *image.shape[1:], dtype=torch.float64)
    sources, inside = random_walk.neighbours((image.shape[1], image.shape[2]))
    affinity = random_walk.colour_affinity(image, sources, 30.0)
    step = random_walk.transition(affinity, sources, inside)
    theirs = plain_refinement.squared_walk(maps, step.sources, step.weights, 4)
    torch.testing.assert_close(random_walk.walk(maps, step, 4), theirs)


def test_the_dense_crf_is_the_same(photo):
    pytest.importorskip("pydensecrf")
    preset = dense_crf.PRESETS["irn"]
    unary = dense_crf.soft_unary(images.blobs(3, 72, 96, 0))
    theirs = plain_refinement.dense_crf(unary, torch.from_numpy(photo), preset)
    ours = dense_crf.refine(unary, torch.from_numpy(photo), preset).numpy()
    assert (ours.argmax(0) == theirs.argmax(0)).mean() > 0.999


def test_gradcam_is_the_same():
    clip = clips.load("tiny")
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, clip.image_size, clip.image_size, generator=generator)
    words = normalize(torch.randn(9, clip.embed_dim, generator=generator), dim=-1)
    theirs = gradcam.maps(clip.model, pixels, words, 3, clip.logit_scale)
    ours = gradients.maps(clip, pixels, words, 3).flatten(1)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_the_loss_of_a_step_is_the_same():
    ways = alignment.steps(6)
    torch.testing.assert_close(ways["ours"](), ways["theirs"]())


def test_the_gradients_of_a_step_are_the_same():
    embedder = torch.nn.Linear(8, 8)
    tokens, texts = torch.randn(5, 9, 8), normalize(torch.randn(5, 8), dim=-1)
    plain_alignment.step(embedder, tokens, texts, 20.0)
    theirs = embedder.weight.grad.clone()
    embedder.zero_grad()
    alignment.two_passes(embedder, tokens, texts, 20.0)
    torch.testing.assert_close(embedder.weight.grad, theirs, rtol=1e-4, atol=1e-5)


def test_text_embeddings_are_the_same():
    clip = clips.load("tiny")
    sentences = ["a photo of a cat", "teapot", "a large red train on the grass"]

    def tokenizer(texts):
        return clip.tokenizer(texts, context_length=clip.model.context_length)

    theirs = language.embeddings(clip.model, tokenizer, sentences, 2)
    torch.testing.assert_close(text.encode_texts(clip, sentences), theirs, rtol=1e-4, atol=1e-5)


def test_the_whole_pipeline_has_its_parts_and_reads_captions():
    pipeline = language.whole_pipeline()
    assert pipeline.pipe_names == ["tok2vec", "tagger", "parser", "ner"]
    assert len(language.nouns(pipeline, language.captions(3))) == 3


def test_works_of_a_row_are_the_same():
    ways = refinement.pamr_ways(2)
    torch.testing.assert_close(ways["ours"](), ways["theirs"](), rtol=1e-3, atol=1e-3)
