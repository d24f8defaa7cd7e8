"""What a region of a tree of merges looks like, in numbers from which its objectness can be learned.

Shape and place, how unlike its surroundings it is (as in Alexe et al., TPAMI 2012), how it stands in the tree of merges,
and what it and its surroundings show. All of it is added up along the tree, from the superpixels to the root.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovtool.methods.regions import Borders, Tree

SHAPE = 12  # numbers of a region's shape and place
STANDING = 4  # of its border and of its place in the tree
NAMED = 14  # of what words name it and what is around it

Floats = NDArray[np.floating[Any]]


def means(superpixels: NDArray[np.int32], maps: Floats) -> NDArray[np.float32]:
    """The mean of maps (D, h, w) in each superpixel, (S, D)."""
    flat = superpixels.ravel()
    sums = [np.bincount(flat, channel.ravel()) for channel in maps]
    return (np.stack(sums, 1) / np.bincount(flat)[:, None]).astype(np.float32)


def grid_means(superpixels: NDArray[np.int32], grid: Floats) -> NDArray[np.float32]:
    """`means` of maps that are given on a grid, (D, h, w), and resized bilinearly: float32 (S, D)."""
    count, cells = int(superpixels.max()) + 1, grid[0].size
    rows, columns = (
        _bilinear(n, m) for n, m in zip(superpixels.shape, grid.shape[1:], strict=True)
    )
    shares = np.zeros(count * cells)
    for row, height in rows:
        for column, width in columns:
            cell = superpixels * cells + (row[:, None] * grid.shape[2] + column)
            weight = (height[:, None] * width).ravel()
            shares += np.bincount(cell.ravel(), weight, count * cells)
    own = shares.reshape(count, cells).astype(np.float32)
    means: NDArray[np.float32] = own @ grid.reshape(len(grid), -1).T / own.sum(1, keepdims=True)
    return means


def _bilinear(length: int, cells: int) -> tuple[tuple[NDArray[np.int64], NDArray[Any]], ...]:
    """The two cells of each pixel of a side and their weights, twice (length,)."""
    place = np.clip((np.arange(length) + 0.5) * cells / length - 0.5, 0, cells - 1)
    lower = place.astype(np.int64)
    upper = np.minimum(lower + 1, cells - 1)
    return (lower, 1 - (place - lower)), (upper, place - lower)


def summed(tree: Tree, values: Floats) -> NDArray[np.float64]:
    """Values of superpixels (S, ...), or of all nodes (N, ...), summed over each node and all below it: (N, ...)."""
    sums = np.zeros((len(tree.parents), *values.shape[1:]))
    sums[: len(values)] = values
    for node, parent in enumerate(tree.parents[:-1].tolist()):
        sums[parent] += sums[node]
    return sums


def describe(
    superpixels: NDArray[np.int32],
    borders: Borders,
    tree: Tree,
    vectors: NDArray[np.float32],
    blocks: Sequence[int],
) -> NDArray[np.float32]:
    """The features of the nodes of a tree, float32 (N, SHAPE + STANDING + 2 B + 2 D).

    Args:
        superpixels: int32 (h, w).
        borders: between them.
        tree: of their merges.
        vectors: float32 (S, D), of each superpixel: B blocks of numbers, side by side.
        blocks: the widths of the blocks, which sum to D.

    Returns:
        Of each node, in this order: its shape and place (`_shapes`); the mean contrast along its border, over 40 Lab
        units, and the logarithms of `made`, of `ended` and of their ratio; of each block the root mean square
        deviation inside, and the distance of its mean from that of the superpixels along its border; its mean vector;
        and the mean vector of those around it. The root has none around it, and counts as like itself.
    """
    count, width = vectors.shape
    sizes = np.bincount(superpixels.ravel(), minlength=count)[:, None]
    moments = summed(tree, np.concatenate([vectors, vectors**2], 1) * sizes)
    inside, squares = np.split(moments / tree.areas[:, None], [width], axis=1)
    length, contrast, around = np.split(_around(borders, tree, vectors), [1, 2], axis=1)
    around = np.where(length > 0, around / np.maximum(length, 1), inside)
    made, ended = np.log(tree.made + 1e-2), np.log(tree.ended + 1e-2)
    standing = [(contrast / np.maximum(length, 1) / 40)[:, 0], made, ended, ended - made]
    starts = np.cumsum([0, *blocks[:-1]])
    spread = np.add.reduceat(np.maximum(squares - inside**2, 0), starts, axis=1)
    apart = np.add.reduceat((inside - around) ** 2, starts, axis=1)
    columns = [_shapes(superpixels, tree), np.stack(standing, 1)]
    columns += [np.sqrt(spread), np.sqrt(apart), inside, around]
    return np.concatenate(columns, axis=1).astype(np.float32)


def _around(borders: Borders, tree: Tree, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Over the border of each node: its length, the contrast, and the vectors on its outer side, each summed by pixel
    edges, (N, 2 + D).

    That is the sum over all borders of the node's superpixels, less those inside, which begin to be inside where the
    two superpixels are first in one node.
    """
    first, second = borders.ends.T
    lengths = borders.lengths[:, None].astype(np.float64)
    own = np.concatenate(
        [lengths, borders.contrasts[:, None]], 1
    )  # (E, 2), the same from both sides
    from_first = np.concatenate([own, vectors[second] * lengths], 1)
    from_second = np.concatenate([own, vectors[first] * lengths], 1)
    totals = np.zeros((len(tree.parents), 2 + vectors.shape[1]))
    np.add.at(totals, first, from_first)
    np.add.at(totals, second, from_second)
    np.subtract.at(totals, _first_common(tree, borders.ends), from_first + from_second)
    return summed(tree, totals)


def _first_common(tree: Tree, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The smallest node that has both superpixels of each pair, (E,)."""
    low: NDArray[np.int64] = pairs.min(1)
    high: NDArray[np.int64] = pairs.max(1)
    apart = np.arange(len(pairs))
    while len(apart):
        low[apart] = tree.parents[low[apart]]
        swapped = low[apart] > high[apart]
        at = apart[swapped]
        low[at], high[at] = high[at], low[at]
        apart = apart[low[apart] != high[apart]]
    return low


def _shapes(superpixels: NDArray[np.int32], tree: Tree) -> NDArray[np.float64]:
    """Of each node: the logarithm and the root of its share of the image; the height and width of its box as shares of
    the image; its share of the box; the logarithm of the box's height over its width; the distance of the box's centre
    from the image's, downwards with its sign, and sideways; how many of the image's four sides it touches, over 4, and
    whether it touches the lower one; its border with other regions over the root of its area, over 4; and that root
    over the image's shorter side: (N, SHAPE)."""
    height, width = superpixels.shape
    top, left, bottom, right = _boxes(superpixels, tree).T
    share = tree.areas / superpixels.size
    touched = [top == 0, left == 0, bottom == height, right == width]
    return np.stack(
        [
            np.log(share),
            np.sqrt(share),
            (bottom - top) / height,
            (right - left) / width,
            tree.areas / ((bottom - top) * (right - left)),
            np.log((bottom - top) / (right - left)),
            (top + bottom) / (2 * height) - 0.5,
            np.abs((left + right) / (2 * width) - 0.5),
            np.sum(touched, axis=0) / 4,
            touched[2].astype(np.float64),
            tree.perimeters / np.sqrt(tree.areas) / 4,
            np.sqrt(tree.areas) / min(height, width),
        ],
        axis=1,
    )


def _boxes(superpixels: NDArray[np.int32], tree: Tree) -> NDArray[np.int64]:
    """The first row and column of each node, and those after the last: int64 (N, 4)."""
    count = tree.members.shape[1]
    boxes = np.full((len(tree.parents), 4), np.iinfo(np.int64).max)  # the last two negative
    flat = superpixels.ravel()
    for axis, place in enumerate(np.indices(superpixels.shape).reshape(2, -1)):
        np.minimum.at(boxes[:count, axis], flat, place)
        np.minimum.at(boxes[:count, axis + 2], flat, -place - 1)
    for node, parent in enumerate(tree.parents[:-1].tolist()):
        np.minimum(boxes[parent], boxes[node], out=boxes[parent])
    boxes[:, 2:] *= -1
    return boxes


def named(inside: Floats, around: Floats, things: int) -> NDArray[np.float32]:
    """What words say of regions and of what is around them, (N, NAMED).

    Args:
        inside: the probabilities of words, (N, K).
        around: the same of what is around.
        things: how many of the words, the first ones, name things.

    Returns:
        Inside and around, each: the sum and the greatest of the things, the greatest of the others, how much the best word
        is ahead of the second, and the entropy in nats. Then, of the thing that is best inside, the probability around and
        how much higher it is inside; the L1 distance of the two; and how much higher the best word is inside than around.
    """
    columns = []
    for shares in (np.clip(inside, 1e-6, 1), np.clip(around, 1e-6, 1)):
        second, first = np.partition(shares, -2, axis=1)[:, -2:].T
        columns += [shares[:, :things].sum(1), shares[:, :things].max(1), shares[:, things:].max(1)]
        columns += [first - second, -(shares * np.log(shares)).sum(1)]
    rows = np.arange(len(inside))
    thing, best = inside[:, :things].argmax(1), inside.argmax(1)
    columns += [around[rows, thing], inside[rows, thing] - around[rows, thing]]
    columns += [np.abs(inside - around).sum(1), inside[rows, best] - around[rows, best]]
    return np.stack(columns, 1).astype(np.float32)
