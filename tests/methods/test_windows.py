"""Sliding windows against windows laid, resized and averaged one by one."""

import pytest
import torch
from torch.nn.functional import interpolate

from ovtool.methods import windows


@pytest.mark.parametrize(
    ("length", "window", "stride", "expected"),
    [
        (224, 224, 112, [0]),
        (100, 224, 112, [0]),
        (336, 224, 112, [0, 112]),
        (337, 224, 112, [0, 112, 113]),
        (448, 224, 224, [0, 224]),
        (500, 224, 224, [0, 224, 276]),
        (5, 1, 1, [0, 1, 2, 3, 4]),
    ],
)
def test_windows_cover_the_side_and_stay_inside(length, window, stride, expected):
    starts = windows.window_starts(length, window, stride)
    assert starts == expected
    covered = {p for s in starts for p in range(s, min(s + window, length))}
    assert covered == set(range(length))


@pytest.mark.parametrize("wrong", [(0, 4, 2), (8, 0, 1), (8, 4, 0), (8, 4, 5)])
def test_windows_that_leave_gaps_are_refused(wrong):
    with pytest.raises(ValueError, match="no windows"):
        windows.window_starts(*wrong)


def score(crops):
    """Some scores at a quarter of the resolution that tell the windows' contents apart."""
    pooled = torch.nn.functional.avg_pool2d(crops, 4, ceil_mode=True)
    return torch.cat([pooled, pooled.square().sum(1, keepdim=True)], dim=1)


def slow_slide(pixels, window, stride, score):
    batch, _, height, width = pixels.shape
    total = torch.zeros(batch, 4, height, width, dtype=pixels.dtype)
    count = torch.zeros(height, width, dtype=pixels.dtype)
    for top in windows.window_starts(height, window, stride):
        for left in windows.window_starts(width, window, stride):
            crop = pixels[:, :, top : top + window, left : left + window]
            up = interpolate(score(crop), size=crop.shape[2:], mode="bilinear", align_corners=False)
            total[:, :, top : top + window, left : left + window] += up
            count[top : top + window, left : left + window] += 1
    return total / count


@pytest.mark.parametrize(
    ("height", "width", "window", "stride"),
    [(32, 32, 32, 16), (40, 52, 16, 8), (33, 47, 16, 12), (12, 40, 16, 16), (9, 7, 16, 4)],
)
@pytest.mark.parametrize("batch_size", [1, 7])
def test_slide_averages_the_windows_scores(height, width, window, stride, batch_size):
    generator = torch.Generator().manual_seed(height)
    pixels = torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)
    expected = slow_slide(pixels, window, stride, score)
    images = windows.score_windows(pixels, window, stride, score, batch_size)
    got = torch.stack([image.rows(0, height) for image in images])
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    (image, _) = windows.score_windows(pixels, window, stride, score, batch_size)
    torch.testing.assert_close(image.rows(3, 7), got[0, :, 3:7])


@pytest.mark.parametrize("size", [(3, 4), (17, 23), (48, 64), (2, 2)])
def test_upsampled_rows_are_rows_of_the_upsampled_map(size):
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(5, 3, 4, generator=generator)
    whole = interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]
    blocks = [windows.upsample_rows(scores, size, y, y + 1) for y in range(size[0])]
    torch.testing.assert_close(torch.cat(blocks, dim=1), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("finer, patch", [(2, 4), (4, 8), (3, 9)])
def test_a_margin_puts_the_cells_where_overlapping_patches_lie(finer, patch):
    step, side = patch // finer, 3 * patch
    centres = torch.arange(patch / 2, side - patch / 2 + 1, step)
    line = (3 * centres + 1).expand(1, len(centres), -1)  # what grows along the width
    margin = (finer - 1) / 2
    pixels = torch.arange(side) + 0.5
    inside = (pixels >= centres[0]) & (pixels <= centres[-1])
    for scores, along in ((line, 2), (line.mT, 1)):
        found = windows.upsample_rows(scores, (side, side), 0, side, margin)
        got = found[0].movedim(along - 1, 0)[:, 5]
        torch.testing.assert_close(got[inside], 3 * pixels[inside] + 1)
        assert got[0] == line[0, 0, 0] and got[-1] == line[0, 0, -1]  # level beyond the centres
    several = windows.WindowScores(line[None], (0,), (0,), (side, side), (side, side), margin)
    whole = windows.upsample_rows(line, (side, side), 0, side, margin)
    torch.testing.assert_close(several.rows(2, 9), whole[:, 2:9])
