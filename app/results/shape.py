"""Measure the shape of a segment, as pyradiomics 3.0.1 and IBSI define it.

Masks are indexed [k, j, i]. Only the box around the segment is looked at, and one plane at a time,
so that little memory is needed beside the mask.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from app.results.diameters import largest_diameter
from app.results.mesh import Surface, surface_of

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]

_NOISE = 1e-12
"""Part of the largest variance below which another is rounding: the segment is flat or a line."""


def shape_features(mask_kji: Mask, spacing_kji_mm: Sequence[float]) -> dict[str, float]:
    """Return the features by pyradiomics' names, in mm, mm2 and mm3; without any that is undefined.

    A segment of one voxel has no elongation; an empty one has no features.
    """
    box = bounding_box(mask_kji)
    if box is None:
        return {}
    mask = mask_kji[box]
    count, covariance = _moments(mask, spacing_kji_mm)
    features = {
        "VoxelVolume": count * math.prod(spacing_kji_mm),
        "Maximum3DDiameter": largest_diameter(mask, spacing_kji_mm),
        **dict(_of_surface(surface_of(mask, spacing_kji_mm))),
        **dict(_of_axes(covariance)),
    }
    return {name: value for name, value in features.items() if math.isfinite(value)}


def bounding_box(mask_kji: Mask) -> tuple[slice, slice, slice] | None:
    """Return the smallest box that holds all that is inside, None where nothing is."""
    ks = np.flatnonzero(mask_kji.any(axis=(1, 2)))
    if not len(ks):
        return None
    filled = mask_kji[ks[0] : ks[-1] + 1]
    js, is_ = (np.flatnonzero(filled.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    k, j, i = (slice(int(at[0]), int(at[-1]) + 1) for at in (ks, js, is_))
    return k, j, i


def _moments(mask_kji: Mask, spacing_kji_mm: Sequence[float]) -> tuple[int, Array]:
    """Return the number of voxels and the population covariance of their centres, in mm2."""
    # Counted from the middle, so that squares stay small beside the variance.
    k, j, i = (np.arange(n) - (n - 1) / 2 for n in mask_kji.shape)
    powers_j, powers_i = (np.stack([x**0, x, x**2]) for x in (j, i))
    sums = np.stack([powers_j @ plane.astype(np.float64) @ powers_i.T for plane in mask_kji])
    total = sums.sum(axis=0)
    count = total[0, 0]
    mean = np.array([k @ sums[:, 0, 0], total[1, 0], total[0, 1]]) / count
    kk, kj, ki = k**2 @ sums[:, 0, 0], k @ sums[:, 1, 0], k @ sums[:, 0, 1]
    jj, ji, ii = total[2, 0], total[1, 1], total[0, 2]
    square = np.array([[kk, kj, ki], [kj, jj, ji], [ki, ji, ii]]) / count
    spacing = np.asarray(spacing_kji_mm, np.float64)
    return int(count), (square - np.outer(mean, mean)) * np.outer(spacing, spacing)


def _of_surface(surface: Surface) -> Iterator[tuple[str, float]]:
    area, volume = surface.area_mm2, surface.volume_mm3
    yield "SurfaceArea", area
    if volume <= 0:  # only specks that touch at corners, where the surface is not closed
        return
    of_ball = (36 * math.pi * volume**2) ** (1 / 3)
    """The surface of a ball of the same volume."""
    yield "MeshVolume", volume
    yield "SurfaceVolumeRatio", area / volume
    yield "Sphericity", of_ball / area
    yield "SphericalDisproportion", area / of_ball
    yield "Compactness1", volume / (area**1.5 * math.sqrt(math.pi))
    yield "Compactness2", 36 * math.pi * volume**2 / area**3


def _of_axes(covariance: Array) -> Iterator[tuple[str, float]]:
    """Yield the axes of the ellipsoid that has the same variances."""
    variances = np.linalg.eigvalsh(covariance)
    variances[variances < _NOISE * variances[-1]] = 0
    least, minor, major = (4 * math.sqrt(max(each, 0)) for each in variances)
    yield "MajorAxisLength", major
    yield "MinorAxisLength", minor
    yield "LeastAxisLength", least
    if major > 0:
        yield "Elongation", minor / major
        yield "Flatness", least / major
