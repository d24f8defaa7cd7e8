"""Gaussian filtering of many points in few dimensions: the permutohedral lattice.

The features of a point are its position divided by the kernel's standard deviations. Points are
splatted to the corners of the simplex that they lie in, the corners are blurred by [.5, 1, .5]
along each of the d + 1 axes, one after the other, and sliced back with the same weights. Only
corners that some point touches exist; a neighbour that does not exist counts as zero. It costs
O(N d^2), and approximates sum_j exp(-|f_i - f_j|^2 / 2) v_j up to a factor.

Symbols, as in the paper: d dimensions of a feature, N points, M corners. A corner of remainder r
has d + 1 integer coordinates that are all r modulo d + 1 and sum to zero; `cell` is (coordinate -
r) / (d + 1) of the first d of them. In cells, the corner of remainder r of a simplex is that of
remainder 0 less one in each coordinate whose rank is among the r highest, and the neighbour along
axis j lies in the cell next along j of the remainder below (for remainder 0: of remainder d).

Source: Adams, Baek, Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice
(Eurographics 2010); the rounding, the order of tied ranks, the blur without new corners and the
scale are those of Kraehenbuehl and Koltun's dense CRF (NIPS 2011), so that results agree with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

MAX_TABLE = 1 << 23  # cells that are numbered by a table: 32 MiB
PACKED = {
    1: torch.float32,
    2: torch.float64,
    4: torch.complex128,
}  # a row as one number, to move it


@dataclass(frozen=True, eq=False)
class Lattice:
    """A lattice for N points, on their device.

    corners: int32 (N, d + 1), the corner of each remainder of a point's simplex.
    slices: float32 (N, d + 1), its weights at slicing, the constant 1 / (1 + 2^-d) included.
    points: int32 (N (d + 1),), the points at each corner, corner after corner.
    splats: float32 (N (d + 1),), their weights at splatting.
    starts: int32 (M + 2,), where in `points` each corner begins; corner M, which stands for those that
        do not exist, has none.
    neighbours: int32 (d + 1, 2, M + 1), the corners on both sides of each along each axis, or M.
    """

    corners: Tensor
    slices: Tensor
    points: Tensor
    splats: Tensor
    starts: Tensor
    neighbours: Tensor

    @staticmethod
    @torch.no_grad()
    def build(features: Tensor) -> Lattice:
        """The lattice of features, float32 (N, d).

        Raises ValueError for no points, for features that are not finite, or so far apart that their
        cells cannot be counted in 62 bits.
        """
        if features.ndim != 2 or 0 in features.shape or not bool(features.isfinite().all()):
            raise ValueError(f"{tuple(features.shape)} features: want (N, d), N > 0, all finite")
        count, dimensions = features.shape
        rounded, ranks, ordered = _simplex(features.float())
        strides, span = _strides(rounded)
        cells = _cells(rounded, ranks, strides)  # (d + 1, N)
        distinct, corners = _number(cells, span)
        weights = _barycentric(ordered).T.contiguous()  # (N, d + 1)
        corners = corners.T.contiguous()
        points, splats, starts = _by_corner(corners, weights, len(distinct))
        return Lattice(
            corners=corners,
            slices=weights * (1.0 / (1.0 + 2.0**-dimensions)),
            points=points,
            splats=splats,
            starts=starts,
            neighbours=_neighbours(distinct, strides, span),
        )

    @torch.no_grad()
    def filter(self, values: Tensor) -> Tensor:
        """The values of all points, float32 (N, C), blurred: (N, C)."""
        at_corners = embedding_bag(
            self.points, values.contiguous(), self.starts, mode="sum",
            per_sample_weights=self.splats, include_last_offset=True,
        )  # fmt: skip
        return embedding_bag(
            self.corners, self._blurred(at_corners), mode="sum", per_sample_weights=self.slices
        )

    def scaled(self, factor: Tensor) -> Lattice:
        """The lattice whose filter multiplies by `factor`, float32 (N,), before and after."""
        return replace(
            self,
            slices=self.slices * factor[:, None],
            splats=self.splats * factor.index_select(0, self.points),
        )

    def _blurred(self, values: Tensor) -> Tensor:
        """The corners' values, (M + 1, C), the last row zero, blurred along one axis after another."""
        channels = values.shape[1]
        packed = PACKED.get(channels)
        for near, far in self.neighbours:
            rows = values if packed is None else values.view(packed)[:, 0]
            sides = [rows.index_select(0, side) for side in (near, far)]
            left, right = (side.view(torch.float32).view(-1, channels) for side in sides)
            values = torch.add(values, left.add_(right), alpha=0.5)
        return values


def _simplex(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The simplex of each point: the cells of its corner of remainder 0, float32 (d + 1, N); the rank
    of each coordinate, int64 (d + 1, N), 0 the highest; and how far the point lies from that corner,
    in cells, from the highest coordinate to the lowest, float32 (d + 1, N)."""
    dimensions = features.shape[1]
    elevated = _elevated(features)
    rounded = (elevated * (1.0 / (dimensions + 1))).round_()  # half to even
    excess = rounded.sum(0).char()
    offset = elevated - rounded * (dimensions + 1)
    ranks = torch.zeros(rounded.shape, dtype=torch.int8, device=features.device)
    for i in range(dimensions):
        for j in range(i + 1, dimensions + 1):
            lower = (offset[i] < offset[j]).view(torch.int8)
            ranks[i] += lower
            ranks[j] += 1 - lower
    ranks += excess  # the corner must lie on the plane of coordinates that sum to zero
    turned = (ranks < 0).char() - (ranks > dimensions).char()
    ranks += turned * (dimensions + 1)
    rounded += turned
    offset = (elevated - rounded * (dimensions + 1)).mul_(1.0 / (dimensions + 1))
    places = ranks.long()
    return rounded, places, torch.empty_like(offset).scatter_(0, places, offset)


def _elevated(features: Tensor) -> Tensor:
    """Features on the plane in d + 1 dimensions, scaled to the blur's width: float32 (d + 1, N)."""
    count, dimensions = features.shape
    deviation = np.float32(math.sqrt(2.0 / 3.0) * (dimensions + 1))  # of the blur, inverted
    elevated = features.new_empty(dimensions + 1, count)
    total = features.new_zeros(count)
    for j in range(dimensions, 0, -1):
        scale = np.float32(1.0 / math.sqrt((j + 1) * j) * float(deviation))
        scaled = features[:, j - 1] * float(scale)
        torch.sub(total, scaled * float(j), out=elevated[j])
        total = total + scaled
    elevated[0] = total
    return elevated


def _barycentric(ordered: Tensor) -> Tensor:
    """The weight of the corner of each remainder: float32 (d + 1, N), which sum to 1."""
    weights = ordered.flip(0)
    weights[1:] -= ordered.flip(0)[:-1]
    weights[0] += 1.0 - ordered[0]
    return weights


def _strides(rounded: Tensor) -> tuple[Tensor, int]:
    """How cells are counted: the stride of each coordinate, int64 (d + 1,), 0 for the last, and the
    number of cells of a remainder. `rounded` loses its least value in each coordinate.

    A coordinate takes the values of remainder 0, one less, and a blank that keeps neighbours apart.
    """
    lowest = rounded[:-1].amin(1, keepdim=True) - 2.0
    rounded[:-1] -= lowest
    sizes = [int(size) + 1 for size in rounded[:-1].amax(1).tolist()]
    span = math.prod(sizes)
    if span * len(rounded) >= 1 << 62:
        raise ValueError(f"features span {span} cells: they are too far apart for their kernel")
    strides = [math.prod(sizes[index + 1 :]) for index in range(len(sizes))]
    return torch.tensor([*strides, 0], device=rounded.device), span


def _cells(rounded: Tensor, ranks: Tensor, strides: Tensor) -> Tensor:
    """The number of the cell of each corner: int64 (d + 1, N), a row a remainder."""
    cells = torch.empty(rounded.shape, dtype=torch.int64, device=rounded.device)
    cells[0] = 0
    for coordinate, stride in zip(rounded[:-1], strides[:-1], strict=True):
        cells[0] += coordinate.long() * stride
    # the stride of the coordinate of each rank, which a corner moves along
    by_rank = torch.empty_like(cells).scatter_(0, ranks, strides[:, None].expand_as(cells))
    for remainder in range(1, len(cells)):
        torch.sub(cells[remainder - 1], by_rank[-remainder], out=cells[remainder])
    return cells


def _number(cells: Tensor, span: int) -> tuple[Tensor, Tensor]:
    """The distinct corners, each as remainder times `span` plus cell, ascending, int64 (M,), and
    which of them each corner is, int32 (d + 1, N)."""
    remainders, count = cells.shape
    first = torch.arange(remainders, device=cells.device)[:, None]
    if remainders * span <= MAX_TABLE:
        numbers = cells + first * span
        table = torch.zeros(remainders * span, dtype=torch.int32, device=cells.device)
        table[numbers.flatten()] = 1
        distinct = table.nonzero()[:, 0]
        table[distinct] = torch.arange(len(distinct), dtype=torch.int32, device=cells.device)
        return distinct, table.index_select(0, numbers.flatten()).view_as(cells)
    bits = (count - 1).bit_length()
    if not _on_cpu(cells) or span.bit_length() + bits > 63:
        distinct, index = torch.unique(cells + first * span, return_inverse=True)
        return distinct, index.int()
    # cell and point in one number: numpy sorts numbers far faster than any library sorts indices
    both = (cells << bits) + torch.arange(count)
    both.numpy().sort(axis=1)
    numbers = ((both >> bits) + first * span).flatten()
    fresh = torch.ones(len(numbers), dtype=torch.int32)
    torch.ne(numbers[1:], numbers[:-1], out=fresh[1:])
    rank = fresh.cumsum(0, dtype=torch.int32).sub_(1).view_as(cells)
    corners = torch.empty_like(rank).scatter_(1, both & ((1 << bits) - 1), rank)
    return numbers[fresh.bool()], corners


def _by_corner(corners: Tensor, weights: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The points at each of `count` corners, their weights, and where each corner begins, as
    `Lattice` holds them, from the corners of each point and their weights, (N, d + 1)."""
    remainders, flat = corners.shape[1], corners.flatten()
    if _on_cpu(corners):
        order = torch.from_numpy(_stable_order(flat.numpy(), count))
    else:
        order = flat.sort(stable=True).indices
    starts = torch.zeros(count + 2, dtype=torch.int32, device=corners.device)
    starts[1:] = torch.bincount(flat, minlength=count + 1).cumsum(0)
    owner = torch.arange(len(corners), dtype=torch.int32, device=corners.device)
    points = owner.repeat_interleave(remainders).index_select(0, order)
    return points, weights.flatten().index_select(0, order), starts


def _stable_order(numbers: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """The order that sorts numbers below `count`, of 31 bits: by their lower and then by their higher half, for
    which numpy counts, several times as fast as a comparing sort."""
    order: NDArray[np.int64] = np.argsort(numbers.astype(np.uint16), kind="stable")
    if count > 1 << 16:
        higher = (numbers >> 16).astype(np.uint16)
        order = order[np.argsort(higher[order], kind="stable")]
    return order


def _neighbours(distinct: Tensor, strides: Tensor, span: int) -> Tensor:
    """Both neighbours of each corner along each axis: int32 (d + 1, 2, M + 1), M for none."""
    dimensions, count = len(strides) - 1, len(distinct)
    down = torch.full_like(distinct, -span)  # to the remainder below
    down[: int((distinct < span).sum())] = dimensions * span - int(strides.sum())
    down += distinct
    neighbours = distinct.new_full((dimensions + 1, 2, count + 1), count, dtype=torch.int32)
    index = torch.arange(count, dtype=torch.int32, device=distinct.device)
    for (near, far), stride in zip(neighbours, strides.tolist(), strict=True):
        wanted = down + stride
        place = _search(distinct, wanted)
        place = torch.where(distinct.index_select(0, place) == wanted, place, count)
        near[:count] = place
        far.scatter_(0, place, index)
        far[count] = count  # where those without a neighbour wrote
    return neighbours


def _search(ascending: Tensor, wanted: Tensor) -> Tensor:
    """Where each wanted number would stand among ascending ones: int64, at most the last place."""
    if _on_cpu(ascending):  # numpy's is faster for wanted numbers that mostly ascend too
        place = torch.from_numpy(np.searchsorted(ascending.numpy(), wanted.numpy()))
    else:
        place = torch.searchsorted(ascending, wanted)
    return place.clamp_(max=len(ascending) - 1)


def _on_cpu(values: Tensor) -> bool:
    """Whether numpy can work on these values where they lie."""
    return values.device.type == "cpu"
