"""Sliding windows: scores of an image larger than the square that a network was trained on.

Windows of one size are laid every `stride` pixels, the last one shifted back inside; each window's
scores are brought to the window's size (bilinear), summed where windows overlap and divided by
their number, all before any softmax. This is how SCLIP, NACLIP and ClearCLIP segment (their
mmsegmentation `slide` mode).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows start along one side of `length` pixels: every `stride`, the last one shifted
    inside.

    A side no longer than the window has the one start 0. Raises ValueError unless all three are
    positive and `stride` is at most `window`, since pixels between windows would have no score.
    """
    if min(length, window, stride) < 1 or stride > window:
        raise ValueError(f"no windows of {window} every {stride} on {length} pixels")
    last = max(length - window, 0)
    return [*range(0, last, stride), last]


@dataclass(frozen=True)
class WindowScores:
    """The low-resolution scores of all windows of one image, and where the windows lie.

    `scores` is (rows * columns, K, h, w), windows in row order; `tops` and `lefts` are their first
    pixels; `window` is the windows' (height, width) and `size` the image's, in pixels. `margin` is how
    far the first cells lie inside, in cells (`upsample_rows`).
    """

    scores: Tensor
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    window: tuple[int, int]
    size: tuple[int, int]
    margin: float = 0.0
    _strips: dict[int, Tensor] = field(default_factory=dict, repr=False)

    def rows(self, start: int, stop: int) -> Tensor:
        """The averaged scores of pixel rows `start` to `stop`: (K, stop - start, W).

        What can be shared between calls is kept while the rows go down the image. Each pixel row is a sum of rows of
        cells, of all windows over it at once.
        """
        height, cells = self.window[0], self.scores.shape[2]
        strips, shares = [], []
        for i, top in enumerate(self.tops):
            first, last = max(start, top), min(stop, top + height)
            if first >= last:
                self._strips.pop(i, None)
                continue
            if i not in self._strips:
                self._strips[i] = self._strip(i)
            own = self.scores.new_zeros(stop - start, cells)
            strip, place = (
                self._strips[i],
                torch.arange(first - start, last - start, device=own.device),
            )
            upper, lower, weight = _between(strip, 1, height, first - top, last - top, self.margin)
            own[place, upper] = 1 - weight
            own[place, lower] += weight
            strips.append(strip)
            shares.append(own)
        mixing = torch.cat(shares, dim=1)  # (stop - start, cells of all strips)
        mixing /= mixing.sum(1, keepdim=True).round_()
        return torch.bmm(mixing.expand(self.scores.shape[1], -1, -1), torch.cat(strips, dim=1))

    def _strip(self, row: int) -> Tensor:
        """One row of windows at full width and low height, averaged where windows overlap: (K, h, W)."""
        across = self.scores[row * len(self.lefts) : (row + 1) * len(self.lefts)]
        total = across.new_zeros(*across.shape[1:3], self.size[1])
        count = across.new_zeros(self.size[1])
        for scores, left in zip(across, self.lefts, strict=True):
            place = slice(left, left + self.window[1])
            total[:, :, place] += _wide(scores, self.window[1], self.margin)
            count[place] += 1
        return total.div_(count)


def upsample_rows(
    scores: Tensor, size: tuple[int, int], start: int, stop: int, margin: float = 0.0
) -> Tensor:
    """Rows `start` to `stop` of `scores` (K, h, w) brought to `size` (H, W): (K, stop - start, W).

    The values are those of a bilinear `interpolate` with ``align_corners=False`` to the whole size,
    of which only these rows are made. margin: how far the first and last cells lie inside the
    image, in cells; patches of P pixels that begin every s cover all but (P - s) / 2s at each end.
    """
    return _wide(_high(scores, size[0], start, stop, margin), size[1], margin)


def _high(scores: Tensor, height: int, start: int, stop: int, margin: float) -> Tensor:
    """Rows `start` to `stop` of `scores` (K, h, w) brought to `height`: (K, stop - start, w)."""
    upper, lower, weight = _between(scores, 1, height, start, stop, margin)
    return torch.lerp(scores[:, upper], scores[:, lower], weight[:, None])


def _wide(scores: Tensor, width: int, margin: float) -> Tensor:
    """The last dimension of `scores` (K, h, w) brought to `width`."""
    if margin:
        left, right, weight = _between(scores, 2, width, 0, width, margin)
        return torch.lerp(scores[:, :, left], scores[:, :, right], weight)
    if width == scores.shape[2]:
        return scores
    return interpolate(scores, size=width, mode="linear", align_corners=False)


def _between(
    scores: Tensor, dim: int, length: int, start: int, stop: int, margin: float
) -> tuple[Tensor, Tensor, Tensor]:
    """For pixels `start` to `stop` of `length`: the two cells along `dim` that each lies between, and
    how near it is to the second."""
    cells = scores.shape[dim]
    centre = torch.arange(start, stop, device=scores.device, dtype=torch.float32) + 0.5
    position = (centre * ((cells + 2 * margin) / length) - margin - 0.5).clamp_(min=0)
    first = position.floor().long().clamp_(max=cells - 1)
    second = (first + 1).clamp_(max=cells - 1)
    return first, second, (position - first).to(scores.dtype)


def score_windows(
    pixels: Tensor,
    window: int,
    stride: int,
    score: Callable[[Tensor], Tensor],
    batch_size: int = 8,
    margin: float = 0.0,
) -> list[WindowScores]:
    """Score the windows of each image of `pixels` (B, 3, H, W), at most `batch_size` windows at
    once.

    `score` maps a batch of windows (n, 3, wh, ww) to scores (n, K, h, w) at any resolution. An
    image smaller than the window along a side has windows of its own size there. `window` and
    `stride` are in pixels, `margin` as of `upsample_rows`.
    """
    height, width = pixels.shape[2:]
    tops, lefts = window_starts(height, window, stride), window_starts(width, window, stride)
    size = min(window, height), min(window, width)
    places = [(b, y, x) for b in range(len(pixels)) for y in tops for x in lefts]
    scores = []
    for first in range(0, len(places), batch_size):
        chunk = places[first : first + batch_size]
        crops = [pixels[b, :, y : y + size[0], x : x + size[1]] for b, y, x in chunk]
        scores.append(score(torch.stack(crops)))
    per_image = torch.split(torch.cat(scores), len(tops) * len(lefts))
    return [
        WindowScores(part, tuple(tops), tuple(lefts), size, (height, width), margin)
        for part in per_image
    ]
