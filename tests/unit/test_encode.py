"""Label map → SEG: what is written, that it is valid, and that nothing wrong may leave.

dciodvfy (dicom3tools) is the judge of validity. Its warning on DeviceUID in contributing equipment
is not counted: the tool is older than that attribute; nor is it that a study without a date fits
into no DICOMDIR. Not covered: geometry over all orientations
(properties/test_geometry.py), and how viewers show the object.
"""

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from app.errors import ModelError, NodeError
from app.models.card import ModelCard
from app.results.describe import content, versioned
from app.results.identity import Identity
from tests.peers import require
from tests.properties.strategies import (
    Edit,
    axis_frames,
    identity,
    sop_uid,
    tiny_card,
)
from tests.unit.encoding import NOW, Case, as_bytes, oblique, organs, poor


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Return a plain axial case."""
    return Case(tmp_path)


def one_missing() -> NDArray[np.uint8]:
    """Return a label map in which the second organ was looked for and not found."""
    labels = organs()
    labels[labels == 2] = 0
    return labels


JUDGED: dict[str, tuple[Any, Edit | None, Any]] = {
    "normal": (organs, None, None),
    "oblique": (organs, None, oblique()),
    "one segment empty": (one_missing, None, None),
    "all segments empty": (lambda: np.zeros((4, 5, 6), np.uint8), None, None),
    "poor header": (organs, poor, None),
}


@pytest.mark.dciodvfy
@pytest.mark.parametrize("name", JUDGED)
def test_dciodvfy_finds_no_error(tmp_path: Path, name: str) -> None:
    """The independent judge of DICOM objects has nothing to say against any of them."""
    require("dciodvfy")
    labels, edit, affine = JUDGED[name]
    path = Case(tmp_path, edit, affine).write(labels())
    judged = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    said = judged.stdout + judged.stderr
    expected = ("DeviceUID", "needed to build DICOMDIR")
    remarks = [line for line in said.splitlines() if not any(each in line for each in expected)]
    assert remarks == ["Segmentation"]


def test_the_object_says_what_it_is_and_what_made_it(case: Case) -> None:
    """The values that PS3.3 C.8.20, PS3.3 C.7.5.2 and IHE AIR 1.3 ask for."""
    seg = case.encode()
    card = tiny_card()
    exact = card.identity.partition("@")[2]
    assert (seg.Modality, seg.SegmentationType, seg.SegmentsOverlap) == ("SEG", "BINARY", "NO")
    assert seg.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert seg.SeriesNumber == 302
    assert seg.SeriesDescription == "Phantom organs RESEARCH"
    assert seg.ContentLabel == "PHANTOM"
    assert seg.ContentCreatorName == "phantom-organs^^^^"
    assert "research use" in seg.ContentDescription
    assert (seg.Manufacturer, seg.ManufacturerModelName) == ("Marginalia", "Marginalia node")
    assert list(seg.SoftwareVersions) == ["0.1.0", card.identity]
    assert seg.DeviceSerialNumber == card.weights_sha256
    purposes = [
        (item.PurposeOfReferenceCodeSequence[0].CodeValue, item.get("ManufacturerModelName", ""))
        for item in seg.ContributingEquipmentSequence
    ]
    assert purposes == [
        ("109101", ""),
        ("109102", "phantom-organs"),
        ("109102", "Marginalia node"),
        ("109102", "highdicom"),
    ]
    algorithm = seg.ContributingEquipmentSequence[1]
    assert algorithm.DeviceUID.startswith("2.25.")
    for item in seg.SegmentSequence:
        named = item.SegmentationAlgorithmIdentificationSequence[0]
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        assert named.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
        assert item.SegmentAlgorithmName == named.AlgorithmName == algorithm.ManufacturerModelName
        assert named.AlgorithmVersion == algorithm.SoftwareVersions == exact
        assert named.AlgorithmSource == algorithm.Manufacturer


def test_each_label_of_the_card_is_a_segment_with_its_codes(case: Case) -> None:
    """Category, type, side, region and colour come from the card."""
    first, second = case.encode().SegmentSequence
    assert (first.SegmentNumber, first.SegmentLabel) == (1, "organ 1")
    assert first.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "123037004"
    kind = second.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == (
        "64033007",
        "SCT",
        "Kidney",
    )
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert second.AnatomicRegionSequence[0].CodeValue == "818983003"
    assert "AnatomicRegionSequence" not in first
    assert len(first.RecommendedDisplayCIELabValue) == 3
    assert first.RecommendedDisplayCIELabValue != second.RecommendedDisplayCIELabValue
    assert first.TrackingUID != second.TrackingUID


def test_every_slice_of_the_source_is_referenced_and_each_frame_its_own(case: Case) -> None:
    """OHIF needs the series; a frame names the slice that its label was found on."""
    seg = case.encode()
    (series,) = seg.ReferencedSeriesSequence
    referenced = {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence}
    assert referenced == {sop_uid(k) for k in range(4)}
    frames = [
        (
            group.SegmentIdentificationSequence[0].ReferencedSegmentNumber,
            group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID,
        )
        for group in seg.PerFrameFunctionalGroupsSequence
    ]
    assert sorted(frames) == sorted([(1, sop_uid(1)), (1, sop_uid(2)), (2, sop_uid(3))])


def test_two_encodings_of_one_job_are_the_same_bytes(case: Case) -> None:
    """Nothing is random, and the order in which the sources are named does not matter."""
    one = as_bytes(case.encode())
    assert as_bytes(case.encode(paths=case.paths[::-1])) == one


def test_only_the_time_tells_two_encodings_apart(case: Case) -> None:
    """Every other element of the object made an hour later is equal."""
    one, other = case.encode(), case.encode(now=NOW.replace(hour=9))
    assert as_bytes(one) != as_bytes(other)
    for seg in (one, other):
        for keyword in ("InstanceCreationTime", "ContentTime", "SeriesTime"):
            delattr(seg, keyword)
        for item in seg.ContributingEquipmentSequence:
            item.pop("ContributionDateTime", None)
    assert as_bytes(one) == as_bytes(other)


def test_other_jobs_make_other_objects(case: Case) -> None:
    """Series, instance, dimension and tracking UIDs belong to the job."""
    one = case.encode()
    other = case.encode(identity=replace(identity(), digest="1" * 64))
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert one.SeriesInstanceUID != other.SeriesInstanceUID
    assert one.SegmentSequence[0].TrackingUID != other.SegmentSequence[0].TrackingUID
    dimensions = [
        {item.DimensionOrganizationUID for item in seg.DimensionIndexSequence}
        | {item.DimensionOrganizationUID for item in seg.DimensionOrganizationSequence}
        for seg in (one, other)
    ]
    assert [len(uids) for uids in dimensions] == [1, 1]
    assert dimensions[0] != dimensions[1]


def test_a_label_that_was_not_found_is_still_described(case: Case) -> None:
    """It has a segment and no frame: looked for, absent."""
    seg = case.encode(one_missing())
    assert len(seg.SegmentSequence) == 2
    assert seg.NumberOfFrames == 2


def test_when_nothing_was_found_each_segment_has_one_empty_frame(case: Case) -> None:
    """The object stays small and valid, and says that all were looked for."""
    seg = case.encode(np.zeros((4, 5, 6), np.uint8))
    assert seg.NumberOfFrames == 2
    assert not any(seg.PixelData)
    assert len(seg.SegmentSequence) == 2
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 4


def test_values_of_the_label_map_need_not_be_consecutive(tmp_path: Path) -> None:
    """Segments count from 1 in the order of the card; values are looked up."""
    case = Case(tmp_path)
    labels = organs()
    labels[labels == 2] = 200
    labels[labels == 1] = 7
    seg = case.encode(labels, card=tiny_card((200, 7)))
    by_segment = {1: 0, 2: 0}
    for frame, group in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        by_segment[number] += int(frame.sum())
    assert by_segment == {1: 1, 2: 4}


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.full((4, 5, 6), 3, np.uint8), r"has the values \[3\], which the card does not"),
        (np.zeros((3, 5, 6), np.uint8), "not uint8 with 4 slices"),
        (np.zeros((4, 5, 6), np.int16), "not uint8 with 4 slices"),
        (np.zeros((4, 6, 5), np.uint8), r"slices of 6×5, its source of 5×6"),
    ],
)
def test_a_label_map_that_the_card_does_not_promise_is_refused(
    case: Case, labels: Any, reason: str
) -> None:
    """Unknown values, other shapes and other types are the model's fault."""
    with pytest.raises(ModelError, match=reason):
        case.encode(labels)


def test_a_missing_source_is_refused(case: Case) -> None:
    """The sentence says how many are missing and names the first."""
    with pytest.raises(NodeError, match=f"1 of 4 source images are not there, first {sop_uid(2)}"):
        case.encode(paths=case.paths[1:])


def test_a_job_of_another_study_is_refused(case: Case) -> None:
    """A result in the wrong study is the worst that can happen."""
    other = Identity(study_uid="2.25.9", route="ct", model="phantom", digest="0" * 64)
    with pytest.raises(NodeError, match=r"the job is of study 2\.25\.9; nothing was encoded"):
        case.encode(identity=other)


def test_a_result_that_replaces_another_says_so(case: Case) -> None:
    """In words, where a reader and an archive's list show them; its UIDs stay those of its job."""
    first, second = case.encode(), case.encode(version=2)
    assert second.SeriesDescription == "Phantom organs RESEARCH version 2"
    assert second.ContentDescription == (
        "Version 2 by an algorithm, not reviewed. For research use only."
    )
    assert second.SOPInstanceUID == first.SOPInstanceUID


def test_a_version_fits_beside_the_longest_words() -> None:
    """A description of 64 characters gives way, the version never."""
    text = versioned("x" * 64, 12)
    assert (len(text), text[-11:]) == (64, " version 12")
    assert versioned("x" * 64, 1) == "x" * 64
    assert len(content(100)) <= 64
    assert content(1).startswith("Made by an algorithm, not reviewed.")


def test_words_of_a_card_fit_into_dicom(case: Case) -> None:
    """Accents, carets, backslashes and long identities are made to fit."""
    plain = tiny_card().model_dump()
    plain["name"], plain["version"] = "m" * 40, "1." + "0" * 18
    plain["labels"][0]["name"] = "Rückenmark \\ links"
    plain["outputs"]["content_creator"] = "Größe^=\\" + "x" * 56
    card = ModelCard.model_validate(plain)
    seg = case.encode(card=card)
    assert seg.SegmentSequence[0].SegmentLabel == "Ruckenmark / links"
    assert str(seg.ContentCreatorName).startswith("Groe  /xx")
    assert list(seg.SoftwareVersions)[1:] == ["m" * 40, card.identity.partition("@")[2]]
    assert all(len(value) <= 64 for value in seg.SoftwareVersions)
    as_bytes(seg)


def test_the_frames_of_any_axis_pass_the_check(tmp_path: Path) -> None:
    """Coronal and sagittal series are as good as axial ones."""
    for number, frame in enumerate(axis_frames()[::5]):
        affine = np.eye(4)
        affine[:3, :3] = frame[:, ::-1] * (2, 1, 1.5)
        (tmp_path / str(number)).mkdir()
        Case(tmp_path / str(number), affine=affine).write()
