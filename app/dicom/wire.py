"""PDUs off and onto one connection: each length is known to be bearable before it is buffered.

PS3.8 9.3. Every wait has a deadline; nothing here knows what the bytes mean.
"""

import socket
import ssl
import struct
import time
from collections.abc import Mapping
from contextlib import suppress

from app.errors import NodeError

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)

HEADER = struct.Struct(">BxL")
PDV_HEADER = struct.Struct(">LBB")
TIMEVAL = struct.Struct("@ll")
RELEASE_ANSWER = HEADER.pack(RELEASE_RP, 4) + bytes(4)

MAX_REQUEST = 64 * 1024
"""Longest A-ASSOCIATE-RQ; the largest honest ones have some 30 KiB."""

MAX_PDU = 512 * 1024
"""Longest list of PDVs that we announce and take."""

SMALLEST_PDU = 1024
"""A peer that says it takes less would have an answer cut into thousands of pieces."""

POLL_S = 5.0
FAREWELL_S = 1.0
FAREWELL_BYTES = 8 << 20

# PS3.8 table 9-26: who aborts, and why
BY_USER = (0, 0)
UNSPECIFIED, UNRECOGNIZED, UNEXPECTED, INVALID = (2, 0), (2, 1), (2, 2), (2, 6)


class PeerFault(NodeError):
    """The peer broke the protocol or was too slow."""

    def __init__(self, words: str, abort: tuple[int, int] = UNSPECIFIED) -> None:
        super().__init__(words)
        self.abort = abort
        """Source and reason of the A-ABORT that it is told."""


class ConnectionLost(NodeError):
    """The peer is gone; how, in a word or two."""

    def __init__(self, words: str = "lost") -> None:
        super().__init__(words)


class Wire:
    """One connection, used by one thread."""

    def __init__(
        self,
        connection: socket.socket,
        *,
        header_s: float,
        send_s: float = POLL_S,
        first: Mapping[int, int] | None = None,
    ) -> None:
        """Take nothing but `first`, types and lengths, before the association: its request."""
        self._connection = connection
        self._header_s = header_s
        self._send_s = send_s
        self._content = memoryview(bytearray(HEADER.size + MAX_REQUEST + HEADER.size))
        self._end = 0  # bytes that are there
        self._used = 0  # of these, the PDU that was returned last
        self._timeout = 0.0
        self._limits = dict(first or {ASSOCIATE_RQ: MAX_REQUEST})

    def associated(self) -> None:
        """From here on only what an association needs is taken, with larger buffers."""
        content = memoryview(bytearray(HEADER.size + MAX_PDU + HEADER.size))
        rest = self._end - self._used
        content[:rest] = self._content[self._used : self._end]
        self._content, self._used, self._end = content, 0, rest
        self._limits = {P_DATA: MAX_PDU, RELEASE_RQ: 4, RELEASE_RP: 4, ABORT: 4}

    def read(
        self, first_by: float, pdu_s: float, words: str = "it is silent"
    ) -> tuple[int, memoryview]:
        """Return type and content of the next PDU; the content is valid until the next call.

        `first_by` is when its first byte must be there, or `words` say what is wrong with that;
        `pdu_s` is how long it may take from then.
        """
        rest = self._end - self._used
        if rest:
            self._content[:rest] = self._content[self._used : self._end]
        self._end, self._used = rest, 0
        self._fill(1, first_by, HEADER.size, words)
        began = time.monotonic()
        header_by = began + min(self._header_s, pdu_s)
        self._fill(HEADER.size, header_by, HEADER.size, "a PDU's header takes")
        kind, length = HEADER.unpack_from(self._content)
        size = HEADER.size + self._permitted(kind, length)
        self._fill(size, began + pdu_s, size + HEADER.size, "a PDU takes")
        self._used = size
        return kind, self._content[HEADER.size : size]

    def _permitted(self, kind: int, length: int) -> int:
        limit = self._limits.get(kind)
        if limit is None:
            known = ASSOCIATE_RQ <= kind <= ABORT
            raise PeerFault(
                f"PDU type {kind:02X} has no place here", UNEXPECTED if known else UNRECOGNIZED
            )
        if length > limit or (limit == 4 and length != limit):  # noqa: PLR2004  # PS3.8 9.3.6 to 9.3.8
            raise PeerFault(f"a PDU says it has {length} bytes, {limit} are taken", INVALID)
        return length

    def _fill(self, wanted: int, by: float, at_most: int, words: str) -> None:
        """Read until `wanted` bytes are there; never beyond `at_most`."""
        while self._end < wanted:
            self._wait_at_most(by - time.monotonic(), words)
            try:
                read = self._connection.recv_into(self._content[self._end : at_most])
            except (TimeoutError, BlockingIOError):
                continue
            except (OSError, ValueError) as error:  # ValueError: closed while TLS began
                raise ConnectionLost from error
            if not read:
                raise ConnectionLost
            self._end += read
            # a sender that follows Nagle holds the rest of a message until we acknowledge its
            # beginning, which we would put off for 40 ms; the kernel forgets the wish each time
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _wait_at_most(self, left: float, words: str) -> None:
        if left <= 0:
            raise PeerFault(f"{words} too long")
        self._wait_for(min(POLL_S, left))

    def _wait_for(self, seconds: float) -> None:
        """Set how long one call may wait; each change is a system call."""
        if seconds != self._timeout:
            set_timeout(self._connection, seconds)
            self._timeout = seconds

    # -- onto it -----------------------------------------------------------------------------

    def send(self, content: bytes) -> None:
        """Send bytes; a peer that does not read them is gone."""
        self._wait_for(self._send_s)
        by, rest = time.monotonic() + self._send_s, memoryview(content)
        try:
            while rest:
                if time.monotonic() > by:
                    raise ConnectionLost
                rest = rest[self._connection.send(rest) :]
        except OSError as error:
            raise ConnectionLost from error

    def send_message(self, context_id: int, command: bytes, dataset: bytes, max_pdu: int) -> None:
        """Send a command and its data set in PDUs that the peer takes (PS3.8 Annex D.1)."""
        size = max(SMALLEST_PDU, max_pdu or MAX_PDU) - PDV_HEADER.size
        pieces = [
            *pieces_of(context_id, command, 1, size),
            *pieces_of(context_id, dataset, 0, size),
        ]
        self.send(b"".join(pieces))

    def abort(self, source: int, reason: int) -> None:
        """Tell the peer that it is over; whether it hears it does not matter."""
        with suppress(ConnectionLost):
            self.send(HEADER.pack(ABORT, 4) + bytes((0, 0, source, reason)))

    def farewell(self) -> None:
        """Close such that the peer can read our last words: unread bytes would reset them away."""
        deadline, left = time.monotonic() + FAREWELL_S, FAREWELL_BYTES
        with suppress(OSError, ValueError):
            if isinstance(self._connection, ssl.SSLSocket):
                self._connection.settimeout(FAREWELL_S)
                self._connection.unwrap()
            socket.socket.shutdown(self._connection, socket.SHUT_WR)
            while left > 0 and (rest := deadline - time.monotonic()) > 0:
                self._connection.settimeout(rest)
                read = self._connection.recv_into(self._content)
                if not read:
                    break
                left -= read


def set_timeout(connection: socket.socket, seconds: float) -> None:
    """Let the kernel watch the time: Python's own timeouts ask it before each call (poll)."""
    if isinstance(connection, ssl.SSLSocket):  # which goes on waiting when the kernel gives up
        connection.settimeout(seconds)
        return
    connection.settimeout(None)
    whole, part = divmod(max(1, int(seconds * 1_000_000)), 1_000_000)  # 0 would be for ever
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, TIMEVAL.pack(whole, part))


def pieces_of(context_id: int, content: bytes, control: int, size: int) -> list[bytes]:
    """Return P-DATA PDUs of one PDV each; `control` is 1 for a command (PS3.8 Annex E.2)."""
    pieces = []
    for at in range(0, len(content), size):
        piece = content[at : at + size]
        last = 2 if at + size >= len(content) else 0
        pdv = PDV_HEADER.pack(len(piece) + 2, context_id, control | last)
        pieces += [HEADER.pack(P_DATA, len(pdv) + len(piece)), pdv, piece]
    return pieces


def end_of(connection: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """Wake whoever waits for this connection; safe while another thread uses it, TLS included."""
    with suppress(OSError):
        socket.socket.shutdown(connection, how)
