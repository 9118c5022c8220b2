"""What is measured of each segment."""

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from app.models.card import Code, Label
from app.results.diameters import axes_in_plane
from app.results.intensity import Scale, mean_and_deviation, scale_of
from app.results.result import Result
from app.results.shape import shape_features

Box = tuple[slice, slice, slice]

_AT_ONCE = 4
"""Segments that are measured at the same time; each holds one byte a voxel of its box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One kind of measurement, as a report codes it."""

    name: str
    """Its key in tables, such as `MeshVolume`."""
    concept: Code
    unit: Code
    """In UCUM."""
    derivation: Code | None = None
    """How one number was made of many, such as their mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of one segment."""

    label: Label
    voxels: int
    """0: looked for and not found."""
    values: tuple[tuple[Quantity, float], ...]
    """Finite numbers; none where nothing was found."""


_MM = Code(scheme="UCUM", value="mm", meaning="millimeter")
_MM2 = Code(scheme="UCUM", value="mm2", meaning="square millimeter")
_MM3 = Code(scheme="UCUM", value="mm3", meaning="cubic millimeter")
_PER_MM = Code(scheme="UCUM", value="/mm", meaning="per millimeter")
_NO_UNIT = Code(scheme="UCUM", value="1", meaning="no units")

_QUANTITIES = {
    name: Quantity(name=name, concept=Code(scheme=scheme, value=value, meaning=meaning), unit=unit)
    for name, scheme, value, meaning, unit in (
        # The volume that readers look for. IBSI calls this way of counting it YEKZ, Volume from
        # Voxel Summation; stated as well, it would be one number under two names.
        ("VoxelVolume", "SCT", "118565006", "Volume", _MM3),
        ("LongAxis", "SCT", "103339001", "Long axis", _MM),
        ("ShortAxis", "SCT", "103340004", "Short axis", _MM),
        ("MeshVolume", "IBSI", "RNU0", "Volume of Mesh", _MM3),
        ("SurfaceArea", "IBSI", "C0JK", "Surface Area of Mesh", _MM2),
        ("SurfaceVolumeRatio", "IBSI", "2PR5", "Surface to Volume Ratio", _PER_MM),
        ("Maximum3DDiameter", "IBSI", "L0JK", "Maximum 3D Diameter of a Mesh", _MM),
        ("MajorAxisLength", "IBSI", "TDIC", "Major Axis in 3D Length", _MM),
        ("MinorAxisLength", "IBSI", "P9VJ", "Minor Axis in 3D Length", _MM),
        ("LeastAxisLength", "IBSI", "7J51", "Least Axis in 3D Length", _MM),
        ("Elongation", "IBSI", "Q3CK", "Elongation", _NO_UNIT),
        ("Flatness", "IBSI", "N17B", "Flatness", _NO_UNIT),
        ("Sphericity", "IBSI", "QCFX", "Sphericity", _NO_UNIT),
        ("SphericalDisproportion", "IBSI", "KRCK", "Spherical Disproportion", _NO_UNIT),
        ("Compactness1", "IBSI", "SKGS", "Compactness 1", _NO_UNIT),
        ("Compactness2", "IBSI", "BQWJ", "Compactness 2", _NO_UNIT),
    )
}
"""In the order in which they are reported; the intensity comes last, its codes are the source's."""
_DERIVED = (
    ("IntensityMean", Code(scheme="SCT", value="373098007", meaning="Mean")),
    (
        "IntensityStandardDeviation",
        Code(scheme="SCT", value="386136009", meaning="Standard Deviation"),
    ),
)


def measure(result: Result) -> list[Measured]:
    """Measure the segment of each label, in the order of the card.

    All have their shape; lesions their axes in the slices; sources that say their unit the mean and
    standard deviation inside.
    """
    scale = scale_of(result.sources.headers[0])
    boxes = find_objects(result.labels_kji, 255)

    def measured(label: Label) -> Measured:
        found = [box for value in label.values if (box := boxes[value - 1]) is not None]
        if not found:
            return Measured(label=label, voxels=0, values=())
        return _measured(result, label, _around(found), scale)

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="measure") as threads:
        return list(threads.map(measured, result.card.labels))


def _measured(result: Result, label: Label, box: Box, scale: Scale | None) -> Measured:
    belongs = np.zeros(256, np.bool_)
    belongs[list(label.values)] = True
    mask = belongs[result.labels_kji[box]]
    values = [
        *_geometry(mask, result.volume.spacing_kji_mm, label),
        *_intensity(result.volume.voxels_kji[box], mask, scale),
    ]
    return Measured(
        label=label,
        voxels=int(np.count_nonzero(mask)),
        values=tuple((what, value) for what, value in values if math.isfinite(value)),
    )


def _geometry(
    mask: NDArray[np.bool_], spacing: tuple[float, float, float], label: Label
) -> Iterator[tuple[Quantity, float]]:
    features = shape_features(mask, spacing)
    if label.lesion:
        features["LongAxis"], features["ShortAxis"] = axes_in_plane(mask, spacing)
    for name, quantity in _QUANTITIES.items():
        if name in features:
            yield quantity, features[name]


def _intensity(
    values_kji: NDArray[np.float32], mask: NDArray[np.bool_], scale: Scale | None
) -> Iterator[tuple[Quantity, float]]:
    if scale is None:
        return
    for (name, how), value in zip(_DERIVED, mean_and_deviation(values_kji, mask), strict=True):
        quantity = Quantity(name=name, concept=scale.concept, unit=scale.unit, derivation=how)
        yield quantity, value


def _around(boxes: Iterable[Box]) -> Box:
    """Return the smallest box around all boxes."""
    k, j, i = (
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*boxes, strict=True)
    )
    return k, j, i
