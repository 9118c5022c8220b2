"""Part 10 files of our own making: the header before a data set, and the way back (PS3.10 7.1)."""

import hashlib
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom.filereader import read_partial

from app.dicom.dimse import IMPLEMENTATION_NAME, IMPLEMENTATION_UID
from app.dicom.encoded import Identifiers, read_identifiers
from app.errors import UnreadableDicom

PREFIX = b"DICM"
META_AT = 128 + len(PREFIX)
PATIENT_ID = 0x00100020
GROUP_LENGTH_SIZE = 12  # (0002,0000) UL, always the first element


def header(sop_class_uid: str, sop_uid: str, transfer_syntax: str) -> bytes:
    """Return zeroed preamble and file meta for a data set."""
    meta = b"".join(
        (
            b"\2\0\1\0OB\0\0\2\0\0\0\0\1",
            _text(0x02, "UI", sop_class_uid),
            _text(0x03, "UI", sop_uid),
            _text(0x10, "UI", transfer_syntax),
            _text(0x12, "UI", IMPLEMENTATION_UID),
            _text(0x13, "SH", IMPLEMENTATION_NAME),
        )
    )
    return bytes(128) + PREFIX + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(meta)) + meta


def _text(element: int, vr: str, text: str) -> bytes:
    value = text.encode("ascii")
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    return struct.pack("<HH2sH", 2, element, vr.encode(), len(value)) + value


@dataclass(frozen=True, slots=True, kw_only=True)
class Part10:
    """What a file says about itself; its data set starts at `dataset_at`."""

    identifiers: Identifiers
    transfer_syntax: str
    dataset_at: int
    size: int
    """Bytes of the data set, without preamble and file meta."""


def read_part10(path: Path) -> Part10:
    """Read UIDs and structure of a file, no values; refuse a file that is not whole."""
    with _mapped(path) as file:
        dataset_at, transfer_syntax = _read_meta(file)
        return Part10(
            identifiers=read_identifiers(file, transfer_syntax, dataset_at),
            transfer_syntax=transfer_syntax,
            dataset_at=dataset_at,
            size=len(file) - dataset_at,
        )


def patient_id(path: Path) -> str:
    """Return the PatientID of a file of ours; nothing behind it is read."""
    with path.open("rb") as file:
        ds = read_partial(file, stop_when=lambda tag, _vr, _length: tag > PATIENT_ID)
    return str(ds.get("PatientID", "")).strip()


def dataset_sha256(path: Path) -> str:
    """Return the digest of the data set as it was sent: of all that follows the file meta."""
    with _mapped(path) as file:
        return hashlib.sha256(memoryview(file)[_read_meta(file)[0] :]).hexdigest()


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # an empty file cannot be mapped
            raise UnreadableDicom(f"{path.name} is empty") from error
        try:
            yield content
        except UnreadableDicom as error:
            raise UnreadableDicom(f"{path.name}: {error}") from error
        finally:
            content.close()


def _read_meta(file: mmap.mmap) -> tuple[int, str]:
    """Return where the data set starts and its transfer syntax."""
    start = META_AT + GROUP_LENGTH_SIZE
    begins_well = file[128:META_AT] == PREFIX and file[META_AT : META_AT + 6] == b"\2\0\0\0UL"
    if not begins_well or len(file) < start:
        raise UnreadableDicom("is no Part 10 file with a group length")
    end = start + struct.unpack_from("<L", file, META_AT + 8)[0]
    at = start
    while at + 8 <= min(end, len(file)):
        group, element, vr, length = struct.unpack_from("<HH2sH", file, at)
        if (group, element) == (2, 0x10):
            return end, file[at + 8 : at + 8 + length].rstrip(b"\0 ").decode("ascii", "replace")
        at += 8 + length
        if vr in {b"OB", b"UN"} and at + 4 <= len(file):
            at += 4 + struct.unpack_from("<L", file, at)[0]
    raise UnreadableDicom("has no transfer syntax")
