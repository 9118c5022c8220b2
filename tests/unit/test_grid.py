"""Reorientation: the way there and back is exact, and no side of the patient changes.

Covered: every pair of orientations, oblique grids, spacing. Not covered: what a network makes of
a volume in the wrong orientation (test_nnunet_runner has it the right way round).
"""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.models.grid import reorientation
from tests.phantoms.body import rotation

ORIENTATIONS = st.permutations(["LR", "PA", "SI"]).flatmap(
    lambda pairs: st.tuples(*(st.sampled_from(pair) for pair in pairs)).map("".join)
)
TO_SIDE = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}


def affine_of(orientation: str) -> np.ndarray[Any, Any]:
    """Return an affine whose array axes grow to the sides that the letters name."""
    affine = np.eye(4)
    for axis, letter in enumerate(orientation):
        patient_axis, sign = TO_SIDE[letter]
        affine[:3, axis] = 0
        affine[patient_axis, axis] = sign * (axis + 1.5)
    return affine


@given(
    source=ORIENTATIONS,
    target=ORIENTATIONS,
    voxels=arrays.arrays(np.int16, arrays.array_shapes(min_dims=3, max_dims=3, max_side=5)),
    tilt=st.tuples(*[st.floats(-0.3, 0.3)] * 3),
)
def test_undoing_a_reorientation_gives_the_volume_back(
    source: str, target: str, voxels: Any, tilt: tuple[float, float, float]
) -> None:
    """No voxel is lost, moved or interpolated, oblique or not."""
    affine = affine_of(source)
    affine[:3, :3] = rotation(tilt) @ affine[:3, :3]
    turn = reorientation(affine, target)
    there = turn.apply(voxels)
    assert np.array_equal(turn.undo(there), voxels)
    assert sorted(there.shape) == sorted(voxels.shape)


@given(source=ORIENTATIONS, target=ORIENTATIONS)
def test_a_marker_stays_on_its_side_of_the_patient(source: str, target: str) -> None:
    """The outermost voxel is outermost in the target's letters too."""
    shape = np.array([3, 4, 5])
    affine = affine_of(source)
    marked = np.zeros(shape)
    # The outermost corner to the right, the front and the feet, looked up in millimetres.
    corners = [np.array(index) * (shape - 1) for index in np.ndindex(2, 2, 2)]
    outermost = min(corners, key=lambda index: (affine @ [*index, 1])[:3].sum())
    marked[tuple(outermost)] = 1
    turn = reorientation(affine, target)
    there = np.argwhere(turn.apply(marked))[0]
    for axis, letter in enumerate(target):
        last = turn.apply(marked).shape[axis] - 1
        assert there[axis] == (0 if letter in "LPS" else last)


@given(source=ORIENTATIONS, target=ORIENTATIONS)
def test_spacing_goes_with_its_axis(source: str, target: str) -> None:
    """nnU-Net takes spacing in the order of the array, not as x, y, z."""
    turn = reorientation(affine_of(source), target)
    by_patient_axis = {TO_SIDE[letter][0]: axis + 1.5 for axis, letter in enumerate(source)}
    expected = [by_patient_axis[TO_SIDE[letter][0]] for letter in target]
    assert turn.spacing((1.5, 2.5, 3.5)) == expected
