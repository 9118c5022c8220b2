"""What can be told about an encoded data set without decoding a value: structure and UIDs.

The bytes are untrusted. Only tags, lengths and four UIDs are looked at (PS3.5 7); every length is
checked against what is really there, so a truncated data set is noticed before it is kept.
"""

import mmap
import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from pydicom.datadict import dictionary_VR
from pydicom.uid import AllTransferSyntaxes, ExplicitVRBigEndian, ImplicitVRLittleEndian

from app.errors import UnreadableDicom

Encoded = bytes | mmap.mmap

MAX_DEPTH = 32
"""Sequences nested deeper than this are refused."""

SYNTAXES = {str(syntax): syntax for syntax in AllTransferSyntaxes if not syntax.is_deflated}
"""All but the deflated ones: a megabyte of those can be a gigabyte inside."""

UID_FORM = re.compile(r"[0-9]+(\.[0-9]+)*")
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010
FIRST_DATA_TAG = 0x00080000  # groups below belong to commands and file meta, PS3.5 7.1
UIDS = {
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
}
# PS3.5 7.1.2: these carry a 32-bit length in explicit VR, the others a 16-bit one.
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
MAX_ELEMENTS = 4_000_000
"""Elements and items of one object; the largest honest ones have about a million."""

SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifiers:
    """The UIDs that say what an object is and where it belongs."""

    sop_class_uid: str
    sop_uid: str
    study_uid: str
    series_uid: str


def read_identifiers(
    dataset: Encoded, transfer_syntax: str, start: int = 0, end: int | None = None
) -> Identifiers:
    """Return the UIDs of a data set that is complete; refuse every other one.

    The whole structure is walked: each length must fit, each sequence and fragment must end.
    """
    walk = Walk(dataset, transfer_syntax)
    walk.elements(start, len(dataset) if end is None else end, 0)
    uids = {keyword: _uid(keyword, walk.found.get(tag)) for tag, keyword in UIDS.items()}
    return Identifiers(
        sop_class_uid=uids["SOPClassUID"],
        sop_uid=uids["SOPInstanceUID"],
        study_uid=uids["StudyInstanceUID"],
        series_uid=uids["SeriesInstanceUID"],
    )


def is_uid(text: str) -> bool:
    """Return whether it has the form of a UID (PS3.5 9.1)."""
    return len(text) <= 64 and UID_FORM.fullmatch(text) is not None  # noqa: PLR2004  # same


def _uid(keyword: str, value: bytes | None) -> str:
    if value is None:
        raise UnreadableDicom(f"{keyword} is missing")
    text = value.rstrip(b"\0 ").decode("ascii", "replace")
    if not is_uid(text):
        raise UnreadableDicom(f"{keyword} is empty or no valid UID")
    return text


class Walk:
    """One pass over the elements of a data set; `found` has the top-level UIDs."""

    def __init__(self, dataset: Encoded, transfer_syntax: str) -> None:
        syntax = SYNTAXES.get(transfer_syntax)
        if syntax is None:
            raise UnreadableDicom("its transfer syntax is not accepted")
        self.found: dict[int, bytes] = {}
        self._pixels_seen = False
        self._budget = [MAX_ELEMENTS]  # shared with the walks inside
        self._data = dataset
        self._explicit = syntax != ImplicitVRLittleEndian
        self._encapsulated = syntax.is_encapsulated
        order: Literal["<", ">"] = ">" if syntax == ExplicitVRBigEndian else "<"
        self._tag = struct.Struct(f"{order}HH").unpack_from
        self._short = struct.Struct(f"{order}H").unpack_from
        self._long = struct.Struct(f"{order}L").unpack_from

    def elements(self, at: int, end: int, depth: int, *, delimited: bool = False) -> int:
        """Walk the elements from `at` to `end`, or to their delimiter; return where they end."""
        while at < end:
            tag = self._read_tag(at, end)
            if tag == ITEM_END and delimited:
                return at + 8
            if tag < FIRST_DATA_TAG or tag >> 16 == 0xFFFE:  # noqa: PLR2004  # delimiter group
                raise UnreadableDicom(f"{_name(tag)} does not belong into a data set")
            vr, length, value = self._read_header(tag, at, end)
            if depth == 0:
                self._note(tag, length, value)
            if length == UNDEFINED:
                at = self._undefined(tag, vr, value, end, depth)
            elif vr == b"SQ" or (not vr and _is_sequence(tag)):
                at = self._items(tag, value, value + length, depth + 1)
            else:
                at = value + length
        if delimited:
            raise UnreadableDicom("an item has no end")
        return at

    def _read_tag(self, at: int, end: int) -> int:
        if end - at < 8:  # noqa: PLR2004  # the smallest element
            raise UnreadableDicom(f"the data set ends inside an element at byte {at}")
        self._budget[0] -= 1
        if self._budget[0] < 0:
            raise UnreadableDicom(f"it has more than {MAX_ELEMENTS} elements")
        group, element = self._tag(self._data, at)
        return int(group << 16 | element)

    def _read_header(self, tag: int, at: int, end: int) -> tuple[bytes, int, int]:
        """Return VR (empty when implicit), length and offset of the value."""
        if not self._explicit:
            vr, length, value = b"", int(self._long(self._data, at + 4)[0]), at + 8
        else:
            vr = self._data[at + 4 : at + 6]
            if vr in SHORT_VRS:
                length, value = int(self._short(self._data, at + 6)[0]), at + 8
            elif vr not in LONG_VRS:
                raise UnreadableDicom(f"{_name(tag)} has no valid VR")
            elif end - at < 12:  # noqa: PLR2004  # a header with 32-bit length
                raise UnreadableDicom(f"the data set ends inside {_name(tag)}")
            else:
                length, value = int(self._long(self._data, at + 8)[0]), at + 12
        if length != UNDEFINED and length > end - value:
            raise UnreadableDicom(
                f"{_name(tag)} says it has {length} bytes, {end - value} are there"
            )
        return vr, length, value

    def _note(self, tag: int, length: int, value: int) -> None:
        if tag == PIXEL_DATA and (length == UNDEFINED) != self._encapsulated:
            raise UnreadableDicom("the pixel data are not encoded as the transfer syntax says")
        self._pixels_seen |= tag == PIXEL_DATA
        if tag in UIDS:
            if tag in self.found or length > 65:  # noqa: PLR2004  # 64 and padding
                raise UnreadableDicom(f"{UIDS[tag]} stands twice or is too long")
            if self._pixels_seen:  # who reads headers alone would never come to it
                raise UnreadableDicom(f"{UIDS[tag]} stands behind the pixel data")
            self.found[tag] = self._data[value : value + length]

    def _undefined(self, tag: int, vr: bytes, at: int, end: int, depth: int) -> int:
        """Step through a value that ends with a delimiter; return where that stands."""
        if vr in {b"OB", b"OW"} or tag == PIXEL_DATA:
            return self._fragments(tag, at, end)
        if vr == b"UN":
            # PS3.5 6.2.2 note 2: the content is implicit VR little endian, whatever is outside
            inner = Walk(self._data, ImplicitVRLittleEndian)
            inner._budget = self._budget
            return inner._items(tag, at, end, depth + 1, delimited=True)
        if vr not in {b"", b"SQ"}:
            raise UnreadableDicom(f"{_name(tag)} may not have an undefined length")
        return self._items(tag, at, end, depth + 1, delimited=True)

    def _items(self, tag: int, at: int, end: int, depth: int, *, delimited: bool = False) -> int:
        if depth > MAX_DEPTH:
            raise UnreadableDicom(f"sequences are nested more than {MAX_DEPTH} deep")
        while at < end:
            inner = self._read_tag(at, end)
            length = int(self._long(self._data, at + 4)[0])
            at += 8
            if inner == SEQUENCE_END and delimited:
                return at
            if inner != ITEM or (length != UNDEFINED and length > end - at):
                raise UnreadableDicom(f"{_name(tag)} has a broken item")
            if length == UNDEFINED:
                at = self.elements(at, end, depth, delimited=True)
            else:
                at = self.elements(at, at + length, depth)
        if delimited:
            raise UnreadableDicom(f"{_name(tag)} has no end")
        return at

    def _fragments(self, tag: int, at: int, end: int) -> int:
        """Step over encapsulated fragments up to and with their delimiter (PS3.5 A.4)."""
        while at < end:
            inner = self._read_tag(at, end)
            length = int(self._long(self._data, at + 4)[0])
            at += 8
            if inner == SEQUENCE_END:
                return at
            if inner != ITEM or length > end - at:
                raise UnreadableDicom(f"{_name(tag)} has a broken fragment")
            at += length
        raise UnreadableDicom(f"{_name(tag)} has no end")


@lru_cache(maxsize=4096)
def _is_sequence(tag: int) -> bool:
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:  # private or unknown
        return False


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
