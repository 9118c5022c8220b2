"""The calibrated values of slices (PS3.3 C.11.1), decoded one slice at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import DeflatedExplicitVRLittleEndian

from app.dicom.series import BULK_BYTES, tolerant
from app.dicom.slices import Slice
from app.errors import UnreadableDicom

Values = NDArray[np.float32]


def values_of(each: Slice) -> Values:
    """Decode one slice."""
    ((_, values),) = values_of_all([each])
    return values


def values_of_all(slices: Sequence[Slice]) -> Iterator[tuple[int, Values]]:
    """Decode slices; yield their indices with their values, file by file, in any order."""
    files: dict[Path, list[int]] = {}
    for n, each in enumerate(slices):
        files.setdefault(each.path, []).append(n)
    for path, inside in files.items():
        with tolerant(path):
            if slices[inside[0]].frame is None:
                (n,) = inside
                yield n, _calibrated(_single(slices[n]), slices[n])
            else:
                index = {slices[n].frame or 0: n for n in inside}
                for frame, stored in _frames(slices[inside[0]], sorted(index)):
                    yield index[frame], _calibrated(stored, slices[index[frame]])


def _calibrated(stored: NDArray[np.generic], each: Slice) -> Values:
    if stored.shape != (each.rows, each.columns):
        raise UnreadableDicom(f"{each.path.name}: its pixels are not Rows × Columns; send it again")
    return np.asarray(stored * each.slope + each.intercept, dtype=np.float32)  # type: ignore[operator]


def _single(each: Slice) -> NDArray[np.generic]:
    ds = pydicom.dcmread(each.path)
    _check_length(ds, each, len(ds.get("PixelData") or b""))
    return ds.pixel_array


def _frames(one: Slice, wanted: Sequence[int]) -> Iterator[tuple[int, NDArray[np.generic]]]:
    """Decode frames of an object in their order, without holding more than one."""
    whole = _is_deflated(one.path)  # then there is no place in the file where its pixels begin
    ds = pydicom.dcmread(one.path, defer_size=None if whole else BULK_BYTES)
    _check_length(ds, one, _bytes_of_pixels(ds, one.path))
    # All are faster one after another: without an offset table each one is searched from the first.
    every = len(wanted) > 1
    numbers = range(1, one.frames + 1) if every else wanted
    decoded = iter_pixels(
        ds if whole else one.path, indices=None if every else [wanted[0] - 1], raw=True
    )
    left = set(wanted)
    for number, stored in zip(numbers, decoded, strict=False):
        if number in left:
            left.remove(number)
            yield number, stored
        if not left:
            return
    raise UnreadableDicom(
        f"{one.path.name}: has pixels for fewer than its {one.frames} frames; send it again"
    )


def _is_deflated(path: Path) -> bool:
    meta = pydicom.filereader.read_file_meta_info(path)
    return bool(meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian)


def _bytes_of_pixels(ds: pydicom.Dataset, path: Path) -> int:
    """Return how many bytes of pixels are really in the file."""
    element = ds.get_item("PixelData", keep_deferred=True)
    if isinstance(element, RawDataElement) and element.value is None:
        return max(min(element.length, path.stat().st_size - element.value_tell), 0)
    return len(ds.get("PixelData") or b"")


def _check_length(ds: pydicom.Dataset, each: Slice, found: int) -> None:
    """Refuse native pixel data that is shorter than the header says, before it is decoded."""
    name = each.path.name
    if not found:
        raise UnreadableDicom(f"{name}: has no pixel data; send it again")
    if ds.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    needed = each.frames * each.rows * each.columns * int(ds.BitsAllocated) // 8
    if found < needed:
        raise UnreadableDicom(f"{name}: has {found} of {needed} bytes of pixels; send it again")
