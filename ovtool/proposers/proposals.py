"""The proposals of an image, and the bounds that those of a network keep.

Where masks come from a network, they are bounded here: a least area, non-maximum suppression, a
greatest number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovtool.methods import mask_nms, regions
from ovtool.methods.regions import Regions
from ovtool.settings.propose import Propose

MAX_IOU = 0.85  # of two masks of a network that are both kept, where the settings name none
MERGING_MAX_IOU = 0.75  # the same of `merging`
MIN_AREA, MERGING_MIN_AREA = 0.001, 0.0003  # shares of the image


@dataclass(frozen=True)
class Proposals(Regions):
    """Regions of one image with what the proposer's network says beside them, rows alike.

    Attributes:
        soft: float32 (N, H, W), the probability of each pixel to be in the mask, or None.
        embeddings: float32 (N, D), unit vectors in the space of a CLIP's texts, or None.
    """

    soft: NDArray[np.float32] | None = None
    embeddings: NDArray[np.float32] | None = None

    @classmethod
    def of(
        cls,
        regions: Regions,
        soft: NDArray[np.float32] | None = None,
        embeddings: NDArray[np.float32] | None = None,
    ) -> Proposals:
        """Regions with what belongs to their rows."""
        return cls(regions.superpixels, regions.members, regions.quality, soft, embeddings)


def bounded(
    soft: NDArray[np.float32],
    quality: NDArray[np.float32],
    settings: Propose,
    embeddings: NDArray[np.float32] | None = None,
    threshold: float = 0.5,
) -> Proposals:
    """The masks of a network with all bounds of the settings.

    Args:
        soft: float32 (N, H, W) in [0, 1].
        quality: float32 (N,).
        settings: the bounds.
        embeddings: float32 (N, D), or None.
        threshold: a pixel is in a mask where its probability is above this.

    Returns:
        The proposals, best first.
    """
    masks = soft > threshold
    areas = masks.sum((1, 2))
    pixels = masks.shape[1] * masks.shape[2]
    large = np.flatnonzero((areas > 0) & (areas >= min_area(settings) * pixels))
    most = settings.max_proposals
    kept = large[mask_nms.suppress(masks[large], quality[large], max_iou(settings), most)]
    cut = regions.from_masks(masks[kept], quality[kept].clip(0, 1))
    return Proposals.of(cut, soft[kept], None if embeddings is None else embeddings[kept])


def completed(
    merged: Regions,
    soft: NDArray[np.float32],
    quality: NDArray[np.float32],
    embeddings: NDArray[np.float32],
    settings: Propose,
) -> Proposals:
    """The masks of a network cut along superpixels, and merged superpixels for what it misses.

    A mask takes the superpixels whose mean in it is above a half. A merged region has the embedding
    of the mask with which its IoU is greatest. All bounds of the settings hold.

    Args:
        merged: regions of merged superpixels.
        soft: the network's masks, float32 (N, H, W) in [0, 1].
        quality: float32 (N,).
        embeddings: float32 (N, D).
        settings: the bounds.

    Returns:
        The proposals, best first.
    """
    areas = np.bincount(merged.superpixels.ravel(), minlength=merged.members.shape[1])
    inside = [np.bincount(merged.superpixels.ravel(), mask.ravel(), len(areas)) for mask in soft]
    drawn = np.array(inside).reshape(len(soft), len(areas)) / areas > 0.5
    sizes = [members @ areas.astype(np.float64) for members in (merged.members, drawn)]
    common = (merged.members * areas.astype(np.float64)) @ drawn.T  # (R, N)
    united: NDArray[np.float64] = sizes[0][:, None] + sizes[1][None] - common
    nearest = (common / np.maximum(united, 1)).argmax(1)
    both = Regions(
        merged.superpixels,
        np.concatenate([drawn, merged.members]),
        np.concatenate([quality, merged.quality]).clip(0, 1),
    )
    vectors = np.concatenate([embeddings, embeddings[nearest]])
    share = both.members @ areas / merged.superpixels.size
    large = np.flatnonzero((share > 0) & (share >= min_area(settings)))
    masks, most = both.kept(large).masks(), settings.max_proposals
    kept = large[mask_nms.suppress(masks, both.quality[large], max_iou(settings), most)]
    return Proposals.of(both.kept(kept), embeddings=vectors[kept])


def max_iou(settings: Propose) -> float:
    """The greatest IoU of two masks of a network that are both kept."""
    default = MERGING_MAX_IOU if settings.proposer == "merging" else MAX_IOU
    return default if settings.nms is None else settings.nms


def min_area(settings: Propose) -> float:
    """The least share of the image in a mask."""
    default = MERGING_MIN_AREA if settings.proposer == "merging" else MIN_AREA
    return default if settings.min_area is None else settings.min_area
