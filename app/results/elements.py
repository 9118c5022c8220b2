"""Sequences in explicit VR little endian, written as bytes and read back from bytes (PS3.5 7).

A segmentation says the same few things of thousands of frames. As pydicom's objects that takes
seconds, as bytes milliseconds. Writing and reading share nothing, so that neither hides a fault of
the other.
"""

import struct
from functools import cache
from typing import Any

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from app.errors import ResultRejected

Item = dict[str, Any]
"""An item of a sequence as it was read: keyword → bytes, or a list of items."""

_ITEM = b"\xfe\xff\x00\xe0"
_LONG = frozenset({b"OB", b"OW", b"SQ", b"UC", b"UN", b"UT"})
"""VRs with a length of 32 bits, as far as items of ours can have them."""
_HEADER = struct.Struct("<L2sH")
_LENGTH = struct.Struct("<L")


def element(keyword: str, vr: str, value: bytes) -> bytes:
    """Return one short element, padded to even length as its VR asks for."""
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    return _tag(keyword) + struct.pack("<2sH", vr.encode(), len(value)) + value


def sequence(keyword: str, *items: bytes) -> bytes:
    """Return one sequence of encoded items, with explicit lengths."""
    value = joined(items)
    return _tag(keyword) + struct.pack("<2sHL", b"SQ", 0, len(value)) + value


def joined(items: tuple[bytes, ...] | list[bytes]) -> bytes:
    """Return the value of a sequence of encoded items."""
    return b"".join([part for item in items for part in (_ITEM, _LENGTH.pack(len(item)), item)])


@cache
def _tag(keyword: str) -> bytes:
    tag = tag_for_keyword(keyword) or 0
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF)


def read_items(value: bytes) -> list[Item]:
    """Return the items of a sequence's value; its lengths must be explicit."""
    items, at = [], 0
    try:
        while at < len(value):
            (length,) = _LENGTH.unpack_from(value, at + 4)
            end = at + 8 + length
            if value[at : at + 4] != _ITEM or end > len(value):
                raise ResultRejected("a sequence of the result cannot be read; it is not sent")
            items.append(_read_item(value, at + 8, end))
            at = end
    except struct.error as error:
        raise ResultRejected("a sequence of the result ends early; it is not sent") from error
    return items


def _read_item(value: bytes, at: int, end: int) -> Item:
    item: Item = {}
    while at < end:
        tag, vr, length = _HEADER.unpack_from(value, at)
        at += 8
        if vr in _LONG:
            (length,) = _LENGTH.unpack_from(value, at)
            at += 4
        content = value[at : at + length]
        item[_keyword(tag)] = read_items(content) if vr == b"SQ" else content
        at += length
    return item


@cache
def _keyword(tag: int) -> str:
    return keyword_for_tag((tag & 0xFFFF) << 16 | tag >> 16)
