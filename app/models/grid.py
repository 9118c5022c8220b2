"""Turn a volume into the orientation a model was trained in, and its labels back.

Only axes are swapped and reversed, so that no voxel is interpolated and the way back is exact.
An orientation is one letter for each array axis: the side of the patient to which the index
grows. `SPL` is an axial volume whose slices go to the head, rows to the back, columns to the left.
"""

from dataclasses import dataclass
from itertools import permutations
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)

_LPS_AXIS = {"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}
_TOWARDS = {"L": 1, "P": 1, "S": 1, "R": -1, "A": -1, "I": -1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reorientation:
    """Which source axis each target axis is, and whether it is reversed."""

    axes: tuple[int, ...]
    reversed_: tuple[bool, ...]

    def apply(self, array: NDArray[T]) -> NDArray[T]:
        """Return a view of the [k, j, i] array in the target orientation."""
        return array.transpose(self.axes)[self._steps()]

    def undo(self, array: NDArray[T]) -> NDArray[T]:
        """Return a view of the target array back in the source's [k, j, i]."""
        return array[self._steps()].transpose(np.argsort(self.axes))

    def spacing(self, spacing_kji_mm: tuple[float, ...]) -> list[float]:
        """Return the spacing in the order of the target's axes."""
        return [float(spacing_kji_mm[axis]) for axis in self.axes]

    def _steps(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if back else 1) for back in self.reversed_)


def reorientation(affine_lps: NDArray[np.float64], target: str) -> Reorientation:
    """Return how a grid comes closest to `target`; oblique grids stay as oblique as they are."""
    directions = affine_lps[:3, :3] / np.linalg.norm(affine_lps[:3, :3], axis=0)
    # along[a, s]: how far source axis s points to the side that target axis a wants.
    along = np.array([directions[_LPS_AXIS[letter]] * _TOWARDS[letter] for letter in target])
    axes = max(
        permutations(range(3)),
        key=lambda order: sum(abs(along[axis, source]) for axis, source in enumerate(order)),
    )
    reverse = tuple(bool(along[axis, source] < 0) for axis, source in enumerate(axes))
    return Reorientation(axes=axes, reversed_=reverse)
