"""PAMR: maps that follow the image, by averaging each pixel over the neighbours that look like it.

With x the image, c its channels and n the 8 neighbours at each of several distances:

    k_n(i)     = mean_c -|x_c(i) - x_c(n)| / (1e-8 + 0.1 sigma_c(i))
    alpha_n(i) = softmax over n of k_n(i)
    m(i)      <- sum_n alpha_n(i) m(n)

sigma_c(i) is the unbiased deviation of a pixel and its neighbours, the pixel counted once for each
distance. Beyond the border the image's and the maps' edges go on. The weights sum to one, so maps
keep their range, and scaling the image changes nothing.

Source: Araslanov and Roth, Single-Stage Semantic Segmentation from Image Labels (CVPR 2020), section 4.2.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

DISTANCES = (1, 2, 4, 8, 12, 24)  # pixels
ITERATIONS = 10
_ROWS = 16  # whose weights are made at once


@torch.no_grad()
def pamr(
    image: Tensor, maps: Tensor, iterations: int = ITERATIONS, distances: Sequence[int] = DISTANCES
) -> Tensor:
    """Maps after some iterations: float32 (K, H, W), in the range of `maps`.

    image: floating (3, H, W), in any unit; maps: floating (K, H, W), of the same size.
    """
    weights = affinity(image, distances)
    refined = maps.float()
    for _ in range(iterations):
        mixed = torch.zeros_like(refined)
        for weight, shifted in zip(weights, _neighbours(refined, distances), strict=True):
            mixed.addcmul_(weight, shifted)
        refined = mixed
    return refined


def affinity(image: Tensor, distances: Sequence[int] = DISTANCES) -> Tensor:
    """alpha: float32 (8 len(distances), H, W), which sums to 1 over the neighbours."""
    image = image.float()
    mean = image * len(distances)
    for shifted in _neighbours(image, distances):
        mean += shifted
    samples = 9 * len(distances)
    mean /= samples
    variance = (image - mean).square_().mul_(len(distances))
    for shifted in _neighbours(image, distances):
        variance += (shifted - mean).square_()
    deviation = variance.div_(samples - 1).sqrt_()
    scale = (1e-8 + 0.1 * deviation).reciprocal_()
    weights = image.new_empty(8 * len(distances), *image.shape[1:])
    for weight, other in zip(weights, _neighbours(image, distances), strict=True):
        torch.mean((image - other).abs_() * scale, 0, out=weight).neg_()
    for rows in weights.split(_ROWS, dim=1):  # a second copy of all weights would be large
        rows.copy_(rows.softmax(0))
    return weights


def _neighbours(values: Tensor, distances: Sequence[int]) -> Iterator[Tensor]:
    """The values (C, H, W) of each neighbour of all pixels, as views of that shape."""
    height, width = values.shape[1:]
    margin = max(distances)
    framed = pad(values[None], [margin] * 4, mode="replicate")[0]
    for distance in distances:
        for down in (-distance, 0, distance):
            for right in (-distance, 0, distance):
                if down or right:
                    top, left = margin + down, margin + right
                    yield framed[:, top : top + height, left : left + width]
