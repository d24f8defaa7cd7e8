"""How good class activation maps are as seeds of segmentation, and where their errors lie.

The seed of an image is the argmax over its maps and a background score, which is a constant, or
(1 - max_c M_c)^a (CLIP-ES, section 4). Which constant or power is a choice that pixel truth must not make:
`otsu` looks at the maps alone.
"""

import torch
from torch import Tensor


def background_constant(maps: Tensor, value: float) -> Tensor:
    """The background score (H, W) of maps (K, H, W): one value everywhere."""
    return torch.full_like(maps[0], value) if len(maps) else torch.ones(maps.shape[1:])


def background_power(maps: Tensor, power: float = 1.0) -> Tensor:
    """The background score (1 - max_c M_c)^a of maps (K, H, W) in [0, 1], as (H, W)."""
    return (1 - maps.amax(dim=0)).clamp(min=0) ** power


def seeds(maps: Tensor, classes: Tensor, background: Tensor) -> Tensor:
    """The label of each pixel: of maps (K, H, W) of `classes` int64 (K,) the greatest, or 0 where the
    background score (H, W) is at least as great. Classes count from 1."""
    if not len(maps):
        return torch.zeros(background.shape, dtype=torch.int64)
    best, which = maps.max(dim=0)
    return torch.where(best > background, classes.to(torch.int64)[which], 0)


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


def false_foreground(seed: Tensor, truth: Tensor) -> Tensor:
    """Pixels that a seed calls a class and the truth calls background (0): bool, of their shape. Where the
    truth is below 0 it says nothing."""
    return (seed > 0) & (truth == 0)


def paired_share(false: Tensor, seed: Tensor, ground: Tensor, pairs: Tensor) -> tuple[int, int]:
    """Of the false foreground, how many pixels lie on the ground that goes with the class, and how many
    could: (on the paired ground, all of classes that have one).

    false: bool (H, W). seed: int64 (H, W), classes from 1. ground: int64 (H, W). pairs: int64 (C + 1,), the
    ground of each class, -1 for none.
    """
    home = pairs[seed.clamp(min=0)]
    counted = false & (home >= 0)
    return int((counted & (ground == home)).sum()), int(counted.sum())
