"""Lay slices out as one regular grid, by their positions alone, or say why they are none."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.dicom.slices import Slice
from app.dicom.stack import (
    TOLERANCE,
    Steps,
    Vector,
    depths_mm,
    is_regular,
    normal_of,
    other_spacing,
    places,
    steps_of,
    tilt_deg,
    turned,
)
from app.errors import IncompleteSeries, UnsupportedGeometry


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """Slices in the order of k and the affine (k, j, i, 1) → LPS mm of their voxels."""

    slices: tuple[Slice, ...]
    affine_lps: NDArray[np.float64]


def by_position(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Group the slices by place, in the order of k; refuse planes that are not parallel."""
    # The UID decides between slices at one place, so the order of arrival never does.
    ordered = sorted(slices, key=lambda each: each.sop_uid)
    orientations = np.array([each.plane.orientation for each in ordered])
    if (found := turned(orientations, orientations[0])).any():
        raise UnsupportedGeometry(
            f"{ordered[found.argmax()].name}: the slices have several orientations;"
            " send each orientation as its own series"
        )
    spacings = np.array([each.plane.pixel_spacing_mm for each in ordered])
    if (found := other_spacing(spacings, spacings[0])).any():
        raise UnsupportedGeometry(
            f"{ordered[found.argmax()].name}: the slices differ in PixelSpacing;"
            " send each reconstruction as its own series"
        )
    normal = normal_of(orientations[0])
    positions = np.array([each.plane.position_lps for each in ordered])
    groups = []
    for level in places(positions, normal):
        if len(level) > 1:
            one, other = positions[level[0][0]], positions[level[1][0]]
            depth = depths_mm(one[np.newaxis], normal)[0]
            raise UnsupportedGeometry(
                f"two slices lie side by side at {depth:.2f} mm,"
                f" {np.linalg.norm(one - other):.2f} mm apart;"
                " send each stack as its own series"
            )
        groups.append([ordered[index] for index in level[0]])
    return groups


def grid_of(slices: Sequence[Slice], tolerance: float = TOLERANCE) -> Grid:
    """Return the grid of slices that are in the order of k, one at each place."""
    plane = slices[0].plane
    positions = np.array([each.plane.position_lps for each in slices])
    normal = normal_of(plane.orientation)
    steps = steps_of(positions, normal, tolerance)
    if steps is None:
        raise UnsupportedGeometry(
            "the series has one slice position; a volume needs at least two, send the whole series"
        )
    if tilt := tilt_deg(positions, normal):
        raise UnsupportedGeometry(
            f"the slices are sheared by {tilt:.1f}° (gantry tilt);"
            " send a reconstruction without tilt"
        )
    _check_steps(steps, depths_mm(positions, normal), tolerance)
    row_spacing_mm, column_spacing_mm = plane.pixel_spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = (positions[-1] - positions[0]) / (len(slices) - 1)
    affine[:3, 1] = plane.orientation[3:] * row_spacing_mm
    affine[:3, 2] = plane.orientation[:3] * column_spacing_mm
    affine[:3, 3] = positions[0]
    return Grid(slices=tuple(slices), affine_lps=affine)


def _check_steps(steps: Steps, depths: Vector, tolerance: float) -> None:
    """Refuse missing slices and uneven spacing, each by its name."""
    count = len(depths)
    if len(steps.uneven):
        n = int(steps.uneven[0])
        raise UnsupportedGeometry(
            f"the slices are unevenly spaced: {steps.steps_mm[n]:.2f} mm after slice {n + 1} of"
            f" {count} ({_between(depths, n)}), elsewhere {steps.usual_mm:.2f} mm;"
            " send evenly spaced slices"
        )
    if len(steps.gaps):
        n = int(steps.gaps[0])
        raise IncompleteSeries(
            f"gap after slice {n + 1} of {count}, {_between(depths, n)}, where the spacing is"
            f" {steps.usual_mm:.2f} mm: {steps.missing} slice(s) missing in all;"
            " send the whole series"
        )
    if not is_regular(steps.spacing_mm, steps.deviation, tolerance):
        k = int(steps.off_mm.argmax())
        raise UnsupportedGeometry(
            f"slice {k + 1} of {count} lies {steps.off_mm[k]:.2f} mm from its place on a regular"
            " grid; send evenly spaced slices"
        )


def _between(depths: Vector, n: int) -> str:
    return f"between {depths[n]:.2f} and {depths[n + 1]:.2f} mm along the normal"
