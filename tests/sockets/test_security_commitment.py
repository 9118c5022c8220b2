"""Storage commitment as an attack: long lists, deep ones, many, and reports nobody takes.

Covered: S5 and S15 for the data set of an N-ACTION, which unlike an object is decoded. Not covered:
what a truthful answer is (test_commitment).
"""

import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest

from tests.sockets.besieged import Besieged, back_to_base
from tests.sockets.hostile import (
    CT,
    IMPLICIT,
    VERIFICATION,
    Peer,
    command,
    even,
    message,
    us,
)

pytestmark = pytest.mark.alone

COMMITMENT = "1.2.840.10008.1.20.1"
CONTEXTS = ((1, VERIFICATION, (IMPLICIT,)), (3, COMMITMENT, (IMPLICIT,)))
LIMIT_MB = 512
UNDEFINED = 0xFFFFFFFF


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Besieged]:
    """One door for all."""
    with Besieged(tmp_path_factory.mktemp("door")) as one:
        one.start().store_s()
        yield one


@pytest.fixture(autouse=True)
def _memory_stays_bounded(door: Besieged) -> Iterator[None]:
    door.forget_peak()
    with back_to_base(door):
        yield
    assert door.memory_mb("VmHWM") < LIMIT_MB
    door.check_alive()
    assert not [line for line in door.lines() if line["level"] == "ERROR"]


def n_action() -> bytes:
    """Return an N-ACTION-RQ for storage commitment (PS3.4 J.3.2)."""
    return command(
        {
            0x0003: even(COMMITMENT),
            0x0100: us(0x0130),
            0x0110: us(7),
            0x0800: us(0),
            0x1001: even(f"{COMMITMENT}.1"),
            0x1008: us(1),
        }
    )


def implicit(tag: int, value: bytes, length: int | None = None) -> bytes:
    """Return a data element in implicit VR little endian."""
    size = len(value) if length is None else length
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, size) + value


def an_item(value: bytes) -> bytes:
    """Return an item of a sequence."""
    return implicit(0xFFFEE000, value)


@cache
def references(number: int) -> bytes:
    """Return the data set of a request for so many objects."""
    items = (
        an_item(implicit(0x00081150, even(CT)) + implicit(0x00081155, even(f"2.25.{n:07}")))
        for n in range(1_000_000, 1_000_000 + number)
    )
    return implicit(0x00081195, even("2.25.7")) + implicit(0x00081199, b"".join(items))


def ask(peer: Peer, encoded: bytes) -> int | None:
    """Send a request; return the status of the answer."""
    peer.send(message(3, n_action(), encoded))
    return peer.status()


def nested(levels: int) -> bytes:
    """Return sequences in sequences."""
    begin = implicit(0x00081199, b"", UNDEFINED) + implicit(0xFFFEE000, b"", UNDEFINED)
    return begin * levels + (implicit(0xFFFEE00D, b"") + implicit(0xFFFEE0DD, b"")) * levels


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\xff" * 1000,
        nested(10_000),
        references(1)[:-3],
        references(60_000),
        implicit(0x00081195, even("2.25.7")) + implicit(0x00081199, an_item(b"") * 400_000),
        bytes(5 << 20),
    ],
    ids=["empty", "junk", "deep", "cut", "many references", "empty items", "large"],
)
def test_s5_s15_a_request_that_cannot_be_met_is_refused_at_once(
    door: Besieged, encoded: bytes
) -> None:
    """An answer that is no success, or an end, within two seconds."""
    with door.peer() as peer:
        peer.associate(CONTEXTS)
        began = time.monotonic()
        assert ask(peer, encoded) != 0
        assert time.monotonic() - began < 2


def test_s5_large_requests_at_once_have_bounded_cost(door: Besieged) -> None:
    """Six peers, each with four megabytes of references: half a gigabyte is enough for all."""

    def bother(number: int) -> None:
        with door.peer(f"127.0.1.{number + 1}") as peer:
            peer.socket.settimeout(50)
            peer.associate(CONTEXTS)
            ask(peer, references(60_000))

    with ThreadPoolExecutor(6) as pool:
        all_of_them = [pool.submit(bother, number) for number in range(6)]
        while not all(each.done() for each in all_of_them):
            assert door.echo_s() < 2
        assert [each.result() for each in all_of_them] == [None] * 6


def test_s5_reports_that_nobody_takes_do_not_pile_up(door: Besieged) -> None:
    """Request after request on one association, no report answered, none read."""
    before = door.memory_mb()
    with door.peer() as peer:
        peer.associate(CONTEXTS)
        peer.socket.settimeout(5)
        began, asked = time.monotonic(), 0
        while time.monotonic() - began < 3 and peer.send(message(3, n_action(), references(2000))):
            asked += 1
        assert door.memory_mb() < before + 64, f"after {asked} requests"
