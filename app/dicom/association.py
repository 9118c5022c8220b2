"""An association that we ask for: contexts out, what was agreed on back, then messages (PS3.8 9.3).

Every wait has a deadline. What breaks the protocol is a PeerFault, what ends early ConnectionLost;
whoever talks to the peer makes them errors that say what to do.
"""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from app.dicom import command as dimse
from app.dicom.command import Command
from app.dicom.dimse import IMPLEMENTATION_NAME, IMPLEMENTATION_UID
from app.dicom.messages import Messages, Pace
from app.dicom.wire import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    BY_USER,
    HEADER,
    INVALID,
    MAX_PDU,
    MAX_REQUEST,
    P_DATA,
    PDV_HEADER,
    RELEASE_RP,
    RELEASE_RQ,
    SMALLEST_PDU,
    ConnectionLost,
    PeerFault,
    Wire,
    end_of,
)
from app.errors import NodeError

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
MAX_CONTEXTS = 128
CONNECT_S = 10.0
HEADER_S = 5.0
RELEASE_S = 5.0

FIXED = struct.Struct(">H2x16s16s32x")
ITEM = struct.Struct(">BxH")
CONTEXT, ABSTRACT, SYNTAX, ACCEPTED, USER = 0x20, 0x30, 0x40, 0x21, 0x50
LENGTH, CLASS_UID, ROLE, VERSION = 0x51, 0x52, 0x54, 0x55


class Rejected(NodeError):
    """The peer does not want the association."""

    def __init__(self, result: int, source: int, reason: int) -> None:
        super().__init__(f"rejected with {result} {source} {reason}")
        self.permanent = result == 1
        self.why = (source, reason)
        """PS3.8 table 9-21."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Whom we call, and as whom."""

    name: str
    """What the site calls it."""
    host: str
    port: int
    called: str
    calling: str
    timeout_s: float = 60.0
    """The longest silence."""
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A presentation context that we ask for."""

    abstract: str
    syntaxes: tuple[str, ...]
    takes: bool = False
    """Whether the peer is to send in it, and we take (role selection, PS3.7 D.3.3.4)."""


class Association:
    """One association of ours, used by one thread; `interrupt` may come from another."""

    def __init__(self, peer: Peer, proposals: Sequence[Proposal]) -> None:
        self.contexts: dict[int, tuple[str, str]] = {}
        """Of what the peer accepted: context id → abstract and transfer syntax."""
        self._peer = peer
        self._connection = _connect(peer)
        first = {ASSOCIATE_AC: MAX_REQUEST, ASSOCIATE_RJ: 4, ABORT: 4}
        self._wire = Wire(self._connection, header_s=HEADER_S, send_s=peer.timeout_s, first=first)
        self._max_pdu = 0
        self._sent = 0
        try:
            self._associate(proposals)
        except BaseException:
            self._connection.close()
            raise
        pace = Pace(idle_s=peer.timeout_s)
        self._messages = Messages(self._wire, pace, self.contexts, threading.Event())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """Release in good order; abort when something went wrong."""
        try:
            if kind is None:
                self._release()
            else:
                self._wire.abort(*BY_USER)
                self._wire.farewell()
        finally:
            self._connection.close()

    def interrupt(self) -> None:
        """Wake the thread that waits for the peer: its wait ends with ConnectionLost."""
        end_of(self._connection, socket.SHUT_RD)

    def context(self, abstract: str, syntax: str | None = None) -> int | None:
        """Return the id of the accepted context of this kind, if there is one."""
        for number, agreed in self.contexts.items():
            if agreed[0] == abstract and syntax in {None, agreed[1]}:
                return number
        return None

    def request(
        self,
        context_id: int,
        field: int,
        dataset: bytes | memoryview = b"",
        extra: Mapping[int, int | str] | None = None,
    ) -> int:
        """Send a request of the context's own SOP class; return its message id."""
        self._sent += 1
        elements: dict[int, int | str] = {
            dimse.AFFECTED_CLASS: self.contexts[context_id][0],
            dimse.FIELD: field,
            dimse.MESSAGE_ID: self._sent,
            dimse.DATASET_TYPE: dimse.A_DATASET if len(dataset) else dimse.NO_DATASET,
            **(extra or {}),
        }
        self.send(context_id, dimse.encode(elements), dataset)
        return self._sent

    def send(self, context_id: int, command: bytes, dataset: bytes | memoryview = b"") -> None:
        """Send a message, a large one piece by piece."""
        self._wire.send_message(context_id, command, b"", self._max_pdu)
        size = max(SMALLEST_PDU, min(self._max_pdu or MAX_PDU, MAX_PDU)) - PDV_HEADER.size
        for at in range(0, len(dataset), size):
            piece = dataset[at : at + size]
            last = 2 if at + size >= len(dataset) else 0
            head = HEADER.pack(P_DATA, PDV_HEADER.size + len(piece))
            self._wire.send(head + PDV_HEADER.pack(len(piece) + 2, context_id, last) + piece)

    def receive(self) -> tuple[int, Command, Iterator[memoryview]]:
        """Return context, command and data set of the peer's next message."""
        message = self._messages.next()
        if message is None:
            raise ConnectionLost("released")
        return message

    # -- inside ------------------------------------------------------------------------------

    def _associate(self, proposals: Sequence[Proposal]) -> None:
        by = time.monotonic() + self._peer.timeout_s
        self._wire.send(_request(self._peer, proposals))
        kind, body = self._wire.read(by, self._peer.timeout_s)
        if kind == ABORT:
            raise ConnectionLost("aborted")
        if kind == ASSOCIATE_RJ:
            raise Rejected(*body[1:4])
        accepted, self._max_pdu = _agreement(bytes(body))
        self.contexts = {
            number: (proposals[number // 2].abstract, syntax)
            for number, syntax in accepted.items()
            if number % 2 and number // 2 < len(proposals)
        }
        self._wire.associated()

    def _release(self) -> None:
        """Say goodbye; what was wanted is known already, so that no answer does no harm."""
        with suppress(PeerFault, ConnectionLost):
            self._wire.send(HEADER.pack(RELEASE_RQ, 4) + bytes(4))
            by = time.monotonic() + RELEASE_S
            while self._wire.read(by, RELEASE_S)[0] not in {RELEASE_RP, ABORT}:
                pass


def _connect(peer: Peer) -> socket.socket:
    timeout = min(CONNECT_S, peer.timeout_s)
    connection = socket.create_connection((peer.host, peer.port), timeout)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection if peer.tls is None else peer.tls.wrap_socket(connection)
    except BaseException:
        connection.close()
        raise


def _request(peer: Peer, proposals: Sequence[Proposal]) -> bytes:
    """Return the A-ASSOCIATE-RQ; the contexts are numbered 1, 3, 5 … as they come."""
    items = [_item(0x10, APPLICATION_CONTEXT.encode())]
    for index, each in enumerate(proposals):
        names = _item(ABSTRACT, each.abstract.encode())
        names += b"".join(_item(SYNTAX, syntax.encode()) for syntax in each.syntaxes)
        items.append(_item(CONTEXT, struct.pack(">Bxxx", 2 * index + 1) + names))
    user = _item(LENGTH, struct.pack(">L", MAX_PDU)) + _item(CLASS_UID, IMPLEMENTATION_UID.encode())
    for uid in dict.fromkeys(each.abstract for each in proposals if each.takes):
        user += _item(ROLE, struct.pack(">H", len(uid)) + uid.encode() + bytes((0, 1)))
    user += _item(VERSION, IMPLEMENTATION_NAME.encode())
    titles = (title.strip().encode().ljust(16) for title in (peer.called, peer.calling))
    body = FIXED.pack(1, *titles) + b"".join(items) + _item(USER, user)
    return HEADER.pack(ASSOCIATE_RQ, len(body)) + body


def _item(kind: int, content: bytes) -> bytes:
    return ITEM.pack(kind, len(content)) + content


def _agreement(body: bytes) -> tuple[dict[int, str], int]:
    """Return transfer syntaxes by context id, and the longest list of PDVs that the peer takes."""
    contexts: dict[int, str] = {}
    max_pdu = 0
    for kind, content in _items(body[FIXED.size :]):
        if kind == ACCEPTED and len(content) > 4 and content[2] == 0:  # noqa: PLR2004  # PS3.8 9.3.3.2
            for inner, value in _items(content[4:]):
                if inner == SYNTAX:
                    contexts[content[0]] = value.rstrip(b"\0 ").decode("ascii", "replace")
        elif kind == USER:
            for inner, value in _items(content):
                if inner == LENGTH and len(value) == 4:  # noqa: PLR2004  # PS3.8 D.1
                    max_pdu = int.from_bytes(value)
    return contexts, max_pdu


def _items(content: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(content):
        if len(content) - at < ITEM.size:
            raise PeerFault("its answer to the association is cut short", INVALID)
        kind, length = ITEM.unpack_from(content, at)
        at += ITEM.size
        if length > len(content) - at:
            raise PeerFault("its answer to the association is malformed", INVALID)
        yield kind, content[at : at + length]
        at += length
