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
    """The images that a result is derived from, in the order of its slices."""

    headers: list[pydicom.Dataset]
    """Mended; patient, study and equipment stand in the first alone."""
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
    """Read the header of each slice in the order of `sop_uids`, whatever the order of paths."""
    headers: dict[str, pydicom.Dataset] = {}
    for path in paths:
        header = read_header(path)
        with tolerant(path):
            headers[text_of(header, "SOPInstanceUID")] = header
    if missing := [uid for uid in sop_uids if uid not in headers]:
        raise NodeError(
            f"{len(missing)} of {len(sop_uids)} source images are not there, first {missing[0]};"
            " the result cannot refer to them, restore them and retry"
        )
    first = headers[sop_uids[0]]
    with tolerant(sop_uids[0]):
        tags = [Tag(keyword) for keyword in IDENTITY]
        identity = {tag: first.get_item(tag) for tag in tags if tag in first}
        spacing_mm = float(np.linalg.norm(affine_lps[:3, 0]))
        shared = {
            "ImageOrientationPatient": list(scalars(first, "ImageOrientationPatient")),
            "PixelSpacing": list(scalars(first, "PixelSpacing")),
            "SliceThickness": _thickness_mm(first, spacing_mm),
        }
        mended = [_mended(headers[uid], shared, whole=uid == sop_uids[0]) for uid in sop_uids]
    return Sources(headers=mended, identity=identity)


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
    mended.ImagePositionPatient = list(scalars(header, "ImagePositionPatient"))
    for keyword, value in shared.items():
        setattr(mended, keyword, value)
    if whole:
        _mend_patient_and_study(header, mended)
    return mended


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
