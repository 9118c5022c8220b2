"""Conformance at run time: right objects pass, and each way of breaking one is told.

dciodvfy is the other judge: what it calls an error of a broken SEG is told by ours as well. Not
covered: conditions of the standard that our objects never meet; geometry, which no table knows.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from app.results.conformance import faults
from app.results.contours import encode_rtstruct
from app.results.forms import Form
from app.results.measure import measure
from app.results.overview import encode_overview
from app.results.report import encode_report
from app.results.text_report import encode_text_report
from tests.peers import require
from tests.unit.encoding import Case

KINDS = ("seg", "sr", "text", "rtstruct", "overview")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a right object of each kind, as it lies in the job's folder."""
    case = Case(tmp_path_factory.mktemp("case"))
    result = case.result()
    measured = measure(result)
    made = {
        "seg": case.encode(),
        "sr": encode_report(result, measured, Form.SEG),
        "text": encode_text_report(result, measured),
        "rtstruct": encode_rtstruct(result),
        "overview": encode_overview(result),
    }
    paths = {}
    for kind, ds in made.items():
        paths[kind] = case.folder / f"{kind}.dcm"
        ds.save_as(paths[kind], enforce_file_format=True)
    return paths


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_object_conforms(files: dict[str, Path], kind: str) -> None:
    """Of every kind that leaves."""
    assert faults(pydicom.dcmread(files[kind])) == []


def without(*path: str | int) -> Callable[[Dataset], None]:
    """Take an element away."""

    def change(ds: Dataset) -> None:
        del at(ds, path[:-1])[path[-1]]

    return change


def put(value: Any, *path: str | int) -> Callable[[Dataset], None]:
    """Give an element another value."""

    def change(ds: Dataset) -> None:
        item, keyword = at(ds, path[:-1]), str(path[-1])
        if keyword in item:
            item[keyword]._value = value
        else:
            setattr(item, keyword, value)

    return change


def at(ds: Any, path: Any) -> Any:
    """Return what lies behind keywords and item numbers."""
    for step in path:
        ds = ds[step] if isinstance(step, int) else getattr(ds, step)
    return ds


SEGMENT = ("SegmentSequence", 0)
SHARED = ("SharedFunctionalGroupsSequence", 0)
FRAME = ("PerFrameFunctionalGroupsSequence", 0)
TYPE = (*SEGMENT, "SegmentedPropertyTypeCodeSequence", 0)
SEG_BROKEN: dict[str, Callable[[Dataset], None]] = {
    "no class": without("SOPClassUID"),
    "no instance": without("SOPInstanceUID"),
    "no study": without("StudyInstanceUID"),
    "no series": without("SeriesInstanceUID"),
    "no patient": without("PatientName"),
    "no patient id": without("PatientID"),
    "no modality": without("Modality"),
    "no study date": without("StudyDate"),
    "no accession number": without("AccessionNumber"),
    "no content label": without("ContentLabel"),
    "no content date": without("ContentDate"),
    "no manufacturer": without("Manufacturer"),
    "no software version": without("SoftwareVersions"),
    "no serial number": without("DeviceSerialNumber"),
    "empty manufacturer": put("", "Manufacturer"),
    "no rows": without("Rows"),
    "no segmentation type": without("SegmentationType"),
    "no segments": without("SegmentSequence"),
    "empty segments": put(Sequence(), "SegmentSequence"),
    "no segment number": without(*SEGMENT, "SegmentNumber"),
    "no segment label": without(*SEGMENT, "SegmentLabel"),
    "no algorithm type": without(*SEGMENT, "SegmentAlgorithmType"),
    "no algorithm name": without(*SEGMENT, "SegmentAlgorithmName"),
    "no category": without(*SEGMENT, "SegmentedPropertyCategoryCodeSequence"),
    "code without value": without(*TYPE, "CodeValue"),
    "code without scheme": without(*TYPE, "CodingSchemeDesignator"),
    "code without meaning": without(*TYPE, "CodeMeaning"),
    "no shared groups": without("SharedFunctionalGroupsSequence"),
    "number of frames": put("7", "NumberOfFrames"),
    "no dimensions": without("DimensionOrganizationSequence"),
    "no segment of a frame": without(
        *FRAME, "SegmentIdentificationSequence", 0, "ReferencedSegmentNumber"
    ),
    "manual": put("MANUAL", *SEGMENT, "SegmentAlgorithmType"),
    "unknown type": put("OCTAL", "SegmentationType"),
    "label in small letters": put("phantom", "ContentLabel"),
    "description too long": put("x" * 65, "SeriesDescription"),
    "a date that is none": put("20261399", "ContentDate"),
    "a time that is none": put("25:00", "ContentTime"),
    "a uid that is none": put("1.2.x", "FrameOfReferenceUID"),
    "three orientations": put(
        ["1", "0", "0"], *SHARED, "PlaneOrientationSequence", 0, "ImageOrientationPatient"
    ),
    "two rows": put([5, 6], "Rows"),
    "of another kind": put("120", "KVP"),
    "private": lambda ds: ds.private_block(0x0099, "PHANTOM", create=True).add_new(1, "LO", "x"),
    "file names another instance": lambda ds: setattr(
        ds.file_meta, "MediaStorageSOPInstanceUID", "2.25.1"
    ),
    "file names another class": lambda ds: setattr(
        ds.file_meta, "MediaStorageSOPClassUID", "1.2.840.10008.5.1.4.1.1.2"
    ),
}


@pytest.mark.parametrize("name", SEG_BROKEN)
def test_a_broken_segmentation_is_told(files: dict[str, Path], name: str) -> None:
    """Each single change of a right object."""
    ds = pydicom.dcmread(files["seg"])
    SEG_BROKEN[name](ds)
    assert faults(ds) != []


GROUP = ("ContentSequence", -2, "ContentSequence", 0)


def number(ds: Dataset) -> Dataset:
    """Return the first measurement of a report."""

    def numbers(item: Dataset) -> list[Dataset]:
        inner = [each for one in item.get("ContentSequence", []) for each in numbers(one)]
        return [item, *inner] if item.get("ValueType") == "NUM" else inner

    return numbers(ds)[0]


SR_BROKEN: dict[str, Callable[[Dataset], None]] = {
    "no completion": without("CompletionFlag"),
    "verified": put("VERIFIED", "VerificationFlag"),
    "no evidence": without("CurrentRequestedProcedureEvidenceSequence"),
    "no root name": without("ConceptNameCodeSequence"),
    "unknown value type": put("VIDEO", "ContentSequence", 0, "ValueType"),
    "no relationship": without("ContentSequence", 0, "RelationshipType"),
    "code without a code": without("ContentSequence", 0, "ConceptCodeSequence"),
    "number without a unit": lambda ds: (
        number(ds).MeasuredValueSequence[0].pop("MeasurementUnitsCodeSequence")
    ),
    "no number": lambda ds: number(ds).pop("MeasuredValueSequence"),
    "number without a name": lambda ds: number(ds).pop("ConceptNameCodeSequence"),
    "unit without a scheme": lambda ds: (
        number(ds)
        .MeasuredValueSequence[0]
        .MeasurementUnitsCodeSequence[0]
        .pop("CodingSchemeDesignator")
    ),
    "continuity": put("BROKEN", "ContinuityOfContent"),
    "no performed procedure": without("PerformedProcedureCodeSequence"),
}


@pytest.mark.parametrize("name", SR_BROKEN)
def test_a_broken_report_is_told(files: dict[str, Path], name: str) -> None:
    """Its module attributes and its content tree."""
    ds = pydicom.dcmread(files["sr"])
    SR_BROKEN[name](ds)
    assert faults(ds) != []


def test_a_kind_that_is_not_made_here_does_not_pass(files: dict[str, Path]) -> None:
    """Whatever it holds."""
    ds = pydicom.dcmread(files["overview"])
    ds.SOPClassUID = "1.2.3"
    assert "is no kind that is made here" in faults(ds)[0]


@pytest.mark.dciodvfy
@pytest.mark.parametrize(
    "name",
    ["no modality", "no rows", "no segment number", "empty segments", "no study date", "manual"],
)
def test_what_dciodvfy_calls_an_error_is_told_too(
    files: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """The two judges agree on broken objects."""
    require("dciodvfy")
    ds = pydicom.dcmread(files["seg"])
    SEG_BROKEN[name](ds)
    path = tmp_path / "broken.dcm"
    ds.save_as(path)
    judged = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    assert "Error" in judged.stdout + judged.stderr
    assert faults(pydicom.dcmread(path)) != []
