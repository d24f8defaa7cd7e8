"""`merging`: superpixels merged by colour, texture, meaning and words, and ranked by a learned objectness.

As MCG (Arbelaez et al., CVPR 2014), with what `photo` sees: superpixels of two sizes, each merged up
to the whole image; the nodes of both trees are the candidates, and a small network says which are like objects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ovtool.methods import lab, mask_nms, region_features, regions
from ovtool.methods.regions import Borders, Regions, Tree
from ovtool.models import objectness
from ovtool.models.objectness import Objectness, Seen, Sight
from ovtool.proposers.proposals import max_iou, min_area
from ovtool.settings.propose import Propose

SCALES = (40, 120)  # of felzenszwalb's superpixels
LEAST = 20  # pixels of a superpixel
RANKED = 1000  # candidates that are compared with each other


@dataclass(frozen=True)
class Candidates:
    """Regions, N of them, and the features of each, float32 (N, objectness.FEATURES)."""

    regions: Regions
    features: NDArray[np.float32]


def candidates(rgb: NDArray[np.uint8], seen: Seen, least: float) -> Candidates:
    """The nodes of all trees of an image, their quality 0.

    Args:
        rgb: uint8 (H, W, 3).
        seen: what `objectness.describe` says of it.
        least: the share of the image that a region has at least.
    """
    pixels = lab.of_rgb(rgb)
    maps = (pixels.transpose(2, 0, 1) / 40, seen.looks.numpy())
    cuts, parts, features = [], [], []
    for superpixels in regions.superpixels(pixels, SCALES, LEAST, torch.get_num_threads()):
        borders = regions.borders_of(pixels, superpixels)
        scores = torch.from_numpy(region_features.grid_means(superpixels, seen.scores.numpy()))
        looks = [region_features.means(superpixels, several) for several in maps]
        vectors = np.concatenate([*looks, scores.softmax(1).numpy()], 1)
        tree = regions.merged(superpixels, borders, vectors * objectness.WEIGHTS, _distance)
        nodes = np.flatnonzero(tree.areas >= least * superpixels.size)
        cuts.append(superpixels)
        parts.append(tree.members[nodes])
        features.append(_features(superpixels, borders, tree, vectors)[nodes])
    return Candidates(_together(cuts, parts), np.concatenate(features))


def _features(
    superpixels: NDArray[np.int32], borders: Borders, tree: Tree, vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The features of all nodes of a tree, with what words say of them in place of all words' probabilities."""
    described = region_features.describe(superpixels, borders, tree, vectors, objectness.BLOCKS)
    width, words = sum(objectness.BLOCKS), objectness.WORDS
    first, inside, around = np.split(described, [described.shape[1] - 2 * width, -width], axis=1)
    words_inside, words_around = inside[:, -words:], around[:, -words:]
    named = region_features.named(words_inside, words_around, objectness.THINGS)
    return np.concatenate([first, inside[:, :-words], around[:, :-words], named], axis=1)


def _distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    apart = first - second
    return math.sqrt(apart @ apart)


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
    sight: Sight, network: Objectness, rgb: NDArray[np.uint8], settings: Propose
) -> Regions:
    """The regions of an image, uint8 (H, W, 3), best first."""
    seen = objectness.describe(sight, network, torch.from_numpy(rgb.copy()))
    return ranked(candidates(rgb, seen, min_area(settings)), network, settings)
