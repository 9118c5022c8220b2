"""Lay slices out as one regular grid, by their positions alone, or say why they are none.

The slice index k grows along the normal of the planes. InstanceNumber, SliceLocation and
SliceThickness are never looked at: they are wrong too often.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.dicom.slices import Slice, Vector
from app.errors import IncompleteSeries, UnsupportedGeometry

TOLERANCE = 0.01
"""How far a slice may lie from its place on the grid, as a part of the slice spacing …"""
TOLERANCE_MM = 0.02
"""… or in mm, whichever is more: positions are often written with two decimals."""

_SAME_PLACE_MM = 0.01
_SAME_DIRECTION = 1e-3
_SHEAR = 2e-3
"""Sideways drift for each mm along the normal that is rounding and no tilt (0.1°)."""
_MOSTLY_REGULAR = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """Slices in the order of k and the affine (k, j, i, 1) → LPS mm of their voxels."""

    slices: tuple[Slice, ...]
    affine_lps: NDArray[np.float64]


def by_position(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Group the slices by place, in the order of k; refuse planes that are not parallel."""
    first = slices[0].plane
    for each in slices:
        turned = max(
            np.abs(each.plane.row_cosines - first.row_cosines).max(),
            np.abs(each.plane.column_cosines - first.column_cosines).max(),
        )
        if turned > _SAME_DIRECTION:
            raise UnsupportedGeometry(
                f"{each.path.name}: the slices have several orientations;"
                " send each orientation as its own series"
            )
        if not np.allclose(_spacing(each), _spacing(slices[0]), rtol=1e-3, atol=0):
            raise UnsupportedGeometry(
                f"{each.path.name}: the slices differ in PixelSpacing;"
                " send each reconstruction as its own series"
            )
    # The UID decides between slices at one place, so the order of arrival never does.
    ordered = sorted(slices, key=lambda each: (_depth_mm(each, first.normal), each.sop_uid))
    groups: list[list[Slice]] = []
    for each in ordered:
        depth = _depth_mm(each, first.normal)
        if groups and depth - _depth_mm(groups[-1][0], first.normal) <= _SAME_PLACE_MM:
            _check_same_place(groups[-1][0], each, depth)
            groups[-1].append(each)
        else:
            groups.append([each])
    return groups


def grid_of(slices: Sequence[Slice], tolerance: float = TOLERANCE) -> Grid:
    """Return the grid of slices that are in the order of k, one at each place."""
    if len(slices) < 2:  # noqa: PLR2004  # a step needs two
        raise UnsupportedGeometry(
            "the series has one slice position; a volume needs at least two, send the whole series"
        )
    plane = slices[0].plane
    positions = np.array([each.plane.position_lps for each in slices])
    _check_tilt(positions, plane.normal)
    _check_steps(positions @ plane.normal, tolerance)
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    places = positions[0] + np.arange(len(slices))[:, np.newaxis] * step
    off_mm = np.linalg.norm(positions - places, axis=1)
    if off_mm.max() > _allowed_mm(float(np.linalg.norm(step)), tolerance):
        k = int(off_mm.argmax())
        raise UnsupportedGeometry(
            f"slice {k + 1} of {len(slices)} lies {off_mm[k]:.2f} mm from its place on a regular"
            " grid; send evenly spaced slices"
        )
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = plane.column_cosines * plane.row_spacing_mm
    affine[:3, 2] = plane.row_cosines * plane.column_spacing_mm
    affine[:3, 3] = positions[0]
    return Grid(slices=tuple(slices), affine_lps=affine)


def _spacing(each: Slice) -> tuple[float, float]:
    return each.plane.row_spacing_mm, each.plane.column_spacing_mm


def _depth_mm(each: Slice, normal: Vector) -> float:
    return float(each.plane.position_lps @ normal)


def _allowed_mm(spacing_mm: float, tolerance: float) -> float:
    return max(tolerance * spacing_mm, TOLERANCE_MM)


def _check_same_place(one: Slice, other: Slice, depth_mm: float) -> None:
    apart_mm = float(np.linalg.norm(one.plane.position_lps - other.plane.position_lps))
    if apart_mm > 2 * _SAME_PLACE_MM:
        raise UnsupportedGeometry(
            f"two slices lie side by side at {depth_mm:.2f} mm, {apart_mm:.2f} mm apart;"
            " send each stack as its own series"
        )


def _check_tilt(positions: Vector, normal: Vector) -> None:
    """Refuse a stack that shifts sideways from slice to slice, as a tilted gantry makes it."""
    moved = positions - positions[0]
    depths = moved @ normal
    sideways = moved - np.outer(depths, normal)
    drift = (depths @ sideways) / (depths @ depths)
    slope = float(np.linalg.norm(drift))
    if slope > _SHEAR and slope * depths[-1] > TOLERANCE_MM:
        raise UnsupportedGeometry(
            f"the slices are sheared by {np.degrees(np.arctan(slope)):.1f}° (gantry tilt);"
            " send a reconstruction without tilt"
        )


def _check_steps(depths_mm: Vector, tolerance: float) -> None:
    """Refuse missing slices and uneven spacing, each by its name."""
    steps = np.diff(depths_mm)
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])
    allowed = 2 * _allowed_mm(usual, tolerance)  # each end of a step may be off
    odd = np.flatnonzero(np.abs(steps - usual) > allowed)
    if not len(odd):
        return
    n = int(odd[0])
    between = f"between {depths_mm[n]:.2f} and {depths_mm[n + 1]:.2f} mm along the normal"
    multiples = np.rint(steps[odd] / usual)
    off_mm = np.abs(steps[odd] - multiples * usual)
    if (
        len(odd) <= _MOSTLY_REGULAR * len(steps)
        and multiples.min() > 1
        and (off_mm <= allowed * multiples).all()
    ):
        count = int((multiples - 1).sum())
        raise IncompleteSeries(
            f"gap after slice {n + 1} of {len(depths_mm)}, {between}, where the spacing is"
            f" {usual:.2f} mm: {count} slice(s) missing in all; send the whole series"
        )
    raise UnsupportedGeometry(
        f"the slices are unevenly spaced: {steps[n]:.2f} mm after slice {n + 1} of"
        f" {len(depths_mm)} ({between}), elsewhere {usual:.2f} mm; send evenly spaced slices"
    )
