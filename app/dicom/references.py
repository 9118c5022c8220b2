"""The two data sets of storage commitment as bytes: which objects are meant (PS3.4 J.3.2, J.3.3).

Read and written without a library's objects: a list of twenty thousand references costs a tenth of
a second and a few megabytes here, and a peer may send several at once.
"""

import struct
from collections.abc import Iterable, Sequence

from app.dicom.encoded import LONG_VRS, SHORT_VRS, UID_FORM, UNDEFINED
from app.errors import UnreadableDicom

COMMITMENT = "1.2.840.10008.1.20.1"
WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Storage Commitment Push Model: its SOP class and the one instance of it (PS3.4 J.3)."""

CLASS, INSTANCE, TRANSACTION = 0x00081150, 0x00081155, 0x00081195
REASON, FAILED, REFERENCED = 0x00081197, 0x00081198, 0x00081199
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
MAX_UID = 64
MAX_DEPTH = 4
MOST_OBJECTS = 20_000

Reference = tuple[str, str]
"""SOP class and SOP instance."""

_HEAD = struct.Struct("<HHL")
_EXPLICIT = struct.Struct("<HH2sH")


def read_request(dataset: bytes, *, explicit: bool) -> tuple[str, tuple[Reference, ...]]:
    """Return the transaction and the objects of a request, in little endian."""
    reader = _Reader(dataset, explicit=explicit)
    uids = reader.elements(0, len(dataset), 0)[1]
    if not reader.wanted:
        raise UnreadableDicom("no object is named")
    return _uid(uids, TRANSACTION), tuple(reader.wanted)


def read_report(
    dataset: bytes, *, explicit: bool
) -> tuple[str, tuple[Reference, ...], tuple[tuple[Reference, int], ...]]:
    """Return the transaction, the objects that are held and those that are not, with reasons."""
    reader = _Reader(dataset, explicit=explicit)
    uids = reader.elements(0, len(dataset), 0)[1]
    return _uid(uids, TRANSACTION), tuple(reader.wanted), tuple(reader.failed)


def write_request(transaction: str, wanted: Sequence[Reference], *, explicit: bool) -> bytes:
    """Return the data set of a request, in little endian."""
    return write_report(transaction, wanted, (), explicit=explicit)


def write_report(
    transaction: str,
    held: Sequence[Reference],
    failed: Sequence[tuple[Reference, int]],
    *,
    explicit: bool,
) -> bytes:
    """Return the data set of a report, in little endian."""
    write = _Writer(explicit=explicit)
    content = write.uid(TRANSACTION, transaction)
    if failed:
        items = (write.item(each, reason) for each, reason in failed)
        content += write.sequence(FAILED, items)
    if held:
        content += write.sequence(REFERENCED, map(write.item, held))
    return content


def _uid(found: dict[int, bytes], tag: int) -> str:
    text = found.get(tag, b"").rstrip(b"\0 ").decode("ascii", "replace")
    if len(text) > MAX_UID or not UID_FORM.fullmatch(text):
        raise UnreadableDicom("a UID is missing or none")
    return text


class _Reader:
    """One pass over a request; what is not looked for is stepped over."""

    def __init__(self, content: bytes, *, explicit: bool) -> None:
        self._content = content
        self._explicit = explicit
        self._items = 0
        self.wanted: list[Reference] = []
        self.failed: list[tuple[Reference, int]] = []

    def elements(
        self, at: int, end: int, depth: int, *, delimited: bool = False
    ) -> tuple[int, dict[int, bytes]]:
        """Return where the elements end, and the UIDs among them."""
        found: dict[int, bytes] = {}
        while at < end:
            tag, length, value = self._head(at, end)
            if tag == ITEM_END and delimited:
                return value, found
            if tag in {REFERENCED, FAILED} and depth == 0:
                at = self._sequence(value, length, end, 1, of=tag)
            elif length == UNDEFINED:
                at = self._sequence(value, length, end, depth + 1)
            else:
                at = value + length
                if tag in {CLASS, INSTANCE, TRANSACTION, REASON}:
                    found[tag] = self._content[value : min(at, value + MAX_UID + 2)]
        if delimited:
            raise UnreadableDicom("an item has no end")
        return at, found

    def _sequence(self, at: int, length: int, end: int, depth: int, *, of: int = 0) -> int:
        if depth > MAX_DEPTH:
            raise UnreadableDicom("sequences are nested too deep")
        delimited = length == UNDEFINED
        end = end if delimited else at + length
        while at < end:
            tag, length, value = self._head(at, end)
            if tag == SEQUENCE_END and delimited:
                return value
            self._items += 1
            if tag != ITEM or self._items > MOST_OBJECTS:
                raise UnreadableDicom("a sequence is broken or too long")
            undefined = length == UNDEFINED
            item_end = end if undefined else value + length
            at, found = self.elements(value, item_end, depth, delimited=undefined)
            if of:
                self._note(of, found)
        if delimited:
            raise UnreadableDicom("a sequence has no end")
        return at

    def _note(self, of: int, found: dict[int, bytes]) -> None:
        reference = (_uid(found, CLASS), _uid(found, INSTANCE))
        if of == REFERENCED:
            self.wanted.append(reference)
        else:
            self.failed.append((reference, int.from_bytes(found.get(REASON, b"")[:2], "little")))

    def _head(self, at: int, end: int) -> tuple[int, int, int]:
        """Return tag, length and where the value begins; a value that is not there is refused."""
        if end - at < _HEAD.size:
            raise UnreadableDicom("it ends inside an element")
        group, element, length = _HEAD.unpack_from(self._content, at)
        value = at + _HEAD.size
        if self._explicit and group != 0xFFFE:  # noqa: PLR2004  # items carry no VR
            vr = self._content[at + 4 : at + 6]
            length >>= 16
            if vr in LONG_VRS and end - value >= 4:  # noqa: PLR2004  # its 32-bit length
                length = int.from_bytes(self._content[value : value + 4], "little")
                value += 4
            elif vr not in SHORT_VRS:
                raise UnreadableDicom("an element has no valid VR")
        if length != UNDEFINED and length > end - value:
            raise UnreadableDicom("an element is longer than what is there")
        return int(group << 16 | element), int(length), value


class _Writer:
    """Elements in little endian."""

    def __init__(self, *, explicit: bool) -> None:
        self._explicit = explicit

    def uid(self, tag: int, text: str) -> bytes:
        """Return an element with a UID."""
        value = text.encode("ascii")
        return self._short(tag, b"UI", value + b"\0" * (len(value) % 2))

    def item(self, reference: Reference, reason: int | None = None) -> bytes:
        """Return an item that names an object, and perhaps why it failed."""
        content = self.uid(CLASS, reference[0]) + self.uid(INSTANCE, reference[1])
        if reason is not None:
            content += self._short(REASON, b"US", struct.pack("<H", reason))
        return _HEAD.pack(ITEM >> 16, ITEM & 0xFFFF, len(content)) + content

    def sequence(self, tag: int, items: Iterable[bytes]) -> bytes:
        """Return a sequence of these items."""
        content = b"".join(items)
        if not self._explicit:
            return _HEAD.pack(tag >> 16, tag & 0xFFFF, len(content)) + content
        head = _EXPLICIT.pack(tag >> 16, tag & 0xFFFF, b"SQ", 0)
        return head + struct.pack("<L", len(content)) + content

    def _short(self, tag: int, vr: bytes, value: bytes) -> bytes:
        if not self._explicit:
            return _HEAD.pack(tag >> 16, tag & 0xFFFF, len(value)) + value
        return _EXPLICIT.pack(tag >> 16, tag & 0xFFFF, vr, len(value)) + value
