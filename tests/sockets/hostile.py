"""A peer that keeps no rule: raw PDUs written by hand from PS3.8.

Nothing here comes from the library that the door uses, so that both cannot be wrong together.
"""

import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

VERIFICATION = "1.2.840.10008.1.1"
CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
CONTEXTS = ((1, VERIFICATION, (IMPLICIT,)), (3, CT, (EXPLICIT,)), (5, MR, (EXPLICIT,)))
COMMAND, LAST = 1, 2
DEADLINE_S = 15.0

Context = tuple[int, str, Sequence[str]]

# -- bytes by hand: PS3.8 9.3 --------------------------------------------------------------------


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    """Return a PDU; `length` may lie."""
    return struct.pack(">BxL", kind, len(body) if length is None else length) + body


def item(kind: int, body: bytes, length: int | None = None) -> bytes:
    """Return an item of an association request; `length` may lie."""
    return struct.pack(">BxH", kind, len(body) if length is None else length) + body


def associate_rq(
    contexts: Sequence[Context] = CONTEXTS,
    *,
    called: bytes = b"MARGINALIA",
    calling: bytes = b"HOSTILE",
    user: bytes = b"",
    version: int = 1,
) -> bytes:
    """Return an A-ASSOCIATE-RQ; titles are padded to 16 bytes or cut, `user` goes to its items."""
    information = item(0x51, struct.pack(">L", 1 << 16)) + item(0x52, b"2.25.1") + user
    body = struct.pack(">Hxx", version) + called.ljust(16)[:16] + calling.ljust(16)[:16] + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, sop_class, syntaxes in contexts:
        names = item(0x30, sop_class.encode()) + b"".join(item(0x40, s.encode()) for s in syntaxes)
        body += item(0x20, struct.pack(">Bxxx", number) + names)
    return pdu(ASSOCIATE_RQ, body + item(0x50, information, min(len(information), 0xFFFF)))


def pdv(context: int, control: int, fragment: bytes, length: int | None = None) -> bytes:
    """Return a presentation data value; `length` may lie."""
    size = len(fragment) + 2 if length is None else length
    return struct.pack(">LBB", size, context, control) + fragment


def message(context: int, command: bytes, dataset: bytes | None = None, size: int = 16000) -> bytes:
    """Return the P-DATA-TF PDUs of a DIMSE message, cut into fragments."""
    pdus = pdu(P_DATA, pdv(context, COMMAND | LAST, command))
    for at in range(0, 0 if dataset is None else max(1, len(dataset)), size):
        last = LAST if at + size >= len(dataset or b"") else 0
        pdus += pdu(P_DATA, pdv(context, last, (dataset or b"")[at : at + size]))
    return pdus


RELEASE = pdu(RELEASE_RQ, bytes(4))

# -- commands by hand: PS3.7 E.1, implicit VR little endian --------------------------------------


def command(elements: Mapping[int, bytes]) -> bytes:
    """Return a command set; the group length stands in front."""
    body = b"".join(
        struct.pack("<HHL", 0, number, len(value)) + value for number, value in elements.items()
    )
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def c_echo() -> bytes:
    """Return a C-ECHO-RQ."""
    return command({2: even(VERIFICATION), 0x100: us(0x30), 0x110: us(7), 0x800: us(0x0101)})


def c_store(sop_class: str | bytes, sop_uid: str | bytes) -> bytes:
    """Return a C-STORE-RQ under any UIDs."""
    return command(
        {
            0x0002: even(sop_class),
            0x0100: us(0x01),
            0x0110: us(7),
            0x0700: us(0),
            0x0800: us(0x0000),
            0x1000: even(sop_uid),
        }
    )


def us(number: int) -> bytes:
    """Return an unsigned short."""
    return struct.pack("<H", number)


def even(uid: str | bytes) -> bytes:
    """Return a UID's bytes, padded."""
    value = uid.encode() if isinstance(uid, str) else uid
    return value + b"\0" * (len(value) % 2)


def elements(encoded: bytes) -> dict[int, bytes]:
    """Return the elements of a command set by their number."""
    found, at = {}, 0
    while at < len(encoded):
        number, size = struct.unpack_from("<xxHL", encoded, at)
        found[number] = encoded[at + 8 : at + 8 + size]
        at += 8 + size
    return found


# -- data sets by hand: explicit VR little endian ------------------------------------------------


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Return a data element; `length` may lie."""
    size = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    long = vr in {b"OB", b"OW", b"SQ", b"UN", b"UT"}
    return head + (struct.pack("<xxL", size) if long else struct.pack("<H", size)) + value


def dataset(
    sop_uid: str | bytes,
    study_uid: str | bytes,
    *more: bytes,
    sop_class: str | bytes = CT,
    series_uid: str | bytes = "2.25.9",
) -> bytes:
    """Return a data set with these UIDs and, after them, these elements."""
    head = element(0x00080016, b"UI", even(sop_class)) + element(0x00080018, b"UI", even(sop_uid))
    uids = element(0x0020000D, b"UI", even(study_uid)) + element(
        0x0020000E, b"UI", even(series_uid)
    )
    return head + element(0x00100010, b"PN", b"ZZPHI^CANARY") + uids + b"".join(more)


# -- the peer ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pdu:
    """What came back."""

    kind: int
    body: bytes


class Peer:
    """One connection on which anything may be said."""

    def __init__(self, port: int, source: str = "127.0.0.1", timeout_s: float = DEADLINE_S) -> None:
        self.socket = socket.create_connection(
            ("127.0.0.1", port), timeout=timeout_s, source_address=(source, 0)
        )
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """Send; False when the other side has closed."""
        try:
            self.socket.sendall(data)
        except (ConnectionError, TimeoutError):
            return False
        return True

    def receive(self) -> Pdu | None:
        """Return the next PDU, or None when the other side has closed; a timeout is an error."""
        head = self._exactly(6)
        if head is None:
            return None
        kind, length = struct.unpack(">BxL", head)
        assert length < 1 << 20, f"a PDU of {length} bytes came from the door"
        body = self._exactly(length)
        return None if body is None else Pdu(kind, body)

    def _exactly(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            try:
                piece = self.socket.recv(size - len(data))
            except ConnectionError:
                return None
            if not piece:
                return None
            data += piece
        return bytes(data)

    def seconds_to_close(self, within_s: float) -> float:
        """Read on until the door closes, which it must do in time; return how long it took."""
        began = time.monotonic()
        self.socket.settimeout(within_s)
        while self.receive() is not None:
            assert time.monotonic() - began < within_s, "the door goes on talking"
        return time.monotonic() - began

    def reset(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    # -- in good manners -------------------------------------------------------------------------

    def associate(self, contexts: Sequence[Context] = CONTEXTS, **names: bytes) -> Self:
        """Associate; `answers` then holds each context's result (PS3.8 table 9-18)."""
        assert self.send(associate_rq(contexts, **names))
        answer = self.receive()
        assert answer is not None, "closed instead of an answer"
        assert answer.kind == ASSOCIATE_AC, answer
        self.answers = dict(_results(answer.body))
        return self

    def rejection(self, contexts: Sequence[Context] = CONTEXTS, **names: bytes) -> bytes | None:
        """Ask to associate; return result, source and reason of the refusal, None if let in.

        Nothing (`b""`) stands for an end without an answer: A-ABORT or a closed connection.
        """
        assert self.send(associate_rq(contexts, **names))
        answer = self.receive()
        if answer is None or answer.kind == ABORT:
            return b""
        return answer.body[1:4] if answer.kind == ASSOCIATE_RJ else None

    def status(self) -> int | None:
        """Return the status of the DIMSE message that comes; None when the association ended."""
        encoded = bytearray()
        while (found := self.receive()) is not None and found.kind == P_DATA:
            at = 0
            while at < len(found.body):
                size, _, control = struct.unpack_from(">LBB", found.body, at)
                encoded += found.body[at + 6 : at + 4 + size]
                at += 4 + size
                if control == COMMAND | LAST:
                    return int.from_bytes(elements(bytes(encoded))[0x0900], "little")
        return None

    def echo(self) -> int | None:
        """C-ECHO on context 1."""
        self.send(message(1, c_echo()))
        return self.status()

    def store(
        self, encoded: bytes, sop_uid: str | bytes, sop_class: str | bytes = CT, context: int = 3
    ) -> int | None:
        """C-STORE of any bytes under any UIDs."""
        self.send(message(context, c_store(sop_class, sop_uid), encoded))
        return self.status()

    def release(self) -> None:
        """End the association as one should."""
        assert self.send(RELEASE)
        answer = self.receive()
        assert answer is not None
        assert answer.kind == RELEASE_RP
        self.socket.close()


def _results(body: bytes) -> Iterator[tuple[int, int]]:
    at = 68
    while at < len(body):
        kind, size = struct.unpack_from(">BxH", body, at)
        if kind == 0x21:
            yield body[at + 4], body[at + 6]
        at += 4 + size


def pour(peer: Peer, piece: bytes, total: int, within_s: float = 30) -> int:
    """Send `piece` over and over; return how many bytes went before the door closed."""
    sent, deadline = 0, time.monotonic() + within_s
    send: Callable[[], bool] = partial(peer.send, piece)
    while sent < total and time.monotonic() < deadline and send():
        sent += len(piece)
    return sent
