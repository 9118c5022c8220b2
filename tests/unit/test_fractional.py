"""Probabilities → fractional SEG: every value and place is given back, or it does not leave.

Covered: made-up probabilities on axial and oblique slices, read by pydicom and by highdicom,
what the check refuses, validity by dciodvfy. Not covered: how viewers show them; the network's
own probabilities (test_probabilities.py).
"""

import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from app.errors import ModelError, ResultRejected
from app.results.fractional import (
    Probabilities,
    check_fractional,
    encode_fractional,
    write_fractional,
)
from tests.peers import require
from tests.unit.encoding import Case, oblique


@pytest.fixture(params=[None, oblique()], ids=["axial", "oblique"])
def case(tmp_path: Path, request: pytest.FixtureRequest) -> Case:
    """Return a case of each orientation."""
    return Case(tmp_path, affine=request.param)


def made_up() -> Probabilities:
    """Return probabilities of two labels: all values there are, and slices without any."""
    shares = np.random.default_rng(3).integers(0, 256, (2, 4, 5, 6)).astype(np.uint8)
    shares[0, 3] = shares[1, 0] = 0
    shares[0, 1, 0, :2] = 1, 255
    return shares


def write(case: Case, shares: Probabilities) -> Path:
    """Write the object into the case's folder."""
    path = case.folder / "fractional.dcm"
    with path.open("wb") as file:
        write_fractional(file, case.result(), shares)
    return path


def test_every_value_is_read_back_on_its_slice(case: Case) -> None:
    """By a reader that was not used to write them, and by our own check."""
    shares = made_up()
    path = write(case, shares)
    check_fractional(path, case.result(), shares)
    seg = hd.seg.segread(path)
    assert seg.NumberOfFrames == 6
    read = seg.get_pixels_by_source_instance(
        case.volume.sop_uids, rescale_fractional=False, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(np.moveaxis(read, -1, 0), shares)


def test_noise_is_not_made_larger_by_compressing_it(case: Case) -> None:
    """It is written as it is; what compresses is compressed, and both are read back."""
    for shares, compressed in ((made_up(), False), (made_up() // 255 * 255, True)):
        path = write(case, shares)
        check_fractional(path, case.result(), shares)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed == compressed


def test_it_says_what_its_values_mean(case: Case) -> None:
    """Probabilities of 255 steps, in a series of their own."""
    seg = encode_fractional(case.result(), made_up())
    assert (seg.SegmentationType, seg.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    assert (seg.MaximumFractionalValue, seg.SeriesNumber) == (255, 307)
    binary = case.encode()
    assert seg.SOPInstanceUID != binary.SOPInstanceUID
    assert seg.SeriesInstanceUID != binary.SeriesInstanceUID
    for one, other in zip(seg.SegmentSequence, binary.SegmentSequence, strict=True):
        assert one.to_json() == other.to_json()


def test_nothing_found_is_an_empty_frame_for_each_segment(case: Case) -> None:
    """All were looked for."""
    shares = np.zeros((2, 4, 5, 6), np.uint8)
    path = write(case, shares)
    check_fractional(path, case.result(), shares)
    ds = pydicom.dcmread(path)
    assert (ds.NumberOfFrames, ds.pixel_array.any()) == (2, False)


def test_two_encodings_are_the_same_bytes(case: Case) -> None:
    """Nothing is random, nothing comes from the clock."""
    one, other = BytesIO(), BytesIO()
    write_fractional(one, case.result(), made_up())
    write_fractional(other, case.result(paths=case.paths[::-1]), made_up())
    assert one.getvalue() == other.getvalue()


@pytest.mark.parametrize(
    "shares", [made_up()[:1], made_up()[:, :3], made_up().astype(np.float32) / 255]
)
def test_probabilities_of_another_kind_are_refused(case: Case, shares: NDArray[Any]) -> None:
    """Another number of labels or slices, or floating point numbers."""
    with pytest.raises(ModelError, match=r"not uint8 \(2, 4, 5, 6\); run the model again"):
        encode_fractional(case.result(), shares)


def moved(ds: Dataset) -> None:
    """Put a frame between two slices."""
    position = ds.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    position.ImagePositionPatient[2] += 0.9


def turned(ds: Dataset) -> None:
    """Mirror the rows."""
    orientation = ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    orientation.ImageOrientationPatient[:3] = [-x for x in orientation.ImageOrientationPatient[:3]]


def renamed(ds: Dataset) -> None:
    """Call a frame of the first segment one of the second."""
    group = ds.PerFrameFunctionalGroupsSequence[0]
    group.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 2


def occupied(ds: Dataset) -> None:
    """Say that they are no probabilities but parts of voxels."""
    ds.SegmentationFractionalType = "OCCUPANCY"


@pytest.mark.parametrize("spoil", [moved, turned, renamed, occupied])
def test_an_object_that_is_not_what_was_made_is_refused(case: Case, spoil: Any) -> None:
    """The file is read again as a stranger would."""
    path = write(case, made_up())
    ds = pydicom.dcmread(path)
    spoil(ds)
    ds.save_as(path)
    with pytest.raises(ResultRejected, match="was not encoded as it was made"):
        check_fractional(path, case.result(), made_up())


def test_other_values_and_missing_frames_are_refused(case: Case) -> None:
    """One value off by one; one slice that was left out."""
    shares = made_up()
    path = write(case, shares)
    other = shares.copy()
    other[1, 2, 3, 4] ^= 1
    with pytest.raises(ResultRejected, match="segment 2 on slice 3 differs"):
        check_fractional(path, case.result(), other)
    more = shares.copy()
    more[0, 3, 0, 0] = 1
    with pytest.raises(ResultRejected, match="1 of its frames are missing"):
        check_fractional(path, case.result(), more)


@pytest.mark.dciodvfy
@pytest.mark.parametrize("shares", [made_up(), made_up() * 0], ids=["found", "nothing found"])
def test_dciodvfy_finds_no_error(case: Case, shares: Probabilities) -> None:
    """The judge knows all of it but DeviceUID in contributing equipment."""
    require("dciodvfy")
    path = write(case, shares)
    judged = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    said = (judged.stdout + judged.stderr).splitlines()
    assert [line for line in said if "DeviceUID" not in line] == ["Segmentation"]
