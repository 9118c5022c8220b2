"""The images of a series as the volume needs them, or the sentence why they cannot be part of one.

The frames of an enhanced multi-frame object are read as the single images that they stand for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from app.dicom.frames import frames_of, is_enhanced
from app.dicom.series import Scalar, read_header, scalars, text_of, tolerant
from app.dicom.stack import Vector
from app.errors import StudyError, UnreadableDicom, UnsupportedGeometry

ORTHONORMAL = 1e-3
"""How far direction cosines may be from unit length and from a right angle."""

MAX_POSITION_MM = 10_000.0
SPACING_MM = (0.001, 100.0)
MAX_CALIBRATION = 1e9
_NO_VOLUME = {"LOCALIZER": "a localizer", "MOSAIC": "a mosaic of slices"}
_CALIBRATED = frozenset({"CT", "PT"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plane:
    """Where an image lies in the patient (PS3.3 C.7.6.2)."""

    position_lps: Vector
    """Centre of the first pixel in mm."""
    orientation: Vector
    """Row cosines, along which the column index grows, then column cosines."""
    pixel_spacing_mm: Vector
    """Between the centres of neighbouring rows, then of neighbouring columns."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slice:
    """One image or frame: what it belongs to, where it lies and what its stored values mean."""

    path: Path
    sop_uid: str
    frame: int | None
    """Its number in the object, from 1; None where the object is a single image."""
    frames: int
    """How many the object has."""
    series_uid: str
    study_uid: str
    frame_of_reference_uid: str
    modality: str
    patient: tuple[str, ...]
    """What tells patients apart; only ever compared, never shown."""
    rows: int
    columns: int
    plane: Plane
    slope: float
    intercept: float
    lossy: bool

    @property
    def name(self) -> str:
        """What a sentence calls it."""
        return _name(self.path, self.frame)


def read_slices(path: str | Path) -> list[Slice]:
    """Read the header of an object, refuse what can be no slices, and return its images."""
    path = Path(path)
    ds = read_header(path)
    with tolerant(path):
        _check_kind(ds, path.name)
        if not is_enhanced(ds):
            return [_slice(ds, ds, path)]
        frames = frames_of(ds, path.name)
        return [
            _slice(ds, frame, path, number, len(frames))
            for number, frame in enumerate(frames, start=1)
        ]


def _slice(
    ds: pydicom.Dataset,
    image: pydicom.Dataset,
    path: Path,
    frame: int | None = None,
    frames: int = 1,
) -> Slice:
    """Return one slice; where it lies and what its values mean is said by `image`."""
    name = _name(path, frame)
    _check_type(image, name)
    rows, columns = _size(ds, path.name)
    slope, intercept = _calibration(image, text_of(ds, "Modality"), name)
    return Slice(
        path=path,
        sop_uid=_required(ds, "SOPInstanceUID", path.name),
        frame=frame,
        frames=frames,
        series_uid=_required(ds, "SeriesInstanceUID", path.name),
        study_uid=_required(ds, "StudyInstanceUID", path.name),
        frame_of_reference_uid=text_of(ds, "FrameOfReferenceUID"),
        modality=text_of(ds, "Modality"),
        patient=patient_of(ds),
        rows=rows,
        columns=columns,
        plane=Plane(
            position_lps=position_of(scalars(image, "ImagePositionPatient"), name),
            orientation=orientation_of(scalars(image, "ImageOrientationPatient"), name),
            pixel_spacing_mm=pixel_spacing_of(scalars(image, "PixelSpacing"), name),
        ),
        slope=slope,
        intercept=intercept,
        lossy=text_of(ds, "LossyImageCompression") == "01",
    )


def _name(path: Path, frame: int | None) -> str:
    return path.name if frame is None else f"{path.name}, frame {frame}"


def check_one_series(slices: Sequence[Slice]) -> None:
    """Refuse slices that do not belong to one series of one patient in one frame of reference."""
    if not slices:
        raise StudyError("no image was given; a volume needs the slices of one series")
    for name, what in (
        ("patient", "several patients, or of one whose data were changed midway"),
        ("study_uid", "several studies"),
        ("series_uid", "several series"),
        ("modality", "several modalities"),
    ):
        if len({getattr(each, name) for each in slices}) > 1:
            raise StudyError(f"the slices are of {what}; send each series on its own")
    if len({each.frame is None for each in slices}) > 1:
        raise UnsupportedGeometry(
            "the slices are single images and frames of multi-frame images;"
            " send each as its own series"
        )
    if len({each.frame_of_reference_uid for each in slices}) > 1:
        raise UnsupportedGeometry(
            "the slices lie in several frames of reference, so their positions cannot be compared;"
            " send each frame of reference as its own series"
        )
    if not slices[0].frame_of_reference_uid:
        raise UnsupportedGeometry(
            "the slices have no FrameOfReferenceUID, so no result could be placed on them;"
            " send the original images"
        )
    sizes = {(each.rows, each.columns) for each in slices}
    if len(sizes) > 1:
        shown = " and ".join(f"{rows}×{columns}" for rows, columns in sorted(sizes)[:2])
        raise UnsupportedGeometry(f"the slices differ in size ({shown}); send each size on its own")


def _check_kind(ds: pydicom.Dataset, name: str) -> None:
    frames = scalars(ds, "NumberOfFrames")
    if frames and frames != (1,) and not is_enhanced(ds):
        raise UnsupportedGeometry(f"{name}: is a multi-frame image; send single frames")
    _check_type(ds, name)
    samples, photometric = scalars(ds, "SamplesPerPixel"), text_of(ds, "PhotometricInterpretation")
    if not photometric:
        raise StudyError(f"{name}: is not an image; send the series without it")
    if samples != (1,) or photometric != "MONOCHROME2":
        raise StudyError(
            f"{name}: its pixels are {photometric[:16]}, not MONOCHROME2; send the original images"
        )
    if "ModalityLUTSequence" in ds:
        raise StudyError(
            f"{name}: its values are calibrated by a look-up table, which is not supported;"
            " send images with RescaleSlope and RescaleIntercept"
        )


def _check_type(ds: pydicom.Dataset, name: str) -> None:
    for kind in map(str, scalars(ds, "ImageType")):
        if kind in _NO_VOLUME:
            raise UnsupportedGeometry(
                f"{name}: is {_NO_VOLUME[kind]} (ImageType), not a slice; send the series without"
            )


def _size(ds: pydicom.Dataset, name: str) -> tuple[int, int]:
    found = [scalars(ds, keyword) for keyword in ("Rows", "Columns", "BitsAllocated")]
    sizes = [values[0] for values in found if len(values) == 1 and isinstance(values[0], int)]
    if len(sizes) != len(found) or min(sizes) < 1:
        raise UnreadableDicom(
            f"{name}: Rows, Columns or BitsAllocated is missing or zero; send it again"
        )
    if sizes[2] not in (8, 16, 32):
        raise UnreadableDicom(f"{name}: BitsAllocated is {sizes[2]}; only 8, 16 and 32 can be read")
    return sizes[0], sizes[1]


def patient_of(ds: pydicom.Dataset) -> tuple[str, ...]:
    """Return what tells patients apart; for comparing, never for showing."""
    keywords = ("PatientID", "PatientName", "PatientBirthDate")
    return tuple(text_of(ds, keyword).rstrip("^ ").casefold() for keyword in keywords)


def position_of(values: tuple[Scalar, ...], name: str) -> Vector:
    """Return ImagePositionPatient, or refuse what is no position."""
    position = _numbers(values, "ImagePositionPatient", 3, name)
    if np.abs(position).max() > MAX_POSITION_MM:
        raise UnsupportedGeometry(
            f"{name}: ImagePositionPatient is more than {MAX_POSITION_MM / 1000:g} m from the"
            " origin, which no scanner reaches; send the original images"
        )
    return position


def orientation_of(values: tuple[Scalar, ...], name: str) -> Vector:
    """Return ImageOrientationPatient, or refuse what is no orientation."""
    orientation = _numbers(values, "ImageOrientationPatient", 6, name)
    row, column = orientation[:3], orientation[3:]
    faults = (row @ row - 1, column @ column - 1, row @ column)
    if not max(map(abs, faults)) <= 2 * ORTHONORMAL:  # of a square: twice the fault of a length
        raise UnsupportedGeometry(
            f"{name}: ImageOrientationPatient is not two unit vectors at a right angle;"
            " send the original images"
        )
    return orientation


def pixel_spacing_of(values: tuple[Scalar, ...], name: str) -> Vector:
    """Return PixelSpacing, or refuse what is none."""
    spacing = _numbers(values, "PixelSpacing", 2, name)
    low, high = SPACING_MM
    if spacing.min() < low or spacing.max() > high:
        raise UnsupportedGeometry(
            f"{name}: PixelSpacing is outside {low:g} to {high:g} mm; send the original images"
        )
    return spacing


def _calibration(ds: pydicom.Dataset, modality: str, name: str) -> tuple[float, float]:
    given = [scalars(ds, keyword) for keyword in ("RescaleSlope", "RescaleIntercept")]
    if modality in _CALIBRATED and not all(given):
        raise StudyError(
            f"{name}: RescaleSlope or RescaleIntercept is missing, so its values have no unit;"
            " send the original images"
        )
    slope, intercept = (
        _one_number(scalars(ds, keyword), default)
        for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    if slope == 0 or not max(abs(slope), abs(intercept)) <= MAX_CALIBRATION:  # NaN is refused too
        raise StudyError(
            f"{name}: RescaleSlope or RescaleIntercept is not a usable number;"
            " send the original images"
        )
    return slope, intercept


def _one_number(values: tuple[Scalar, ...], default: float) -> float:
    """Return the one number there is, `default` when there is none, NaN for anything else."""
    if not values:
        return default
    number = values[0]
    return float(number) if len(values) == 1 and isinstance(number, int | float) else math.nan


def _numbers(values: tuple[Scalar, ...], keyword: str, count: int, name: str) -> Vector:
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) != len(values) or len(values) != count:
        state = "missing" if not values else f"not {count} finite numbers"
        raise UnsupportedGeometry(
            f"{name}: {keyword} is {state}, so the slice cannot be placed; send the original images"
        )
    return np.array(numbers, dtype=np.float64)


def _required(ds: pydicom.Dataset, keyword: str, name: str) -> str:
    text = text_of(ds, keyword)
    if not text:
        raise UnreadableDicom(f"{name}: has no {keyword}; send it again")
    return text
