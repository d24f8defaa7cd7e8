"""Patches against words: the whole picture, windows of it, and any rows of the result."""

import logging

import pytest
import torch
from torch.nn.functional import interpolate, normalize

from ovtool.errors import OvtoolError
from ovtool.models import clip as clips
from ovtool.models import dense_scores
from ovtool.models.dense_scores import DenseSettings, encoder, prepare, word_cosines, working_size
from ovtool.runtime import device as devices


def picture(height, width, seed=3):
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 6, generator=random)
    smooth = interpolate(coarse, size=(height, width), mode="bilinear")[0]
    return (255 * smooth).to(torch.uint8).permute(1, 2, 0).contiguous()


def words(clip, count, seed=4):
    random = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, clip.embed_dim, generator=random), dim=1)


def cosines(clip, rgb, text, batch_size=8, **settings):
    settled = DenseSettings(**settings).settled(clip)
    return word_cosines(clip, rgb, text, settled, encoder(clip, settled.last_block, batch_size))


@pytest.mark.parametrize(
    "size, short_side, expected",
    [
        ((48, 48), 48, (48, 48)),
        ((100, 200), 48, (48, 96)),
        ((200, 100), 48, (96, 48)),
        ((100, 130), 50, (48, 64)),  # to the nearest multiple of 16
        ((7, 9), 8, (16, 16)),  # never below one patch
        ((10, 1000), 32, (32, 256)),  # at most eight times as long
        ((3000, 2), 16, (128, 16)),
    ],
)
def test_working_size(native, size, short_side, expected):
    assert working_size(native, size, short_side) == expected


def test_the_default_follows_the_model(native):
    settled = DenseSettings().settled(native)
    assert settled == DenseSettings(
        native.default_last_block,
        dense_scores.default_short_side(native),
        None,
        None,
        native.patch_size,
    )
    side = dense_scores.default_short_side(native)
    assert working_size(native, (99, 99), None) == working_size(native, (99, 99), side)


@pytest.mark.parametrize(
    "window, stride, expected",
    [(48, 16, (48, 16)), (50, None, (48, 32)), (5, 5, (16, 16)), (40, 40, (32, 32)), (33, 1, (32, 16))],
)  # fmt: skip
def test_windows_are_whole_patches(native, window, stride, expected):
    settled = DenseSettings(window=window, stride=stride).settled(native)
    assert (settled.window, settled.stride) == expected
    assert settled == settled.settled(native)


def test_a_picture_of_the_working_size_is_not_resampled(native):
    rgb = picture(48, 64)
    assert torch.equal(prepare(native, rgb, 48), clips.normalise(native, rgb[None]))


def test_resizing_in_8_bit_is_that_in_float_but_for_rounding(native):
    rgb = picture(150, 210)
    exact = rgb.permute(2, 0, 1)[None].double()
    expected = interpolate(exact, size=(48, 64), mode="bilinear", antialias=True)
    expected = (expected / 255 - torch.tensor(native.mean).view(3, 1, 1)) / torch.tensor(
        native.std
    ).view(3, 1, 1)
    step = 1 / 255 / min(native.std)
    assert (prepare(native, rgb, 48).double() - expected).abs().max() < 1.1 * step


def test_the_whole_picture_is_cosines_of_patches(native):
    rgb, text = picture(60, 90), words(native, 5)
    found = cosines(native, rgb, text, short_side=48)
    features = clips.patch_features(native, prepare(native, rgb, 48))[0]
    expected = torch.stack([(features * word).sum(-1) for word in text])
    torch.testing.assert_close(found.scores[0], expected)
    assert found.scores.abs().max() <= 1 + 1e-5 and found.scores.shape == (1, 5, 3, 4)


@pytest.mark.parametrize("tower", ["native", "siglip"])
def test_one_window_is_the_whole_picture(tower, request):
    clip = request.getfixturevalue(tower)
    rgb, text = picture(70, 50), words(clip, 4)
    whole = cosines(clip, rgb, text, short_side=64)
    window = cosines(clip, rgb, text, short_side=64, window=256, stride=64)
    assert torch.equal(whole.scores, window.scores)
    rows = dense_scores.rows(whole, (70, 50))(0, 70)
    assert torch.equal(rows, dense_scores.rows(window, (70, 50))(0, 70))
    expected = interpolate(whole.scores, size=(70, 50), mode="bilinear")[0]
    torch.testing.assert_close(rows, expected, atol=1e-5, rtol=1e-5)


def slow_windows(clip, rgb, text, short_side, window, stride, size):
    """Every window by itself, summed and counted pixel by pixel, then resized: float64 (N, H, W)."""
    pixels = prepare(clip, rgb, short_side)
    height, width = pixels.shape[2:]
    total = torch.zeros(len(text), height, width, dtype=torch.float64)
    count = torch.zeros(height, width, dtype=torch.float64)
    for top in {*range(0, max(height - window, 0), stride), max(height - window, 0)}:
        for left in {*range(0, max(width - window, 0), stride), max(width - window, 0)}:
            crop = pixels[:, :, top : top + window, left : left + window]
            features = clips.patch_features(clip, crop)[0].double()
            scores = torch.einsum("hwd,nd->nhw", features, text.double())
            full = interpolate(scores[None], size=crop.shape[2:], mode="bilinear")[0]
            total[:, top : top + window, left : left + window] += full
            count[top : top + window, left : left + window] += 1
    return interpolate((total / count)[None], size=size, mode="bilinear")[0]


@pytest.mark.parametrize(
    "size, short_side, window, stride",
    [
        ((96, 96), 96, 48, 32),  # at the picture's own size
        ((131, 77), 96, 48, 16),  # resized, the last window shifted inside
        ((40, 64), 80, 64, 64),  # enlarged
        ((64, 200), 32, 48, 32),  # lower than the window
    ],
)
def test_windows_are_those_of_a_loop(native, size, short_side, window, stride):
    rgb, text = picture(*size), words(native, 3)
    found = cosines(native, rgb, text, 3, short_side=short_side, window=window, stride=stride)
    rows = dense_scores.rows(found, size)
    expected = slow_windows(native, rgb, text, short_side, window, stride, size)
    torch.testing.assert_close(rows(0, size[0]).double(), expected, atol=1e-4, rtol=1e-4)
    for start, stop in ((0, 1), (5, 6), (3, 29), (size[0] - 1, size[0]), (0, 7)):
        block = rows(start, stop)
        torch.testing.assert_close(block.double(), expected[:, start:stop], atol=1e-4, rtol=1e-4)


def test_few_rows_are_made_from_few_rows(native):
    """847 words at 2048 x 2048 in windows would not fit if each block asked for all."""
    found = cosines(native, picture(64, 64), words(native, 2), short_side=96, window=48)
    asked = []

    class Watched(type(found)):
        def rows(self, start, stop):
            asked.append(stop - start)
            return super().rows(start, stop)

    fields = (found.scores, found.tops, found.lefts, found.window, found.size)
    dense_scores.rows(Watched(*fields), (960, 64))(200, 220)
    assert asked and max(asked) <= 4


def starve(monkeypatch, most):
    """Lets the tower run out of memory above `most` crops; the batch sizes that it was given."""
    sizes = []
    patch_features = clips.patch_features

    def hungry(clip, crops, last_block=None):
        sizes.append(len(crops))
        if len(crops) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return patch_features(clip, crops, last_block)

    monkeypatch.setattr(clips, "patch_features", hungry)
    return sizes


def test_batches_of_windows_halve_when_memory_runs_out(native, monkeypatch, caplog):
    rgb, text = picture(96, 96), words(native, 3)
    settings = {"short_side": 96, "window": 48, "stride": 16}
    expected = cosines(native, rgb, text, 2, **settings).scores
    sizes = starve(monkeypatch, 3)
    devices._say_halved.cache_clear()
    encode = encoder(native, None, 8)
    settled = DenseSettings(**settings).settled(native)
    with caplog.at_level(logging.WARNING, "ovtool"):
        found = word_cosines(native, rgb, text, settled, encode)
        word_cosines(native, rgb, text, settled, encode)
        word_cosines(native, rgb, text, settled, encoder(native, None, 8))
    assert torch.equal(found.scores, expected)
    assert encode.was_halved and encode.batch_size == 2
    assert sizes[:3] == [8, 4, 2] and max(sizes[3 : len(sizes) // 2]) == 2
    assert caplog.messages == [f"out of memory: the batch size is now {n}" for n in (4, 2)]


def test_a_picture_that_does_not_fit_at_all_is_told(native, monkeypatch):
    starve(monkeypatch, 0)
    with pytest.raises(OvtoolError, match="out of memory for a single item .*--device cpu"):
        cosines(native, picture(48, 48), words(native, 2))
