"""The STOW-RS port under bytes that chance has made: good requests, mutated (S44).

Covered: requests of one and several objects, with a length and in chunks, with every byte of line,
headers, boundaries, part headers, files and data sets flipped, cut, doubled, spliced and lied
about, with and without the body's length put right. Not covered: TLS, slow bodies (test_stow) and
what only an hour finds: `pytest tests/faults --fuzz-seconds 3600`.
"""

import socket
import struct
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from tests.faults.fuzz import Mutator, Watch, survived
from tests.sockets.besieged import Besieged
from tests.sockets.hostile import CT, EXPLICIT, dataset, element, even
from tests.sockets.scu import new_study

TOKEN = "token-of-a-fuzzer"  # noqa: S105  # no secret
THREADS = 4
LINGERING = 12
ANSWER_S = 0.05
"""An answer usually comes at once; one that waits for the rest of a body is not waited for."""
LINE = b"POST /dicom-web/studies%b HTTP/1.1\r\n"
STORED = b'"00081199"'


def file(sop_uid: str, study_uid: str, size: int = 256) -> bytes:
    """Return a file of Part 10, by hand (PS3.10 7.1)."""
    meta = b"".join(
        element(tag, vr, value)
        for tag, vr, value in (
            (0x00020001, b"OB", b"\0\1"),
            (0x00020002, b"UI", even(CT)),
            (0x00020003, b"UI", even(sop_uid)),
            (0x00020010, b"UI", even(EXPLICIT)),
            (0x00020012, b"UI", even("2.25.1")),
        )
    )
    length = element(0x00020000, b"UL", struct.pack("<L", len(meta)))
    pixels = element(0x7FE00010, b"OW", bytes(size))
    return bytes(128) + b"DICM" + length + meta + dataset(sop_uid, study_uid, pixels)


def body(*files: bytes, boundary: bytes = b"fuzz-8f2e") -> bytes:
    """Return a multipart body."""
    head = b"--" + boundary + b"\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + each + b"\r\n" for each in files) + b"--" + boundary + b"--\r\n"


def head(*more: bytes, study: bytes = b"", token: str = TOKEN) -> bytes:
    """Return a request's head, its last lines given."""
    lines = (
        b"Host: door",
        b"Connection: close",
        f"Authorization: Bearer {token}".encode(),
        b'Content-Type: multipart/related; type="application/dicom"; boundary=fuzz-8f2e',
        b"Accept: application/dicom+json",
        *more,
    )
    return LINE % study + b"\r\n".join(lines) + b"\r\n\r\n"


def sized(content: bytes) -> bytes:
    """Return the header line with a body's length."""
    return b"Content-Length: %d" % len(content)


def chunked(content: bytes, size: int = 700) -> bytes:
    """Return a body in chunks (RFC 9112 7.1)."""
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"


def good() -> tuple[list[bytes], list[bytes]]:
    """Return whole requests, and bodies alone."""
    study = new_study()
    one = body(file(f"{study}.1", study))
    three = body(*(file(f"{study}.{n}", study, size=3000) for n in range(2, 5)))
    requests = [
        head(sized(one)) + one,
        head(sized(three), study=f"/{study}".encode()) + three,
        head(b"Transfer-Encoding: chunked") + chunked(three),
        head(sized(one), b"Expect: 100-continue") + one,
        LINE.replace(b"POST", b"GET") % b"" + b"Host: door\r\nConnection: close\r\n\r\n",
    ]
    return requests, [one, three, body()]


class Requests(Mutator):
    """Mutates whole requests, and bodies alone so that deeper layers are reached."""

    def __init__(self, seed: int) -> None:
        requests, self._bodies = good()
        super().__init__(seed, [*requests, *self._bodies])

    def one(self) -> bytes:
        """Return one bad request."""
        if self.chance.random() < 0.4:
            return super().one()
        content = bytearray(self.chance.choice(self._bodies))
        self.change(content)
        if self.chance.random() < 0.7:
            return head(sized(content)) + bytes(content)
        return head(b"Transfer-Encoding: chunked") + chunked(bytes(content))


class Attacker:
    """Sends the requests; some connections are reset, some are left hanging for a while."""

    def __init__(self, port: int, mutator: Mutator) -> None:
        self._to, self._chance = ("127.0.0.1", port), mutator.chance
        self._hanging: deque[socket.socket] = deque()
        self.statuses: dict[bytes, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._hanging:
            each.close()

    def say(self, request: bytes) -> None:
        """Send one request and note what is answered, if anything is."""
        source = (f"127.0.0.{self._chance.randrange(2, 30)}", 0)
        connection = socket.create_connection(self._to, ANSWER_S, source)
        with suppress(OSError):
            connection.sendall(request)
        fate = self._chance.random()
        if fate < 0.05:
            self._hanging.append(connection)
            connection = self._hanging.popleft() if len(self._hanging) > LINGERING else None
        elif fate > 0.1:
            status = _status(connection)
            self.statuses[status] = self.statuses.get(status, 0) + 1
        if connection is not None:
            connection.close()


def _status(connection: socket.socket) -> bytes:
    said = b""
    with suppress(OSError):
        while b"\r\n\r\n" not in said and (more := connection.recv(1 << 14)):
            said += more
    return said.split(b" ", 2)[1] if said.startswith(b"HTTP/1.1 ") else b"none"


def honest_s(door: Besieged) -> float:
    """Be an honest sender over both ports; return how long the slower one took."""
    began, uid = time.monotonic(), f"2.25.{time.time_ns()}"
    content = body(file(uid, f"{uid}.1"))
    with socket.create_connection(("127.0.0.1", door.http_port), 10) as connection:
        connection.sendall(head(sized(content)) + content)
        said = b""
        while more := connection.recv(1 << 14):
            said += more
    assert said.startswith(b"HTTP/1.1 200"), said
    assert STORED in said
    assert uid.encode() in said
    return max(time.monotonic() - began, door.store_s())


def test_s44_mutated_requests_do_no_harm(
    tmp_path: Path, fuzz_seconds: float, fuzz_seed: int
) -> None:
    """The door lives, honest peers are served at once over both ports, and nothing is left."""
    http = {"port": 0, "token_env": "FUZZ_TOKEN", "max_requests": THREADS}
    limits = {"header_s": 1, "associate_s": 2, "idle_s": 4, "per_address": 20}
    with Besieged(tmp_path, limits=limits, http=http) as door:
        door.start(FUZZ_TOKEN=TOKEN)
        mutator = Requests(fuzz_seed)
        watch = Watch(door, tmp_path, lambda: honest_s(door), slack=THREADS)
        with survived(watch), Attacker(door.http_port, mutator) as attacker:
            watch.run(fuzz_seconds, mutator.one, attacker.say)
        assert b"500" not in attacker.statuses, attacker.statuses
        assert {b"200", b"400"} <= {*attacker.statuses}, attacker.statuses
        print(attacker.statuses)  # noqa: T201  # pytest shows it when asked


CHUNKS = chunked(body(file("1.2.3", "1.2")))[: -len(b"0\r\n\r\n")]
STRANGER = "another"
UNWANTED = head(b"Transfer-Encoding: chunked").replace(b"multipart/related", b"text/html")
FOUND = {
    "a chunk of no size": head(b"Transfer-Encoding: chunked") + CHUNKS + b"zz\r\n",
    "one of a stranger": head(b"Transfer-Encoding: chunked", token=STRANGER) + CHUNKS + b"zz\r\n",
    "one in what is not taken anyway": UNWANTED + CHUNKS + b"zz\r\n",
}
"""What the fuzzer has found before."""


@pytest.mark.parametrize("what", FOUND)
def test_s44_what_was_found_before_is_no_fault_of_ours(tmp_path: Path, what: str) -> None:
    """An answer that blames the sender, and no error in the log."""
    with Besieged(tmp_path, http={"port": 0, "token_env": "FUZZ_TOKEN"}) as door:
        door.start(FUZZ_TOKEN=TOKEN)
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", door.http_port), 5) as connection:
                connection.sendall(FOUND[what])
                assert _status(connection) in {b"400", b"401", b"415", b"none"}
        honest_s(door)
        assert [line for line in door.lines() if line["level"] == "ERROR"] == []
