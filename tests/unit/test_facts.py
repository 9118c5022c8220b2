"""Facts of series: a table for each fact, of what scanners really send.

Covered: every name in FACTS, with headers from metadata. Not covered: kernels (test_kernels.py),
weighting and contrast (test_mr.py), and that facts agree with volumes (properties/test_headers.py).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from app.dicom.facts import FACTS
from app.dicom.headers import headers_of, read_series
from app.pipeline.describe import MANUFACTURER, MODEL_NAME
from tests.unit.metadata import STEP_MM, headers

Edit = Callable[[Dataset, int], None]
REAL_TILT = Path(__file__).parents[3] / "shared/data/ct-head-tilt"


def facts(count: int = 4, edit: Edit | None = None, **values: Any) -> Any:
    """Return the facts of one series."""
    (one,) = headers_of(headers(count, edit, **values))
    found = one.series().facts
    assert found.keys() <= FACTS.keys()
    return found


def at(position: Callable[[int], Any]) -> Edit:
    """Return an edit that puts image `k` at `position(k)`."""
    return lambda ds, k: setattr(ds, "ImagePositionPatient", [*map(float, position(k))])


def each(**values: Callable[[int], Any]) -> Edit:
    """Return an edit that sets attributes by the number of the image."""

    def edit(ds: Dataset, k: int) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value(k))

    return edit


def both(*edits: Edit) -> Edit:
    """Return the edits one after the other."""

    def edit(ds: Dataset, k: int) -> None:
        for one in edits:
            one(ds, k)

    return edit


def test_a_plain_series_is_clean() -> None:
    """Everything that is known of four axial images, and nothing else."""
    assert facts(AcquisitionDate="20240102", AcquisitionTime="101500") == {
        "slices": (4,),
        "positions": (4,),
        "per_position": (1,),
        "time_points": (1,),
        "duplicates": (0,),
        "spacing_mm": (STEP_MM,),
        "spacing_deviation": (0.0,),
        "missing_slices": (0,),
        "orientation": ("axial",),
        "orientations": (1,),
        "tilt_deg": (0.0,),
        "extent_mm": (8.0,),
        "field_mm": (200.0,),
        "sizes": (1,),
        "placed": ("yes",),
        "frames_of_reference": (1,),
        "kind": ("original",),
        "multi_frame": ("no",),
        "lossy": ("no",),
        "acquired_at": ("2024-01-02T10:15:00",),
        "own": ("no",),
    }


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


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("original", {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}),
        ("original", {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"]}),
        ("original", {"ImageType": ["ORIGINAL", "SECONDARY", "AXIAL"]}),
        ("derived", {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}),
        ("derived", {"ImageType": ["DERIVED", "SECONDARY", "OTHER"]}),
        ("reformatted", {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}),
        ("reformatted", {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MPR"]}),
        ("reformatted", {"ImageType": ["DERIVED", "PRIMARY", "REFORMATTED"]}),
        ("reformatted", {"ImageType": ["DERIVED", "SECONDARY", "OTHER", "CSA MPR"]}),
        ("projection", {"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]}),
        ("projection", {"ImageType": ["DERIVED", "PRIMARY", "PROJECTION IMAGE", "MIP"]}),
        ("projection", {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "MIN_IP"]}),
        ("localizer", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        ("localizer", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP"]}),
        ("localizer", {"ImageType": ["ORIGINAL", "SECONDARY", "SCOUT"]}),
        ("localizer", {"SeriesDescription": "3-plane localizer", "Modality": "MR"}),
        ("localizer", {"SeriesDescription": "3 Pl Loc FGRE", "Modality": "MR"}),
        ("localizer", {"SeriesDescription": "AAHead_Scout", "Modality": "MR"}),
        ("localizer", {"SeriesDescription": "Survey_SHC", "Modality": "MR"}),
        ("original", {"SeriesDescription": "localised spine", "Modality": "MR"}),
        ("secondary", {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}),
        ("secondary", {"ImageType": ["DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"]}),
        ("secondary", {"ImageType": ["DERIVED", "SECONDARY", "OTHER", "CSA REPORT"]}),
        ("secondary", {"SOPClassUID": SecondaryCaptureImageStorage}),
        ("secondary", {"SOPClassUID": f"{SecondaryCaptureImageStorage}.4"}),
        ("not_image", {"SOPClassUID": SegmentationStorage, "Modality": "SEG"}),
        ("not_image", {"SOPClassUID": ComprehensiveSRStorage}),
        ("not_image", {"SOPClassUID": KeyObjectSelectionDocumentStorage}),
        ("not_image", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3"}),
        ("not_image", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}),
        ("not_image", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}),
        ("not_image", {"SOPClassUID": "2.25.77", "Modality": "SR"}),
        (None, {"ImageType": None}),
    ],
)
def test_the_kind_of_a_series(kind: str | None, values: dict[str, Any]) -> None:
    """By SOP class, then Image Type, then the description."""
    assert facts(**values).get("kind") == ((kind,) if kind else None)


def test_a_series_of_two_kinds_has_both() -> None:
    """A scanner that puts its scout into the series."""
    edit = each(ImageType=lambda k: ["ORIGINAL", "PRIMARY", "AXIAL" if k else "LOCALIZER"])
    assert facts(edit=edit)["kind"] == ("localizer", "original")


@pytest.mark.parametrize(
    ("values", "own"),
    [
        ({"Manufacturer": MANUFACTURER, "ManufacturerModelName": MODEL_NAME}, "yes"),
        ({"Manufacturer": MANUFACTURER, "ManufacturerModelName": "another"}, "no"),
        ({"Manufacturer": "Marginalia phantoms", "ManufacturerModelName": MODEL_NAME}, "no"),
        ({}, "no"),
    ],
)
def test_our_own_series_are_known(values: dict[str, Any], own: str) -> None:
    """By what the encoder writes; a phantom's scanner is not us."""
    assert facts(**values)["own"] == (own,)


@pytest.mark.parametrize(
    ("values", "corrected"),
    [
        ({"CorrectedImage": ["DECY", "ATTN", "SCAT"], "AttenuationCorrectionMethod": "CT"}, "yes"),
        ({"CorrectedImage": ["DECY", "ATTN"]}, "yes"),
        ({"AttenuationCorrectionMethod": "measured, CT"}, "yes"),
        ({"CorrectedImage": ["DECY", "SCAT"]}, "no"),
        ({"CorrectedImage": ["DECY"], "AttenuationCorrectionMethod": "NONE"}, "no"),
        ({"AttenuationCorrectionMethod": "NONE"}, "no"),
        ({"CorrectedImage": ["DECY", "ATTN"], "AttenuationCorrectionMethod": "NONE"}, "no"),
        ({}, None),
    ],
)
def test_attenuation_correction_of_pet(values: dict[str, Any], corrected: str | None) -> None:
    """Both attributes must not contradict each other."""
    expected = (corrected,) if corrected else None
    assert facts(Modality="PT", **values).get("attenuation_corrected") == expected
    assert "attenuation_corrected" not in facts(Modality="CT", **values)


SERIES_START = {"SeriesDate": "20240102", "SeriesTime": "090000"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"AcquisitionDateTime": "20240102101500.250000+0100"}, "2024-01-02T10:15:00.250000"),
        ({"AcquisitionDate": "20240102", "AcquisitionTime": "1015"}, "2024-01-02T10:15:00"),
        ({"AcquisitionDate": "2024.01.02", "AcquisitionTime": "10:15:30"}, "2024-01-02T10:15:30"),
        ({"AcquisitionTime": "101500"} | SERIES_START, "2024-01-02T09:00:00"),
        (SERIES_START, "2024-01-02T09:00:00"),
        ({"AcquisitionDate": "20240231", "AcquisitionTime": "101500"}, None),
        ({"AcquisitionDate": "20240102"}, None),
        ({"SeriesDate": "yesterday", "SeriesTime": "noon"}, None),
    ],
)
def test_when_the_acquisition_began(values: dict[str, Any], expected: str | None) -> None:
    """ISO 8601 as the site's clock had it; what is no time is left out."""
    assert facts(**values).get("acquired_at") == ((expected,) if expected else None)


def test_the_earliest_image_says_when() -> None:
    """Date and time are taken together: midnight may lie between."""
    edit = each(
        AcquisitionDate=lambda k: "20240102" if k < 2 else "20240103",
        AcquisitionTime=lambda k: f"{(23, 23, 0, 0)[k]:02}59{k:02}",
    )
    assert facts(edit=edit)["acquired_at"] == ("2024-01-02T23:59:00",)


def test_more_values_than_tags_keep_are_counted() -> None:
    """The facts do not look at what was cut off at 16."""
    edit = each(
        FrameOfReferenceUID=lambda k: f"2.25.{k}",
        DiffusionBValue=float,
        Rows=lambda k: k + 1,
    )
    found = facts(20, edit, Modality="MR")
    assert found["frames_of_reference"] == (20,)
    assert found["b_values"] == tuple(map(float, range(20)))
    assert found["sizes"] == (20,)


@pytest.mark.skipif(not REAL_TILT.is_dir(), reason="the real tilted CT is not beside the project")
def test_a_real_tilted_ct_tells_both_of_its_faults() -> None:
    """A head CT with a gantry tilt of 18.5° and slice distances from 1.08 to 6.99 mm."""
    (series,) = read_series(REAL_TILT.glob("*.dcm"))
    assert series.facts["tilt_deg"][0] == pytest.approx(18.5, abs=0.1)
    assert series.facts["spacing_deviation"][0] > 1
    assert series.facts["orientation"] == ("axial",)
    assert series.facts["kernel"] == ("soft",)
