"""Regions by merging SLIC superpixels with scikit-image's region adjacency graph, which merges in Python."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SEGMENTS = 400
LEVELS = (0.02, 0.04, 0.06, 0.1, 0.15, 0.25)  # of the colour distance up to which neighbours merge


def regions(rgb: NDArray[np.uint8]) -> list[NDArray[np.bool_]]:
    """The regions of an image, uint8 (H, W, 3): masks, bool (H, W), at every level of the merging."""
    from skimage import graph
    from skimage.color import rgb2lab
    from skimage.segmentation import slic

    lab = rgb2lab(rgb) / 100
    labels = slic(rgb, SEGMENTS, compactness=10, start_label=0)
    merging = graph.rag_mean_color(lab, labels)
    masks = []
    for level in LEVELS:
        joined = graph.merge_hierarchical(
            labels, merging, level, rag_copy=True, in_place_merge=True,
            merge_func=_merge, weight_func=_weight,
        )  # fmt: skip
        masks += [joined == label for label in np.unique(joined)]
    return masks


def _merge(merging: Any, first: int, second: int) -> None:
    """Adds the colours of one node to another."""
    node, other = merging.nodes[second], merging.nodes[first]
    node["total color"] = node["total color"] + other["total color"]
    node["pixel count"] += other["pixel count"]
    node["mean color"] = node["total color"] / node["pixel count"]


def _weight(merging: Any, first: int, second: int, neighbour: int) -> dict[str, float]:
    """The distance of a merged node's mean colour from a neighbour's."""
    apart = merging.nodes[second]["mean color"] - merging.nodes[neighbour]["mean color"]
    return {"weight": float(np.linalg.norm(apart))}
