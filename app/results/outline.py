"""The outline of a mask as polygons along the edges of its voxels.

Corners are (row, column) in whole numbers: voxel [j, i] spans from (j, i) to (j + 1, i + 1). The
polygons enclose the very area of the voxels and no voxel's centre lies on a line, so that filling
them again gives the mask back exactly. Voxels that touch at a corner only are not joined.
"""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Polygon = NDArray[np.int64]
"""(n, 2): its corners in order; the last is joined to the first."""


def loops(mask: Mask) -> list[Polygon]:
    """Return all closed lines in the order of their uppermost, then leftmost corner.

    Outer lines set out along their row and holes down their column, so they turn opposite ways.
    """
    corners, beside, below, filled = _corners(mask)
    left = np.ones(len(corners), dtype=np.bool_).tolist()
    found = []
    for start in range(len(corners)):
        if not left[start]:
            continue
        steps = (beside, below) if filled[start] else (below, beside)
        loop, at = [], start
        while left[at]:
            for step in steps:
                left[at] = False
                loop.append(at)
                at = step[at]
        found.append(corners[loop])
    return found


def keyholed(mask: Mask) -> list[Polygon]:
    """Return one polygon for each region; channels of no width lead to its holes.

    This is the way of PS3.3 C.8.8.6.3 to leave holes out of contours that are closed and planar.
    """
    lines = loops(mask)
    if all(_is_outer(line) for line in lines):
        return lines
    chain, starts = _Chain(), []
    for line in lines:
        nodes = chain.add(line)
        if _is_outer(line):
            starts.append(nodes[0])
        else:
            row, column = line[0].tolist()
            chain.join(nodes, _reached(mask, row, column))
    return [chain.polygon(start) for start in starts]


def _is_outer(line: Polygon) -> bool:
    return bool(line[0, 0] == line[1, 0])


def _corners(mask: Mask) -> tuple[Polygon, list[int], list[int], list[bool]]:
    """Return the corners in reading order, to which each is joined, and if they are filled.

    Along a line of the grid, edges begin and end in turns: the corners on it are joined in pairs.
    Where two voxels touch at a corner, there are two corners, each with the edges of one voxel.
    """
    padded = np.pad(mask, 1)
    above, under = padded[:-1], padded[1:]
    a, b, c, d = above[:, :-1], above[:, 1:], under[:, :-1], under[:, 1:]
    falling = a & d & ~b & ~c  # \ : the upper voxel is the left one
    rising = b & c & ~a & ~d  # / : the upper voxel is the right one
    rows, columns = np.nonzero((a ^ b ^ c ^ d) | falling | rising)
    copies = 1 + (falling | rising)[rows, columns]
    rows, columns = np.repeat(rows, copies), np.repeat(columns, copies)
    second = (np.diff(rows, prepend=-1) == 0) & (np.diff(columns, prepend=-1) == 0)
    # Of two, the left voxel's comes first in its row; in its column it is the lower one if rising.
    along = np.lexsort((second ^ rising[rows, columns], rows, columns))
    reading = np.arange(len(rows))
    return (
        np.stack([rows, columns], axis=1),
        _partners(reading),
        _partners(along),
        d[rows, columns].tolist(),
    )


def _partners(order: NDArray[np.int64]) -> list[int]:
    """Return to which corner each is joined, where each two in `order` are a pair."""
    partner = np.empty_like(order)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    found: list[int] = partner.tolist()
    return found


def _reached(mask: Mask, row: int, column: int) -> int:
    """Return the column at which a line from a hole's first corner to the left meets an edge."""
    ends = np.flatnonzero(~(mask[row - 1, :column] & mask[row, :column]))
    return int(ends[-1]) + 1 if len(ends) else 0


class _Chain:
    """Closed lines as corners that know the one that follows, so that two can become one."""

    def __init__(self) -> None:
        self._corners: list[tuple[int, int]] = []
        self._next: list[int] = []
        self._upright: dict[int, list[int]] = defaultdict(list)
        """Column → corners whose line to the next one lies in it."""

    def add(self, loop: Polygon) -> list[int]:
        """Add a closed line and return its nodes."""
        first = len(self._corners)
        self._corners += map(tuple, loop.tolist())
        nodes = [*range(first, len(self._corners))]
        self._next += [*nodes[1:], first]
        for node in nodes:
            self._register(node)
        return nodes

    def join(self, hole: list[int], column: int) -> None:
        """Lead the line that passes `column` at the height of the hole's first corner around it."""
        row = self._corners[hole[0]][0]
        before = next(node for node in self._upright[column] if self._passes(node, row))
        after = self._next[before]
        there, back, again = (
            self._append(corner)
            for corner in ((row, column), self._corners[hole[0]], (row, column))
        )
        self._next[before], self._next[there] = there, hole[0]
        self._next[hole[-1]], self._next[back], self._next[again] = back, again, after
        self._register(again)

    def polygon(self, start: int) -> Polygon:
        """Return the closed line from `start` on, no corner twice in a row."""
        corners, at = [self._corners[start]], self._next[start]
        while at != start:
            if self._corners[at] != corners[-1]:
                corners.append(self._corners[at])
            at = self._next[at]
        return np.array(corners, dtype=np.int64)

    def _append(self, corner: tuple[int, int]) -> int:
        self._corners.append(corner)
        self._next.append(-1)
        return len(self._corners) - 1

    def _register(self, node: int) -> None:
        column = self._corners[node][1]
        if self._corners[self._next[node]][1] == column:
            self._upright[column].append(node)

    def _passes(self, node: int, row: int) -> bool:
        ends = self._corners[node][0], self._corners[self._next[node]][0]
        return min(ends) <= row <= max(ends)
