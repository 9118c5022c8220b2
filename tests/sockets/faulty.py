"""An archive that keeps no rule: it accepts an association and then does what a test says.

Written by hand from PS3.7 and PS3.8, without the code under test. Unless told otherwise it answers
C-FIND with its objects and C-GET by sending them.
"""

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.sockets import hostile
from tests.sockets.hostile import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    RELEASE_RP,
    RELEASE_RQ,
    even,
    us,
)
from tests.sockets.scu import Made

FIND, GET, MOVE, STORE = 0x20, 0x10, 0x21, 0x01
PENDING, NO_DATASET = 0xFF00, 0x0101


class Call:
    """One association with us; used by one thread."""

    def __init__(self, connection: socket.socket, closing: threading.Event) -> None:
        self.socket = connection
        self.closing = closing
        self.contexts: dict[int, tuple[str, str]] = {}
        self.message = us(1)

    def pdu(self) -> tuple[int, bytes]:
        """Return the next PDU; ConnectionError when we are gone."""
        kind, length = struct.unpack(">BxL", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            piece = self.socket.recv(size - len(content))
            if not piece:
                raise ConnectionError
            content += piece
        return content

    def accept(self) -> None:
        """Accept every context with its first syntax."""
        _, body = self.pdu()
        items = hostile.item(0x10, b"1.2.840.10008.3.1.1.1")
        for kind, content in _items(body[68:]):
            if kind == 0x20:
                names = [(inner, value.decode()) for inner, value in _items(content[4:])]
                abstract = next(value for inner, value in names if inner == 0x30)
                syntax = next(value for inner, value in names if inner == 0x40)
                self.contexts[content[0]] = abstract, syntax
                accepted = struct.pack(">BxBx", content[0], 0)
                items += hostile.item(0x21, accepted + hostile.item(0x40, syntax.encode()))
        user = hostile.item(0x50, hostile.item(0x51, struct.pack(">L", 16384)))
        self.socket.sendall(hostile.pdu(ASSOCIATE_AC, body[:68] + items + user))

    def command(self) -> dict[int, bytes]:
        """Return the next command and forget its data set; ConnectionError after a release."""
        encoded, ended = b"", False
        while not ended:
            kind, body = self.pdu()
            if kind == RELEASE_RQ:
                self.socket.sendall(hostile.pdu(RELEASE_RP, bytes(4)))
            if kind != hostile.P_DATA:
                raise ConnectionError
            at = 0
            while at < len(body):
                size, _, control = struct.unpack_from(">LBB", body, at)
                if control & 1:
                    encoded += body[at + 6 : at + 4 + size]
                at += 4 + size
                elements = hostile.elements(encoded)
                has_dataset = elements.get(0x0800) != us(NO_DATASET)
                ended = control == (2 if has_dataset else 3)
        return hostile.elements(encoded)

    def say(self, field: int, status: int, dataset: bytes | None = None, **counts: int) -> None:
        """Answer the last request, in context 1 whatever its own was."""
        numbers = {"completed": 0x1021, "failed": 0x1022, "warned": 0x1023}
        elements = {
            0x0002: even(self.contexts[1][0]),
            0x0100: us(field | 0x8000),
            0x0120: self.message,
            0x0800: us(NO_DATASET if dataset is None else 0),
            0x0900: us(status),
            **{numbers[name]: us(number) for name, number in counts.items()},
        }
        self.socket.sendall(hostile.message(1, hostile.command(elements), dataset))

    def store(self, made: Made, sop_uid: str | None = None) -> int:
        """Send an object as a sub-operation; return what we answer."""
        agreed = {names: number for number, names in self.contexts.items()}
        context = agreed[made.sop_class, made.syntax]
        request = hostile.c_store(made.sop_class, sop_uid or made.sop_uid)
        self.socket.sendall(hostile.message(context, request, made.dataset))
        return int.from_bytes(self.command()[0x0900], "little")

    def abort(self) -> None:
        """End it rudely."""
        self.socket.sendall(hostile.pdu(ABORT, bytes(4)))
        raise ConnectionError


Serve = Callable[[Call], None]


@dataclass
class Faulty:
    """What the archive has, and what it does for each kind of request."""

    objects: Sequence[Made] = ()
    does: dict[int, Serve] = field(default_factory=dict)
    """Field of the request → what is done instead of answering it well."""
    instead: Serve | None = None
    """Done with the connection, before any PDU is read."""
    port: int = 0
    asked: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """What it answers to our objects, in order; then it takes them."""
    told: list[int] = field(default_factory=list)
    """What we answered to its objects."""

    def serve(self, call: Call) -> None:
        """Serve one connection."""
        if self.instead is not None:
            self.instead(call)
            return
        call.accept()
        while True:
            request = call.command()
            call.message, asked = request[0x0110], int.from_bytes(request[0x0100], "little")
            self.asked.append(asked)
            usual = {FIND: self._list, GET: self._send, MOVE: self._claim, STORE: self._take}
            (usual | self.does)[asked](call)

    def _list(self, call: Call) -> None:
        for each in self.objects:
            uids = {0x00080016: each.sop_class, 0x00080018: each.sop_uid}
            uids |= {0x0020000D: each.study_uid, 0x0020000E: f"{each.study_uid}.1"}
            encoded = (hostile.element(tag, b"UI", even(uid)) for tag, uid in uids.items())
            call.say(FIND, PENDING, b"".join(encoded))
        call.say(FIND, 0)

    def _send(self, call: Call) -> None:
        self.told += [call.store(each) for each in self.objects]
        call.say(GET, 0, completed=len(self.objects))

    def _take(self, call: Call) -> None:
        call.say(STORE, self.answers.pop(0) if self.answers else 0)

    def _claim(self, call: Call) -> None:
        call.say(MOVE, 0, completed=len(self.objects))


def silent(call: Call) -> None:
    """Say nothing until the test ends."""
    call.closing.wait(30)


def rejecting(result: int, source: int, reason: int) -> Serve:
    """Reject the association."""

    def serve(call: Call) -> None:
        call.pdu()
        call.socket.sendall(hostile.pdu(ASSOCIATE_RJ, bytes((0, result, source, reason))))

    return serve


@contextmanager
def running(faulty: Faulty) -> Iterator[Faulty]:
    """Run it on a free port until the end of the block."""
    listener = socket.create_server(("127.0.0.1", 0))
    faulty.port = listener.getsockname()[1]
    closing = threading.Event()
    threads: list[threading.Thread] = []

    def attend(connection: socket.socket) -> None:
        connection.settimeout(30)
        with connection, suppress(OSError):
            faulty.serve(Call(connection, closing))

    def listen() -> None:
        with suppress(OSError):
            while True:
                thread = threading.Thread(target=attend, args=(listener.accept()[0],), daemon=True)
                thread.start()
                threads.append(thread)

    threads.append(threading.Thread(target=listen, daemon=True))
    threads[0].start()
    try:
        yield faulty
    finally:
        closing.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for each in [*threads]:
            each.join(30)


def _items(content: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(content):
        kind, length = struct.unpack_from(">BxH", content, at)
        yield kind, content[at + 4 : at + 4 + length]
        at += 4 + length
