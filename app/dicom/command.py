"""DIMSE command sets: implicit VR little endian, group 0000, a dozen elements (PS3.7 6.3.1, E).

Our own reading and writing: a command is the only thing that is decoded for each object, and from
anybody, so it is done without objects of a library.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from app.dicom.encoded import UID_FORM
from app.dicom.wire import INVALID, PeerFault

C_STORE_RQ, C_GET_RQ, C_FIND_RQ, C_MOVE_RQ = 0x0001, 0x0010, 0x0020, 0x0021
C_ECHO_RQ, C_CANCEL_RQ = 0x0030, 0x0FFF
N_EVENT_REPORT_RQ, N_ACTION_RQ = 0x0100, 0x0130
RESPONSE = 0x8000
NO_DATASET, A_DATASET = 0x0101, 0x0001

GROUP_LENGTH, AFFECTED_CLASS, REQUESTED_CLASS = 0x0000, 0x0002, 0x0003
MOVE_DESTINATION, PRIORITY = 0x0600, 0x0700
FIELD, MESSAGE_ID, ANSWERED_ID = 0x0100, 0x0110, 0x0120
DATASET_TYPE, STATUS, COMMENT = 0x0800, 0x0900, 0x0902
AFFECTED_UID, REQUESTED_UID, EVENT_TYPE, ACTION_TYPE = 0x1000, 0x1001, 0x1002, 0x1008
REMAINING, COMPLETED, FAILED, WARNING = 0x1020, 0x1021, 0x1022, 0x1023

_ELEMENT = struct.Struct("<HHL")
_SHORT = struct.Struct("<H")
MAX_UID = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a peer asks or answers; a UID that is none is empty."""

    field: int
    message_id: int
    """Of a response, the message that it answers."""
    has_dataset: bool
    sop_class_uid: str
    sop_uid: str
    status: int
    action_type: int
    event_type: int = 0
    completed: int = 0
    """Sub-operations of a retrieval so far, as are the next two."""
    failed: int = 0
    warned: int = 0

    @property
    def is_response(self) -> bool:
        """Whether it answers something that we asked."""
        return bool(self.field & RESPONSE)


def parse(encoded: bytes) -> Command:
    """Read a command set; PeerFault when it is none."""
    elements = _elements(encoded)
    field = _short(elements, FIELD)
    answers = field & RESPONSE or field == C_CANCEL_RQ
    return Command(
        field=field,
        message_id=_short(elements, ANSWERED_ID if answers else MESSAGE_ID),
        has_dataset=_short(elements, DATASET_TYPE) != NO_DATASET,
        sop_class_uid=_uid(elements, AFFECTED_CLASS) or _uid(elements, REQUESTED_CLASS),
        sop_uid=_uid(elements, AFFECTED_UID) or _uid(elements, REQUESTED_UID),
        status=_short(elements, STATUS, 0),
        action_type=_short(elements, ACTION_TYPE, 0),
        event_type=_short(elements, EVENT_TYPE, 0),
        completed=_short(elements, COMPLETED, 0),
        failed=_short(elements, FAILED, 0),
        warned=_short(elements, WARNING, 0),
    )


def respond(
    command: Command, status: int, words: str = "", extra: Mapping[int, int | str] | None = None
) -> bytes:
    """Return the response to a command, without a data set."""
    elements: dict[int, int | str] = {
        AFFECTED_CLASS: command.sop_class_uid,
        FIELD: command.field | RESPONSE,
        ANSWERED_ID: command.message_id,
        DATASET_TYPE: NO_DATASET,
        STATUS: status,
        **({COMMENT: words[:64]} if words else {}),
        **({AFFECTED_UID: command.sop_uid} if command.sop_uid else {}),
        **(extra or {}),
    }
    return encode(elements)


def encode(elements: Mapping[int, int | str]) -> bytes:
    """Return a command set; numbers are US, texts are UIDs except comment and AE title."""
    content = b"".join(_encoded(number, elements[number]) for number in sorted(elements))
    return _ELEMENT.pack(0, GROUP_LENGTH, 4) + struct.pack("<L", len(content)) + content


def _encoded(number: int, value: int | str) -> bytes:
    if isinstance(value, int):
        content = _SHORT.pack(value)
    else:
        content = value.encode("ascii")
        if len(content) % 2:
            content += b" " if number in {COMMENT, MOVE_DESTINATION} else b"\0"
    return _ELEMENT.pack(0, number, len(content)) + content


def _elements(encoded: bytes) -> dict[int, bytes]:
    elements: dict[int, bytes] = {}
    at = 0
    while at < len(encoded):
        if len(encoded) - at < _ELEMENT.size:
            raise PeerFault("a command ends inside an element", INVALID)
        group, number, length = _ELEMENT.unpack_from(encoded, at)
        at += _ELEMENT.size
        if group or length > len(encoded) - at:
            raise PeerFault("a command is malformed", INVALID)
        elements[number] = encoded[at : at + length]
        at += length
    return elements


def _short(elements: Mapping[int, bytes], number: int, otherwise: int | None = None) -> int:
    value = elements.get(number)
    if not value and otherwise is not None:
        return otherwise
    if value is None or len(value) != _SHORT.size:
        raise PeerFault(f"a command lacks (0000,{number:04X})", INVALID)
    return int(_SHORT.unpack(value)[0])


def _uid(elements: Mapping[int, bytes], number: int) -> str:
    text = elements.get(number, b"").rstrip(b"\0 ").decode("ascii", "replace")
    return text if len(text) <= MAX_UID and UID_FORM.fullmatch(text) else ""
