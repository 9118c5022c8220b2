"""The frames of a segmentation: which there are, in which order, and what each says of itself.

highdicom makes an object for every value of every frame. Here the parts of a frame that depend on
its slice, and those that depend on its segment, are each encoded once and then put together.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import format_number_as_ds

from app.results.elements import element, joined, sequence
from app.results.result import Result, values_by_slice

LABEL_MAP = 0
"""In place of a segment's number, where one frame holds all segments."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One slice of one segment."""

    segment: int
    k: int
    place: int
    """Rank of its slice among those that have a frame, from 1: the dimension index value."""


def frames_of(result: Result, *, label_map: bool = False) -> list[Frame]:
    """Return the frames in the order in which they are encoded: by segment, then along the normal.

    Slices without a voxel have none. Where nothing was found one empty frame for each segment says
    that all were looked for.
    """
    segments = result.segments()
    present = values_by_slice(result.labels_kji)
    if label_map:
        return frames_on(result, {LABEL_MAP: present[:, 1:].any(axis=1)})
    return frames_on(
        result, {n: present[:, sorted(label.values)].any(axis=1) for n, label in segments}
    )


def frames_on(result: Result, found: Mapping[int, Any]) -> list[Frame]:
    """Return the frames for the slices, a truth value each, on which each segment was found."""
    used: Any = np.stack([*found.values()]).any(axis=0)
    if not used.any():
        return [Frame(number, 0, 1) for number in found]
    places = {k: place for place, k in enumerate((k for k in along_normal(result) if used[k]), 1)}
    return [
        Frame(number, k, place)
        for number, slices in found.items()
        for k, place in places.items()
        if slices[k]
    ]


def position(result: Result, k: int) -> NDArray[np.float64]:
    """Return where slice `k` lies: as its own header says, unless that is of several frames."""
    if result.volume.frames is None:
        return np.array(result.sources.headers[k].ImagePositionPatient, dtype=np.float64)
    return result.volume.affine_lps[:3, 3] + k * result.volume.affine_lps[:3, 0]


def along_normal(result: Result) -> list[int]:
    """Return the slices in the order of their positions along the normal of the planes.

    Dimension index values count in this order; the normal is row × column turned as highdicom's.
    """
    affine = result.volume.affine_lps
    normal = np.cross(affine[:3, 1], affine[:3, 2])
    distances = [float(position(result, k) @ normal) for k in range(len(result.labels_kji))]
    return sorted(range(len(distances)), key=distances.__getitem__)


def functional_groups(result: Result, frames: Sequence[Frame]) -> bytes:
    """Return the value of PerFrameFunctionalGroupsSequence (PS3.3 C.7.6.16, C.8.20.3)."""
    used = {frame.k for frame in frames}
    classes = _classes(result)
    source = {k: _derivation(result, k, classes) for k in used}
    place = {k: _plane_position(result, k) for k in used}
    alone = len(result.segments()) == 1  # its number stands in the shared groups
    segment = {
        frame.segment: b"" if alone or frame.segment == LABEL_MAP else identification(frame.segment)
        for frame in frames
    }
    return joined(
        [
            source[frame.k] + _content(frame) + place[frame.k] + segment[frame.segment]
            for frame in frames
        ]
    )


def references(result: Result) -> tuple[bytes, bytes]:
    """Return the values of SourceImageSequence and ReferencedSeriesSequence: every instance."""
    classes = _classes(result)
    instances = [_instance(classes[uid], uid) for uid in dict.fromkeys(result.volume.sop_uids)]
    series = element("SeriesInstanceUID", "UI", result.volume.series_uid.encode())
    in_series = sequence("ReferencedInstanceSequence", *instances)
    return joined(instances), joined([in_series + series])


def identification(number: int) -> bytes:
    """Return the SegmentIdentificationSequence of one segment."""
    return sequence(
        "SegmentIdentificationSequence",
        element("ReferencedSegmentNumber", "US", struct.pack("<H", number)),
    )


def _content(frame: Frame) -> bytes:
    indices = (frame.place,) if frame.segment == LABEL_MAP else (frame.segment, frame.place)
    value = struct.pack(f"<{len(indices)}L", *indices)
    return sequence("FrameContentSequence", element("DimensionIndexValues", "UL", value))


def _plane_position(result: Result, k: int) -> bytes:
    text = "\\".join(format_number_as_ds(float(value)) for value in position(result, k))
    value = element("ImagePositionPatient", "DS", text.encode())
    return sequence("PlanePositionSequence", value)


def _derivation(result: Result, k: int, classes: Mapping[str, str]) -> bytes:
    uid = result.volume.sop_uids[k]
    source = _instance(classes[uid], uid)
    if result.volume.frames is not None:
        number = str(result.volume.frames[k]).encode()
        source += element("ReferencedFrameNumber", "IS", number)
    source += element("SpatialLocationsPreserved", "CS", b"YES") + _PURPOSE
    return sequence(
        "DerivationImageSequence", sequence("SourceImageSequence", source) + _DERIVATION
    )


def _classes(result: Result) -> dict[str, str]:
    return {
        str(header.SOPInstanceUID): str(header.SOPClassUID) for header in result.sources.headers
    }


def _instance(sop_class: str, uid: str) -> bytes:
    return element("ReferencedSOPClassUID", "UI", sop_class.encode()) + element(
        "ReferencedSOPInstanceUID", "UI", uid.encode()
    )


def _coded(keyword: str, code: Code) -> bytes:
    return sequence(
        keyword,
        element("CodeValue", "SH", code.value.encode())
        + element("CodingSchemeDesignator", "SH", code.scheme_designator.encode())
        + element("CodeMeaning", "LO", code.meaning.encode()),
    )


_PURPOSE = _coded(
    "PurposeOfReferenceCodeSequence", codes.cid7202.SourceImageForImageProcessingOperation
)
_DERIVATION = _coded("DerivationCodeSequence", codes.cid7203.SegmentationImageDerivation)
