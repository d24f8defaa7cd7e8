"""Pseudo masks: maps of an image's classes, and a background that nobody mapped, to one label a pixel.

The background's score is a constant, a power of how little the classes claim, (1 - max_k M_k)^a, as CLIP-ES
has it (Lin et al., CVPR 2023, section 3.4), or what the classes leave of probabilities that sum to 1. A
pixel takes the best score; one whose share of all its scores is low is in doubt and takes none.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

DOUBT = -1


@dataclass(frozen=True)
class Background:
    """How the background is scored.

    kind: `constant` (value), `power` (the exponent is value), `rest` (1 less the sum of the maps: for
        probabilities), or `otsu`: the constant that parts the best scores of an image's pixels in two, which
        needs no truth.
    """

    kind: str = "otsu"
    value: float = 1.0

    def score(self, maps: Tensor) -> Tensor:
        """The background's score of maps (K, H, W) in [0, 1]: (H, W) in [0, 1]; 1 where K is 0."""
        if not len(maps):
            return maps.new_ones(maps.shape[1:])
        best = maps.amax(dim=0)
        if self.kind == "power":
            return (1 - best).clamp(min=0) ** self.value
        if self.kind == "rest":
            return (1 - maps.sum(dim=0)).clamp(min=0)
        constant = otsu(best) if self.kind == "otsu" else self.value
        return torch.full_like(best, constant)


def otsu(values: Tensor, bins: int = 256) -> float:
    """The threshold in (0, 1) that parts values in [0, 1] into the two groups of least variance within
    (Otsu, 1979); of equal ones the middle. It needs no truth."""
    counts = torch.histc(values.float().flatten(), bins, 0.0, 1.0).double()
    centres = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
    below = counts.cumsum(0)  # (bins,) how many lie in the bins up to this one
    sums = (counts * centres).cumsum(0)
    above = below[-1] - below
    gap = sums / below.clamp(min=1) - (sums[-1] - sums) / above.clamp(min=1)
    between = below * above * gap.square()
    best = torch.nonzero(between >= between.max() * (1 - 1e-12))[:, 0].double()
    return float((best.mean() + 1) / bins)


def labels(maps: Tensor, background: Background, confidence: float = 0.0) -> tuple[Tensor, Tensor]:
    """The label of each pixel, int64 (H, W): 0 the background, k the k-th of the maps (K, H, W) in [0, 1]
    from 1 on, `DOUBT` where its share of all scores is below `confidence`; and that share, float (H, W).
    """
    scores = torch.cat([background.score(maps)[None], maps])
    shares = scores / scores.sum(dim=0).clamp(min=torch.finfo(scores.dtype).tiny)
    best, index = shares.max(dim=0)
    return torch.where(best >= confidence, index, DOUBT), best
