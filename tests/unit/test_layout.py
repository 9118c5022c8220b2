"""Where the images of a series lie, told as facts: every fault by itself and beside others.

Covered: gaps, tilt, deviation, repetitions and what tells them apart, orientations, sizes, frames,
and a real CT that has two faults. Not covered: that volumes see the same
(properties/test_headers.py), and the pixels of duplicates (test_headers.py).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from app.dicom.headers import read_series
from tests.real import REAL_TILT, needs_real_tilt
from tests.unit.metadata import Edit, each, facts


def at(position: Callable[[int], Any]) -> Edit:
    """Return an edit that puts image `k` at `position(k)`."""
    return lambda ds, k: setattr(ds, "ImagePositionPatient", [*map(float, position(k))])


def both(*edits: Edit) -> Edit:
    """Return the edits one after the other."""

    def edit(ds: Dataset, k: int) -> None:
        for one in edits:
            one(ds, k)

    return edit


C30, S30 = np.cos(np.radians(30)), np.sin(np.radians(30))
C45 = np.cos(np.radians(45))


@pytest.mark.parametrize(
    ("cosines", "word"),
    [
        ([1, 0, 0, 0, 1, 0], "axial"),
        ([-1, 0, 0, 0, 1, 0], "axial"),  # feet first
        ([0, 1, 0, 0, 0, -1], "sagittal"),
        ([1, 0, 0, 0, 0, -1], "coronal"),
        ([1, 0, 0, 0, C30, S30], "axial"),  # a head along the skull's base
        ([1, 0, 0, 0, C45, C45], "oblique"),
        ([C45, C45, 0, -0.5, 0.5, C45], "oblique"),
    ],
)
def test_the_orientation_is_named_by_the_normal(cosines: list[float], word: str) -> None:
    """Along the normal the spacing is the same, whatever the direction."""
    normal = np.cross(cosines[:3], cosines[3:])
    found = facts(
        edit=at(lambda k: normal * 3 * k), ImageOrientationPatient=[round(c, 9) for c in cosines]
    )
    assert found["orientation"] == (word,)
    assert (found["spacing_mm"], found["tilt_deg"]) == ((3.0,), (0.0,))
    assert found["spacing_deviation"][0] < 1e-5


TILT = np.tan(np.radians(20))
LAYOUTS: dict[str, tuple[int, Edit, dict[str, Any]]] = {
    "a gap of two": (
        5,
        at(lambda k: (0, 0, (0, 2, 4, 10, 12)[k])),
        {"missing_slices": (2,), "spacing_mm": (2.0,), "spacing_deviation": (0.0,)},
    ),
    "a gap and a tilt": (
        5,
        at(lambda k: (0, (0, 2, 4, 10, 12)[k] * TILT, (0, 2, 4, 10, 12)[k])),
        {"missing_slices": (2,), "tilt_deg": (20.0,), "spacing_deviation": (0.0,)},
    ),
    "uneven": (
        4,
        at(lambda k: (0, 0, (0, 2, 5, 7)[k])),
        {"missing_slices": (0,), "spacing_deviation": (0.25,), "extent_mm": (9.0,)},
    ),
    "tilted and uneven": (
        4,
        at(lambda k: (0, (0, 2, 5, 7)[k] * TILT, (0, 2, 5, 7)[k])),
        {"tilt_deg": (20.0,), "spacing_deviation": (0.25,)},
    ),
    "one slice aside": (
        5,
        at(lambda k: (0, k == 2, 2 * k)),
        {"positions": (5,), "spacing_deviation": (0.5,)},
    ),
    "two stacks side by side": (
        6,
        at(lambda k: (50 * (k % 2), 0, k // 2)),
        {"positions": (6,), "per_position": (1,), "duplicates": (0,)},
    ),
    "a slice twice": (
        4,
        at(lambda k: (0, 0, (0, 2, 2, 4)[k])),
        {"positions": (3,), "per_position": (1, 2), "duplicates": (1,), "time_points": (1,)},
    ),
    "two points in time": (
        6,
        both(at(lambda k: (0, 0, k // 2)), each(TemporalPositionIdentifier=lambda k: k % 2 + 1)),
        {"per_position": (2,), "time_points": (2,), "duplicates": (0,), "positions": (3,)},
    ),
    "two points in time, one of them cut short": (
        5,
        both(at(lambda k: (0, 0, k // 2)), each(TemporalPositionIdentifier=lambda k: k % 2 + 1)),
        {"per_position": (1, 2), "time_points": (1, 2), "duplicates": (0,)},
    ),
    "two points in time by the clock alone": (
        6,
        both(at(lambda k: (0, 0, k // 2)), each(AcquisitionTime=lambda k: f"1015{k % 2}{k // 2}")),
        {"per_position": (2,), "time_points": (2,), "duplicates": (0,)},
    ),
    "a repeated slice has another time and is a duplicate": (
        4,
        both(at(lambda k: (0, 0, (0, 2, 2, 4)[k])), each(AcquisitionTime=lambda k: f"10150{k}")),
        {"duplicates": (1,), "time_points": (1,)},
    ),
    "two echoes": (
        6,
        both(at(lambda k: (0, 0, k // 2)), each(EchoTime=lambda k: (10, 90)[k % 2])),
        {"per_position": (2,), "time_points": (1,), "duplicates": (0,)},
    ),
    "echoes have times too": (
        6,
        both(
            at(lambda k: (0, 0, k // 2)),
            each(EchoTime=lambda k: (10, 90)[k % 2], AcquisitionTime=lambda k: f"10150{k}"),
        ),
        {"per_position": (2,), "time_points": (1,), "duplicates": (0,)},
    ),
    "magnitude and phase": (
        6,
        both(
            at(lambda k: (0, 0, k // 2)),
            each(ImageType=lambda k: ["ORIGINAL", "PRIMARY", "MP"[k % 2]]),
        ),
        {"per_position": (2,), "duplicates": (0,)},
    ),
    "phases of the heart": (
        6,
        both(at(lambda k: (0, 0, k // 3)), each(TriggerTime=lambda k: 100 * (k % 3))),
        {"per_position": (3,), "time_points": (3,), "duplicates": (0,)},
    ),
    "all at one position": (
        4,
        at(lambda _: (0, 0, 0)),
        {"positions": (1,), "per_position": (4,), "duplicates": (3,), "spacing_mm": None},
    ),
    "one image": (1, at(lambda _: (0, 0, 0)), {"positions": (1,), "extent_mm": None}),
    "a scout of three planes": (
        3,
        each(
            ImageOrientationPatient=lambda k: (
                [1, 0, 0, 0, 1, 0],
                [1, 0, 0, 0, 0, -1],
                [0, 1, 0, 0, 0, -1],
            )[k]
        ),
        {
            "orientation": ("axial", "coronal", "sagittal"),
            "orientations": (3,),
            "positions": (3,),
            "spacing_mm": None,
            "tilt_deg": None,
        },
    ),
    "no position in one": (
        4,
        lambda ds, k: None if k else delattr(ds, "ImagePositionPatient"),
        {"placed": ("no",), "positions": (3,), "slices": (4,)},
    ),
    "no pixel spacing": (
        4,
        lambda ds, _: delattr(ds, "PixelSpacing"),
        {"placed": ("no",), "positions": (4,), "field_mm": None, "sizes": (1,)},
    ),
    "an orientation that is none": (
        4,
        each(ImageOrientationPatient=lambda _: [1, 0, 0, 1, 0, 0]),
        {"placed": ("no",), "positions": None, "orientation": None},
    ),
    "two sizes in pixels": (4, each(Rows=lambda k: 400 + k % 2), {"sizes": (2,)}),
    "two sizes in mm": (
        4,
        each(PixelSpacing=lambda k: [0.5, 0.5 + 0.1 * (k == 3)]),
        {"sizes": (2,), "field_mm": (200.0,)},
    ),
    "two frames of reference": (
        4,
        each(FrameOfReferenceUID=lambda k: f"2.25.{k % 2}"),
        {"frames_of_reference": (2,)},
    ),
    "no frame of reference": (
        4,
        lambda ds, _: delattr(ds, "FrameOfReferenceUID"),
        {"frames_of_reference": (0,)},
    ),
    "frames": (
        2,
        each(NumberOfFrames=lambda _: 20),
        {"slices": (40,), "multi_frame": ("yes",), "placed": ("no",)},
    ),
    "a mosaic": (
        2,
        each(ImageType=lambda _: ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]),
        {"slices": (2,), "multi_frame": ("yes",), "placed": ("no",)},
    ),
    "compressed with loss": (
        2,
        each(LossyImageCompression=lambda k: f"0{k}"),
        {"lossy": ("yes",)},
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_where_images_lie_is_told(name: str) -> None:
    """No fault hides another one."""
    count, edit, expected = LAYOUTS[name]
    found = facts(count, edit)
    assert {fact: found.get(fact) for fact in expected} == expected


def test_stacks_side_by_side_are_no_regular_grid() -> None:
    """They have as many positions as images, and steps of nothing between them."""
    count, edit, _ = LAYOUTS["two stacks side by side"]
    assert facts(count, edit)["spacing_deviation"][0] > 0.4


@needs_real_tilt
def test_a_real_tilted_ct_tells_both_of_its_faults() -> None:
    """A head CT with a gantry tilt of 18.5° and slice distances from 1.08 to 6.99 mm."""
    (series,) = read_series(REAL_TILT.glob("*.dcm"))
    assert series.facts["tilt_deg"][0] == pytest.approx(18.5, abs=0.1)
    assert series.facts["spacing_deviation"][0] > 1
    assert series.facts["orientation"] == ("axial",)
    assert series.facts["kernel"] == ("soft",)
