"""Measure how images lie to one another; what is refused for it is decided elsewhere.

The slice index k grows along the normal of the planes. InstanceNumber, SliceLocation and
SliceThickness are never looked at: they are wrong too often. Volumes and facts both ask here, so
that what facts call clean can be built.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

TOLERANCE: Final = 0.01
"""How far a slice may lie from its place on the grid, as a part of the slice spacing …"""
TOLERANCE_MM: Final = 0.02
"""… or in mm, whichever is more: positions are often written with two decimals."""

SAME_PLACE_MM: Final = 0.01
_SAME_DIRECTION = 1e-3
_SAME_SPACING = 1e-3
_SHEAR = 2e-3
"""Sideways drift for each mm along the normal that is rounding and no tilt (0.1°)."""
_MOSTLY_REGULAR = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Steps:
    """The distances between neighbouring places along the normal."""

    steps_mm: Vector
    usual_mm: float
    gaps: NDArray[np.intp]
    """Steps that are several usual ones."""
    uneven: NDArray[np.intp]
    """Steps that are neither usual nor gaps."""
    missing: int
    """Slices that would fill the gaps."""
    off_mm: Vector
    """How far each slice lies from its place on the regular grid."""
    spacing_mm: float
    """The usual step, rounded as the fact of this name tells it."""
    deviation: float
    """How far slices, and the ends of steps, are off at most, as a part of the spacing; rounded as
    the fact `spacing_deviation` tells it, so that a volume is held to what facts can say."""


def allowed_mm(spacing_mm: float, tolerance: float = TOLERANCE) -> float:
    """Return how far a slice may be off."""
    return max(tolerance * spacing_mm, TOLERANCE_MM)


def is_regular(spacing_mm: float, deviation: float, tolerance: float = TOLERANCE) -> bool:
    """Say whether a grid with the facts `spacing_mm` and `spacing_deviation` is regular enough."""
    return deviation * spacing_mm <= allowed_mm(spacing_mm, tolerance)


def _parts(off_mm: Vector, spacing_mm: float) -> Vector:
    return np.asarray(np.round(off_mm / spacing_mm, 6))


def normal_of(orientation: Vector) -> Vector:
    """Return the unit normal of a plane's row and column cosines."""
    normal = np.cross(orientation[:3], orientation[3:])
    return np.asarray(normal / np.linalg.norm(normal))


def turned(orientations: Vector, reference: Vector) -> NDArray[np.bool_]:
    """Say for each of the orientations (n, 6) whether it is another one than the reference."""
    return np.asarray(np.abs(orientations - reference).max(axis=-1) > _SAME_DIRECTION)


def other_spacing(spacings: Vector, reference: Vector) -> NDArray[np.bool_]:
    """Say for each of the pixel spacings (n, 2) whether it is another one than the reference."""
    return np.asarray((np.abs(spacings - reference) > _SAME_SPACING * reference).any(axis=-1))


def depths_mm(positions: Vector, normal: Vector) -> Vector:
    """Return how far along the normal the positions (n, 3) lie; equal ones give equal depths."""
    # A matrix product may round equal rows differently.
    x, y, z = positions.T
    return np.asarray(x * normal[0] + y * normal[1] + z * normal[2])


def alike(
    values: Vector, other: Callable[[Vector, Vector], NDArray[np.bool_]]
) -> list[NDArray[np.intp]]:
    """Group rows of values with the first row that is not another one; return their indices."""
    left = np.arange(len(values))
    groups = []
    while len(left):
        different = other(values[left], values[left[0]])
        groups.append(left[~different])
        left = left[different]
    return groups


def places(positions: Vector, normal: Vector) -> list[list[NDArray[np.intp]]]:
    """Group the images by depth, along the normal, and at each depth by their place.

    Given are positions (n, 3), returned are their indices. Of images at one depth the first given
    comes first. Several places at one depth lie side by side.
    """
    depths = depths_mm(positions, normal)
    order = np.argsort(depths, kind="stable")
    levels: list[list[int]] = []
    for index, depth in zip(order.tolist(), depths[order].tolist(), strict=True):
        if levels and depth - depths[levels[-1][0]] <= SAME_PLACE_MM:
            levels[-1].append(index)
        else:
            levels.append([index])
    return [
        [np.array(level)[group] for group in alike(positions[level], _aside)]
        if len(level) > 1
        else [np.array(level)]
        for level in levels
    ]


def tilt_deg(positions: Vector, normal: Vector) -> float:
    """Return the angle by which a stack in the order of k shifts sideways; rounding is none."""
    moved = positions - positions[0]
    depths = depths_mm(moved, normal)
    if depths[-1] <= SAME_PLACE_MM:
        return 0.0
    sideways = moved - np.outer(depths, normal)
    slope = float(np.linalg.norm((depths @ sideways) / (depths @ depths)))
    if slope <= _SHEAR or slope * depths[-1] <= TOLERANCE_MM:
        return 0.0
    return float(np.degrees(np.arctan(slope)))


def steps_of(positions: Vector, normal: Vector, tolerance: float = TOLERANCE) -> Steps | None:
    """Measure the steps of a stack in the order of k; None when it goes nowhere."""
    steps = np.diff(depths_mm(positions, normal))
    forward = np.sort(steps[steps > SAME_PLACE_MM])
    if not len(forward):
        return None
    usual = float(forward[(len(forward) - 1) // 2])
    spacing_mm = round(usual, 4)
    allowed = 2 * allowed_mm(usual, tolerance)  # each end of a step may be off
    half_off = _parts(np.abs(steps - usual) / 2, usual)
    odd = half_off * spacing_mm > allowed_mm(spacing_mm, tolerance)
    multiples = np.maximum(np.rint(steps / usual), 1)
    gap = odd & (multiples > 1) & (np.abs(steps - multiples * usual) <= allowed * multiples)
    if odd.sum() > _MOSTLY_REGULAR * len(steps):
        gap[:] = False  # then nobody knows what is usual
    counts = np.where(gap, multiples, 1)
    at = np.concatenate([[0], np.cumsum(counts)])
    grid = positions[0] + np.outer(at / at[-1], positions[-1] - positions[0])
    off_mm = np.linalg.norm(positions - grid, axis=1)
    ends_mm = np.abs(steps - counts * usual) / (2 * counts)
    return Steps(
        steps_mm=steps,
        usual_mm=usual,
        gaps=np.flatnonzero(gap),
        uneven=np.flatnonzero(odd & ~gap),
        missing=int((counts - 1).sum()),
        off_mm=off_mm,
        spacing_mm=spacing_mm,
        deviation=float(_parts(np.concatenate([off_mm, ends_mm]), usual).max()),
    )


def _aside(positions: Vector, reference: Vector) -> NDArray[np.bool_]:
    return np.asarray(np.linalg.norm(positions - reference, axis=-1) > 2 * SAME_PLACE_MM)
