"""Probabilities → DICOM SEG of type FRACTIONAL (PS3.3 C.8.20.2), in 255ths, and its check.

Nearly all pixels are 0 or 255, so that compressed frames are small. A slice on which a label is
quite impossible has no frame.
"""

from io import BytesIO
from pathlib import Path
from typing import IO

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.utils import iter_pixels

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
from app.results.header import Kind, decoder_of, write_planes
from app.results.result import Result

Probabilities = NDArray[np.uint8]
"""[label of the card, k, j, i]: 255 for 1."""

FRACTIONAL = Kind(type=hd.seg.SegmentationTypeValues.FRACTIONAL, form=Form.FRACTIONAL)
_FULL = 255


def write_fractional(file: IO[bytes], result: Result, probabilities: Probabilities) -> None:
    """Encode the probabilities into an open file."""
    shares = _shares(result, probabilities)
    found = {number: share.any(axis=(1, 2)) for number, share in shares.items()}
    frames = frames_on(result, found)
    write_planes(
        file,
        result,
        frames,
        FRACTIONAL,
        lambda: (shares[frame.segment][frame.k] for frame in frames),
    )


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
    pixels_of_frames = iter_pixels(path, decoding_plugin=decoder_of(ds))
    for frame, pixels in zip(read.frames, pixels_of_frames, strict=True):
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
