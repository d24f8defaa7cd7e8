"""Masks as one polygon each, through the middles of their border pixels, and polygons as masks again.

Drawn with its border, as OpenCV's `fillPoly` draws (and with it Ultralytics), the polygon of a mask is the
mask, to the pixel. Holes are reached by a cut along a row of the mask, which is walked both ways. Parts that do
not touch are joined by a line of one pixel, walked both ways too, as Ultralytics' own converter joins them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = NDArray[np.int64]  # (N, 2), column and row of pixels

# Steps along the sides of pixels, with the mask on the right hand: right, down, left, up. Each is a turn to the
# right of the one before.
_RIGHT, _DOWN, _LEFT, _UP = range(4)
_STARTS = ((0, 0), (0, 1), (1, 1), (1, 0))  # the corner of the pixel where its step begins
_OUTSIDE = ((-1, 0), (0, 1), (1, 0), (0, -1))  # the pixel on the left hand


def pieces(mask: NDArray[np.bool_]) -> list[Points]:
    """The polygon of each part of a mask (H, W) whose pixels share sides; none of an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return []
    top, left = int(rows[0]), int(columns[0])
    cut = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    steps = _Steps(cut)
    corner = np.array([left - 1, top - 1], np.int64)
    return [np.array(path, np.int64) + corner for path in steps.paths()]


def joined(polygons: Sequence[Points]) -> Points:
    """Polygons as one: each is reached from the nearest point of those before it."""
    from scipy.spatial import cKDTree  # which few commands need

    points = np.concatenate(polygons)
    owner = np.repeat(np.arange(len(polygons)), [len(polygon) for polygon in polygons])
    starts = np.cumsum([0, *(len(polygon) for polygon in polygons)])
    distance, nearest = np.full(len(points), np.inf), np.zeros(len(points), np.int64)
    visits: dict[int, list[tuple[int, int]]] = {}  # point to the polygons that begin there
    order = [0]
    waiting = owner != 0
    while waiting.any():
        last = order[-1]
        tree = cKDTree(polygons[last])
        index = np.flatnonzero(waiting)
        away, place = tree.query(points[index])
        better = away < distance[index]
        distance[index[better]] = away[better]
        nearest[index[better]] = starts[last] + place[better]
        first = int(index[distance[index].argmin()])
        visits.setdefault(int(nearest[first]), []).append((int(owner[first]), first))
        order.append(int(owner[first]))
        waiting &= owner != owner[first]
    walked: list[int] = []
    stack: list[list[int]] = [list(range(starts[1]))]
    while stack:  # a visit to a polygon is walked to its end, and back to where it began
        if not stack[-1]:
            stack.pop()
            continue
        point = stack[-1].pop(0)
        walked.append(point)
        for number, first in visits.pop(point, ()):
            own = list(range(starts[number], starts[number + 1]))
            turned = own[first - starts[number] :] + own[: first - starts[number]]
            stack.append([*turned, first, point])
    return points[walked]


def drawn(polygon: NDArray[np.integer], height: int, width: int) -> NDArray[np.bool_]:
    """The mask (H, W) of a polygon (N, 2) of columns and rows of pixels, its border drawn too."""
    canvas = Image.new("1", (width, height))
    points = [(int(x), int(y)) for x, y in polygon]
    draw = ImageDraw.Draw(canvas)
    draw.polygon(points, fill=1, outline=1)
    draw.line([*points, points[0]], fill=1)
    return np.array(canvas)


class _Steps:
    """All steps around the pixels of a mask that has an empty border."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.mask = mask
        inside = [np.argwhere(mask & ~np.roll(mask, (-r, -c), (0, 1))) for r, c in _OUTSIDE]
        self.direction = np.repeat(np.arange(4), [len(part) for part in inside])
        self.pixel = np.concatenate(inside)  # (E, 2), row and column
        width = mask.shape[1] + 1
        corner = self.pixel + np.array(_STARTS)[self.direction]
        begin = corner[:, 0] * width + corner[:, 1]
        after = self.pixel + np.array(_STARTS)[(self.direction + 1) % 4]
        end = after[:, 0] * width + after[:, 1]
        leaving = np.full(((mask.shape[0] + 1) * width, 4), -1, np.int64)
        leaving[begin, self.direction] = np.arange(len(begin))
        self.next = np.full(len(begin), -1, np.int64)
        for turn in (3, 0, 1):  # left, straight on, and right, which wins
            following = leaving[end, (self.direction + turn) % 4]
            self.next = np.where(following >= 0, following, self.next)
        self.upward = np.full(mask.shape, -1, np.int64)
        up = np.flatnonzero(self.direction == _UP)
        self.upward[tuple(self.pixel[up].T)] = up

    def paths(self) -> list[list[tuple[int, int]]]:
        """The closed paths around the parts, with those around their holes in them: columns and rows."""
        loops = self._loops()
        turns = np.where((self.direction % 2 == 0)[:, None], self._corner(0), self._corner(1))
        is_turn = self.direction != self.direction[self.next]
        inserted: dict[int, list[tuple[int, int]]] = {}
        holes: list[tuple[int, int, NDArray[np.int64]]] = []
        outer: list[tuple[int, int, NDArray[np.int64]]] = []
        for loop in loops:
            down = loop[self.direction[loop] == _DOWN]
            first = int(down[self.pixel[down, 1].argmin()])
            (holes if self._is_hole(loop) else outer).append(
                (int(self.pixel[first, 1]), first, loop)
            )

        def path(loop: NDArray[np.int64]) -> list[tuple[int, int]]:
            points: list[tuple[int, int]] = []
            for step in loop.tolist():
                points += inserted.pop(step, ())
                if is_turn[step]:
                    points.append((int(turns[step, 1]), int(turns[step, 0])))
            return points

        for column, first, loop in sorted(holes, key=lambda hole: -hole[0]):
            row = int(self.pixel[first, 0])
            reached = column - int(self.mask[row, column::-1].argmin()) + 1
            begins = int(np.flatnonzero(loop == first)[0])
            around = path(np.roll(loop, -begins))
            cut, back = (column, row), (reached, row)
            inserted.setdefault(int(self.upward[row, reached]), []).extend(
                [back, cut, *around, cut, back]
            )
        return [path(loop) for _, _, loop in outer]

    def _corner(self, axis: int) -> NDArray[np.int64]:
        """The pixel in which each step meets the next: one gives its row, the other its column."""
        own, other = self.pixel, self.pixel[self.next]
        parts = (own[:, 0], other[:, 1]) if axis == 0 else (other[:, 0], own[:, 1])
        return np.stack(parts, axis=1)

    def _loops(self) -> list[NDArray[np.int64]]:
        following, seen = self.next.tolist(), bytearray(len(self.next))
        loops = []
        for start in range(len(following)):
            if seen[start]:
                continue
            loop, step = [], start
            while not seen[step]:
                seen[step] = 1
                loop.append(step)
                step = following[step]
            loops.append(np.array(loop))
        return loops

    def _is_hole(self, loop: NDArray[np.int64]) -> bool:
        """Whether a loop goes around something outside: by the area that its steps enclose."""
        horizontal = loop[self.direction[loop] % 2 == 0]
        height = self.pixel[horizontal, 0] + (self.direction[horizontal] == _LEFT)
        sign = np.where(self.direction[horizontal] == _RIGHT, -1, 1)
        return bool((height * sign).sum() < 0)
