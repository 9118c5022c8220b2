"""The beginning of a Part 10 file that somebody sends: what it says the object is (PS3.10 7.1).

Nothing of it is kept, neither preamble nor meta: a file of ours gets a header of our own.
"""

import struct
from dataclasses import dataclass

from app.dicom.encoded import LONG_VRS, SHORT_VRS, is_uid
from app.errors import UnreadableDicom

MOST = 64 * 1024
"""A file meta longer than this is refused; it has a few hundred bytes."""

META_AT = 132
FIRST_AT = META_AT + 12  # behind (0002,0000) UL, the length of the group
WANTED = {0x02: "sop_class_uid", 0x03: "sop_uid", 0x10: "transfer_syntax"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMeta:
    """What a file claims about its data set, which starts at `dataset_at`."""

    sop_class_uid: str
    sop_uid: str
    transfer_syntax: str
    dataset_at: int


def read_file_meta(head: bytes | bytearray) -> FileMeta | None:
    """Return what the file meta says; None when `head` is too short to know."""
    if len(head) < FIRST_AT:
        return None
    if head[128:META_AT] != b"DICM":
        raise UnreadableDicom("is no Part 10 file: DICM is not where it must be")
    if head[META_AT : META_AT + 8] != b"\2\0\0\0UL\4\0":
        raise UnreadableDicom("its file meta has no group length")
    end = FIRST_AT + int(struct.unpack_from("<L", head, META_AT + 8)[0])
    if end > MOST:
        raise UnreadableDicom("its file meta is too long")
    if len(head) < end:
        return None
    found = _elements(memoryview(head)[:end])
    return FileMeta(**{name: _uid(name, found) for name in WANTED.values()}, dataset_at=end)


def _elements(meta: memoryview) -> dict[str, bytes]:
    """Return the wanted values; always explicit VR little endian, whatever follows."""
    found: dict[str, bytes] = {}
    at = FIRST_AT
    while at < len(meta):
        if len(meta) - at < 8:  # noqa: PLR2004  # the smallest element
            raise UnreadableDicom("its file meta ends inside an element")
        group, element, vr, length = struct.unpack_from("<HH2sH", meta, at)
        at += 8
        if group != 2 or vr not in SHORT_VRS | LONG_VRS:  # noqa: PLR2004  # group 0002
            raise UnreadableDicom("its file meta is broken")
        if vr in LONG_VRS:
            if len(meta) - at < 4:  # noqa: PLR2004  # a 32-bit length
                raise UnreadableDicom("its file meta ends inside an element")
            length = int(struct.unpack_from("<L", meta, at)[0])
            at += 4
        if length > len(meta) - at:
            raise UnreadableDicom("its file meta ends inside an element")
        if element in WANTED:
            found[WANTED[element]] = bytes(meta[at : at + length])
        at += length
    return found


def _uid(name: str, found: dict[str, bytes]) -> str:
    text = found.get(name, b"").rstrip(b"\0 ").decode("ascii", "replace")
    if not is_uid(text):
        raise UnreadableDicom(f"its file meta has no valid {name}")
    return text
