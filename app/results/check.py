"""Read an encoded SEG back and hold it against its label map: what differs does not leave.

The reading is pydicom's and our own, so that a fault of the encoding library is seen here. Each
frame must be the slice it claims to be, pixel by pixel, and lie where that slice lies.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from app.dicom.stack import TOLERANCE, TOLERANCE_MM
from app.errors import ResultRejected

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Frame:
    segment: int
    source_uid: str
    affine_lps: NDArray[np.float64]
    """(3, 3): (row, column, 1) → LPS mm, by PS3.3 C.7.6.2.1.1."""
    mask: Mask


def check_seg(
    encoded: Path | bytes,
    *,
    labels_kji: NDArray[np.uint8],
    affine_lps: NDArray[np.float64],
    sop_uids: Sequence[str],
    frame_of_reference_uid: str,
    values: Sequence[int],
) -> None:
    """Refuse a SEG that is not exactly the label map, whose `values` are the segments in order."""
    ds = pydicom.dcmread(BytesIO(encoded) if isinstance(encoded, bytes) else encoded)
    _check_references(ds, sop_uids, frame_of_reference_uid)
    if [item.SegmentNumber for item in ds.SegmentSequence] != list(range(1, len(values) + 1)):
        raise _fault(f"its segments are not 1 to {len(values)}")
    k_of = {uid: k for k, uid in enumerate(sop_uids)}
    spacing_mm = float(np.linalg.norm(affine_lps[:3, 0]))
    allowed_mm = max(TOLERANCE * spacing_mm, TOLERANCE_MM) + 0.01
    counts = np.zeros((len(values), len(sop_uids)), dtype=np.int64)
    for frame in _frames(ds):
        k = k_of.get(frame.source_uid)
        if k is None or not 1 <= frame.segment <= len(values):
            raise _fault("a frame belongs to no source image or to no segment")
        where = f"segment {frame.segment} on slice {k + 1}"
        plane = labels_kji[k]
        if not np.array_equal(frame.mask, plane == values[frame.segment - 1]):
            raise _fault(f"{where} differs from the label map")
        if counts[frame.segment - 1, k]:
            raise _fault(f"{where} is there twice")
        counts[frame.segment - 1, k] = np.count_nonzero(frame.mask)
        off_mm = _displacement_mm(frame, k, affine_lps)
        if off_mm > allowed_mm:
            raise _fault(f"{where} lies {off_mm:.2f} mm from where it was found")
    for number, value in enumerate(values, 1):
        expected = sum(np.count_nonzero(plane == value) for plane in labels_kji)
        if expected != counts[number - 1].sum():
            raise _fault(
                f"segment {number} has {counts[number - 1].sum()} voxels, the label map {expected}"
            )


def _check_references(
    ds: pydicom.Dataset, sop_uids: Sequence[str], frame_of_reference_uid: str
) -> None:
    if ds.FrameOfReferenceUID != frame_of_reference_uid:
        raise _fault("its frame of reference is not that of its source")
    series = ds.ReferencedSeriesSequence
    referenced = {
        item.ReferencedSOPInstanceUID for each in series for item in each.ReferencedInstanceSequence
    }
    if referenced != set(sop_uids):
        raise _fault("the instances it refers to are not those it was made from")


def _frames(ds: pydicom.Dataset) -> Iterator[_Frame]:
    rows, columns = int(ds.Rows), int(ds.Columns)
    size = rows * columns
    shared = ds.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    in_plane = np.zeros((3, 3))
    in_plane[:, 0] = np.array(orientation[3:], dtype=float) * float(spacing[0])
    in_plane[:, 1] = np.array(orientation[:3], dtype=float) * float(spacing[1])
    packed = np.frombuffer(ds.PixelData, dtype=np.uint8)
    groups = ds.PerFrameFunctionalGroupsSequence
    if len(groups) != ds.NumberOfFrames or packed.size * 8 < size * len(groups):
        raise _fault("its frames and pixels do not match in number")
    for number, group in enumerate(groups):
        start = number * size  # frames follow each other bit by bit, PS3.5 8.1.1
        window = packed[start // 8 : -(-(start + size) // 8)]
        bits = np.unpackbits(window, bitorder="little")[start % 8 :][:size]
        affine = in_plane.copy()
        affine[:, 2] = group.PlanePositionSequence[0].ImagePositionPatient
        segment = group if "SegmentIdentificationSequence" in group else shared
        derivation = group.DerivationImageSequence[0].SourceImageSequence[0]
        yield _Frame(
            segment=int(segment.SegmentIdentificationSequence[0].ReferencedSegmentNumber),
            source_uid=str(derivation.ReferencedSOPInstanceUID),
            affine_lps=affine,
            mask=bits.reshape(rows, columns).astype(np.bool_),
        )


def _displacement_mm(frame: _Frame, k: int, affine_lps: NDArray[np.float64]) -> float:
    """Return how far the last marked voxel, or the origin of an empty frame, has moved."""
    marked = np.flatnonzero(frame.mask)
    j, i = divmod(int(marked[-1]), frame.mask.shape[1]) if marked.size else (0, 0)
    encoded = frame.affine_lps @ (j, i, 1)
    found = affine_lps @ (k, j, i, 1)
    return float(np.linalg.norm(encoded - found[:3]))


def _fault(what: str) -> ResultRejected:
    return ResultRejected(
        f"the segmentation was not encoded as it was made: {what}; it is not sent"
    )
