"""Label map → RT Structure Set: the contours give the map back, in the patient, and name it right.

Covered: outlines of any mask, contours in the planes of axial, oblique and sagittal slices read
back by PS3.3 C.7.6.2.1.1, regions with holes, ROIs and what they refer to, validity by dciodvfy.
Not covered: how planning systems show them.
"""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage
from scipy import ndimage
from skimage.measure import points_in_poly

from app.dicom.volume import build_volume
from app.errors import ResultRejected
from app.results.check_contours import check_rtstruct
from app.results.contours import encode_rtstruct
from app.results.outline import keyholed, loops
from app.results.overview import encode_overview
from app.results.result import Result, result_of
from tests.peers import require
from tests.properties.strategies import (
    axial,
    axis_frames,
    identity,
    sop_uid,
    spoil,
    tiny_card,
    write_series,
)
from tests.unit.encoding import NOW, Case, oblique, organs

POOR = (
    *("AccessionNumber", "Manufacturer", "PatientBirthDate", "PatientID", "PatientName"),
    *("PatientSex", "PositionReferenceIndicator", "ReferringPhysicianName", "SeriesNumber"),
    *("SliceThickness", "StudyDate", "StudyID", "StudyTime"),
)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Return a plain axial case."""
    return Case(tmp_path)


def filled(polygons: list[NDArray[Any]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the pixels whose centre, at a half, lies in an odd number of polygons."""
    centres = np.argwhere(np.ones(shape)) + 0.5
    inside = np.zeros(len(centres), np.bool_)
    for polygon in polygons:
        inside ^= points_in_poly(centres, polygon)
    return inside.reshape(shape)


def area(polygon: NDArray[Any]) -> float:
    """Return the area, which is negative if the polygon turns the other way (shoelace formula)."""
    row, column = polygon.T
    return float(column @ np.roll(row, -1) - row @ np.roll(column, -1)) / 2


# -- outlines ------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.2, 0.5, 0.7, 0.9]))
def test_any_mask_is_given_back_by_its_outline(seed: int, share: float) -> None:
    """One polygon a region, of the very area of its pixels, whatever holes and corners it has."""
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 10, 2)) < share
    assert np.array_equal(filled(loops(mask), mask.shape), mask)
    polygons = keyholed(mask)
    assert np.array_equal(filled(polygons, mask.shape), mask)
    regions, count = ndimage.label(mask)
    sizes = np.bincount(regions.ravel())[1:].tolist()
    assert len(polygons) == count
    assert sorted(map(area, polygons)) == sorted(sizes)


def test_a_ring_is_one_contour_with_a_channel_to_its_hole() -> None:
    """Drawn by hand: around the square, in at the hole's height, around the hole, and back."""
    mask = np.ones((3, 3), np.bool_)
    mask[1, 1] = False
    (ring,) = keyholed(mask)
    assert ring.tolist() == [
        *([0, 0], [0, 3], [3, 3], [3, 0], [1, 0]),
        *([1, 1], [2, 1], [2, 2], [1, 2], [1, 1], [1, 0]),
    ]


# -- contours in the patient ---------------------------------------------------------------------


def ringed() -> NDArray[np.uint8]:
    """Return labels with a hole, an island in it, and two pixels that touch at a corner."""
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, :, :5] = 1
    labels[1, 1:4, 1:4] = 0
    labels[1, 2, 2] = 2
    labels[2, 0, 0] = labels[2, 1, 1] = 1
    labels[3, 4, 5] = 2
    return labels


def mirrored() -> NDArray[Any]:
    """Return sagittal slices with oblong pixels."""
    affine, _ = axial()
    frame = next(each for each in axis_frames() if abs(each[0, 2]) == 1 and each[2, 0] == 0)
    affine[:3, :3] = frame[:, ::-1] * (2.5, 0.8, 1.7)
    return np.asarray(affine)


@pytest.mark.parametrize("labels", [organs, ringed])
@pytest.mark.parametrize("affine", [None, oblique(), mirrored()], ids=["axial", "oblique", "sag"])
def test_contours_are_read_back_as_the_label_map(tmp_path: Path, labels: Any, affine: Any) -> None:
    """Each lies in the plane of the image that it names, within 2 µm, and encloses its voxels."""
    case = Case(tmp_path, affine=affine)
    ds = reread(encode_rtstruct(case.result(labels())))
    images = {str(each.SOPInstanceUID): each for each in map(pydicom.dcmread, case.paths)}
    read = np.zeros_like(labels())
    for item in ds.ROIContourSequence:
        for contour in item.ContourSequence:
            (image,) = contour.ContourImageSequence
            k = [sop_uid(k) for k in range(4)].index(image.ReferencedSOPInstanceUID)
            corners = on_pixels(contour, images[image.ReferencedSOPInstanceUID]) + 0.5
            assert np.abs(corners - np.rint(corners)).max() < 0.005  # the edges of its voxels
            mask = filled([corners], read.shape[1:])
            assert not read[k][mask].any()
            read[k][mask] = item.ReferencedROINumber
    assert np.array_equal(read, labels())


def on_pixels(contour: Dataset, image: Dataset) -> NDArray[Any]:
    """Return the contour's (row, column) on an image, by the equation of PS3.3 C.7.6.2.1.1."""
    assert contour.ContourGeometricType == "CLOSED_PLANAR"
    points = np.array(contour.ContourData, float).reshape(-1, 3)
    assert len(points) == contour.NumberOfContourPoints
    away = points - np.array(image.ImagePositionPatient, float)
    along, down = np.array(image.ImageOrientationPatient, float).reshape(2, 3)
    assert np.abs(away @ np.cross(along, down)).max() < 0.002
    height, width = map(float, image.PixelSpacing)
    return np.stack([away @ down / height, away @ along / width], axis=1)


def as_file(ds: Dataset) -> bytes:
    """Return the file that the object becomes."""
    file = BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


def reread(ds: Dataset) -> Dataset:
    """Return what a reader of the file sees."""
    return pydicom.dcmread(BytesIO(as_file(ds)))


def test_a_contour_of_any_length_stays_a_contour(tmp_path: Path) -> None:
    """An explicit DS ends at 64 KiB; ragged regions need more."""
    labels = (np.random.default_rng(1).random((2, 128, 128)) < 0.9).astype(np.uint8)
    affine, voxels = axial(shape=labels.shape)
    paths = write_series(tmp_path, affine, voxels % 1000)
    result = result_of(
        labels,
        build_volume(paths),
        paths,
        card=tiny_card(),
        identity=identity(),
        node_version="0.1.0",
        now=NOW,
    )
    contour = reread(encode_rtstruct(result)).ROIContourSequence[0].ContourSequence[0]
    assert len(contour.get_item("ContourData").value) > 0xFFFF
    assert len(contour.ContourData) == 3 * contour.NumberOfContourPoints


# -- what it says --------------------------------------------------------------------------------


def test_each_label_is_an_roi_with_its_codes(case: Case) -> None:
    """Name, colour and code come from the card; nobody approved them."""
    ds = reread(encode_rtstruct(case.result()))
    card = tiny_card()
    assert (ds.Modality, ds.ApprovalStatus, ds.StructureSetLabel) == (
        "RTSTRUCT",
        "UNAPPROVED",
        "PHANTOM",
    )
    assert ds.SeriesNumber == 305
    assert "research use" in ds.StructureSetDescription
    rows = zip(
        card.labels,
        ds.StructureSetROISequence,
        ds.ROIContourSequence,
        ds.RTROIObservationsSequence,
        strict=True,
    )
    for number, (label, roi, contours, observed) in enumerate(rows, 1):
        assert {roi.ROINumber, contours.ReferencedROINumber, observed.ReferencedROINumber} == {
            number
        }
        assert (roi.ROIName, roi.ROIGenerationAlgorithm) == (label.name, "AUTOMATIC")
        assert roi.ROIGenerationDescription == card.identity
        assert tuple(contours.ROIDisplayColor) == label.colour
        (code,) = observed.RTROIIdentificationCodeSequence
        assert (code.CodeValue, observed.RTROIInterpretedType) == (label.type.value, "ORGAN")
    assert code.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"


def test_a_lesion_is_not_called_an_organ_nor_a_target(case: Case) -> None:
    """Whether it is treated is for a physician to say."""
    card = tiny_card()
    lesion = card.labels[0].model_copy(update={"lesion": True})
    card = card.model_copy(update={"labels": (lesion, card.labels[1])})
    ds = encode_rtstruct(case.result(card=card))
    assert [each.RTROIInterpretedType for each in ds.RTROIObservationsSequence] == ["", "ORGAN"]


def test_a_label_that_was_not_found_is_an_roi_without_contours(case: Case) -> None:
    """It was looked for."""
    labels = organs()
    labels[labels == 2] = 0
    first, second = encode_rtstruct(case.result(labels)).ROIContourSequence
    assert "ContourSequence" in first
    assert "ContourSequence" not in second


def test_overlapping_segments_have_contours_of_their_own(case: Case) -> None:
    """A voxel that belongs to two segments lies inside both."""
    card = tiny_card()
    whole = card.labels[0].model_copy(update={"includes": (2,)})
    card = card.model_copy(update={"labels": (whole, card.labels[1])})
    labels = ringed()
    first, second = encode_rtstruct(case.result(labels, card=card)).ROIContourSequence
    images = [each.ContourImageSequence[0] for each in second.ContourSequence]
    (inner,) = [each for each in images if each.ReferencedSOPInstanceUID == sop_uid(1)]
    there = [each for each in first.ContourSequence if inner == each.ContourImageSequence[0]]
    assert len(there) == 2  # the ring, and the island that is label 2
    assert len(second.ContourSequence) == 2


def test_every_instance_of_the_source_is_referenced(case: Case) -> None:
    """Planning systems look for the images by study, series and instance."""
    ds = reread(encode_rtstruct(case.result()))
    (frame,) = ds.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    assert frame.FrameOfReferenceUID == case.volume.frame_of_reference_uid
    assert study.ReferencedSOPInstanceUID == ds.StudyInstanceUID
    assert series.SeriesInstanceUID == case.volume.series_uid
    referenced = [each.ReferencedSOPInstanceUID for each in series.ContourImageSequence]
    assert referenced == [sop_uid(k) for k in range(4)]


def in_frames(result: Result) -> Result:
    """Return the result as if its slices were frames 4 to 1 of one instance."""
    for each in result.sources.headers:
        each.SOPClassUID = EnhancedCTImageStorage
    volume = replace(result.volume, sop_uids=(sop_uid(0),) * 4, frames=(4, 3, 2, 1))
    return replace(result, volume=volume)


def test_slices_that_are_frames_are_referenced_by_number(case: Case) -> None:
    """One instance, all of its frames, and the frame of each contour."""
    ds = encode_rtstruct(in_frames(case.result()))
    series = ds.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    (image,) = series.RTReferencedSeriesSequence[0].ContourImageSequence
    assert list(image.ReferencedFrameNumber) == [1, 2, 3, 4]
    contours = [each for item in ds.ROIContourSequence for each in item.ContourSequence]
    assert [each.ContourImageSequence[0].ReferencedFrameNumber for each in contours] == [3, 2, 1]


def test_two_encodings_are_the_same_bytes_and_keep_the_names(tmp_path: Path) -> None:
    """Nothing is random, and a name in a broken character set stays as it came."""
    case = Case(tmp_path, lambda ds, _: spoil(ds, "PatientName", b"PHANTOM^\xe4\xf6\xff "))
    one = encode_rtstruct(case.result())
    assert as_file(one) == as_file(encode_rtstruct(case.result(paths=case.paths[::-1])))
    assert reread(one).get_item("PatientName").value == b"PHANTOM^\xe4\xf6\xff "


# -- the check -----------------------------------------------------------------------------------


def shifted(ds: Dataset) -> None:
    """Move a contour by one voxel."""
    contour = ds.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = [float(x) + 1 * (n % 3 == 0) for n, x in enumerate(contour.ContourData)]


def lifted(ds: Dataset) -> None:
    """Move a contour out of its plane."""
    contour = ds.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = [float(x) + 0.5 * (n % 3 == 2) for n, x in enumerate(contour.ContourData)]


def smoothed(ds: Dataset) -> None:
    """Leave out a corner."""
    contour = ds.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = contour.ContourData[3:]
    contour.NumberOfContourPoints -= 1


def lost(ds: Dataset) -> None:
    """Leave out a contour."""
    del ds.ROIContourSequence[1].ContourSequence[-1]


def swapped(ds: Dataset) -> None:
    """Give one ROI the contours of the other."""
    first, second = ds.ROIContourSequence
    first.ReferencedROINumber, second.ReferencedROINumber = 2, 1


def misplaced(ds: Dataset) -> None:
    """Name another image of the series."""
    contour = ds.ROIContourSequence[0].ContourSequence[0]
    contour.ContourImageSequence[0].ReferencedSOPInstanceUID = sop_uid(3)


def elsewhere(ds: Dataset) -> None:
    """Name another frame of reference."""
    ds.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "2.25.1"


@pytest.mark.parametrize("spoil", [shifted, lifted, smoothed, lost, swapped, misplaced, elsewhere])
def test_contours_that_are_not_the_label_map_are_refused(case: Case, spoil: Any) -> None:
    """The file is read again, as a stranger would, and its contours are filled."""
    path = case.folder / "rtstruct.dcm"
    result = case.result(ringed())
    encode_rtstruct(result).save_as(path, enforce_file_format=True)
    check_rtstruct(path, result)
    ds = pydicom.dcmread(path)
    spoil(ds)
    ds.save_as(path)
    with pytest.raises(ResultRejected, match="were not encoded as made"):
        check_rtstruct(path, result)


@pytest.mark.parametrize("affine", [oblique(), mirrored()], ids=["oblique", "sag"])
def test_contours_in_any_plane_and_of_any_shape_pass_the_check(tmp_path: Path, affine: Any) -> None:
    """Also those of overlapping segments, and of frames."""
    card = tiny_card()
    whole = card.labels[0].model_copy(update={"includes": (2,)})
    card = card.model_copy(update={"labels": (whole, card.labels[1])})
    case = Case(tmp_path, affine=affine)
    labels = np.random.default_rng(5).integers(0, 3, (4, 5, 6)).astype(np.uint8)
    for result in (case.result(labels, card=card), in_frames(case.result(labels, card=card))):
        path = tmp_path / "rtstruct.dcm"
        encode_rtstruct(result).save_as(path, enforce_file_format=True)
        check_rtstruct(path, result)


# -- the judge -----------------------------------------------------------------------------------

JUDGED = {
    "normal": lambda case: case.result(),
    "holes": lambda case: case.result(ringed()),
    "nothing found": lambda case: case.result(np.zeros((4, 5, 6), np.uint8)),
    "frames": lambda case: in_frames(case.result()),
}


def poor(ds: Dataset, _: int) -> None:
    """Take away everything that an image can be without."""
    for keyword in POOR:
        delattr(ds, keyword)


@pytest.mark.dciodvfy
@pytest.mark.parametrize("encode", [encode_rtstruct, encode_overview])
def test_poor_headers_make_valid_objects(
    tmp_path: Path, encode: Callable[[Result], Dataset]
) -> None:
    """What the source does not say stands there empty; without a date it fits in no DICOMDIR."""
    require("dciodvfy")
    path = tmp_path / "poor.dcm"
    encode(Case(tmp_path, poor).result()).save_as(path, enforce_file_format=True)
    judged = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    assert "Error" not in judged.stdout + judged.stderr


@pytest.mark.dciodvfy
@pytest.mark.parametrize("name", JUDGED)
def test_dciodvfy_finds_no_error(case: Case, tmp_path: Path, name: str) -> None:
    """The judge knows all of it but DeviceUID in contributing equipment."""
    require("dciodvfy")
    path = tmp_path / "rtstruct.dcm"
    encode_rtstruct(JUDGED[name](case)).save_as(path, enforce_file_format=True)
    judged = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    said = (judged.stdout + judged.stderr).splitlines()
    assert [line for line in said if "DeviceUID" not in line] == ["RTStructureSet"]
