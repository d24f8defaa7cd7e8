"""Class-agnostic regions by hierarchical merging of superpixels.

The image is cut into superpixels (Felzenszwalb and Huttenlocher, IJCV 2004); the most alike
neighbours are merged again and again, as in Selective Search (Uijlings et al., IJCV 2013, section 3),
here by colour histograms, the contrast along the shared border and how much one encloses the other.
Every node of the tree of merges is a region; its quality is how unlike its neighbours it is.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovtool.methods import felzenszwalb
from ovtool.methods.lab import of_rgb

MAX_IOU = 0.85  # of two regions that are both kept

_BINS = (6, 8, 8)  # histogram bins of L, a, b
_LAB_LOW = np.array([0, -60, -60], np.float32)
_LAB_HIGH = np.array([100, 60, 60], np.float32)


@dataclass(frozen=True)
class Regions:
    """Regions of one image as sets of superpixels.

    superpixels: int32 (h, w), the superpixel of each pixel, 0 to S - 1.
    members: bool (N, S), which superpixels each region has.
    quality: float32 (N,) in [0, 1], higher is better, in descending order if they were proposed.
    """

    superpixels: NDArray[np.int32]
    members: NDArray[np.bool_]
    quality: NDArray[np.float32]

    def masks(self) -> NDArray[np.bool_]:
        """The regions as masks, bool (N, h, w)."""
        return self.members[:, self.superpixels]

    def kept(self, indices: NDArray[np.intp]) -> Regions:
        """The regions of these indices, in their order."""
        return Regions(self.superpixels, self.members[indices], self.quality[indices])


def superpixels(
    lab: NDArray[np.float32], scales: Sequence[float] = (80,), min_size: int = 25, threads: int = 1
) -> list[NDArray[np.int32]]:
    """Superpixels of a Lab image at each scale, numbered from 0 without gaps: int32 (h, w) each. A larger scale
    makes larger ones, and each has `min_size` pixels or more; `threads` scales are cut at once."""
    numbered = []
    for labels in felzenszwalb.segments(lab / 100, scales, min_size, threads):
        if not np.bincount(labels.ravel()).all():  # scikit-image leaves no gaps today
            labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
        numbered.append(labels.astype(np.int32))
    return numbered


def _histograms(lab: NDArray[np.float32], superpixels: NDArray[np.int32]) -> NDArray[np.float64]:
    """The share of each superpixel's pixels in each colour bin: float64 (S, sum of bins)."""
    areas = np.bincount(superpixels.ravel())
    count = len(areas)
    scaled = np.clip((lab - _LAB_LOW) / (_LAB_HIGH - _LAB_LOW), 0, 0.999)
    columns = []
    for channel, bins in enumerate(_BINS):
        # Linear binning: a pixel between two centres counts in both.
        position = np.clip(scaled[..., channel] * bins - 0.5, 0, bins - 1).ravel()
        low = position.astype(np.int64)
        high = np.minimum(low + 1, bins - 1)
        weight = position - low
        owner = superpixels.ravel().astype(np.int64) * bins
        total = count * bins
        table = np.bincount(owner + low, 1 - weight, total) + np.bincount(
            owner + high, weight, total
        )
        columns.append(table.reshape(count, bins))
    return np.concatenate(columns, axis=1) / areas[:, None]


def _colour_distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Half the L1 distance of two sets of histograms, in [0, 1]."""
    return 0.5 * float(np.abs(first - second).sum()) / len(_BINS)


@dataclass(frozen=True)
class Borders:
    """The pairs of neighbouring superpixels, E of them.

    Attributes:
        ends: int64 (E, 2), the two superpixels, the smaller number first.
        contrasts: float64 (E,), the Lab contrast summed along the border.
        lengths: int64 (E,), in pixel edges.
    """

    ends: NDArray[np.int64]
    contrasts: NDArray[np.float64]
    lengths: NDArray[np.int64]


def borders_of(lab: NDArray[np.float32], superpixels: NDArray[np.int32]) -> Borders:
    """The borders between the superpixels of a Lab image."""
    pairs, contrasts = [], []
    for axis in (0, 1):
        near = superpixels[:-1] if axis == 0 else superpixels[:, :-1]
        far = superpixels[1:] if axis == 0 else superpixels[:, 1:]
        step = np.linalg.norm(np.diff(lab, axis=axis), axis=-1)
        cut = near != far
        pairs.append(np.stack([near[cut], far[cut]], 1))
        contrasts.append(step[cut])
    ends = np.sort(np.concatenate(pairs).astype(np.int64), axis=1)
    count = int(superpixels.max()) + 1
    unique, inverse = np.unique(ends[:, 0] * count + ends[:, 1], return_inverse=True)
    return Borders(
        np.stack([unique // count, unique % count], 1),
        np.bincount(inverse.ravel(), np.concatenate(contrasts), len(unique)).astype(np.float64),
        np.bincount(inverse.ravel(), minlength=len(unique)),
    )


Distance = Callable[[NDArray[np.float64], NDArray[np.float64]], float]


class _Merging:
    """The state of the merging: mean vectors, areas, borders and neighbours of the living regions."""

    def __init__(
        self,
        superpixels: NDArray[np.int32],
        borders: Borders,
        vectors: NDArray[np.floating[Any]],
        distance: Distance,
    ) -> None:
        self.count, self.distance = len(vectors), distance
        nodes = 2 * self.count - 1
        areas = np.bincount(superpixels.ravel(), minlength=self.count)
        self.area = [float(area) for area in areas] + [0.0] * (nodes - self.count)
        self.mean = np.zeros((nodes, vectors.shape[1]))
        self.mean[: self.count] = vectors
        self.pixels = float(superpixels.size)
        self.borders: list[dict[int, tuple[float, int]]] = [{} for _ in range(nodes)]
        rows = (borders.ends.tolist(), borders.contrasts.tolist(), borders.lengths.tolist())
        for (a, b), contrast, length in zip(*rows, strict=True):
            self.borders[a][b] = self.borders[b][a] = (contrast, length)
        # the length of a region's border with others, in pixel edges
        self.perimeter = [sum(length for _, length in known.values()) for known in self.borders]

    def contrast(self, a: int, b: int) -> float:
        """How unlike two neighbours are: the distance of their means plus the contrast of their border, where
        1 is 40 Lab units, less where one encloses the other."""
        total, length = self.borders[a][b]
        perimeter = min(self.perimeter[a], self.perimeter[b])
        unlike = self.distance(self.mean[a], self.mean[b]) + min(1.0, total / length / 40.0)
        return unlike * (1.6 - length / perimeter)

    def waiting(self, a: int, b: int) -> tuple[float, int, int, float]:
        """A merge that may come: its urgency, the two, and their contrast. The urgency orders the merges: the
        contrast, less for small regions, which should merge first."""
        smaller, contrast = min(self.area[a], self.area[b]) / self.pixels, self.contrast(a, b)
        return contrast * (0.25 + min(1.0, math.sqrt(smaller / 0.02))), a, b, contrast

    def merge(self, a: int, b: int, new: int) -> None:
        """Puts `new` in the place of two neighbours."""
        self.area[new] = self.area[a] + self.area[b]
        weighted = self.mean[a] * self.area[a] + self.mean[b] * self.area[b]
        self.mean[new] = weighted / self.area[new]
        shared = self.borders[a][b][1]
        self.perimeter[new] = self.perimeter[a] + self.perimeter[b] - 2 * shared
        for old in (a, b):
            for other, (total, length) in self.borders[old].items():
                if other in (a, b):
                    continue
                known = self.borders[new].get(other, (0.0, 0))
                border = (known[0] + total, known[1] + length)
                self.borders[new][other] = self.borders[other][new] = border
                self.borders[other].pop(old)
            self.borders[old] = {}


@dataclass(frozen=True)
class Tree:
    """Merges of neighbours up to the whole image: the S superpixels, then each merged region, N = 2S - 1 in all.

    Attributes:
        members: bool (N, S), the superpixels of each node.
        parents: int64 (N,), the node that each is merged into, which has a greater number; the root is its own.
        areas: float64 (N,), in pixels.
        perimeters: int64 (N,), the border with other regions, in pixel edges.
        made: float64 (N,), the contrast of the two that were merged into it; 0 for a superpixel.
        ended: float64 (N,), the contrast at which it is merged away; the root, which never is, keeps `made`.
    """

    members: NDArray[np.bool_]
    parents: NDArray[np.int64]
    areas: NDArray[np.float64]
    perimeters: NDArray[np.int64]
    made: NDArray[np.float64]
    ended: NDArray[np.float64]


def merged(
    superpixels: NDArray[np.int32],
    borders: Borders,
    vectors: NDArray[np.floating[Any]],
    distance: Distance,
) -> Tree:
    """The tree in which the most alike neighbours are merged first.

    Args:
        superpixels: int32 (h, w), 0 to S - 1.
        borders: between them.
        vectors: floating (S, D), of each superpixel; a merged region has their mean over its pixels.
        distance: of two means.
    """
    state = _Merging(superpixels, borders, vectors, distance)
    count = state.count
    nodes = 2 * count - 1
    members = np.zeros((nodes, count), np.bool_)
    members[:count] = np.eye(count, dtype=np.bool_)
    made, ended, parents = np.zeros(nodes), np.zeros(nodes), np.arange(nodes)
    alive = np.zeros(nodes, np.bool_)
    alive[:count] = True
    queue = [state.waiting(a, b) for a in range(count) for b in state.borders[a] if a < b]
    heapq.heapify(queue)
    new = count
    while queue:
        _, a, b, contrast = heapq.heappop(queue)
        if not (alive[a] and alive[b]):
            continue
        ended[[a, b, new]] = made[new] = contrast
        state.merge(a, b, new)
        members[new] = members[a] | members[b]
        parents[[a, b]] = new
        alive[[a, b]] = False
        alive[new] = True
        for other in state.borders[new]:
            heapq.heappush(queue, state.waiting(other, new))
        new += 1
    areas, perimeters = np.array(state.area), np.array(state.perimeter)
    return Tree(
        members[:new], parents[:new], areas[:new], perimeters[:new], made[:new], ended[:new]
    )


def _best(
    order: NDArray[np.int64],
    members: NDArray[np.bool_],
    areas: NDArray[np.float64],
    max_regions: int,
) -> list[int]:
    """Non-maximum suppression: of the nodes in `order`, those whose IoU with none before passes 0.85.

    members: bool (nodes, S). areas: float64 (nodes,). Two nodes of a tree are nested or apart.
    """
    leaf = members.argmax(axis=1)  # one superpixel of each
    kept: list[int] = []
    for node in order:
        if len(kept) >= max_regions:
            break
        nested = members[kept, leaf[node]] | members[node, leaf[kept]]
        smaller = np.minimum(areas[kept], areas[node])
        larger = np.maximum(areas[kept], areas[node])
        if not (nested & (smaller / larger > MAX_IOU)).any():
            kept.append(int(node))
    return kept


def propose_regions(
    rgb: NDArray[np.uint8], max_regions: int = 100, min_area: float = 0.001
) -> Regions:
    """The regions of an image, best first.

    rgb: uint8 (h, w, 3).
    max_regions: how many to keep after non-maximum suppression (IoU 0.85).
    min_area: the least share of the image that a region has.

    Quality is half the contrast to the neighbour that the node is merged with, at most 1, times the
    square root of its share of the image over 5 %, at most 1.
    """
    lab = of_rgb(rgb)
    (labels,) = superpixels(lab)
    tree = merged(labels, borders_of(lab, labels), _histograms(lab, labels), _colour_distance)
    share = tree.areas / labels.size
    quality = np.minimum(1, tree.ended / 2) * np.minimum(1, np.sqrt(share / 0.05))
    order = np.argsort(-quality, kind="stable")
    best = _best(order[share[order] >= min_area], tree.members, tree.areas, max_regions)
    return Regions(labels, tree.members[best], quality[best].astype(np.float32))


def _ranked(codes: NDArray[np.int64], bound: int) -> tuple[NDArray[np.int64], int]:
    """The rank of each code among those that are there, and how many are; codes lie in [0, bound)."""
    if bound > 4 * codes.size:
        values, ranks = np.unique(codes, return_inverse=True)
        return ranks, len(values)
    is_there = np.bincount(codes, minlength=bound) > 0
    return (np.cumsum(is_there) - 1)[codes], int(is_there.sum())


def from_masks(masks: NDArray[np.bool_], quality: NDArray[np.floating[Any]]) -> Regions:
    """Masks that may overlap, as regions: pixels that lie in the same masks become a superpixel.

    masks: bool (N, h, w), N from 0 on; masks may be empty or cover everything.
    quality: floating (N,) in [0, 1].

    The regions keep the order of the masks, and ``masks()`` of the result gives them back. Superpixels
    made here need not be connected.

    Raises ValueError for arrays of other shapes or a quality out of range.
    """
    if masks.ndim != 3 or quality.shape != masks.shape[:1] or 0 in masks.shape[1:]:
        raise ValueError(f"masks {masks.shape} and quality {quality.shape} do not belong together")
    if not ((quality >= 0) & (quality <= 1)).all():
        raise ValueError("the quality of a mask must lie in [0, 1]")
    count, height, width = masks.shape
    # the masks of each pixel as bits of bytes, eight masks to a byte
    numbers, kinds = np.zeros(height * width, np.int64), 1
    for start in range(0, count, 8):
        byte = np.zeros(height * width, np.uint8)
        for index, mask in enumerate(masks[start : start + 8]):
            byte |= mask.ravel().view(np.uint8) << index
        numbers, kinds = _ranked(numbers * 256 + byte, kinds * 256)
    place = np.empty(kinds, np.int64)
    place[numbers] = np.arange(len(numbers))  # a pixel of each kind
    return Regions(
        numbers.reshape(height, width).astype(np.int32),
        masks.reshape(count, height * width).take(place, axis=1),
        quality.astype(np.float32),
    )
