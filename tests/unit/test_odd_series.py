"""Odd series: each comes out as the right volume or as a refusal by name, none as a wrong volume.

The tables are written by hand from what scanners and senders really do wrong. Not covered: odd
pixels (test_volume.py) and headers that are no DICOM (test_series.py).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from app.dicom.volume import build_volume
from app.errors import IncompleteSeries, StudyError, UnreadableDicom, UnsupportedGeometry
from tests.properties.strategies import SERIES_UID, Edit, axial, sop_uid, spoil, write_series
from tests.real import REAL_TILT, needs_real_tilt


def on(k: int, **values: Any) -> Edit:
    """Return an edit that sets attributes on slice `k` alone; None takes them away."""
    return lambda ds, at: _set(ds, values) if at == k else None


def everywhere(**values: Any) -> Edit:
    """Return an edit that sets attributes on every slice; None takes them away."""
    return lambda ds, _: _set(ds, values)


def _set(ds: Dataset, values: dict[str, Any]) -> None:
    for keyword, value in values.items():
        if isinstance(value, bytes) and keyword != "PixelData":
            spoil(ds, keyword, value)
        elif value is None:
            if keyword in ds:
                delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)


def moved(to: Callable[[int], Sequence[float]]) -> Edit:
    """Return an edit that puts slice `k` at the position `to(k)`."""
    return lambda ds, k: _set(ds, {"ImagePositionPatient": list(to(k))})


def rgb(ds: Dataset, _: int) -> None:
    """Make the slice a colour image."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 3, "RGB"
    ds.PlanarConfiguration = 0


def enhanced(ds: Dataset, _: int) -> None:
    """Give the slice the functional groups of an enhanced image."""
    ds.SharedFunctionalGroupsSequence = [Dataset()]


def calibrated_by_table(ds: Dataset, _: int) -> None:
    """Calibrate the values by a look-up table."""
    ds.ModalityLUTSequence = [Dataset()]


def one_uid(ds: Dataset, _: int) -> None:
    """Give every slice the same UID."""
    ds.SOPInstanceUID = "2.25.1"


TILT = np.tan(np.radians(20))
REFUSED: dict[str, tuple[Edit, type[StudyError], str]] = {
    # where the slices are
    "gap": (
        moved(lambda k: (-10, -20, (30, 32, 36, 38)[k])),
        IncompleteSeries,
        r"gap after slice 2 of 4, between 32\.00 and 36\.00 mm .* 1 slice\(s\) missing",
    ),
    "uneven spacing": (
        moved(lambda k: (-10, -20, (30, 32, 35, 37)[k])),
        UnsupportedGeometry,
        r"unevenly spaced: 3\.00 mm after slice 2 of 4",
    ),
    "mostly uneven": (
        moved(lambda k: (-10, -20, (30, 32, 36, 40)[k])),
        UnsupportedGeometry,
        "unevenly spaced",
    ),
    "slow drift of the spacing": (
        moved(lambda k: (-10, -20, 30 + 2 * k + 0.03 * (k in (1, 2)))),
        UnsupportedGeometry,
        r"slice [23] of 4 lies 0\.03 mm from its place",
    ),
    "gantry tilt": (
        moved(lambda k: (-10, -20 + 2 * k * TILT, 30 + 2 * k)),
        UnsupportedGeometry,
        r"sheared by 20\.0° \(gantry tilt\)",
    ),
    "gantry tilt of half a degree": (
        moved(lambda k: (-10, -20 + 2 * k * 0.0087, 30 + 2 * k)),
        UnsupportedGeometry,
        r"sheared by 0\.5°",
    ),
    "one slice aside": (
        moved(lambda k: (-10, -20 + (k in (1, 2)) * (-1) ** k, 30 + 2 * k)),
        UnsupportedGeometry,
        r"from its place on a regular grid|sheared",
    ),
    "two stacks side by side": (
        moved(lambda k: (-10 + 50 * (k % 2), -20, 30 + k // 2)),
        UnsupportedGeometry,
        r"side by side at 30\.00 mm, 50\.00 mm apart",
    ),
    "same position, other pixels": (
        moved(lambda k: (-10, -20, (30, 32, 32, 34)[k])),
        UnsupportedGeometry,
        r"slice 2 of 3: 2 different slices lie at one position",
    ),
    "several time points": (
        moved(lambda k: (-10, -20, 30 + k // 2)),
        UnsupportedGeometry,
        "every position holds 2 different slices",
    ),
    "all at one position": (
        moved(lambda _: (-10, -20, 30)),
        UnsupportedGeometry,
        "every position holds 4 different slices",
    ),
    # what the header says of the place
    "position missing in one": (
        on(2, ImagePositionPatient=None),
        UnsupportedGeometry,
        "ImagePositionPatient is missing",
    ),
    "position missing in all": (
        everywhere(ImagePositionPatient=None),
        UnsupportedGeometry,
        "ImagePositionPatient is missing",
    ),
    "position of two numbers": (
        on(1, ImagePositionPatient=[1, 2]),
        UnsupportedGeometry,
        "ImagePositionPatient is not 3 finite numbers",
    ),
    "position of NaN": (
        on(1, ImagePositionPatient=b"1\\NaN\\2 "),
        UnsupportedGeometry,
        "ImagePositionPatient is not 3 finite numbers",
    ),
    "position of infinity": (
        on(1, ImagePositionPatient=b"1\\1e999\\2 "),
        UnsupportedGeometry,
        "ImagePositionPatient is not 3 finite numbers",
    ),
    "position far away": (
        on(1, ImagePositionPatient=["0", "0", "1e30"]),
        UnsupportedGeometry,
        "ImagePositionPatient is more than 10 m",
    ),
    "position of words": (
        on(1, ImagePositionPatient=b"here\\and\\there"),
        UnsupportedGeometry,
        "ImagePositionPatient is not 3 finite numbers",
    ),
    "orientation missing": (
        everywhere(ImageOrientationPatient=None),
        UnsupportedGeometry,
        "ImageOrientationPatient is missing",
    ),
    "orientation not at a right angle": (
        everywhere(ImageOrientationPatient=[1, 0, 0, 0.1, 0.995, 0]),
        UnsupportedGeometry,
        "not two unit vectors at a right angle",
    ),
    "orientation not of unit length": (
        everywhere(ImageOrientationPatient=[1.1, 0, 0, 0, 1, 0]),
        UnsupportedGeometry,
        "not two unit vectors",
    ),
    "orientation of zeros": (
        everywhere(ImageOrientationPatient=[0] * 6),
        UnsupportedGeometry,
        "not two unit vectors",
    ),
    "mixed orientation": (
        on(2, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
        UnsupportedGeometry,
        "several orientations",
    ),
    "pixel spacing missing": (
        everywhere(PixelSpacing=None, ImagerPixelSpacing=[1, 1]),
        UnsupportedGeometry,
        "PixelSpacing is missing",
    ),
    "pixel spacing of zero": (
        everywhere(PixelSpacing=[0, 1]),
        UnsupportedGeometry,
        "PixelSpacing is outside",
    ),
    "pixel spacing negative": (
        everywhere(PixelSpacing=[1, -1]),
        UnsupportedGeometry,
        "PixelSpacing is outside",
    ),
    "pixel spacing differs": (
        on(3, PixelSpacing=[1, 1.1]),
        UnsupportedGeometry,
        "differ in PixelSpacing",
    ),
    # what belongs together
    "two patients": (on(3, PatientID="PHANTOM-2"), StudyError, "several patients"),
    "two studies": (on(3, StudyInstanceUID="2.25.9"), StudyError, "several studies"),
    "two series": (on(3, SeriesInstanceUID="2.25.9"), StudyError, "several series"),
    "two modalities": (on(3, Modality="PT"), StudyError, "several modalities"),
    "two frames of reference": (
        on(3, FrameOfReferenceUID="2.25.9"),
        UnsupportedGeometry,
        "several frames of reference",
    ),
    "no frame of reference": (
        everywhere(FrameOfReferenceUID=None),
        UnsupportedGeometry,
        "no FrameOfReferenceUID",
    ),
    "two sizes": (
        on(3, Rows=6, PixelData=b"\0" * 72),
        UnsupportedGeometry,
        r"differ in size \(5×6 and 6×6\)",
    ),
    "one UID for all": (one_uid, StudyError, "names slices at different positions"),
    # what kind of image it is
    "localizer": (
        on(0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        UnsupportedGeometry,
        "is a localizer",
    ),
    "mosaic": (
        everywhere(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]),
        UnsupportedGeometry,
        "is a mosaic",
    ),
    "multi-frame": (everywhere(NumberOfFrames=2), UnsupportedGeometry, "multi-frame"),
    "enhanced": (enhanced, UnsupportedGeometry, "enhanced multi-frame"),
    "colour": (on(2, PhotometricInterpretation="PALETTE COLOR"), StudyError, "PALETTE COLOR, not"),
    "three samples": (rgb, StudyError, "RGB, not MONOCHROME2"),
    "inverted": (
        everywhere(PhotometricInterpretation="MONOCHROME1"),
        StudyError,
        "MONOCHROME1, not MONOCHROME2",
    ),
    "no image": (on(1, PhotometricInterpretation=None), StudyError, "is not an image"),
    # what the values mean
    "no intercept": (everywhere(RescaleIntercept=None), StudyError, "RescaleIntercept is missing"),
    "empty slope": (on(1, RescaleSlope=""), StudyError, "RescaleSlope .* is missing"),
    "slope of zero": (everywhere(RescaleSlope=0), StudyError, "not a usable number"),
    "slope of NaN": (everywhere(RescaleSlope=b"NaN "), StudyError, "not a usable number"),
    "huge intercept": (everywhere(RescaleIntercept="1e30"), StudyError, "not a usable number"),
    "look-up table": (calibrated_by_table, StudyError, "look-up table"),
    # what the pixels are
    "no pixels": (on(1, PixelData=None), UnreadableDicom, "has no pixel data"),
    "empty pixels": (on(1, PixelData=b""), UnreadableDicom, "has no pixel data"),
    "short pixels": (on(1, PixelData=b"\0" * 58), UnreadableDicom, "has 58 of 60 bytes"),
    "no rows": (everywhere(Rows=0), UnreadableDicom, "missing or zero"),
    "rows missing": (everywhere(Rows=None), UnreadableDicom, "missing or zero"),
    "65535 rows and columns": (
        everywhere(Rows=65535, Columns=65535),
        UnsupportedGeometry,
        r"need 64\.0 GiB; the limit is 4 GiB",
    ),
    "one bit": (everywhere(BitsAllocated=1), UnreadableDicom, "BitsAllocated is 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_odd_series_is_refused_by_name(tmp_path: Path, name: str) -> None:
    """What is wrong, where, and what to do; nothing is guessed and nothing is dropped."""
    edit, error, reason = REFUSED[name]
    paths = write_series(tmp_path, *axial(), order=(2, 0, 3, 1), edit=edit)
    with pytest.raises(error, match=reason) as caught:
        build_volume(paths)
    assert type(caught.value) is error
    assert ";" in str(caught.value), "the sentence says what to do"
    assert "PHANTOM" not in str(caught.value), "and names nobody"


SOUND: dict[str, Edit | None] = {
    "plain": None,
    "slice thickness of zero": everywhere(SliceThickness=0),
    "no slice thickness": everywhere(SliceThickness=None),
    "wrong instance numbers": lambda ds, k: _set(ds, {"InstanceNumber": 9 - k}),
    "no instance number": everywhere(InstanceNumber=None),
    "no patient": everywhere(PatientID=None, PatientName=None),
    "values that break their VR": everywhere(PatientAge=b"55", KVP=b"a lot "),
    "names written in two ways": on(1, PatientName="Phantom^Tiny^^^"),
    "positions rounded": moved(lambda k: (-10, -20, round(30 + 2 * k + 0.008 * (-1) ** k, 2))),
    "one frame said aloud": everywhere(NumberOfFrames=1),
    "compressed with loss": everywhere(LossyImageCompression="01"),
    "padding after the pixels": lambda ds, _: _set(ds, {"PixelData": ds.PixelData + b"\0\0"}),
}


@pytest.mark.parametrize("name", SOUND)
def test_harmless_oddities_change_nothing(tmp_path: Path, name: str) -> None:
    """Every voxel is where it was written and has the value it was written with."""
    affine, voxels = axial()
    paths = write_series(tmp_path, affine, voxels, order=(2, 0, 3, 1), edit=SOUND[name])
    volume = build_volume(paths)
    np.testing.assert_array_equal(volume.voxels_kji, voxels)
    np.testing.assert_allclose(volume.affine_lps, affine, atol=0.02)
    assert volume.voxels_kji.dtype == np.float32
    assert volume.sop_uids == tuple(sop_uid(k) for k in range(4))
    assert volume.series_uid == SERIES_UID


def test_a_copy_of_a_slice_is_dropped(tmp_path: Path) -> None:
    """Another UID with the same pixels at the same place adds nothing."""
    affine, voxels = axial()
    voxels[2] = voxels[1]
    edit = moved(lambda k: (-10, -20, (30, 32, 32, 34)[k]))
    volume = build_volume(write_series(tmp_path, affine, voxels, edit=edit))
    np.testing.assert_array_equal(volume.voxels_kji, voxels[[0, 1, 3]])
    assert volume.sop_uids == (sop_uid(0), min(sop_uid(1), sop_uid(2)), sop_uid(3))


@pytest.mark.parametrize("count", [0, 1])
def test_no_slice_or_one_slice_is_no_volume(tmp_path: Path, count: int) -> None:
    """The sentence says how many there are."""
    paths = write_series(tmp_path, *axial())[:count]
    with pytest.raises(StudyError, match="one slice position" if count else "no image was given"):
        build_volume(paths)


def test_the_tolerance_is_the_stated_one(tmp_path: Path) -> None:
    """1 % of the spacing: of 10 mm, 0.09 mm are accepted and 0.12 mm are not."""
    affine, voxels = axial((3, 4, 4), spacing=(10, 1, 1))
    for off_mm, accepted in ((0.09, True), (0.12, False)):
        edit = moved(lambda k, off_mm=off_mm: (-10, -20, 30 + 10 * k + off_mm * (k == 1)))
        paths = write_series(tmp_path, affine, voxels, edit=edit)
        if accepted:
            build_volume(paths)
        else:
            with pytest.raises(UnsupportedGeometry, match=r"10\.12 mm after slice 1"):
                build_volume(paths)
            build_volume(paths, tolerance=0.02)


def test_everything_that_pydicom_ships_is_refused_by_name() -> None:
    """Whatever one foreign object does, it comes out as a sentence: one slice is no volume."""
    files = (Path(pydicom.__file__).parent / "data/test_files").glob("*.dcm")
    for path in sorted(files):
        with pytest.raises(StudyError, match=r"; \w"):
            build_volume([path])


@needs_real_tilt
def test_a_real_tilted_ct_is_refused_for_its_tilt() -> None:
    """A head CT with a gantry tilt of 18.5° and uneven spacing."""
    with pytest.raises(UnsupportedGeometry, match=r"sheared by 18\.\d° \(gantry tilt\)"):
        build_volume(REAL_TILT.glob("*.dcm"))
