"""Label map → DICOM SEG: binary, on the grid of its source.

The bits of the frames are written as they are packed; nothing holds all of them.
"""

import logging
import struct
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import IO

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian

from app.errors import ResultRejected
from app.results.forms import Form
from app.results.frames import Frame, frames_of
from app.results.header import Kind, header, write_header
from app.results.result import Labels, Result

log = logging.getLogger(__name__)

BINARY = Kind(type=hd.seg.SegmentationTypeValues.BINARY, form=Form.SEG)
_MAX_BYTES = 2**32 - 2


def write_seg(file: IO[bytes], result: Result) -> None:
    """Encode the label map; every label of the card is a segment, found or not."""
    frames = frames_of(result)
    size = result.labels_kji[0].size
    length = -(-len(frames) * size // 16) * 2
    if length > _MAX_BYTES:
        raise ResultRejected(
            f"the segmentation has {len(frames)} frames, {length / 1e9:.1f} GB of pixels; an object"
            " holds 4.2 GB, let the archive accept the label map form"
        )
    write_header(file, header(result, frames, BINARY, ExplicitVRLittleEndian))
    file.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, length))
    written = 0
    for packed in _packed(result, frames):
        written += file.write(packed.data)
    file.write(bytes(length - written))
    log.info("encoded %d segments in %d frames", len(result.segments()), len(frames))


def encode_seg(result: Result) -> pydicom.Dataset:
    """Return what `write_seg` writes, read by pydicom."""
    file = BytesIO()
    write_seg(file, result)
    return pydicom.dcmread(BytesIO(file.getvalue()))


def _packed(result: Result, frames: Sequence[Frame]) -> Iterator[NDArray[np.uint8]]:
    """Yield the bits of the frames, which follow each other without a gap (PS3.5 8.1.1)."""
    values = {number: sorted(label.values) for number, label in result.segments()}
    rest = np.zeros(0, dtype=np.bool_)
    mask = np.zeros(result.labels_kji.shape[1:], dtype=np.bool_)
    part = np.zeros_like(mask)
    for frame in frames:
        _fill(mask, part, result.labels_kji[frame.k], values[frame.segment])
        bits = np.concatenate((rest, mask.ravel())) if rest.size or mask.size % 8 else mask.ravel()
        whole = bits.size // 8 * 8
        rest = bits[whole:]
        yield np.packbits(bits[:whole], bitorder="little")
    yield np.packbits(rest, bitorder="little")


def _fill(
    mask: NDArray[np.bool_], part: NDArray[np.bool_], plane: Labels, values: Sequence[int]
) -> None:
    """Mark the pixels of some values; new arrays for each frame would cost more than the work."""
    np.equal(plane, values[0], out=mask)
    for value in values[1:]:
        mask |= np.equal(plane, value, out=part)
