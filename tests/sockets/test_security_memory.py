"""What costs the attacker little and could cost us all memory or time.

Covered, by their numbers in the security catalogue: S5 (lengths that lie, endless messages), S6
(deflate bombs), S12 (absurd dimensions), S15 (deep nesting). The figures are peaks of the door's
resident memory. Not covered: compressed pixels, which the door does not decode.
"""

import os
import struct
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.dicom.dimse import Status
from tests.sockets.besieged import Besieged, back_to_base
from tests.sockets.hostile import (
    COMMAND,
    CONTEXTS,
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    P_DATA,
    Peer,
    associate_rq,
    c_echo,
    c_store,
    dataset,
    element,
    item,
    message,
    pdu,
    pdv,
    pour,
)
from tests.sockets.scu import new_study

pytestmark = pytest.mark.alone

MB = 1 << 20
ZEROS = bytes(MB)
HUGE = 0xFFFFFFF0
KERNEL_MB = 16  # what the buffers of both sockets may hold on their way
LEVELS = 10_000
UNDEFINED = 0xFFFFFFFF


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Besieged]:
    """One door for all; no object may have more than 20 MB."""
    folder = tmp_path_factory.mktemp("door")
    with Besieged(folder, limits={"object_gb": 0.02, "header_s": 2}) as one:
        one.start().store_s()
        yield one


@pytest.fixture(autouse=True)
def _memory_stays_flat(door: Besieged) -> Iterator[None]:
    before = door.memory_mb()
    door.forget_peak()
    with back_to_base(door):
        yield
    assert door.memory_mb("VmHWM") < min(before + 48, 512)
    assert not door.partial()
    door.check_alive()
    door.lines()


@pytest.mark.parametrize("kind", [1, 2, 4, 5, 7, 0, 0x16, 0xFF])
def test_s5_no_length_before_an_association_fills_the_memory(door: Besieged, kind: int) -> None:
    """A header that promises four gigabytes is the end, whatever PDU it is of."""
    with door.peer() as peer:
        peer.send(pdu(kind, b"", HUGE))
        assert pour(peer, ZEROS, 300 * MB) <= KERNEL_MB * MB


@pytest.mark.parametrize("kind", [1, 4, 5, 7, 0xFF])
def test_s5_no_length_inside_an_association_fills_the_memory(door: Besieged, kind: int) -> None:
    """Beyond what was negotiated nothing is read."""
    with door.peer() as peer:
        peer.associate().send(pdu(kind, b"", HUGE))
        assert pour(peer, ZEROS, 300 * MB) <= KERNEL_MB * MB


def test_s5_a_command_has_an_end(door: Besieged) -> None:
    """Fragments of a command set that never say `last`."""
    with door.peer() as peer:
        peer.associate()
        fragment = pdu(P_DATA, pdv(3, COMMAND, bytes(60000)))
        assert pour(peer, fragment * 16, 300 * MB) <= KERNEL_MB * MB


def test_s5_a_data_set_has_an_end(door: Besieged) -> None:
    """Fragments of a data set that never say `last`: refused when it is too large."""
    study = new_study()
    with door.peer() as peer:
        peer.associate().send(message(3, c_store(CT, f"{study}.5")))
        head = dataset(f"{study}.5", study, element(0x7FE00010, b"OW", b"", UNDEFINED - 1))
        peer.send(pdu(P_DATA, pdv(3, 0, head)))
        fragment = pdu(P_DATA, pdv(3, 0, bytes(60000)))
        pour(peer, fragment * 16, 100 * MB)
        assert sum(path.stat().st_size for path in door.spooled()) < 40 * MB
        peer.send(pdu(P_DATA, pdv(3, 2, b"")))
        assert peer.status() != Status.SUCCESS
    assert not door.rows(study)


def test_s5_many_small_fragments_are_one_object(door: Besieged) -> None:
    """A byte a fragment, many fragments a PDU: slow, but no reason to fail."""
    study = new_study()
    encoded = dataset(f"{study}.5", study, element(0x7FE00010, b"OW", bytes(2000)))
    parts = [
        pdv(3, 2 * (at == len(encoded) - 1), encoded[at : at + 1]) for at in range(len(encoded))
    ]
    with door.peer() as peer:
        peer.associate().send(message(3, c_store(CT, f"{study}.5")))
        for at in range(0, len(parts), 500):
            peer.send(pdu(P_DATA, b"".join(parts[at : at + 500])))
        assert peer.status() == Status.SUCCESS


@pytest.mark.parametrize("length", [0, 1, 3, 100, 60000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_s5_a_fragment_whose_length_lies_ends_the_association(door: Besieged, length: int) -> None:
    """More than its PDU, or less than its own head (PS3.8 9.3.5.1)."""
    with door.peer() as peer:
        peer.associate().send(pdu(P_DATA, pdv(1, 3, b"twelve bytes", length)))
        peer.socket.shutdown(1)
        peer.seconds_to_close(5)


@pytest.mark.parametrize(
    "request_bytes",
    [
        associate_rq([(n, CT, (EXPLICIT,) * 400) for n in range(1, 256, 2)]),
        associate_rq(user=b"".join(item(0x54, b"\0\x01" + bytes(60000)) for _ in range(15))),
        associate_rq(user=item(0x58, b"\x02\x01" + struct.pack(">H", 60000) + bytes(100))),
        associate_rq(user=item(0x55, b"A" * 65535) * 15),
        associate_rq([(n % 256, CT, (IMPLICIT,)) for n in range(4000)]),
        associate_rq([(1, "1" * 30000, ("2" * 30000,))]),
        associate_rq([(1, "", ())]),
        associate_rq([]),
        pdu(1, bytes(67)),
        pdu(1, bytes(68)),
        pdu(1, b"\0\x01" + os.urandom(900_000)),
        pdu(1, associate_rq()[6:] + item(0x20, b"\1\0\0\0", 65535)),
        pdu(1, associate_rq()[6:], 60),
    ],
    ids=lambda value: f"{len(value)} bytes",
)
def test_s5_a_malformed_request_is_answered_or_dropped_at_once(
    door: Besieged, request_bytes: bytes
) -> None:
    """Within the size of a request everything may be wrong."""
    with door.peer() as peer:
        began = time.monotonic()
        peer.send(request_bytes)
        answer = peer.receive()
        assert answer is None or answer.kind in {2, 3, 7}
        assert time.monotonic() - began < 2


def test_s6_a_deflate_bomb_does_not_go_off(door: Besieged) -> None:
    """Deflated is not negotiated, or what it becomes has a limit."""
    study = new_study()
    contexts = ((1, CT, (DEFLATED,)), CONTEXTS[1])
    with door.peer() as peer:
        peer.associate(contexts)
        if peer.answers[1] != 0:
            return
        status = peer.store(deflated(study, 300), f"{study}.5", context=1)
        assert status != Status.SUCCESS
    assert sum(path.stat().st_size for path in door.spooled()) < 40 * MB


def deflated(study: str, size_mb: int) -> bytes:
    """Return a deflated data set with so many megabytes of zeros."""
    press = zlib.compressobj(9, wbits=-15)
    head = dataset(f"{study}.5", study, element(0x7FE00010, b"OW", b"", size_mb * MB))
    pressed = [press.compress(head), *(press.compress(ZEROS) for _ in range(size_mb))]
    return b"".join([*pressed, press.flush()])


@pytest.mark.parametrize(
    "dimensions",
    [
        [element(0x00280010, b"US", b"\xff\xff"), element(0x00280011, b"US", b"\xff\xff")],
        [element(0x00280010, b"UL", b"\xff" * 4), element(0x00280011, b"UL", b"\xff" * 4)],
        [element(0x00280008, b"IS", b"2147483647 ")],
        [element(0x00280008, b"IS", b"-1"), element(0x00280010, b"US", b"\0\0")],
        [element(0x00280100, b"US", b"\xff\xff"), element(0x00280002, b"US", b"\xff\xff")],
    ],
    ids=["65535 squared", "UL", "frames", "negative", "bits"],
)
def test_s12_dimensions_are_not_believed(door: Besieged, dimensions: list[bytes]) -> None:
    """Nothing is allocated by them; the object may be kept unread."""
    study = new_study()
    pixels = element(0x7FE00010, b"OW", bytes(16))
    encoded = dataset(f"{study}.5", study, *dimensions, pixels)
    with door.peer() as peer:
        peer.associate()
        began = time.monotonic()
        assert peer.store(encoded, f"{study}.5") in {Status.SUCCESS, Status.UNREADABLE}
        assert time.monotonic() - began < 1


def nested(levels: int, kind: str) -> bytes:
    """Return sequences in sequences, so many."""
    tag = struct.pack("<HH", 0x0040, 0xA730)
    if kind == "explicit lengths":
        inner = b""
        for _ in range(levels):
            inner = struct.pack("<HHL", 0xFFFE, 0xE000, len(inner)) + inner
            inner = tag + b"SQ\0\0" + struct.pack("<L", len(inner)) + inner
        return inner
    vr = b"UN" if kind == "in UN" else b"SQ"
    begin = struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED)
    end = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    first = tag + vr + b"\0\0" + struct.pack("<L", UNDEFINED) + begin
    level = tag + struct.pack("<L", UNDEFINED) + begin if kind == "in UN" else first
    ends = b"" if kind == "without an end" else end * levels
    return first + level * (levels - 1) + ends


@pytest.mark.parametrize("kind", ["explicit lengths", "undefined", "in UN", "without an end"])
def test_s15_deep_nesting_is_refused(door: Besieged, kind: str) -> None:
    """Ten thousand sequences in each other: C000 within a second; the association lives on."""
    study = new_study()
    deep = dataset(f"{study}.5", study, nested(LEVELS, kind))
    with door.peer() as peer:
        peer.associate()
        began = time.monotonic()
        assert peer.store(deep, f"{study}.5") == Status.UNREADABLE
        assert time.monotonic() - began < 1
        flat = dataset(f"{study}.5", study, nested(15, "undefined"))
        assert peer.store(flat, f"{study}.5") == Status.SUCCESS
    assert len(door.rows(study)) == 1


def test_s5_a_peer_that_never_reads_is_dropped(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its answers fill the buffers; the thread that wants to answer does not wait for ever."""
    with Besieged(tmp_path_factory.mktemp("deaf"), limits={"idle_s": 2}) as door:
        door.start()
        with back_to_base(door), Peer(door.port, timeout_s=8) as peer:
            peer.associate()
            pour(peer, message(1, c_echo()) * 1000, 200 * MB, within_s=20)
            assert door.echo_s() < 2


def test_s12_objects_of_tiny_elements_do_not_take_all_the_time(door: Besieged) -> None:
    """Six peers send 400,000 empty elements each; an honest one is served meanwhile."""
    study = new_study()
    tiny = b"".join(
        element(0x00290000 + (n // 60_000 << 17) + 0x1000 + n % 60_000, b"LO", b"")
        for n in range(400_000)
    )

    def bother(number: int) -> int | None:
        uid = f"{study}.{number}"
        with door.peer(f"127.0.1.{number + 1}") as peer:
            return peer.associate().store(dataset(uid, study, tiny), uid)

    with ThreadPoolExecutor(6) as pool:
        all_of_them = [pool.submit(bother, number) for number in range(6)]
        while not all(each.done() for each in all_of_them):
            assert door.echo_s() < 2
        assert {each.result() for each in all_of_them} <= {Status.SUCCESS, Status.UNREADABLE}
