"""Measure the surface of a mask by marching cubes, without making the triangles.

The surface runs halfway between the centres of voxels inside and outside. A cube of eight
neighbouring centres is one of 256 kinds, so that its triangles, and with them its part of the area,
follow from its kind and the spacing alone; its part of the volume is linear in where it lies. So
cubes are only counted. How the surface runs where several ways are right is pyradiomics 3.0.1's
way, so that values can be compared; it was found by asking that library about every kind.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]
Corner = tuple[int, int, int]
Edge = frozenset[Corner]

_KINDS = 256
_CORNERS: tuple[Corner, ...] = tuple((k, j, i) for k, j, i in product((0, 1), repeat=3))
"""In the order of the bits of a cube's kind."""
_TURNED = (1, 1, 0)
"""Cubes with this corner inside have the surface of their complement."""
_HEPTAGON = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """What is measured of a closed surface."""

    area_mm2: float
    volume_mm3: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Table:
    """The triangles of all kinds of cubes, each cube's corner k, j, i = 0 being the origin."""

    kinds: NDArray[np.intp]
    """The kind to which each triangle belongs."""
    triangles: Array
    """Three corners in steps of the grid for each triangle."""
    volumes: Array
    """The volume between the origin and the triangles of a kind …"""
    growth: Array
    """… and how it grows with each step of the cube along k, j and i."""


def surface_of(mask_kji: Mask, spacing_kji_mm: Sequence[float]) -> Surface:
    """Measure the surface of all that is inside; outside the array nothing is."""
    spacing = np.asarray(spacing_kji_mm, np.float64)
    counts, steps = _census(mask_kji)
    table = _table()
    a, b, c = np.moveaxis(table.triangles * spacing, 1, 0)
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    area = float(np.bincount(table.kinds, areas, _KINDS) @ counts)
    volume = float(table.volumes @ counts + (table.growth * steps).sum())
    return Surface(area_mm2=area, volume_mm3=volume * float(np.prod(spacing)))


def _census(mask_kji: Mask) -> tuple[Array, Array]:
    """Return how many cubes there are of each kind, and the sums of their indices k, j, i."""
    counts, steps = np.zeros(_KINDS), np.zeros((_KINDS, 3))
    for k, cubes in enumerate(_cubes(mask_kji)):
        # Kinds 0 and 255 have no surface; 255 + 1 is 0 in a byte.
        at = np.flatnonzero(cubes + np.uint8(1) > 1)
        kinds = cubes.ravel()[at]
        j, i = np.divmod(at, cubes.shape[1])
        here = np.bincount(kinds, minlength=_KINDS)
        counts += here
        steps[:, 0] += k * here
        steps[:, 1] += np.bincount(kinds, j, _KINDS)
        steps[:, 2] += np.bincount(kinds, i, _KINDS)
    return counts, steps


def _cubes(mask_kji: Mask) -> Iterator[NDArray[np.uint8]]:
    """Yield the kinds of the cubes between each two planes; a plane of nothing lies around all."""
    rows, columns = mask_kji.shape[1:]
    plane = np.zeros((rows + 2, columns + 2), np.uint8)
    below = np.zeros((rows + 1, columns + 1), np.uint8)
    for k in range(len(mask_kji) + 1):
        plane[1:-1, 1:-1] = mask_kji[k] if k < len(mask_kji) else 0
        pairs = plane[:, :-1] | plane[:, 1:] << 1
        above = pairs[:-1] | pairs[1:] << 2
        yield below | above << 4
        below = above


@cache
def _table() -> _Table:
    kinds: list[int] = []
    triangles: list[list[Array]] = []
    for kind in range(_KINDS):
        inside = {corner for bit, corner in enumerate(_CORNERS) if kind >> bit & 1}
        turned = _TURNED in inside
        for loop in _loops(set(_CORNERS) - inside if turned else inside):
            for a, b, c in _fan([np.mean([*edge], axis=0) for edge in loop]):
                kinds.append(kind)
                triangles.append([a, c, b] if turned else [a, b, c])
    owners, corners = np.array(kinds), np.array(triangles, np.float64)
    a, b, c = np.moveaxis(corners, 1, 0)
    normals = np.cross(a, b) + np.cross(b, c) + np.cross(c, a)
    six_times = np.stack([(a * np.cross(b, c)).sum(axis=1), *normals.T])
    volumes, *growth = (np.bincount(owners, each, _KINDS) / 6 for each in six_times)
    return _Table(kinds=owners, triangles=corners, volumes=volumes, growth=np.stack(growth, axis=1))


def _loops(inside: set[Corner]) -> Iterator[list[Edge]]:
    """Yield the closed lines in which the surface cuts the faces, as the edges they go through.

    Where the corners inside lie diagonally on a face, each is cut off by itself.
    """
    after: dict[Edge, Edge] = {}
    for face in _faces():
        for n, corner in enumerate(face):
            if corner in inside and face[(n + 1) % 4] not in inside:
                first = n
                while face[first - 1] in inside:
                    first -= 1
                come = frozenset((face[first - 1], face[first]))
                after[come] = frozenset((corner, face[(n + 1) % 4]))
    while after:
        loop = [next(iter(after))]
        while following := after.pop(loop[-1], None):
            loop.append(following)
        yield loop[:-1]


def _faces() -> Iterator[list[Corner]]:
    """Yield the corners of each face, anticlockwise as seen from outside."""
    for axis, side in product(range(3), (0, 1)):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        corners = []
        for at_u, at_v in ((0, 0), (1, 0), (1, 1), (0, 1)):
            corner = [0, 0, 0]
            corner[axis], corner[u], corner[v] = side, at_u, at_v
            corners.append((corner[0], corner[1], corner[2]))
        yield corners if side else corners[::-1]


def _fan(points: list[Array]) -> list[tuple[Array, Array, Array]]:
    """Cut a polygon into triangles from one of its points.

    It is the point that makes the area largest; in a heptagon the one on the axis of symmetry.
    """
    fans = []
    for n in range(len(points)):
        a, *rest = points[n:] + points[:n]
        lengths = [np.linalg.norm(point - a) for point in rest[1:-1]]
        even = len(points) == _HEPTAGON and bool(np.allclose(lengths, lengths[0]))
        fan = [(a, b, c) for b, c in pairwise(rest)]
        area = sum(float(np.linalg.norm(np.cross(b - a, c - a))) for a, b, c in fan)
        fans.append((even, round(area, 6), fan))
    return max(fans, key=lambda each: each[:2])[2]
