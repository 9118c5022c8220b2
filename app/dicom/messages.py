"""Messages out of PDUs: a command, then its data set piece by piece as it comes (PS3.8 Annex E)."""

import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from app.dicom.command import Command, parse
from app.dicom.wire import (
    ABORT,
    BY_USER,
    INVALID,
    P_DATA,
    PDV_HEADER,
    RELEASE_RQ,
    UNEXPECTED,
    ConnectionLost,
    PeerFault,
    Wire,
)

MAX_COMMAND = 64 * 1024
MAX_SMALL_DATASET = 4 << 20
"""Data sets that are no objects, such as a list of what is to be committed."""

Fragment = tuple[int, int, memoryview]
"""Context, control header (1 command, 2 last) and content, which is valid until the next one."""

Fragments = Iterator[Fragment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long a peer may be silent or busy with one message, and how large that may be."""

    idle_s: float
    object_s: float = 600
    min_rate_kb_s: float = 50
    object_gb: float = 2


class Messages:
    """What a peer says in an association, one message after the other.

    The limits on time are those of a message: from its first byte on, silence, a low rate and a
    long duration end the association alike.
    """

    def __init__(
        self, wire: Wire, pace: Pace, contexts: Collection[int], idle: threading.Event
    ) -> None:
        self._wire = wire
        self._pace = pace
        self._contexts = contexts
        self._idle = idle
        self._fragments = self._read()
        self._began: float | None = None
        self._received = 0

    def next(self) -> tuple[int, Command, Iterator[memoryview]] | None:
        """Return context, command and data set of the next message; None is a release.

        The data set must be read to its end before the next call.
        """
        self._began, self._received = None, 0
        self._idle.set()
        first = next(self._fragments, None)
        if first is None:
            return None
        if self._began is None:  # it came along with the end of the last one
            self._begin()
        context_id, command = self._command(first)
        return context_id, command, self._dataset(context_id) if command.has_dataset else iter(())

    def _begin(self) -> None:
        self._began = time.monotonic()
        self._idle.clear()

    def _command(self, first: Fragment) -> tuple[int, Command]:
        encoded = bytearray()
        fragment: Fragment | None = first
        while fragment is not None:
            context_id, control, piece = fragment
            if context_id not in self._contexts or context_id != first[0]:
                raise PeerFault("a message has a wrong presentation context", INVALID)
            encoded += piece
            if not control & 1 or len(encoded) > MAX_COMMAND:
                raise PeerFault("a message does not begin with a command", INVALID)
            if control & 2:
                return context_id, parse(bytes(encoded))
            fragment = next(self._fragments, None)
        raise PeerFault("a release in the middle of a message", UNEXPECTED)

    def _dataset(self, context_id: int) -> Iterator[memoryview]:
        for found, control, piece in self._fragments:
            if found != context_id or control & 1:
                raise PeerFault("a message does not go on with its data set", INVALID)
            yield piece
            if control & 2:
                return
        raise PeerFault("a release in the middle of a message", UNEXPECTED)

    def _read(self) -> Fragments:
        """Yield the fragments of all PDUs until the peer releases the association."""
        while True:
            kind, body = self._wire.read(*self._deadlines())
            if kind == RELEASE_RQ:
                return
            if kind == ABORT:
                raise ConnectionLost("aborted")
            if kind != P_DATA or not body:
                raise PeerFault("a PDU out of place", UNEXPECTED)
            if self._began is None:
                self._begin()
            self._received += len(body)
            if self._received > 2 * self._pace.object_gb * 1e9:
                raise PeerFault("a message has no end")
            yield from _pdvs(body)

    def _deadlines(self) -> tuple[float, float, str]:
        """Return when the next PDU must begin, how long it may take, and what it breaks."""
        now, idle = time.monotonic(), self._pace.idle_s
        if self._began is None:
            return now + idle, idle, "it is silent"
        end = self._began + self._pace.object_s
        if self._pace.min_rate_kb_s:
            earned = self._received / (self._pace.min_rate_kb_s * 1000)
            end = min(end, self._began + idle + earned)
        return min(now + idle, end), max(0.0, min(idle, end - now)), "a message takes"


def _pdvs(body: memoryview) -> Fragments:
    at = 0
    while at < len(body):
        if len(body) - at < PDV_HEADER.size:
            raise PeerFault("a PDV is cut short", INVALID)
        length, context_id, control = PDV_HEADER.unpack_from(body, at)
        end = at + 4 + length
        if length < 2 or end > len(body):  # noqa: PLR2004  # context and control header
            raise PeerFault("a PDV does not fit its PDU", INVALID)
        yield context_id, control, body[at + PDV_HEADER.size : end]
        at = end


def joined(content: Iterator[memoryview]) -> bytes:
    """Return a small data set in one piece."""
    whole = bytearray()
    for piece in content:
        whole += piece
        if len(whole) > MAX_SMALL_DATASET:
            raise PeerFault("a data set is too long for what is asked", BY_USER)
    return bytes(whole)
