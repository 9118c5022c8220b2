"""Probabilities → DICOM SEG of type FRACTIONAL (PS3.3 C.8.20.2), in 255ths, and its check.

Frames are run-length encoded: nearly all of their pixels are 0 or 255, so they shrink about
fiftyfold. A slice on which a label is quite impossible has no frame.
"""

import struct
from io import BytesIO
from pathlib import Path
from typing import IO

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import RLELossless

from app.errors import ModelError
from app.results.check import (
    Places,
    check_segments,
    fault,
    items_of,
    number_of,
    read_back,
    readable,
)
from app.results.forms import Form
from app.results.frames import frames_on
from app.results.header import Kind, header, write_header
from app.results.result import Result

Probabilities = NDArray[np.uint8]
"""[label of the card, k, j, i]: 255 for 1."""

FRACTIONAL = Kind(type=hd.seg.SegmentationTypeValues.FRACTIONAL, form=Form.FRACTIONAL)
_FULL = 255
_OFFSETS = 2**32
"""Bytes of pixels from which the basic offset table is too short (PS3.5 A.4)."""


def write_fractional(file: IO[bytes], result: Result, probabilities: Probabilities) -> None:
    """Encode the probabilities into an open file."""
    shares = _shares(result, probabilities)
    found = {number: share.any(axis=(1, 2)) for number, share in shares.items()}
    frames = frames_on(result, found)
    encoded = [_encoded(shares[frame.segment][frame.k]) for frame in frames]
    write_header(file, header(result, frames, FRACTIONAL, RLELossless))
    file.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF))
    file.write(encapsulate(encoded, has_bot=sum(map(len, encoded)) < _OFFSETS))
    file.write(struct.pack("<HHL", 0xFFFE, 0xE0DD, 0))


def encode_fractional(result: Result, probabilities: Probabilities) -> pydicom.Dataset:
    """Return what `write_fractional` writes, read by pydicom."""
    file = BytesIO()
    write_fractional(file, result, probabilities)
    return pydicom.dcmread(BytesIO(file.getvalue()))


@readable()
def check_fractional(path: Path, result: Result, probabilities: Probabilities) -> None:
    """Refuse a file that does not give these probabilities back, frame by frame, where they lie."""
    read = read_back(path, result, "fractional")
    ds, shares, segments = read.ds, _shares(result, probabilities), dict(result.segments())
    kind = (ds.SegmentationType, ds.get("SegmentationFractionalType"), ds.MaximumFractionalValue)
    if kind != ("FRACTIONAL", "PROBABILITY", _FULL):
        raise fault(f"its type is {kind}")
    check_segments(items_of(ds, "SegmentSequence"), segments)
    places = Places(read, result)
    missing = {number: np.array(share.any(axis=(1, 2))) for number, share in shares.items()}
    for frame, pixels in zip(read.frames, iter_pixels(path), strict=True):
        k, number = places.slice_of(frame), number_of(frame, read.shared)
        if number not in segments:
            raise fault("a frame belongs to no segment")
        where = f"segment {number} on slice {k + 1}"
        places.check(frame, k, where)
        if not np.array_equal(pixels, shares[number][k]):
            raise fault(f"{where} differs from what the model made")
        missing[number][k] = False
    if lost := sum(int(np.count_nonzero(each)) for each in missing.values()):
        raise fault(f"{lost} of its frames are missing")


def _shares(result: Result, probabilities: Probabilities) -> dict[int, Probabilities]:
    """Return the probabilities of each segment by its number."""
    wanted = (len(result.card.labels), *result.labels_kji.shape)
    if probabilities.shape != wanted or probabilities.dtype != np.uint8:
        raise ModelError(
            f"{result.card.name}: the probabilities are {probabilities.dtype}"
            f" {probabilities.shape}, not uint8 {wanted}; run the model again"
        )
    at = {label.value: index for index, label in enumerate(result.card.labels)}
    return {number: probabilities[at[label.value]] for number, label in result.segments()}


def _encoded(plane: NDArray[np.uint8]) -> bytes:
    encoded: bytes = RLELosslessEncoder.encode(
        np.ascontiguousarray(plane),
        encoding_plugin="gdcm",  # 15 times faster than pydicom's own
        rows=plane.shape[0],
        columns=plane.shape[1],
        number_of_frames=1,
        samples_per_pixel=1,
        bits_allocated=8,
        bits_stored=8,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
    )
    return encoded
