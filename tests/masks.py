"""Masks whose shape is measured, by us and by pyradiomics; made by numpy alone, always the same."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.phantoms.body import LABELS, Phantom

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

THICK: Spacing = (5.0, 0.75, 0.75)
OBLONG: Spacing = (2.5, 0.8, 1.7)
CUBE: Spacing = (1.0, 1.0, 1.0)
LIVER_SHAPE, LIVER_SPACING = (300, 512, 512), (1.0, 0.8, 0.8)


def every_cube() -> Iterator[tuple[str, Mask, Spacing]]:
    """Yield each way in which eight voxels can lie, with a spacing that tells all axes apart."""
    for kind in range(1, 256):
        bits = [kind >> bit & 1 for bit in range(8)]
        yield f"cube {kind:03d}", np.array(bits, np.bool_).reshape(2, 2, 2), OBLONG


def masks() -> Iterator[tuple[str, Mask, Spacing]]:
    """Yield the name, the voxels and the spacing in mm of masks of many sorts."""
    yield "one voxel", np.ones((1, 1, 1), np.bool_), OBLONG
    for axis, name in enumerate("kji"):
        sheet, line = [7, 8, 9], [1, 1, 1]
        sheet[axis], line[axis] = 1, 6
        yield f"sheet across {name}", np.ones(sheet, np.bool_), OBLONG
        yield f"line along {name}", np.ones(line, np.bool_), OBLONG
    yield "diagonal line", np.eye(6, dtype=np.bool_)[None], OBLONG
    yield "tilted sheet", np.repeat(np.eye(9, dtype=np.bool_)[:, None], 5, axis=1), CUBE
    yield "box", np.ones((3, 5, 8), np.bool_), THICK
    yield "ball", ellipsoid((15, 15, 15)), CUBE
    yield "egg", ellipsoid((4, 11, 17)), THICK
    yield "shell", ellipsoid((12, 12, 12)) ^ np.pad(ellipsoid((7, 7, 7)), 5), OBLONG
    rng = np.random.Generator(np.random.PCG64(5))
    for number, density in enumerate((0.03, 0.2, 0.5, 0.8, 0.97)):
        shape = tuple(rng.integers(6, 15, 3))
        spacing = (OBLONG, THICK, CUBE)[number % 3]
        yield f"noise of {density:.0%}", rng.random(shape) < density, spacing
    for number in range(6):
        yield f"clouds {number}", _clouds(rng), (OBLONG, THICK, CUBE)[number % 3]
    yield from _organs()


def ellipsoid(semi: tuple[float, float, float], off: float = 0.0) -> Mask:
    """Return the voxels in an ellipsoid of these half axes, its centre `off` a voxel's centre."""
    squares: Any = 0.0
    for axis, length in enumerate(semi):
        along = np.arange(-int(length) - 1, int(length) + 2) - off
        shape = [1, 1, 1]
        shape[axis] = -1
        squares = squares + (along.reshape(shape) / length) ** 2
    return np.asarray(squares <= 1)


def digest(mask: Mask) -> str:
    """Return what two masks have in common only if they are the same."""
    text = repr(mask.shape).encode() + np.packbits(mask).tobytes()
    return hashlib.sha256(text).hexdigest()[:16]


def liver(shape: tuple[int, int, int] = LIVER_SHAPE, seed: int = 7) -> NDArray[np.uint8]:
    """Return the label map of a patient on a grid of `LIVER_SPACING`."""
    return Phantom(seed).truth(_axial(shape, LIVER_SPACING), shape)


def _clouds(rng: np.random.Generator) -> Mask:
    """Return smooth blobs that touch, with holes and the edge of the array through some."""
    field = rng.random((14, 20, 22))
    for axis in (0, 1, 2, 0, 1, 2):
        field = field + np.roll(field, 1, axis) + np.roll(field, -1, axis)
    return np.asarray(field > np.quantile(field, rng.uniform(0.3, 0.8)))


def _organs() -> Iterator[tuple[str, Mask, Spacing]]:
    spacing, shape = (6.0, 3.5, 3.5), (60, 110, 110)
    labels = Phantom(7).truth(_axial(shape, spacing), shape)
    for name in ("lungs", "liver", "spleen", "kidney_left"):
        mask = labels == LABELS[name]
        yield f"phantom's {name}", mask, spacing


def _axial(shape: tuple[int, int, int], spacing: Spacing) -> NDArray[np.float64]:
    """Return the affine of axial slices around the patient's origin."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * spacing
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine
