"""Read an encoded segmentation back and hold it against its result: what differs does not leave.

The reading is pydicom's and our own, and shares nothing with the encoder, so that a fault of either
is seen here. Each frame must be the slice it claims to be, pixel by pixel, and lie where that slice
lies; each segment must be what the card says it is.
"""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement

from app.dicom.stack import TOLERANCE, TOLERANCE_MM
from app.errors import ResultRejected
from app.models.card import Code, Label
from app.results.describe import plain
from app.results.elements import Item, read_items
from app.results.result import Result

Mask = NDArray[np.bool_]

_PIXELS = struct.Struct("<HH2sHL")
_EIGHT_PIXELS = (
    ((np.arange(256)[:, None] >> np.arange(8)) & 1).astype(np.bool_).view(np.uint64)[:, 0]
)
"""Byte → its eight pixels, the first in the least significant bit (PS3.5 8.1.1)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadBack:
    """The header of a segmentation as it stands in the file, and where its pixels begin."""

    ds: pydicom.Dataset
    pixels_at: int
    shared: Item
    frames: list[Item]


@contextmanager
def readable() -> Iterator[None]:
    """Refuse an object in which something is missing or of another kind than it should be."""
    try:
        yield
    except (KeyError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise fault(f"it cannot be read back ({type(error).__name__})") from error


@readable()
def check_seg(path: Path, result: Result) -> None:
    """Refuse a SEG that is not exactly what was found."""
    read = read_back(path, result, "seg")
    segments = dict(result.segments())
    check_segments(items_of(read.ds, "SegmentSequence"), segments)
    places = Places(read, result)
    marked = np.zeros((len(segments) + 1, len(result.labels_kji)), dtype=np.int64)
    seen = np.zeros_like(marked, dtype=np.bool_)
    expected, part = np.empty((2, *result.labels_kji.shape[1:]), dtype=np.bool_)
    for frame, mask in zip(read.frames, _masks(path, read), strict=True):
        k = places.slice_of(frame)
        number = number_of(frame, read.shared)
        if number not in segments:
            raise fault("a frame belongs to no segment")
        where = f"segment {number} on slice {k + 1}"
        if seen[number, k]:
            raise fault(f"{where} is there twice")
        seen[number, k] = True
        places.check(frame, k, where)
        np.equal(result.labels_kji[k], segments[number].value, out=expected)
        for value in segments[number].includes:
            expected |= np.equal(result.labels_kji[k], value, out=part)
        if not np.array_equal(mask, expected):
            raise fault(f"{where} differs from the label map")
        marked[number, k] = np.count_nonzero(mask)
    _check_complete(result, marked.sum(axis=0))


def read_back(path: Path, result: Result, name: str) -> ReadBack:
    """Read the header and check what it says of the whole object."""
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # identity may be in a character set that nobody knows
        ds = pydicom.dcmread(file, stop_before_pixels=True)
        pixels_at = file.tell()
    frames = items_of(ds, "PerFrameFunctionalGroupsSequence")
    (shared,) = items_of(ds, "SharedFunctionalGroupsSequence")
    series = items_of(ds, "ReferencedSeriesSequence")
    uids = (result.identity.uid(f"{name}.instance"), result.identity.uid(f"{name}.series"))
    if (ds.SOPInstanceUID, ds.SeriesInstanceUID) != uids:
        raise fault("its UIDs are not those of the job")
    if ds.StudyInstanceUID != result.identity.study_uid:
        raise fault("it is of another study")
    if ds.FrameOfReferenceUID != result.volume.frame_of_reference_uid:
        raise fault("its frame of reference is not that of its source")
    referenced = [
        _text(each["ReferencedSOPInstanceUID"])
        for item in series
        for each in item["ReferencedInstanceSequence"]
    ]
    if sorted(referenced) != sorted({*result.volume.sop_uids}):
        raise fault("the instances it refers to are not those it was made from")
    if (ds.Rows, ds.Columns) != result.labels_kji.shape[1:]:
        raise fault("its frames are not as large as the slices of its source")
    if len(frames) != ds.NumberOfFrames:
        raise fault("its frames and what is said of them do not match in number")
    return ReadBack(ds=ds, pixels_at=pixels_at, shared=shared, frames=frames)


def check_segments(items: list[Item], segments: dict[int, Label]) -> None:
    """Refuse segments that are not, in number, order and codes, those of the card."""
    if [struct.unpack("<H", item["SegmentNumber"])[0] for item in items] != [*segments]:
        raise fault(f"its segments are not {min(segments)} to {max(segments)}")
    for (number, label), item in zip(segments.items(), items, strict=True):
        (kind,) = item["SegmentedPropertyTypeCodeSequence"]
        said = {
            "name": _text(item["SegmentLabel"]),
            "category": _codes(item, "SegmentedPropertyCategoryCodeSequence"),
            "type": _codes(item, "SegmentedPropertyTypeCodeSequence"),
            "laterality": _codes(kind, "SegmentedPropertyTypeModifierCodeSequence"),
            "region": _codes(item, "AnatomicRegionSequence"),
        }
        meant = {
            "name": plain(label.name),
            "category": _meant(label.category),
            "type": _meant(label.type),
            "laterality": _meant(label.laterality),
            "region": _meant(label.region),
        }
        for what, value in meant.items():
            if said[what] != value:
                raise fault(f"segment {number} has not the {what} that the card gives it")
    tracking = [_text(item["TrackingUID"]) for item in items]
    if len({*tracking}) != len(tracking):
        raise fault("two of its segments have one tracking UID")


class Places:
    """Where the frames of a segmentation lie, and where they should."""

    def __init__(self, read: ReadBack, result: Result) -> None:
        volume = result.volume
        numbers = volume.frames or (0,) * len(volume.sop_uids)
        self._slices = {key: k for k, key in enumerate(zip(volume.sop_uids, numbers, strict=True))}
        self._affine = volume.affine_lps
        self._last = np.array(result.labels_kji.shape[1:]) - 1
        cosines = _numbers(read.shared, "PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = _numbers(read.shared, "PixelMeasuresSequence", "PixelSpacing")
        # (3, 2): (row, column) → mm from the frame's position, PS3.3 C.7.6.2.1.1.
        self._in_plane = np.stack([cosines[3:] * spacing[0], cosines[:3] * spacing[1]], axis=1)
        spacing_mm = float(np.linalg.norm(self._affine[:3, 0]))
        self._allowed_mm = max(TOLERANCE * spacing_mm, TOLERANCE_MM) + 0.01
        self._off_mm: dict[tuple[bytes, int], float] = {}

    def slice_of(self, frame: Item) -> int:
        """Return the slice that a frame says it was made from."""
        (derivation,) = frame["DerivationImageSequence"]
        (source,) = derivation["SourceImageSequence"]
        number = int(source.get("ReferencedFrameNumber", b"0"))
        k = self._slices.get((_text(source["ReferencedSOPInstanceUID"]), number))
        if k is None:
            raise fault("a frame belongs to no source image")
        return k

    def check(self, frame: Item, k: int, where: str) -> None:
        """Refuse a frame whose first or last pixel is not where that of its slice is."""
        (place,) = frame["PlanePositionSequence"]
        key = place["ImagePositionPatient"], k  # the same for every segment of a slice
        if key not in self._off_mm:
            self._off_mm[key] = self._displacement_mm(frame, k)
        if not self._off_mm[key] <= self._allowed_mm:
            raise fault(f"{where} lies {self._off_mm[key]:.2f} mm from where it was found")

    def _displacement_mm(self, frame: Item, k: int) -> float:
        origin = _numbers(frame, "PlanePositionSequence", "ImagePositionPatient")
        corners = np.stack([(0, 0), self._last])
        encoded = origin + corners @ self._in_plane.T
        found = corners @ self._affine[:3, 1:3].T + self._affine[:3, 3] + k * self._affine[:3, 0]
        return float(np.linalg.norm(encoded - found, axis=1).max())


def fault(what: str) -> ResultRejected:
    """Return the error of a segmentation that is not what it should be."""
    return ResultRejected(
        f"the segmentation was not encoded as it was made: {what}; it is not sent"
    )


def _masks(path: Path, read: ReadBack) -> Iterator[Mask]:
    """Yield the pixels of each frame in one array that the next frame overwrites."""
    rows, columns = int(read.ds.Rows), int(read.ds.Columns)
    size = rows * columns
    unpacked = np.empty(size // 8 + 2, dtype=np.uint64)
    with path.open("rb") as file:
        file.seek(read.pixels_at)
        group, element, _, _, length = _PIXELS.unpack(file.read(_PIXELS.size))
        pixels_at = file.tell()
        if (group, element) != (0x7FE0, 0x0010) or path.stat().st_size != pixels_at + length:
            raise fault("its pixels do not end where the file ends")
        if length * 8 < size * len(read.frames):
            raise fault("its frames and pixels do not match in number")
        for number in range(len(read.frames)):
            start = number * size  # frames follow each other bit by bit, PS3.5 8.1.1
            file.seek(pixels_at + start // 8)
            window = np.frombuffer(file.read(-(-(start + size) // 8) - start // 8), np.uint8)
            np.take(_EIGHT_PIXELS, window, out=unpacked[: window.size], mode="clip")
            yield unpacked.view(np.bool_)[start % 8 :][:size].reshape(rows, columns)


def number_of(frame: Item, shared: Item) -> int:
    """Return the number of a frame's segment; one of a single segment may stand for all frames."""
    (segment,) = (
        frame.get("SegmentIdentificationSequence") or shared["SegmentIdentificationSequence"]
    )
    return int.from_bytes(segment["ReferencedSegmentNumber"], "little")


def _check_complete(result: Result, marked: NDArray[np.int64]) -> None:
    """Refuse a SEG that lacks voxels: each frame is right, so their number tells."""
    owners = np.zeros(256, dtype=np.int64)
    for _, label in result.segments():
        owners[sorted(label.values)] += 1
    for k, plane in enumerate(result.labels_kji):
        once = not result.card.overlaps
        expected = np.count_nonzero(plane) if once else int(owners[plane].sum())
        if marked[k] != expected:
            raise fault(f"slice {k + 1} has {marked[k]} marked voxels, the label map {expected}")


def items_of(ds: pydicom.Dataset, keyword: str) -> list[Item]:
    """Return the items of a sequence of the header from its bytes."""
    raw = ds.get_item(keyword)
    if not isinstance(raw, RawDataElement) or not isinstance(raw.value, bytes):
        raise fault(f"{keyword} is missing or of undefined length")
    return read_items(raw.value)


def _numbers(item: Item, sequence: str, keyword: str) -> NDArray[np.float64]:
    return np.array(_text(item[sequence][0][keyword]).split("\\"), dtype=np.float64)


def _text(value: bytes) -> str:
    return value.decode("ascii").strip(" \0")


def _codes(item: Item, keyword: str) -> list[tuple[str, str, str]]:
    words = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    return [
        (_text(code[words[0]]), _text(code[words[1]]), _text(code[words[2]]))
        for code in item.get(keyword, [])
    ]


def _meant(code: Code | None) -> list[tuple[str, str, str]]:
    return [(code.value, code.scheme, plain(code.meaning))] if code else []
