"""Label map → DICOM label map segmentation: one frame a slice, whose pixels are segment numbers.

Lossless JPEG-LS makes 104 segments of 300 slices one megabyte instead of two hundred; archives and
viewers that are older than Supplement 243 do not know the object.
"""

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO

import highdicom as hd
import numpy as np
import pydicom
from pydicom.pixels.utils import iter_pixels

from app.results.check import Places, check_segments, fault, items_of, read_back, readable
from app.results.forms import Form
from app.results.frames import Frame, frames_of
from app.results.header import Kind, decoder_of, write_planes
from app.results.result import Labels, Result

LABELMAP = Kind(type=hd.seg.SegmentationTypeValues.LABELMAP, form=Form.LABELMAP)


def write_labelmap(file: IO[bytes], result: Result) -> None:
    """Encode the label map as it is; the segments of its card must not overlap."""
    frames = frames_of(result, label_map=True)
    write_planes(file, result, frames, LABELMAP, lambda: _planes(result, frames))


def encode_labelmap(result: Result) -> pydicom.Dataset:
    """Return what `write_labelmap` writes, read by pydicom."""
    file = BytesIO()
    write_labelmap(file, result)
    return pydicom.dcmread(BytesIO(file.getvalue()))


@readable()
def check_labelmap(path: Path, result: Result) -> None:
    """Refuse a label map segmentation that is not exactly what was found."""
    read = read_back(path, result, "labelmap")
    background, *items = items_of(read.ds, "SegmentSequence")
    if background["SegmentNumber"] != b"\0\0":
        raise fault("its first segment is not the background")
    segments = dict(result.segments())
    check_segments(items, segments)
    places = Places(read, result)
    values = np.zeros(256, dtype=np.uint8)  # by segment number
    values[[*segments]] = [label.value for label in segments.values()]
    found = np.empty(result.labels_kji.shape[1:], dtype=np.uint8)
    left = {*range(len(result.labels_kji))}
    pixels = iter_pixels(path, decoding_plugin=decoder_of(read.ds))
    for frame, plane in zip(read.frames, pixels, strict=True):
        k = places.slice_of(frame)
        where = f"slice {k + 1}"
        if k not in left:
            raise fault(f"{where} is there twice")
        left.remove(k)
        places.check(frame, k, where)
        np.take(values, plane, out=found, mode="clip")
        if not np.array_equal(found, result.labels_kji[k]):
            raise fault(f"{where} differs from the label map")
    if missing := [k for k in sorted(left) if result.labels_kji[k].any()]:
        raise fault(f"slice {missing[0] + 1} is missing")


def _planes(result: Result, frames: Sequence[Frame]) -> Iterator[Labels]:
    """Yield each frame's segment numbers, in one array that the next frame overwrites."""
    number_of = np.zeros(256, dtype=np.uint8)
    for number, label in result.segments():
        number_of[label.value] = number
    plane = np.empty(result.labels_kji.shape[1:], dtype=np.uint8)
    for frame in frames:
        np.take(number_of, result.labels_kji[frame.k], out=plane, mode="clip")
        yield plane
