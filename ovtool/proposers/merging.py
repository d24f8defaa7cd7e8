"""`merging`: superpixels merged by colour, texture and meaning, and ranked by a learned objectness.

As MCG (Arbelaez et al., CVPR 2014), with the features of a convolutional stem: superpixels of two sizes, each merged up
to the whole image; the nodes of both trees are the candidates, and a small network says which are like objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ovtool.methods import lab, mask_nms, region_features, regions
from ovtool.methods.regions import Regions
from ovtool.models import objectness
from ovtool.models.efficientnet import EfficientNetLite
from ovtool.models.objectness import Objectness
from ovtool.proposers.proposals import max_iou
from ovtool.settings.propose import Propose

SCALES = (40, 120)  # of felzenszwalb's superpixels
LEAST = 20  # pixels of a superpixel
RANKED = 1000  # candidates that are compared with each other


@dataclass(frozen=True)
class Candidates:
    """Regions, N of them, and the features of each, float32 (N, objectness.FEATURES)."""

    regions: Regions
    features: NDArray[np.float32]


def candidates(rgb: NDArray[np.uint8], seen: NDArray[np.float32], min_area: float) -> Candidates:
    """The nodes of all trees of an image, their quality 0.

    Args:
        rgb: uint8 (H, W, 3).
        seen: float32 (TEXTURE + MEANING, H, W), as of `objectness.describe`.
        min_area: the least share of the image that a region has.
    """
    pixels = lab.of_rgb(rgb)
    maps = np.concatenate([pixels.transpose(2, 0, 1) / 40, seen])
    cuts, parts, features = [], [], []
    for superpixels in regions.superpixels(pixels, SCALES, LEAST, torch.get_num_threads()):
        borders = regions.borders_of(pixels, superpixels)
        vectors = region_features.means(superpixels, maps)
        tree = regions.merged(superpixels, borders, vectors, _distance)
        nodes = np.flatnonzero(tree.areas >= min_area * superpixels.size)
        cuts.append(superpixels)
        parts.append(tree.members[nodes])
        described = region_features.describe(superpixels, borders, tree, vectors, objectness.BLOCKS)
        features.append(described[nodes])
    return Candidates(_together(cuts, parts), np.concatenate(features))


def _distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    apart = first - second
    return float(np.sqrt(apart @ apart))


def _together(cuts: list[NDArray[np.int32]], parts: list[NDArray[np.bool_]]) -> Regions:
    """Regions of several sets of superpixels as regions of the superpixels that all of them share."""
    stacked = np.stack([cut.ravel() for cut in cuts])
    code = np.zeros(stacked.shape[1], np.int64)
    for cut in stacked:
        code = code * (int(cut.max()) + 1) + cut
    _, first, shared = np.unique(code, return_index=True, return_inverse=True)
    members = [part[:, cut[first]] for part, cut in zip(parts, stacked, strict=True)]
    joined = np.concatenate(members)
    cut = shared.reshape(cuts[0].shape).astype(np.int32)
    return Regions(cut, joined, np.zeros(len(joined), np.float32))


@torch.no_grad()
def ranked(given: Candidates, network: Objectness, settings: Propose) -> Regions:
    """The best candidates, best first, within the bounds of the settings."""
    features = torch.from_numpy(given.features).to(network.mean.device)
    quality = network(features).sigmoid().cpu().numpy()
    best = np.argsort(-quality, kind="stable")[: max(RANKED, settings.max_proposals)]
    cut = given.regions
    areas = np.bincount(cut.superpixels.ravel())
    bounds = (max_iou(settings), settings.max_proposals)
    kept = best[mask_nms.suppress_members(cut.members[best], areas, quality[best], *bounds)]
    return Regions(cut.superpixels, cut.members[kept], quality[kept])


def propose(
    stem: EfficientNetLite, network: Objectness, rgb: NDArray[np.uint8], settings: Propose
) -> Regions:
    """The regions of an image, uint8 (H, W, 3), best first."""
    described = objectness.describe(stem, network, torch.from_numpy(rgb.copy()))
    return ranked(candidates(rgb, described.numpy(), settings.min_area), network, settings)
