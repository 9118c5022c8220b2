"""Crowds of bad peers, and the honest one that must be served all the same.

Covered: S30 (junk connections and what they may write to the log), S39 (half-open and trickling
connections, held associations), and B49 (a thousand short associations). Honest peers come from
the same address as the bad ones and from another. Not covered: HTTP (test_stow).
"""

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from app.dicom.dimse import Status
from tests.sockets.besieged import Besieged, back_to_base
from tests.sockets.hostile import (
    CT,
    P_DATA,
    Peer,
    associate_rq,
    c_store,
    dataset,
    message,
    pdu,
    pdv,
)
from tests.sockets.scu import new_study

pytestmark = pytest.mark.alone

JUNK = (
    b"",
    b"\x01",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"SSH-2.0-x\r\n",
    b"\xff" * 2000,
    bytes(2000),
    pdu(4, b"before any association"),
    pdu(1, b"\0\1" + os.urandom(300)),
    associate_rq()[:40],
    associate_rq(called=b"ANOTHER"),
    associate_rq(version=0),
)
ASK = associate_rq(calling=b"CROWD")
TRANSIENT = b"\x02\x03"


@pytest.fixture
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Besieged]:
    """A door with the limits that a site gets by default, warm."""
    with Besieged(tmp_path_factory.mktemp("door")) as one:
        one.start().store_s()
        yield one


class Crowd:
    """So many connections that never become associations; a dropped one comes back."""

    def __init__(self, port: int, number: int, *, trickle: bool, sources: int) -> None:
        self._to = ("127.0.0.1", port)
        self._from = [f"127.0.{1 if sources > 1 else 0}.{1 + n % sources}" for n in range(number)]
        self._trickle = trickle
        self._sockets: list[socket.socket | None] = [None] * number
        self._sent = [0] * number
        self.connections = 0

    def tick(self) -> None:
        """Reopen what was dropped; let each say one more byte of its request."""
        for number, connection in enumerate(self._sockets):
            if connection is None or _dropped(connection):
                self._reopen(number)
            elif self._trickle:
                with suppress(OSError):
                    self._sent[number] += connection.send(ASK[self._sent[number] :][:1])

    def _reopen(self, number: int) -> None:
        if (old := self._sockets[number]) is not None:
            old.close()
        self._sockets[number] = fresh = socket.socket()
        fresh.setblocking(False)
        fresh.bind((self._from[number], 0))
        assert fresh.connect_ex(self._to) in {0, errno.EINPROGRESS}
        self._sent[number] = 0
        self.connections += 1

    def close(self) -> None:
        """Go away."""
        for connection in self._sockets:
            if connection is not None:
                connection.close()


def _dropped(connection: socket.socket) -> bool:
    try:
        return connection.recv(4096) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_s39_half_open_and_trickling_peers_keep_nobody_out(door: Besieged) -> None:
    """Four hundred of them, persistent, from one address and from many, for ten seconds."""
    with back_to_base(door):
        crowds = [
            Crowd(door.port, 100, trickle=trickle, sources=sources)
            for trickle in (False, True)
            for sources in (1, 100)
        ]
        took: dict[str, list[float]] = {"127.0.0.1": [], "127.0.0.99": []}
        pause, began = threading.Event(), time.monotonic()
        try:
            for second in range(11):
                for crowd in crowds:
                    crowd.tick()
                for source, times in took.items():
                    times.append(door.echo_s(source))
                assert door.threads() < 200
                pause.wait(max(0.0, began + second + 1 - time.monotonic()))
        finally:
            for crowd in crowds:
                crowd.close()
        assert max(map(max, took.values())) < 2, took
    assert sum(crowd.connections for crowd in crowds) >= 400
    lines = [line for line in door.lines() if "HONEST" not in line["message"]]
    assert len(lines) <= 50, lines[-3:]


def test_s39_one_address_cannot_hold_every_association(door: Besieged) -> None:
    """It gets some; another address is served meanwhile, and the rest when they let go."""
    with back_to_base(door):
        held = [door.peer("127.0.0.2") for _ in range(40)]
        let_in = [peer for peer in held if (peer.rejection() or b"") == b""]
        refused = [peer for peer in held if peer not in let_in]
        assert 1 <= len(let_in) < 40
        assert refused
        assert door.echo_s() < 2
        assert let_in[0].echo() == 0
        for peer in held:
            peer.socket.close()
    assert door.echo_s("127.0.0.2") < 2


def test_s39_who_is_turned_away_for_want_of_room_may_come_again(door: Besieged) -> None:
    """Rejected as transient (PS3.8 9.3.4: result 2, source 3), not dropped without a word."""
    held = [door.peer() for _ in range(40)]
    answers = [peer.rejection() for peer in held]
    for peer in held:
        peer.socket.close()
    told = {answer[:2] for answer in answers if answer is not None}
    assert told == {TRANSIENT}


def test_s30_junk_is_dropped_with_few_words(door: Besieged) -> None:
    """Five hundred connections with nonsense: under 51 lines in all, and nothing stays."""
    before, memory = len(door.lines()), door.memory_mb()
    with back_to_base(door):
        for number in range(500):
            with suppress(ConnectionError, TimeoutError), door.peer() as peer:
                peer.send(JUNK[number % len(JUNK)])
                if number % 3 == 0:
                    peer.reset()
        assert door.echo_s() < 2
    assert len(door.lines()) - before <= 50
    assert door.memory_mb() < memory + 32
    door.check_alive()


def test_s30_what_was_not_said_is_counted(door: Besieged) -> None:
    """A flood leaves at least one line, so that somebody can see it."""
    before = len(door.lines())
    for number in range(60):
        with suppress(ConnectionError, TimeoutError), door.peer() as peer:
            peer.send(JUNK[number % len(JUNK)])
    door.echo_s()
    peers = [line for line in door.lines()[before:] if "127.0.0.1" in line["message"]]
    assert peers


def test_b49_many_short_associations_leave_nothing_behind(door: Besieged) -> None:
    """A thousand objects, an association each: all kept, no slot, thread or file is lost."""
    study, number = new_study(), 1000
    began = time.monotonic()
    with back_to_base(door):
        for at in range(number):
            with door.peer() as peer:
                uid = f"{study}.{at}"
                assert peer.associate().store(dataset(uid, study), uid) == Status.SUCCESS
                peer.release()
    assert time.monotonic() - began < 60
    assert len(door.rows(study)) == number
    door.check_integrity()


# -- time ----------------------------------------------------------------------------------------

QUICK = {"header_s": 1, "associate_s": 2, "idle_s": 2, "object_s": 3, "min_rate_kb_s": 50}


def halted(door: Besieged, sent: bytes, *, associated: bool = False) -> Peer:
    """Return a peer that stops in the middle of what it says."""
    peer = door.peer()
    if associated:
        peer.associate()
    peer.send(sent)
    return peer


def test_s39_whoever_stops_is_let_go(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Silent, in a header, in a request, in an association, in an object, in a command."""
    request = message(3, c_store(CT, "2.25.5"))
    with Besieged(tmp_path_factory.mktemp("door"), limits=QUICK) as door:
        door.start().store_s()
        with back_to_base(door):
            peers = {
                "silent": halted(door, b""),
                "in the header": halted(door, ASK[:3]),
                "in the request": halted(door, ASK[:80]),
                "in the association": halted(door, b"", associated=True),
                "in a later header": halted(door, b"\4\0\0", associated=True),
                "in the command": halted(door, request[:20], associated=True),
                "before the object": halted(door, request, associated=True),
                "in the object": halted(
                    door, request + pdu(P_DATA, pdv(3, 0, bytes(100))), associated=True
                ),
            }
            for peer in peers.values():
                with peer:
                    peer.seconds_to_close(8)
        assert not door.partial()
        assert not door.spooled() or len(door.spooled()) == 1


def test_s39_whoever_trickles_an_object_is_let_go(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A fragment of ten bytes now and then is never silent, but too slow to be honest."""
    with Besieged(tmp_path_factory.mktemp("door"), limits=QUICK) as door:
        door.start().store_s()
        with back_to_base(door), door.peer() as peer:
            peer.associate().send(message(3, c_store(CT, "2.25.5")))
            pause, began = threading.Event(), time.monotonic()
            while peer.send(pdu(P_DATA, pdv(3, 0, bytes(10)))):
                pause.wait(0.1)
                assert time.monotonic() - began < 12
        assert not door.partial()
