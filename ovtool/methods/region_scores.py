"""Patch scores pooled in regions: each region is named as a whole, and pixels take the mean of the
regions that they lie in.

Everything is done on superpixels, of which regions are sets, so the cost does not depend on the
number of pixels once their scores are summed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ovtool.methods.class_maps import Rows, row_blocks

DISAGREEMENT = 6.0  # how fast a region loses its say as its superpixels disagree, per nat
OWN_WEIGHT = 0.01  # of a superpixel's own scores, so that one outside all regions has a name


def superpixel_means(rows: Rows, superpixels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The mean score of each class in each superpixel, and the superpixels' areas.

    rows: gives the scores of pixel rows, (C, stop - start, W), as `class_maps.label_blocks` takes them.
    superpixels: int64 (H, W), 0 to S - 1, each value there.

    Returns float32 (S, C) and float32 (S,), the areas in pixels.
    """
    height, width = superpixels.shape
    areas = torch.bincount(superpixels.flatten()).float()
    sums = torch.zeros(len(areas), classes, device=areas.device)
    for start, stop in row_blocks((height, width), classes):
        scores = rows(start, stop).float().flatten(1).T  # (pixels, C)
        sums.index_add_(0, superpixels[start:stop].flatten(), scores)
    return sums / areas[:, None], areas


def segment_rows(rows: Rows, cuts: Sequence[Tensor], classes: int) -> Rows:
    """The scores of an image with those of each segment replaced by their mean, averaged over several cuts
    of the image into segments.

    rows: as of `superpixel_means`.
    cuts: the segment of each pixel, int64 (H, W), 0 to S - 1, each value there; at least one cut.
    """
    parts = [(superpixel_means(rows, cut, classes)[0].T, cut) for cut in cuts]

    def averaged(start: int, stop: int) -> Tensor:
        first, *others = (means[:, cut[start:stop]] for means, cut in parts)
        return sum(others, first) / len(parts)

    return averaged


def fuse(means: Tensor, areas: Tensor, members: Tensor, quality: Tensor) -> Tensor:
    """Class probabilities of each superpixel, (S, C), from the regions it belongs to.

    means: float32 (S, C), mean logits of each superpixel.
    areas: float32 (S,), in pixels.
    members: bool (N, S), the superpixels of each region.
    quality: float32 (N,) in [0, 1].

    A region's probabilities are the softmax of its mean logits. It counts by its quality, and by how
    far its superpixels agree: exp(-6 J), where J is the Jensen-Shannon divergence of their own
    probabilities, weighted by area. A region that holds an object and its ground has little say.
    """
    own = means.softmax(1)
    inside = members.float() * areas
    shares = inside / inside.sum(1, keepdim=True).clamp(min=1)  # (N, S)
    probabilities = (shares @ means).softmax(1)  # (N, C)
    divergence = _entropy(shares @ own) - shares @ _entropy(own)
    weights = quality * torch.exp(-DISAGREEMENT * divergence)
    votes = (members.float() * weights[:, None]).T  # (S, N)
    total = votes @ probabilities + OWN_WEIGHT * own
    return total / (votes.sum(1, keepdim=True) + OWN_WEIGHT)


def _entropy(probabilities: Tensor) -> Tensor:
    """The entropy of each row, in nats: (n, C) to (n,)."""
    terms: Tensor = torch.special.xlogy(probabilities, probabilities)
    return -terms.sum(1)
