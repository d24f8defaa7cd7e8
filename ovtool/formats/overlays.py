"""Images for people: what was found where, under the words' colours, and the scores of a word."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ovtool.formats import fonts, legend
from ovtool.formats.colours import Colour, class_colours, is_background, word_colour, word_colours
from ovtool.formats.legend import SMALLEST_FONT, STRIP, TEXT

__all__ = ["heatmap", "overlay", "word_colour", "word_colours"]

Rgb = NDArray[np.uint8]

LONGEST_SIDE = 2048  # what is larger is reduced
NARROWEST = 440  # what is narrower is enlarged, in whole steps; the strip is never narrower

_HEAT = 0.65  # how much of a heat map is colour, the rest is the grey image
# Anchors of matplotlib's "inferno" (Nathaniel Smith and Stéfan van der Walt, 2015), evenly spaced:
# lightness rises evenly from black to pale yellow.
_INFERNO = np.array([
    (0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85),
    (227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164),
], np.float64)  # fmt: skip


def overlay(
    rgb: Rgb,
    labels: NDArray[Any],
    names: Sequence[str],
    scores: Sequence[float | None] | None = None,
) -> Rgb:
    """An image with its masks in their words' colours, and below it the words that occur.

    The colours are those of all `names` (`colours.class_colours`), which label maps have too. The class
    `background` is not tinted.

    rgb: uint8 (H, W, 3). labels: integers (H, W), an index into `names`, or -1 for unlabelled.
    scores: one for each name, shown where not None.

    The image lies at the top left of the result, uint8 (H', W', 3): enlarged by a whole factor if
    it is narrower than 440 pixels, reduced to 2048 if its longer side passes that. Pixels without a
    label are as they were. The strip below is at least 440 pixels wide; it names the words with
    their share of all pixels, the largest first, and the score; as many as fit, then "+N more".
    A name in letters that no font of the system has is shown as "class" and its index.

    Raises ValueError for arrays of other shapes, or labels without a name.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.shape[:2] != labels.shape or not labels.size:
        raise ValueError(f"image {rgb.shape} and labels {labels.shape} do not belong together")
    if labels.min() < -1 or labels.max() >= len(names):
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()} are not in -1 to {len(names) - 1}"
        )
    if scores is not None and len(scores) != len(names):
        raise ValueError(f"{len(scores)} scores for {len(names)} names")
    counts = np.bincount(labels.ravel().astype(np.int64) + 1, minlength=len(names) + 1)[1:]
    present = [int(k) for k in np.flatnonzero(counts)]
    colours = class_colours(names)
    tints = {k: colours[k] for k in present if not is_background(names[k])}
    painted = _painted(*_resized(rgb, labels), tints)
    entries = [
        legend.entry(
            names[k],
            k,
            counts[k] / labels.size,
            scores[k] if scores is not None else None,
            tints.get(k),
        )
        for k in sorted(present, key=lambda k: (-counts[k], k))
    ]
    height, width = painted.shape[:2]
    strip = legend.draw(entries, max(width, NARROWEST), height)
    result = np.empty((height + strip.shape[0], strip.shape[1], 3), np.uint8)
    result[:] = STRIP
    result[:height, :width] = painted
    result[height:] = strip
    return result


def heatmap(rgb: Rgb, score: NDArray[Any]) -> Rgb:
    """A word's score over the grey image: dark where it is 0, bright yellow where it is 1.

    rgb: uint8 (H, W, 3). score: float (H, W) in [0, 1]; what lies outside is clipped, NaN is 0.
    Returns uint8 (H, W, 3), with a scale from 0 to 1 in the lower right corner if there is room.

    Raises ValueError for arrays of other shapes.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.shape[:2] != score.shape or not score.size:
        raise ValueError(f"image {rgb.shape} and scores {score.shape} do not belong together")
    grey = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    level = np.rint(255 * np.clip(np.nan_to_num(score, nan=0.0), 0, 1)).astype(np.int64)
    table = _inferno(np.linspace(0, 1, 256)).astype(np.float32)
    blended = (1 - _HEAT) * grey[..., None] + _HEAT * table[level]
    image = Image.fromarray(np.rint(blended).astype(np.uint8))
    _draw_scale(image)
    return np.array(image)


def _resized(rgb: Rgb, labels: NDArray[Any]) -> tuple[Rgb, NDArray[np.int32]]:
    """The image and its labels at a size that people can look at."""
    height, width = labels.shape
    longest = max(height, width)
    labels = labels.astype(np.int32)
    if longest > LONGEST_SIDE:
        size = tuple(max(1, round(side * LONGEST_SIDE / longest)) for side in (width, height))
        image = Image.fromarray(np.ascontiguousarray(rgb)).resize(size, Image.Resampling.BOX)
        reduced = Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)
        return np.array(image), np.array(reduced)
    factor = max(1, min(-(-NARROWEST // width), LONGEST_SIDE // longest))
    larger = rgb.repeat(factor, axis=0).repeat(factor, axis=1)
    return larger, labels.repeat(factor, axis=0).repeat(factor, axis=1)


def _painted(rgb: Rgb, labels: NDArray[np.int32], colours: Mapping[int, Colour]) -> Rgb:
    """The masks over the image: half their colour, a contour of it all, a dark line within."""
    labels = np.where(np.isin(labels, list(colours)), labels, -1)  # background is as unlabelled
    longest = max(labels.shape)
    line = max(2, round(longest / 500))
    labelled = labels >= 0
    contour = _grown(_edges(labels), line - 1)
    dark = _grown(contour, max(1, round(longest / 1000))) & ~contour
    table = np.zeros((max(colours, default=0) + 1, 3), np.uint8)
    for label, tint in colours.items():
        table[label] = tint
    colour = table[np.maximum(labels, 0)]
    blended = ((rgb.astype(np.uint16) + colour) // 2).astype(np.uint8)
    blended[dark] = blended[dark] * 0.55
    blended[contour] = colour[contour]
    return np.where(labelled[..., None], blended, rgb)


def _edges(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """The pixels with a neighbour, of four, under another label."""
    edges = np.zeros(labels.shape, np.bool_)
    across = labels[1:] != labels[:-1]
    along = labels[:, 1:] != labels[:, :-1]
    edges[1:] |= across
    edges[:-1] |= across
    edges[:, 1:] |= along
    edges[:, :-1] |= along
    return edges


def _grown(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """A mask grown by so many pixels, by a cross and a square in turn: nearly round."""
    for step in range(steps):
        old = mask
        mask = old.copy()
        mask[1:] |= old[:-1]
        mask[:-1] |= old[1:]
        if step % 2:
            old = mask.copy()
        mask[:, 1:] |= old[:, :-1]
        mask[:, :-1] |= old[:, 1:]
    return mask


def _inferno(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours (N, 3), 0 to 255, of values (N,) in [0, 1]."""
    stops = np.linspace(0, 1, len(_INFERNO))
    return np.stack([np.interp(value, stops, _INFERNO[:, k]) for k in range(3)], axis=1)


def _draw_scale(image: Image.Image) -> None:
    """A bar from 0 to 1 in the lower right corner, if that covers little of the image."""
    width, height = image.size
    size = max(SMALLEST_FONT, round(width / 60))
    bar_width, bar_height, pad = 6 * size, round(0.7 * size), round(0.5 * size)
    font = fonts.at(size)
    digit = font.getlength("0")
    panel_width = round(bar_width + 2 * digit + 4 * pad)
    panel_height = bar_height + 2 * pad
    if panel_width > 0.6 * width or panel_height > 0.25 * height:
        return
    left, top = width - pad - panel_width, height - pad - panel_height
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle(
        (left, top, left + panel_width, top + panel_height), radius=pad, fill=STRIP
    )
    blended = (1 - _HEAT) * 128 + _HEAT * _inferno(np.linspace(0, 1, bar_width))  # on middle grey
    colours = np.rint(blended).astype(np.uint8)
    bar = Image.fromarray(np.broadcast_to(colours, (bar_height, bar_width, 3)).copy())
    start = round(left + 2 * pad + digit)
    image.paste(bar, (start, top + pad))
    middle = top + panel_height / 2
    draw.text((left + pad, middle), "0", TEXT, font, anchor="lm")
    draw.text((left + panel_width - pad, middle), "1", TEXT, font, anchor="rm")
