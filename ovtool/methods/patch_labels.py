"""The class of each patch of an image, by the majority of its pixels.

PACL (Mukhoti et al., CVPR 2023, section 3) asks which patches a CLIP names right; a patch needs a
class for that. What becomes of patches without a majority the paper does not say; here they are left
out unless they are asked for.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

IGNORED = -1
MIXED = -2


@dataclass(frozen=True)
class PatchLabels:
    """For each patch of a grid (h, w): `label` int64, its most frequent class (the first of several),
    -1 where no pixel has one; `share` and `unlabelled` float32 in [0, 1], the shares of its pixels that
    have this class, and none.
    """

    label: Tensor
    share: Tensor
    unlabelled: Tensor

    def counted(self, count_mixed: bool = False) -> Tensor:
        """The label of each patch, int64 (h, w): that of more than half of its pixels; `IGNORED` where
        half of them or more have none; `MIXED` for the others, unless these count by their most
        frequent class."""
        label = torch.where(self.unlabelled >= 0.5, IGNORED, self.label)
        if count_mixed:
            return label
        return torch.where((label != IGNORED) & (self.share <= 0.5), MIXED, label)


def majority(labels: Tensor, patch: int) -> PatchLabels:
    """The labels of the patches of an image.

    labels: int64 (H, W), -1 for no class; H and W multiples of `patch`, the side of a patch in pixels.
    """
    height, width = labels.shape
    grid = (height // patch, width // patch)
    best = torch.full(grid, IGNORED, dtype=torch.int64)
    share = torch.zeros(grid)
    for value in torch.unique(labels).tolist():
        if value == IGNORED:
            continue
        of_class = _share(labels == value, patch)
        ahead = of_class > share
        best[ahead], share[ahead] = value, of_class[ahead]
    return PatchLabels(best, share, _share(labels == IGNORED, patch))


def resized(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels (H, W) at another size (h, w), each pixel's from the nearest."""
    rows = ((torch.arange(size[0]) + 0.5) * labels.shape[0] / size[0]).long()
    columns = ((torch.arange(size[1]) + 0.5) * labels.shape[1] / size[1]).long()
    return labels[rows][:, columns]


def _share(mask: Tensor, patch: int) -> Tensor:
    """The share of set pixels in each patch: bool (H, W) to float32 (h, w)."""
    return avg_pool2d(mask.float()[None, None], patch)[0, 0]
