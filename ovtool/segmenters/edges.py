"""Scores that follow the edges of an image: means of segments, and the dense CRF."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ovtool.methods import class_maps, dense_crf, lab, region_scores, regions
from ovtool.methods.class_maps import Rows

WORKING_SIDE = 320  # longer side at which edges are looked for; larger images are reduced
_LEAST = 1e-8  # of a probability whose logarithm is taken


def followed(
    rows: Rows, rgb: NDArray[np.uint8], classes: int, segments: Sequence[float], crf: str | None
) -> Rows:
    """Rows of logits after their means in segments and a dense CRF, both of an image reduced to
    `WORKING_SIDE`.

    Args:
        rows: The logits of all classes for any rows of the image's pixels.
        rgb: The image, uint8 (H, W, 3).
        classes: The number of classes.
        segments: The scales of the superpixels; none for no segments.
        crf: The preset of the CRF; None or `none` for no CRF.
    """
    if not segments and crf in (None, "none"):
        return rows
    size = (rgb.shape[0], rgb.shape[1])
    share = min(1.0, WORKING_SIDE / max(size))
    low_size = (max(1, round(size[0] * share)), max(1, round(size[1] * share)))
    low = rgb
    if low_size != size:
        low = np.array(Image.fromarray(rgb).resize(low_size[::-1], Image.Resampling.BOX))
    at_low = class_maps.resized(rows, size, low_size)
    if segments:
        at_low = region_scores.segment_rows(at_low, _cuts(low, segments), classes)
    return class_maps.resized(refined(at_low, low, classes, crf), low_size, size)


def _cuts(rgb: NDArray[np.uint8], scales: Sequence[float]) -> list[Tensor]:
    """The superpixel of each pixel at each scale, int64 (H, W)."""
    pixels = lab.of_rgb(rgb)
    cuts = regions.superpixels(pixels, scales, threads=torch.get_num_threads())
    return [torch.from_numpy(cut).long() for cut in cuts]


def refined(rows: Rows, rgb: NDArray[np.uint8], classes: int, crf: str | None) -> Rows:
    """Rows of logits after a dense CRF over the classes that are best somewhere; the same rows for the
    preset None or `none`."""
    if crf is None or crf == "none":
        return rows
    preset = dense_crf.PRESETS[crf]
    size = (rgb.shape[0], rgb.shape[1])
    best = class_maps.label_blocks(rows, size, classes).label
    present, local = torch.unique(best, return_inverse=True)
    if len(present) < 2:
        return rows
    if preset.unary == "hard":
        unary = dense_crf.hard_unary(local, len(present))
    else:
        share = torch.empty(len(present), *size)
        for start, stop, probability in class_maps.probability_blocks(rows, size, classes):
            share[:, start:stop] = probability.cpu()[present]
        unary = dense_crf.soft_unary(share)
    probabilities = dense_crf.refine(unary, torch.from_numpy(rgb), preset).clamp_(min=_LEAST)

    def logits(start: int, stop: int) -> Tensor:
        whole = torch.full((classes, stop - start, size[1]), _LEAST)
        whole[present] = probabilities[:, start:stop]
        return whole.log_()

    return logits
