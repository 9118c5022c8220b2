"""Measure the longest straight lines across a mask.

They end on the surface, halfway between the centre of a voxel inside and one outside, as those of
pyradiomics do: the diameter of a ball is neither a voxel too short (centres) nor too long (corners
of voxels).
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import cdist

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]

_BLOCK = 256
"""Points of which the distances to all others are held at once."""


class Axes(NamedTuple):
    """The diameters of a lesion in one slice, in mm."""

    long_mm: float
    short_mm: float


def largest_diameter(mask: Mask, spacing_mm: Sequence[float]) -> float:
    """Return the distance between the two points of the surface that are farthest apart, in mm."""
    first, second = _farthest(_hull(mask, spacing_mm))
    return float(np.linalg.norm(second - first))


def axes_in_plane(mask_kji: Mask, spacing_kji_mm: Sequence[float]) -> Axes:
    """Return the long and the short axis as RECIST 1.1 has them measured on the slices.

    The long axis is the longest diameter in any slice, of one connected part: a line from one
    lesion to another measures neither. The short axis is the longest line across that part's
    convex hull at right angles to the long axis, in the same slice.
    """
    spacing = (spacing_kji_mm[1], spacing_kji_mm[2])
    best = Axes(0.0, 0.0)
    for plane in mask_kji:
        parts, _ = label(plane, np.ones((3, 3)))
        for number, box in enumerate(find_objects(parts), start=1):
            height, width = (side.stop - side.start for side in box)
            if math.hypot(height * spacing[0], width * spacing[1]) > best.long_mm:
                best = max(best, _axes(_hull(parts[box] == number, spacing)))
    return best


def _axes(outline: Array) -> Axes:
    first, second = _farthest(outline)
    length = float(np.linalg.norm(second - first))
    along = (second - first) / length
    u, v = outline @ along, outline @ (-along[1], along[0])
    # The outline goes round: one way from end to end lies on one side of the long axis.
    start, end = int(np.argmin(u)), int(np.argmax(u))
    count = len(outline)
    there = [(start + n) % count for n in range((end - start) % count + 1)]
    back = [(end + n) % count for n in range((start - end) % count + 1)][::-1]
    widths = np.interp(u, u[there], v[there]) - np.interp(u, u[back], v[back])
    return Axes(length, float(np.abs(widths).max()))


def _hull(mask: Mask, spacing_mm: Sequence[float]) -> Array:
    """Return the points of the surface that lie on its convex hull; in 2D they go round it.

    That hull is the hull of the centres widened by half a voxel along each axis, and of a row of
    centres only both ends can lie on it.
    """
    rows = np.nonzero(mask.any(axis=-1))
    first = mask[rows].argmax(axis=-1)
    last = mask.shape[-1] - 1 - mask[rows][:, ::-1].argmax(axis=-1)
    ends = np.concatenate([np.stack([*rows, end], axis=1) for end in (first, last)])
    centres = ends * np.asarray(spacing_mm, np.float64)
    # Of a flat mask or a line there is no hull, before it is widened.
    with suppress(QhullError):
        centres = centres[ConvexHull(centres).vertices]
    half = np.diag(spacing_mm) / 2
    points = (centres[:, None, :] + np.concatenate([half, -half])).reshape(-1, mask.ndim)
    return np.asarray(points[ConvexHull(points).vertices])


def _farthest(points: Array) -> tuple[Array, Array]:
    best, pair = -1.0, (points[0], points[0])
    for start in range(0, len(points), _BLOCK):
        block, others = points[start : start + _BLOCK], points[start:]
        squares = cdist(block, others, "sqeuclidean")
        n, m = np.unravel_index(int(squares.argmax()), squares.shape)
        if squares[n, m] > best:
            best, pair = float(squares[n, m]), (block[n], others[m])
    return pair
