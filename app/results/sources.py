"""The headers of the source images, mended so that a result can be derived from them.

highdicom raises on much that real archives hold. What it needs is copied into new headers without
pixels: type 2 attributes that are missing become empty, dates and times in the old ACR-NEMA form
become DICOM's, other values that do not conform are left out. What says whose study it is stays
as it is, byte for byte: `Sources.identify` puts it into the result.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import DA, TM, validate_value

from app.dicom.frames import frames_of, is_enhanced
from app.dicom.series import read_header, scalars, text_of, tolerant
from app.errors import NodeError

IDENTITY = (
    "SpecificCharacterSet",
    "AccessionNumber",
    "PatientID",
    "PatientName",
    "ReferringPhysicianName",
    "StudyDescription",
    "StudyID",
)
_PATIENT_GROUPS = (0x0010, 0x0012)
_COPIED = frozenset(
    {
        "AccessionNumber",
        "AcquisitionDate",
        "AcquisitionTime",
        "AdmittingDiagnosesDescription",
        "DeviceSerialNumber",
        "FrameOfReferenceUID",
        "IssuerOfAccessionNumberSequence",
        "LossyImageCompression",
        "LossyImageCompressionMethod",
        "LossyImageCompressionRatio",
        "Manufacturer",
        "ManufacturerModelName",
        "Modality",
        "PhysiciansOfRecord",
        "PositionReferenceIndicator",
        "ProcedureCodeSequence",
        "ReferringPhysicianName",
        "RescaleType",
        "SOPClassUID",
        "SOPInstanceUID",
        "SUVType",
        "SeriesInstanceUID",
        "SoftwareVersions",
        "StationName",
        "StudyDate",
        "StudyDescription",
        "StudyID",
        "StudyInstanceUID",
        "StudyTime",
        "Units",
    }
)
_TYPE_2 = (
    "AccessionNumber",
    "PatientID",
    "PatientName",
    "ReferringPhysicianName",
    "StudyID",
)
_FREE_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sources:
    """The objects that a result is derived from, in the order of its slices."""

    headers: list[pydicom.Dataset]
    """Mended, one of each object; patient, study and equipment stand in the first alone.

    Single images are one for each slice. Multi-frame objects say in functional groups where each of
    their frames lies; which frame a slice is, the volume knows.
    """
    identity: Mapping[BaseTag, DataElement | RawDataElement]
    """How the first source names patient and study, as it came."""

    def identify(self, result: pydicom.Dataset) -> None:
        """Give the result the bytes with which its source names patient and study.

        Decoding and encoding them again would change names in a broken character set.
        """
        correct_ambiguous_vr(result, is_little_endian=True)
        for tag, element in self.identity.items():
            if isinstance(element, RawDataElement):
                value = element.value or b""
                vr = dictionary_VR(tag)  # an implicit source has none
                element = RawDataElement(tag, vr, len(value), value, 0, False, True)  # noqa: PLW2901
            result[tag] = element
        # Else pydicom decodes raw elements when it writes them, and settles VRs only then.
        result.set_original_encoding(False, True, result._character_set)  # noqa: SLF001


def read_sources(
    paths: Iterable[str | Path], sop_uids: Sequence[str], affine_lps: NDArray[np.float64]
) -> Sources:
    """Read the header of each object in the order of `sop_uids`, whatever the order of paths.

    An object that is several slices is named by each of them.
    """
    headers: dict[str, pydicom.Dataset] = {}
    for path in paths:
        header = read_header(path)
        with tolerant(path):
            headers[text_of(header, "SOPInstanceUID")] = header
    objects = list(dict.fromkeys(sop_uids))
    if missing := [uid for uid in objects if uid not in headers]:
        raise NodeError(
            f"{len(missing)} of {len(objects)} source images are not there, first {missing[0]};"
            " the result cannot refer to them, restore them and retry"
        )
    first = headers[objects[0]]
    with tolerant(objects[0]):
        tags = [Tag(keyword) for keyword in IDENTITY]
        identity = {tag: first.get_item(tag) for tag in tags if tag in first}
        images = _images(first, objects[0])
        shared = {
            "ImageOrientationPatient": list(scalars(images[0], "ImageOrientationPatient")),
            "PixelSpacing": list(scalars(images[0], "PixelSpacing")),
            "SliceThickness": _thickness_mm(images[0], float(np.linalg.norm(affine_lps[:3, 0]))),
        }
        mended = [_mended(headers[uid], shared, whole=uid == objects[0]) for uid in objects]
    return Sources(headers=mended, identity=identity)


def _images(header: pydicom.Dataset, name: str) -> list[pydicom.Dataset]:
    """Return what says where the images of an object lie: its frames, or its header."""
    return frames_of(header, name) if is_enhanced(header) else [header]


def _mended(header: pydicom.Dataset, shared: Mapping[str, Any], *, whole: bool) -> pydicom.Dataset:
    """Return what is needed of one header; patient and study are taken from the first alone."""
    mended = pydicom.Dataset()
    kept = _COPIED if whole else {"SOPClassUID", "SOPInstanceUID"}
    for tag in list(header.keys()):
        if keyword_for_tag(tag) in kept or (whole and tag.group in _PATIENT_GROUPS):
            _copy(header, tag, mended)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(mended, keyword, text_of(header, keyword))
    for keyword in ("Rows", "Columns"):
        setattr(mended, keyword, scalars(header, keyword)[0])
    for keyword, value in shared.items():
        setattr(mended, keyword, value)
    if is_enhanced(header):
        _describe_frames(header, mended)
    else:
        mended.ImagePositionPatient = list(scalars(header, "ImagePositionPatient"))
    if whole:
        _mend_patient_and_study(header, mended)
    return mended


def _describe_frames(header: pydicom.Dataset, mended: pydicom.Dataset) -> None:
    """Say where each frame lies, as multi-frame objects say it (PS3.3 C.7.6.16)."""
    plane, measures, groups = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    plane.ImageOrientationPatient = mended.ImageOrientationPatient
    measures.PixelSpacing = mended.PixelSpacing
    measures.SliceThickness = mended.SliceThickness
    groups.PlaneOrientationSequence, groups.PixelMeasuresSequence = [plane], [measures]
    mended.SharedFunctionalGroupsSequence = [groups]
    per_frame = []
    for frame in frames_of(header, mended.SOPInstanceUID):
        position, group = pydicom.Dataset(), pydicom.Dataset()
        position.ImagePositionPatient = list(scalars(frame, "ImagePositionPatient"))
        group.PlanePositionSequence = [position]
        per_frame.append(group)
    mended.PerFrameFunctionalGroupsSequence = per_frame
    mended.NumberOfFrames = len(per_frame)


def _mend_patient_and_study(header: pydicom.Dataset, mended: pydicom.Dataset) -> None:
    mended.SeriesNumber = _whole_number(scalars(header, "SeriesNumber"))
    mended.StudyDate = _date(text_of(header, "StudyDate"))
    mended.StudyTime = _time(text_of(header, "StudyTime"))
    mended.PatientBirthDate = _date(text_of(header, "PatientBirthDate"))
    sex = text_of(header, "PatientSex").upper()
    mended.PatientSex = sex if sex in ("M", "F", "O") else ""
    for keyword in _TYPE_2:
        if mended.get(keyword) is None:
            setattr(mended, keyword, "")


def _copy(header: pydicom.Dataset, tag: BaseTag, to: pydicom.Dataset) -> None:
    """Copy an element unless its value does not conform to its VR; odd free text may stay."""
    try:
        element = header[tag]
        if element.VR not in _FREE_TEXT and element.VR != "SQ" and not element.is_empty:
            for value in element.value if element.VM > 1 else [element.value]:
                validate_value(element.VR, value, RAISE)
    except Exception:  # noqa: BLE001  # pydicom converts on access and raises what it likes
        return
    to.add(element)


def _thickness_mm(header: pydicom.Dataset, spacing_mm: float) -> float:
    values = scalars(header, "SliceThickness")
    given = values[0] if len(values) == 1 and isinstance(values[0], int | float) else math.nan
    return float(given) if 0 < given < math.inf else round(spacing_mm, 6)


def _whole_number(values: Sequence[Any]) -> int:
    return values[0] if len(values) == 1 and isinstance(values[0], int) and values[0] > 0 else 0


def _date(text: str) -> str:
    digits = text.replace(".", "").replace("-", "")  # ACR-NEMA wrote 1999.12.31
    return digits if len(digits) == len("YYYYMMDD") and _conforms(DA, digits) else ""


def _time(text: str) -> str:
    digits = text.replace(":", "")  # ACR-NEMA wrote 10:10:00
    return digits if _conforms(TM, digits) else ""


def _conforms(kind: Any, text: str) -> bool:
    try:
        return kind(text) is not None
    except ValueError:
        return False
