"""Refinement of maps as it is usually written: PAMR with all neighbours in one tensor, the random walk with a
dense matrix, the dense CRF by pydensecrf."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad, unfold


def neighbours(values: Tensor, distances: Sequence[int]) -> Tensor:
    """The 8 neighbours of each pixel at each distance: (C, H, W) to (C, 8 len(distances), H, W)."""
    channels, height, width = values.shape
    stacked = []
    for distance in distances:
        framed = pad(values[None], [distance] * 4, mode="replicate")
        patches = unfold(framed, kernel_size=3, dilation=distance).view(channels, 9, height, width)
        stacked.append(torch.cat([patches[:, :4], patches[:, 5:]], dim=1))
    return torch.cat(stacked, dim=1)


def pamr(image: Tensor, maps: Tensor, iterations: int, distances: Sequence[int]) -> Tensor:
    """Maps (K, H, W) after some iterations; image: float32 (3, H, W)."""
    around = neighbours(image, distances)
    samples = torch.cat([around, image[:, None].expand(-1, len(distances), -1, -1)], dim=1)
    deviation = samples.std(dim=1, keepdim=True)
    unlike = (image[:, None] - around).abs() / (1e-8 + 0.1 * deviation)
    weights = (-unlike.mean(0)).softmax(0)
    for _ in range(iterations):
        maps = (neighbours(maps, distances) * weights).sum(1)
    return maps


def squared_walk(maps: Tensor, sources: Tensor, weights: Tensor, doublings: int) -> Tensor:
    """2^doublings steps of a random walk: the dense transition matrix, squared again and again.

    Args:
        maps: (K, h, w).
        sources: int64 (h*w, n), from where each pixel takes.
        weights: (h*w, n), how much.
        doublings: how often the matrix is squared.
    """
    matrix = weights.new_zeros(len(sources), len(sources)).scatter_add_(1, sources, weights)
    for _ in range(doublings):
        matrix = matrix @ matrix
    return (matrix @ maps.flatten(1).T).T.view(maps.shape)


def dense_crf(unary: Tensor, image: Tensor, preset: Any) -> NDArray[np.float32]:
    """The probabilities of labels by pydensecrf, float32 (L, H, W).

    Args:
        unary: float32 (L, H, W).
        image: uint8 (H, W, 3).
        preset: has the weights and deviations of the two kernels, and the number of iterations.
    """
    import pydensecrf.densecrf as peer

    labels, height, width = unary.shape
    field = peer.DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(np.ascontiguousarray(unary.numpy().reshape(labels, -1)))
    field.addPairwiseGaussian(sxy=preset.gaussian_sxy, compat=preset.gaussian_weight)
    field.addPairwiseBilateral(
        sxy=preset.bilateral_sxy, srgb=preset.bilateral_srgb, rgbim=image.numpy(),
        compat=preset.bilateral_weight,
    )  # fmt: skip
    return np.array(field.inference(preset.iterations)).reshape(unary.shape)
