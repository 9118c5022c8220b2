"""Facts of series but for those of places and sequences: a table for each, of what scanners send.

Covered: kind, own, attenuation correction, times, what is counted beyond the 16 values of tags.
Not covered: places (test_layout.py), kernels (test_kernels.py), weighting, b-values and contrast
(test_mr.py), and that facts agree with volumes (properties/test_headers.py).
"""

from typing import Any

import pytest
from pydicom.uid import (
    ComprehensiveSRStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from app.results.describe import MANUFACTURER, MODEL_NAME
from tests.unit.metadata import STEP_MM, each, facts


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
        ("localizer", {"SeriesDescription": "T/S/C RF FAST PILOT", "Modality": "MR"}),
        ("localizer", {"SeriesDescription": "AAHead_Scout", "Modality": "MR"}),
        ("localizer", {"SeriesDescription": "Survey_SHC", "Modality": "MR"}),
        ("original", {"SeriesDescription": "Scout and chest", "Modality": "CT"}),
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
