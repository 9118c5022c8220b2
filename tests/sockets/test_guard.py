"""What strangers and slow peers can take of the door: places, time, memory and lines of the log.

Covered: two hundred silent and two hundred trickling connections while honest peers are served,
caps in all and for one address, lengths that lie, every limit on time, and that junk is counted
instead of logged. Not covered: an address space full of attackers; a firewall is for that.
"""

import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification

from tests.sockets.doors import Door
from tests.sockets.scu import Made, associated, image, new_study, released, send
from tests.waiting import wait_until

pytestmark = pytest.mark.alone

CROWD = 200
QUICK = {"header_s": 0.5, "associate_s": 1, "idle_s": 1, "object_s": 3, "min_rate_kb_s": 500}
LIMIT_EXCEEDED = (2, 3, 2)


@contextmanager
def door_with(folder: Path, **limits: float) -> Iterator[Door]:
    """Open a door with these limits."""
    with Door(folder, limits={"free_gb": 0, **limits}) as door:
        yield door.start()


@contextmanager
def from_address(door: Door, address: str) -> Iterator[Association]:
    """Associate from an address of this machine; it is released at the end."""
    ae = AE("PEER")
    ae.add_requested_context(Verification)
    assoc = ae.associate("127.0.0.1", door.port, ae_title="MARGINALIA", bind_address=(address, 0))
    with released(assoc):
        yield assoc


def echo_s(door: Door) -> float:
    """Return the seconds that a whole C-ECHO takes an honest peer."""
    began = time.monotonic()
    with from_address(door, "127.0.0.1") as assoc:
        assert assoc.is_established
        assert assoc.send_c_echo().Status == 0
    return time.monotonic() - began


def rejection(assoc: Association) -> tuple[int, int, int]:
    """Return result, source and reason."""
    assert assoc.is_rejected
    answer = assoc.acceptor.primitive
    return answer.result, answer.result_source, answer.diagnostic


def memory_mb(door: Door) -> float:
    """Return the door's resident memory."""
    fields = Path(f"/proc/{door.pid}/status").read_text(encoding="utf-8")
    [line] = [line for line in fields.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def threads(door: Door) -> int:
    """Return how many threads the door has."""
    return len([*Path(f"/proc/{door.pid}/task").iterdir()])


def is_closed(connection: socket.socket) -> bool:
    """Return whether the door has closed this connection; what it said before is thrown away."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


# -- places ----------------------------------------------------------------------------------


def test_silent_and_trickling_connections_keep_nobody_out(tmp_path: Path) -> None:
    """Four hundred of them; each C-ECHO of an honest peer takes less than two seconds."""
    with door_with(tmp_path, handshakes=32) as door, ExitStack() as stack:
        crowd = [stack.enter_context(door.connect()) for _ in range(CROWD)]
        took = [echo_s(door) for _ in range(3)]
        trickling = [stack.enter_context(door.connect()) for _ in range(CROWD)]
        took.append(echo_s(door))
        for at in range(3):
            for each in trickling:
                try:
                    each.send(b"\1\0\0"[at : at + 1])
                except ConnectionError:
                    continue
            took.append(echo_s(door))
        assert max(took) < 2
        assert threads(door) < 32 + 20
        wait_until(lambda: sum(map(is_closed, crowd)) == CROWD, what="the end of the silent ones")


def test_a_guest_is_never_sent_away_for_a_newcomer(tmp_path: Path) -> None:
    """It associated before the crowd came and is served after it."""
    made = image(new_study())
    with door_with(tmp_path, handshakes=4) as door, associated(door.port, [made]) as assoc:
        with ExitStack() as stack:
            for _ in range(40):
                stack.enter_context(door.connect())
            assert echo_s(door) < 2
        assert send(assoc, made)[0] == 0


def test_associations_are_counted_for_each_address_and_in_all(tmp_path: Path) -> None:
    """2/3/2, which a sender takes as: later. A place that is left is free at once."""
    with door_with(tmp_path, associations=3, per_address=2) as door, ExitStack() as stack:
        first = ExitStack()
        assert first.enter_context(from_address(door, "127.0.0.1")).is_established
        assert stack.enter_context(from_address(door, "127.0.0.1")).is_established
        with from_address(door, "127.0.0.1") as one_too_many:
            assert rejection(one_too_many) == LIMIT_EXCEEDED
        assert stack.enter_context(from_address(door, "127.0.0.2")).is_established
        with from_address(door, "127.0.0.3") as full:
            assert rejection(full) == LIMIT_EXCEEDED
        first.close()
        assert stack.enter_context(from_address(door, "127.0.0.3")).is_established


def test_twenty_associations_at_once(tmp_path: Path) -> None:
    """As many as are permitted, from one address; nothing stays of them."""
    with door_with(tmp_path, per_address=20) as door:
        before = threads(door)
        with ExitStack() as stack:
            guests = [stack.enter_context(from_address(door, "127.0.0.1")) for _ in range(20)]
            assert all(each.is_established for each in guests)
            assert [each.send_c_echo().Status for each in guests] == [0] * 20
        wait_until(lambda: threads(door) <= before)


def test_a_crowd_that_takes_every_descriptor_keeps_nobody_out(tmp_path: Path) -> None:
    """The limit of the system is met before ours: whoever is silent gives one back."""
    with door_with(tmp_path) as door, ExitStack() as stack:
        used = len([*Path(f"/proc/{door.pid}/fd").iterdir()])
        _, hard = resource.prlimit(door.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(door.pid, resource.RLIMIT_NOFILE, (used + 10, hard))
        for _ in range(40):
            stack.enter_context(door.connect())
        assert echo_s(door) < 2


# -- memory ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [1, 4, 7, 0, 99])
def test_a_length_that_lies_is_not_believed(tmp_path: Path, kind: int) -> None:
    """Before an association: the end at once, not a byte of what was announced is kept."""
    with door_with(tmp_path) as door:
        before = memory_mb(door)
        with door.connect() as connection:
            connection.sendall(struct.pack(">BxL", kind, 0xFFFFFFF0))
            pour(connection, 64 << 20)
            wait_until(lambda: is_closed(connection))
        assert memory_mb(door) < before + 16
        assert echo_s(door) < 2


def test_a_length_that_lies_ends_an_association(tmp_path: Path) -> None:
    """More than was announced for P-DATA; what was acknowledged before is kept."""
    made = image(new_study())
    with door_with(tmp_path) as door, associated(door.port, [made]) as assoc:
        assert send(assoc, made)[0] == 0
        before = memory_mb(door)
        connection = assoc.dul.socket.socket
        connection.send(struct.pack(">BxL", 4, 0xFFFFFFF0))
        pour(connection, 64 << 20)
        door.said("a PDU says it has 4294967280 bytes")
        assert memory_mb(door) < before + 16
        assoc.kill()
        assert len(door.rows(made.study_uid)) == 1


def pour(connection: socket.socket, total: int) -> None:
    """Send zeros until the other side has enough."""
    connection.settimeout(10)
    try:
        for _ in range(total >> 20):
            connection.sendall(bytes(1 << 20))
    except OSError:
        return


# -- time ------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"", b"\1", b"\1\0\0\0\1\0" + bytes(80)])
def test_a_request_has_little_time(tmp_path: Path, said: bytes) -> None:
    """Nothing, a part of the header, a part of the request."""
    with door_with(tmp_path, **QUICK) as door, door.connect() as connection:
        connection.sendall(said)
        wait_until(lambda: is_closed(connection), 5)


def test_an_idle_association_is_ended(tmp_path: Path) -> None:
    """The peer is told, and its studies are closed."""
    made = image(new_study())
    with door_with(tmp_path, **QUICK) as door, associated(door.port, [made]) as assoc:
        assert send(assoc, made)[0] == 0
        wait_until(lambda: assoc.is_aborted, 10)
        door.said("ended (it is silent too long)")
        assert door.store.study(made.study_uid).released_at is not None


def test_a_slow_object_is_refused(tmp_path: Path) -> None:
    """Never silent, but too slow to be honest: nothing of it stays, and the place is free."""
    made = image(new_study(), size=64 << 10)
    with door_with(tmp_path, **QUICK) as door, associated(door.port, [made]) as assoc:
        connection = assoc.dul.socket.socket
        pause, began = threading.Event(), time.monotonic()
        try:
            for piece in store_in_pieces(made, 100):
                connection.sendall(piece)
                pause.wait(0.02)
        except OSError:
            pass
        wait_until(lambda: assoc.is_aborted or not assoc.is_established, 10)
        assert time.monotonic() - began < 5
        door.said("a message takes too long")
        assert not door.rows(made.study_uid)
        assert not door.spooled()
        assert echo_s(door) < 2


def store_in_pieces(made: Made, size: int) -> Iterator[bytes]:
    """Yield a C-STORE in PDUs of so few bytes."""
    uids = [made.sop_class.encode(), made.sop_uid.encode()]
    uids = [uid + b"\0" * (len(uid) % 2) for uid in uids]
    elements = b"".join(
        struct.pack("<HHL", 0, number, len(value)) + value
        for number, value in (
            (0x0002, uids[0]),
            *((0x0100, b"\1\0"), (0x0110, b"\1\0"), (0x0700, b"\0\0"), (0x0800, b"\1\0")),
            (0x1000, uids[1]),
        )
    )
    yield pdata(elements, 3)
    for at in range(0, len(made.dataset), size):
        yield pdata(made.dataset[at : at + size], 2 if at + size >= len(made.dataset) else 0)


def pdata(content: bytes, control: int) -> bytes:
    """Return a P-DATA PDU with one fragment in the first context."""
    return struct.pack(">BxLLBB", 4, len(content) + 6, len(content) + 2, 1, control) + content


# -- words -----------------------------------------------------------------------------------


def test_junk_is_counted_and_not_logged(tmp_path: Path) -> None:
    """Three hundred connections that come to nothing leave two lines, and no thread."""
    with door_with(tmp_path) as door:
        before = threads(door)
        for at in range(300):
            with door.connect() as connection:
                connection.sendall(b"GET / HTTP/1.1\r\n\r\n" if at % 2 else b"\xff" * 99)
        assert echo_s(door) < 2
        wait_until(lambda: threads(door) <= before)
        assert door.process is not None
        door.process.terminate()
        assert door.wait() == 0
        lines = [line for line in door.output().splitlines() if "came to nothing" in line]
        assert len(lines) == 2
        assert "299 more connections from 1 addresses" in lines[1]
