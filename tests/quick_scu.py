"""A C-STORE sender of few lines: fast enough to measure a receiver, one blocking socket.

It proposes one presentation context a kind of object and sends bytes as they are. Built by hand
from PS3.8 9.3 and PS3.7 9.3.1, so that neither our door nor a library is its own judge.
"""

import socket
import struct
from collections.abc import Iterable
from typing import Self

APPLICATION = "1.2.840.10008.3.1.1.1"
LARGEST_PDU = 1 << 17
ENDED = -1


class QuickScu:
    """One association; `store` returns the status, or ENDED when there was no answer."""

    def __init__(
        self,
        port: int,
        kinds: Iterable[tuple[str, str]],
        *,
        calling: str = "PEER",
        called: str = "MARGINALIA",
        timeout_s: float = 60,
    ) -> None:
        self._kinds = {kind: 2 * number + 1 for number, kind in enumerate(dict.fromkeys(kinds))}
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._largest = self._associate(calling, called)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def store(self, sop_class: str, sop_uid: str, syntax: str, dataset: bytes) -> int:
        """Send one object and wait for its answer."""
        context = self._kinds[sop_class, syntax]
        try:
            self._socket.sendall(self.encoded(context, sop_class, sop_uid, dataset))
            kind, body = self._read()
        except OSError:
            return ENDED
        return _status(body[6:]) if kind == 4 else ENDED

    def encoded(self, context: int, sop_class: str, sop_uid: str, dataset: bytes) -> bytes:
        """Return a C-STORE request as PDUs of the size that the peer takes."""
        command = b"".join(
            (
                _element(0x0002, _padded(sop_class)),
                _element(0x0100, struct.pack("<H", 1)),
                _element(0x0110, struct.pack("<H", 1)),
                _element(0x0700, struct.pack("<H", 0)),
                _element(0x0800, struct.pack("<H", 1)),
                _element(0x1000, _padded(sop_uid)),
            )
        )
        command = _element(0x0000, struct.pack("<L", len(command))) + command
        step = self._largest - 6
        pieces = [_pdata(context, 3, command)]
        for at in range(0, len(dataset), step):
            last = at + step >= len(dataset)
            pieces.append(_pdata(context, 2 if last else 0, dataset[at : at + step]))
        return b"".join(pieces)

    def release(self) -> None:
        """End the association in good order."""
        self._socket.sendall(struct.pack(">BBLL", 5, 0, 4, 0))
        assert self._read()[0] == 6

    def _associate(self, calling: str, called: str) -> int:
        items = [_item(0x10, APPLICATION.encode())]
        for (sop_class, syntax), number in self._kinds.items():
            names = _item(0x30, sop_class.encode()) + _item(0x40, syntax.encode())
            items.append(_item(0x20, bytes((number, 0, 0, 0)) + names))
        user = _item(0x51, struct.pack(">L", LARGEST_PDU)) + _item(0x52, b"1.2.3.4")
        items.append(_item(0x50, user))
        titles = called.ljust(16).encode() + calling.ljust(16).encode()
        body = struct.pack(">HH", 1, 0) + titles + bytes(32) + b"".join(items)
        self._socket.sendall(struct.pack(">BBL", 1, 0, len(body)) + body)
        kind, answer = self._read()
        if kind != 2:  # A-ASSOCIATE-AC
            raise ConnectionError(f"the association was answered by PDU {kind}: {answer[:4].hex()}")
        return _largest_pdu(answer[68:])

    def _read(self) -> tuple[int, bytes]:
        kind, _, length = struct.unpack(">BBL", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        content = b""
        while len(content) < length:
            piece = self._socket.recv(length - len(content))
            if not piece:
                raise ConnectionError("the peer closed the connection")
            content += piece
        return content


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, element, len(value)) + value


def _padded(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def _pdata(context: int, control: int, content: bytes) -> bytes:
    head = struct.pack(">BBLLBB", 4, 0, len(content) + 6, len(content) + 2, context, control)
    return head + content


def _largest_pdu(items: bytes) -> int:
    """Return what the peer takes; 0 there means any."""
    at = 0
    while at + 4 <= len(items):
        kind, _, length = struct.unpack_from(">BBH", items, at)
        at += 4
        if kind == 0x51:
            said = struct.unpack_from(">L", items, at)[0]
            return min(said or LARGEST_PDU, LARGEST_PDU)
        at += 0 if kind == 0x50 else length  # the user information holds items itself
    return 16384


def _status(command: bytes) -> int:
    at = 0
    while at + 8 <= len(command):
        group, element, length = struct.unpack_from("<HHL", command, at)
        if (group, element) == (0, 0x0900):
            return int(struct.unpack_from("<H", command, at + 8)[0])
        at += 8 + length
    return ENDED
