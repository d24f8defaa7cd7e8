"""Scores that follow edges: against means taken pixel by pixel, and on an image with a clean edge."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.color import rgb2lab
from skimage.segmentation import felzenszwalb
from torch.nn.functional import interpolate

from ovtool.formats.images import ImageItem
from ovtool.inputs.words import WordSet
from ovtool.segmenters import dense, edges
from ovtool.settings.segment import Fused
from ovtool.settings.shared import Compute


def halves(height, width):
    """Dark to the left and light to the right, with a little noise: uint8 (height, width, 3)."""
    rgb = np.full((height, width, 3), 40, np.uint8)
    rgb[:, width // 2 :] = 200
    return rgb + np.random.default_rng(0).integers(0, 6, rgb.shape, dtype=np.uint8)


def red_block():
    """48 x 64 grey with a red block left: uint8 (48, 64, 3)."""
    rgb = np.full((48, 64, 3), 128, np.uint8)
    rgb[10:30, 4:24] = (230, 10, 10)
    return rgb


def rows_of(scores):
    return lambda start, stop: scores[:, start:stop]


def slow_means(scores, rgb, scales):
    """The mean of each segment, segment by segment, averaged over the scales: float64 (C, H, W)."""
    total = np.zeros(scores.shape)
    for scale in scales:
        lab = rgb2lab(rgb).astype(np.float32) / 100
        cut = felzenszwalb(lab, scale=scale, sigma=0.8, min_size=25, channel_axis=-1)
        for segment in range(cut.max() + 1):
            for c in range(len(scores)):
                sums = np.bincount(cut.ravel(), scores[c].double().numpy().ravel())
                total[c][cut == segment] += sums[segment] / (cut == segment).sum()
    return total / len(scales)


def test_segments_have_their_mean_averaged_over_the_scales():
    rgb = halves(40, 60)
    scores = torch.randn(3, 40, 60, generator=torch.Generator().manual_seed(0))
    rows = edges.followed(rows_of(scores), rgb, 3, (20.0, 200.0), None)
    expected = slow_means(scores, rgb, (20, 200))
    np.testing.assert_allclose(rows(0, 40).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(rows(7, 9).numpy(), expected[:, 7:9], atol=1e-5)


def test_large_images_are_reduced_and_their_scores_brought_back():
    rgb = halves(160, 640)
    scores = torch.randn(2, 160, 640, generator=torch.Generator().manual_seed(0))
    rows = edges.followed(rows_of(scores), rgb, 2, (100.0,), None)
    low = np.asarray(Image.fromarray(rgb).resize((320, 80), Image.Resampling.BOX))
    small = interpolate(scores[None], size=(80, 320), mode="bilinear")[0]
    expected = torch.from_numpy(slow_means(small, low, (100,)))[None]
    expected = interpolate(expected, size=(160, 640), mode="bilinear")[0]
    np.testing.assert_allclose(rows(0, 160).numpy(), expected.numpy(), atol=1e-4)


def test_without_segments_and_crf_nothing_changes():
    rows = rows_of(torch.zeros(1, 4, 4))
    rgb = np.zeros((4, 4, 3), np.uint8)
    assert edges.followed(rows, rgb, 1, (), "none") is rows
    assert edges.followed(rows, rgb, 1, (), None) is rows


def test_segments_and_a_crf_find_an_edge_between_patches():
    truth = np.zeros((96, 400), int)
    truth[:, 200:] = 1
    scores = torch.linspace(-2, 2, 400).repeat(2, 96, 1) + 0.3  # changes its sign at 170
    scores[0] = 0
    for segments, crf in (((100.0,), None), ((), "clip-es"), ((100.0,), "clip-es")):
        rows = edges.followed(rows_of(scores), halves(96, 400), 2, segments, crf)
        wrong = rows(0, 96).argmax(0).numpy() != truth
        assert wrong[:, 2:198].mean() < 0.01 and wrong[:, 202:].mean() < 0.01, (segments, crf)


def test_the_crf_follows_edges():
    rng = np.random.default_rng(0)
    truth = np.zeros((48, 64), int)
    truth[10:30, 4:24] = 1
    noisy = np.where(rng.random((48, 64)) < 0.2, 1 - truth, truth)
    scores = torch.full((4, 48, 64), -3.0)
    scores[1], scores[3] = (
        torch.from_numpy(1.0 * (noisy == 0)),
        torch.from_numpy(1.0 * (noisy == 1)),
    )
    rows = edges.refined(rows_of(scores), red_block(), 4, "pydensecrf")
    found = rows(0, 48)
    assert found.shape == (4, 48, 64) and found.argmax(0).unique().tolist() == [1, 3]
    wrong = (found.argmax(0).numpy() == 3) != (truth == 1)
    assert wrong.mean() < 0.02 < (noisy != truth).mean()
    assert torch.equal(rows(5, 9), found[:, 5:9])


def test_one_class_everywhere_needs_no_crf():
    scores = torch.zeros(3, 48, 64)
    scores[2] = 1
    rows = edges.refined(rows_of(scores), red_block(), 3, "irn")
    assert torch.equal(rows(0, 48), scores)


def test_background_words_are_smoothed_one_by_one():
    """A pixel is of no class where a background word wins, as it wins when it is asked for."""
    path = Path(__file__).parents[2] / "examples" / "breakfast.jpg"
    item = ImageItem(path, path.name)
    method = Fused(segments=(60.0,), crf="clip-es")

    def labels(words, background):
        asked = WordSet(tuple((word,) for word in words), background)
        segmenter = dense.prepared(method, asked, (item,), Compute(model="tiny"), None)()
        return segmenter.segment(item, item.rgb(), segmenter.encoder()).class_map.label.numpy()

    words, background = (
        ("teapot", "apple"),
        ("bread", "wood", "knife", "marble", "carpet", "banana"),
    )
    asked = labels(words + background, ())
    assert len(np.unique(asked)) > 3  # words of both kinds win somewhere
    np.testing.assert_array_equal(labels(words, background), np.where(asked < 2, asked, -1))
