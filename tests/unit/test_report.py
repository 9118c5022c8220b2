"""Measurements → SR: what TID 1500 says of segments that were found, and of those that were not.

DicomSRValidator (PixelMed) judges the templates, dciodvfy the object, highdicom's reader finds the
numbers again. Not covered: that the numbers are right (they are given here), and how viewers show
the report.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage

from app.results.forms import Form
from app.results.measure import Measured
from app.results.report import encode_report
from app.results.text_report import encode_text_report
from tests.peers import require
from tests.properties.strategies import Edit
from tests.unit.encoding import Case, as_bytes
from tests.unit.reporting import (
    KIDNEY,
    LEFT,
    LEFT_KIDNEY,
    LESION,
    LIVER,
    LUNG,
    RIGHT,
    RIGHT_KIDNEY,
    card,
    found,
    measure,
)
from tests.validators import TOOL_IS_OLDER, dcentvfy, dciodvfy, sr_validator

ALL = (LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, LESION)
NO_LABEL_MAPS = "ReferencedSegmentNumber"  # dicom3tools of 2022 knows none
SITE_OF_THE_ABSENT = re.compile(
    r'.*"Qualitative Evaluations"\)/.*/CODE \(363698007,SCT,"Finding Site"\).*'
    r": Content Item not in template"
)
"""Where the template has no room for a side, and a report that left it out would be wrong."""


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Return a plain axial case."""
    return Case(tmp_path)


def report(
    case: Case, *values: int, about: Form | None = Form.SEG, modality: str = "CT", **outputs: Any
) -> Dataset:
    """Return the report on a label map with these values in it."""
    result = case.result(found(*values), card=card(modality, **outputs))
    return encode_report(result, measure(result), about)


def read(encoded: Dataset, folder: Path) -> hd.sr.Comprehensive3DSR:
    """Return the report as highdicom reads it from its file."""
    path = folder / "report.dcm"
    encoded.save_as(path, enforce_file_format=True)
    return hd.sr.srread(path)


def evaluations(encoded: Dataset) -> list[Dataset]:
    """Return the items of the report's last section."""
    section = encoded.ContentSequence[-1]
    assert section.ConceptNameCodeSequence[0].CodeValue == "C0034375"
    return [*section.ContentSequence]


def of_modality(modality: str) -> Edit:
    """Return what makes of CT slices those of another modality."""
    uid = {
        "CT": CTImageStorage,
        "MR": MRImageStorage,
        "PT": PositronEmissionTomographyImageStorage,
    }[modality]

    def edit(ds: Dataset, _: int) -> None:
        ds.Modality = modality
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = uid

    return edit


def few_of(measured: list[Measured]) -> list[Measured]:
    """Return a size and a mean of each: the judge's time grows with how many numbers there are."""
    return [replace(each, values=each.values[::3]) for each in measured]


@pytest.mark.slow
@pytest.mark.dciodvfy
def test_the_judges_find_no_error(tmp_path: Path) -> None:
    """Neither in structure nor in templates; the one warning is of what is said on purpose."""
    require("dciodvfy", "DicomSRValidator")
    cases: dict[str, tuple[str, Form | None, tuple[int, ...]]] = {
        "all found": ("CT", Form.SEG, ALL),
        "some absent": ("PT", Form.LABELMAP, (LESION,)),
        "no segmentation": ("MR", None, (LESION,)),
        "nothing found": ("CT", Form.SEG, ()),
    }
    paths = {name: tmp_path / f"{name}.dcm" for name in [*cases, "text"]}
    for name, (modality, about, values) in cases.items():
        folder = tmp_path / f"of {name}"
        folder.mkdir()
        case = Case(folder, of_modality(modality))
        result = case.result(found(*values), card=card(modality))
        encoded = encode_report(result, few_of(measure(result)), about)
        encoded.save_as(paths[name], enforce_file_format=True)
    encode_text_report(result, measure(result)).save_as(paths["text"], enforce_file_format=True)

    remarks = sr_validator(paths.values())
    for name, path in paths.items():
        assert dciodvfy(path, (*TOOL_IS_OLDER, NO_LABEL_MAPS)) == [], name
        assert not any(line.startswith("Error") for line in remarks[path]), name
        assert [line for line in remarks[path] if not SITE_OF_THE_ABSENT.fullmatch(line)] == [], (
            name
        )
    assert remarks[paths["all found"]] == remarks[paths["text"]] == []


@pytest.mark.dciodvfy
def test_the_report_fits_to_its_images_and_its_segmentation(case: Case) -> None:
    """By dcentvfy, which compares patient, study, series and equipment of several objects."""
    require("dcentvfy")
    paths = [*case.paths, case.folder / "seg.dcm", case.folder / "sr.dcm"]
    case.encode(found(*ALL), card=card()).save_as(paths[-2], enforce_file_format=True)
    report(case, *ALL).save_as(paths[-1], enforce_file_format=True)
    remarks = dcentvfy(paths)
    assert [line for line in remarks if "AccessionNumber" not in line] == []


def test_a_reader_finds_every_number_with_its_code_and_unit(case: Case, tmp_path: Path) -> None:
    """The reader is highdicom's; the numbers are those that were given, to the last digit."""
    result = case.result(found(*ALL), card=card())
    measured = measure(result)
    groups = read(
        encode_report(result, measured, Form.SEG), tmp_path
    ).content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 4
    for group, each in zip(groups, measured, strict=True):
        assert group.finding_type.value == each.label.type.value
        for there, (quantity, value) in zip(group.get_measurements(), each.values, strict=True):
            number = there[0].MeasuredValueSequence[0]
            assert number.FloatingPointValue == value
            assert float(number.NumericValue) == pytest.approx(value, rel=1e-12)
            assert (there.name.scheme_designator, there.name.value) == (
                quantity.concept.scheme,
                quantity.concept.value,
            )
            assert (there.unit.scheme_designator, there.unit.value) == ("UCUM", quantity.unit.value)
            derivation = quantity.derivation
            assert (there.derivation and there.derivation.value) == (
                derivation and derivation.value
            )


def test_the_report_points_to_the_segments_as_they_are_in_the_segmentation(
    case: Case, tmp_path: Path
) -> None:
    """Number, tracking and instance are read from the SEG itself, the series from the images."""
    seg = case.encode(found(*ALL), card=card())
    groups = read(report(case, *ALL), tmp_path).content.get_volumetric_roi_measurement_groups()
    for group, segment in zip(groups, seg.SegmentSequence, strict=True):
        reference = group.referenced_segment
        pointed = reference[0].ReferencedSOPSequence[0]
        assert pointed.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert pointed.ReferencedSOPClassUID == seg.SOPClassUID
        assert pointed.ReferencedSegmentNumber == segment.SegmentNumber
        assert reference[1].value == pydicom.dcmread(case.paths[0]).SeriesInstanceUID
        assert group.tracking_uid == segment.TrackingUID
        assert group.tracking_identifier == segment.TrackingID


@pytest.mark.parametrize(
    ("about", "sop_class"),
    [
        (Form.SEG, "1.2.840.10008.5.1.4.1.1.66.4"),
        (Form.FRACTIONAL, "1.2.840.10008.5.1.4.1.1.66.4"),
        (Form.LABELMAP, "1.2.840.10008.5.1.4.1.1.66.7"),
        (None, None),
    ],
)
def test_the_evidence_is_every_image_and_the_segmentation_that_is_there(
    case: Case, about: Form | None, sop_class: str | None
) -> None:
    """An archive that gets another form of segmentation gets another report."""
    result = case.result(found(LIVER), card=card())
    encoded = encode_report(result, measure(result), about)
    (study,) = encoded.CurrentRequestedProcedureEvidenceSequence
    instances = {
        item.ReferencedSOPInstanceUID: (series.SeriesInstanceUID, item.ReferencedSOPClassUID)
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    uid = result.identity.uid
    for image in map(pydicom.dcmread, case.paths):
        assert instances.pop(image.SOPInstanceUID) == (image.SeriesInstanceUID, image.SOPClassUID)
    expected = {uid(f"{about}.instance"): (uid(f"{about}.series"), sop_class)} if about else {}
    assert instances == expected
    assert study.StudyInstanceUID == encoded.StudyInstanceUID
    assert encoded.SOPInstanceUID == uid(f"sr.{about or 'none'}.instance")
    assert encoded.SeriesInstanceUID == uid(f"sr.{about or 'none'}.series")


def test_without_a_segmentation_the_measurements_are_of_the_listed_images(
    case: Case, tmp_path: Path
) -> None:
    """TID 1501 refers to no segment; the image library names all slices."""
    read_back = read(report(case, *ALL, about=None), tmp_path)
    assert read_back.content.get_volumetric_roi_measurement_groups() == []
    groups = read_back.content.get_image_measurement_groups()
    assert [group.get_measurements()[0].value for group in groups] == [1_523_456.789012345] * 4
    (library,) = hd.sr.utils.find_content_items(
        read_back, name=codes.DCM.ImageLibraryGroup, recursive=True
    )
    references = [item.ReferencedSOPSequence[0] for item in library.ContentSequence]
    listed = [reference.ReferencedSOPInstanceUID for reference in references]
    assert sorted(listed) == sorted(pydicom.dcmread(path).SOPInstanceUID for path in case.paths)


def test_sides_and_regions_are_those_of_the_card(case: Case, tmp_path: Path) -> None:
    """An organ's site is itself where it has a side; a lesion's is its region."""
    groups = read(report(case, *ALL), tmp_path).content.get_volumetric_roi_measurement_groups()
    sites = [
        [(site.value.value, site.laterality.value) for site in each.finding_sites]
        for each in groups
    ]
    assert sites == [
        [],
        [(KIDNEY.value, RIGHT.value)],
        [(KIDNEY.value, LEFT.value)],
        [(LUNG.value, LEFT.value)],
    ]


def test_what_was_not_found_is_said_with_its_side(case: Case, tmp_path: Path) -> None:
    """The other kidney was found: only its side tells that it is not the one that is absent."""
    encoded = report(case, LIVER, LEFT_KIDNEY, LESION)
    assert len(read(encoded, tmp_path).content.get_volumetric_roi_measurement_groups()) == 3
    absent, in_words, trust = evaluations(encoded)
    assert absent.ConceptNameCodeSequence[0].CodeValue == KIDNEY.value
    assert absent.ConceptCodeSequence[0].CodeValue == "272519000"
    (site,) = absent.ContentSequence
    assert site.ConceptCodeSequence[0].CodeValue == KIDNEY.value
    assert site.ContentSequence[0].ConceptCodeSequence[0].CodeValue == RIGHT.value
    assert in_words.TextValue == "Right kidney: looked for and not found."
    assert trust.TextValue == "Made by an algorithm, not reviewed. For research use only."


def test_a_report_without_a_finding_says_so(case: Case) -> None:
    """It has no measurements at all, and names everything that was looked for."""
    encoded = report(case)
    names = [item.ConceptNameCodeSequence[0].CodeMeaning for item in encoded.ContentSequence]
    assert "Imaging Measurements" not in names
    said = [item.TextValue for item in evaluations(encoded) if item.ValueType == "TEXT"]
    assert said == [
        "Nothing was found of what was looked for.",
        "Liver: looked for and not found.",
        "Right kidney: looked for and not found.",
        "Left kidney: looked for and not found.",
        "Lasion: looked for and not found.",
        "Made by an algorithm, not reviewed. For research use only.",
    ]
    coded = [item for item in evaluations(encoded) if item.ValueType == "CODE"]
    assert len(coded) == 4


@pytest.mark.parametrize(("empty_segments", "number"), [("state", 3), ("omit", 2)])
def test_a_segment_that_is_omitted_has_no_number(
    case: Case, tmp_path: Path, empty_segments: str, number: int
) -> None:
    """The segmentation counts what it holds, and so does the report."""
    encoded = report(case, LIVER, LEFT_KIDNEY, empty_segments=empty_segments)
    groups = read(encoded, tmp_path).content.get_volumetric_roi_measurement_groups()
    numbers = [
        group.referenced_segment[0].ReferencedSOPSequence[0].ReferencedSegmentNumber
        for group in groups
    ]
    assert numbers == [1, number]


def test_a_label_is_found_by_what_it_includes(case: Case) -> None:
    """A segment that overlaps others may have no voxel of its own value."""
    content = card(empty_segments="omit").model_dump()
    content["labels"][RIGHT_KIDNEY - 1]["includes"] = (LEFT_KIDNEY,)
    result = case.result(found(LEFT_KIDNEY), card=type(card()).model_validate(content))
    assert [(number, label.value) for number, label in result.segments()] == [
        (1, RIGHT_KIDNEY),
        (2, LEFT_KIDNEY),
    ]


def test_whoever_observed_and_measured_is_the_contributing_equipment(
    case: Case, tmp_path: Path
) -> None:
    """IHE AIR 1.3, Table 6.5.3.1-1: the same maker, name, version and UID everywhere."""
    encoded = report(case, *ALL)
    model = next(
        item
        for item in encoded.ContributingEquipmentSequence
        if item.get("ManufacturerModelName") == "phantom-organs"
    )
    content = read(encoded, tmp_path).content
    (observer,) = content.get_observer_contexts()
    device = observer.observer_identifying_attributes
    assert device.uid == model.DeviceUID
    assert device.manufacturer_name == model.Manufacturer == encoded.Manufacturer
    assert device.model_name == model.ManufacturerModelName
    assert device.serial_number == encoded.DeviceSerialNumber
    for group in content.get_volumetric_roi_measurement_groups():
        for each in group.get_measurements():
            said = {
                item.ConceptNameCodeSequence[0].CodeValue: item.get("TextValue")
                for item in each[0].ContentSequence
            }
            assert (said["111001"], said["111003"]) == (
                model.ManufacturerModelName,
                model.SoftwareVersions,
            )
    assert device.name is None


@pytest.mark.parametrize(
    ("modality", "loinc"), [("CT", "25045-6"), ("MR", "25056-3"), ("PT", "44136-0")]
)
def test_the_procedure_is_what_was_imaged(case: Case, modality: str, loinc: str) -> None:
    """LOINC's codes of CID 100 for an unspecified body region."""
    (procedure,) = (
        item.ConceptCodeSequence[0]
        for item in report(case, *ALL, modality=modality).ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "121058"
    )
    assert (procedure.CodeValue, procedure.CodingSchemeDesignator) == (loinc, "LN")


def test_the_report_is_complete_unreviewed_and_in_a_series_of_its_own(case: Case) -> None:
    """Nobody has verified it; its number and name are not those of the segmentation."""
    encoded, seg = report(case, *ALL), case.encode(found(*ALL), card=card())
    assert (encoded.CompletionFlag, encoded.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert encoded.PreliminaryFlag == "PRELIMINARY"
    assert encoded.SeriesNumber == seg.SeriesNumber + 1
    assert encoded.SeriesDescription == "Phantom organs RESEARCH measurements"
    assert str(encoded.ContentDate) == str(seg.ContentDate)
    assert str(encoded.ContentTime).partition(".")[0] == str(seg.ContentTime).partition(".")[0]
    assert encoded.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    assert encoded.StudyInstanceUID == seg.StudyInstanceUID


def test_a_long_name_leaves_room_for_what_the_series_is(case: Case) -> None:
    """VR LO holds 64 characters; the version of a later answer is among them."""
    result = case.result(found(), card=card(series_description="x" * 64), version=12)
    encoded = encode_report(result, measure(result), Form.SEG)
    assert encoded.SeriesDescription == "x" * 40 + " measurements version 12"
    assert "Version 12" in evaluations(encoded)[-1].TextValue


@pytest.mark.parametrize("about", [Form.SEG, None])
def test_the_same_result_makes_the_same_bytes(case: Case, about: Form | None) -> None:
    """Times are the clock's in highdicom, which has moved between the two."""
    first, second = (as_bytes(report(case, *ALL, about=about)) for _ in range(2))
    assert first == second
