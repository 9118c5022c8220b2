"""The DICOM port under bytes that chance has made: recorded associations, mutated (S44).

Covered: associations recorded from pynetdicom and, where installed, dcmtk, as they are and with
their PDUs dropped, doubled and exchanged; bytes flipped, cut, doubled, spliced, and lengths that
lie, with and without the PDU's own length put right. Not covered: TLS, timing (test_security_slots)
and what only an hour finds: `pytest tests/faults --fuzz-seconds 3600`.
"""

import shutil
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from tests.faults.fuzz import Mutator, Watch, survived
from tests.peers import storescu
from tests.sockets.besieged import Besieged
from tests.sockets.hostile import ASSOCIATE_RQ, Peer
from tests.sockets.scu import associated, image, new_study, statuses

LINGERING = 12
CLOSED_S = 10.0


def recorded(door: Besieged, send: Callable[[int], object]) -> bytes:
    """Return what a real sender says to the door, through a port in between."""
    said = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = threading.Thread(target=send, args=(server.getsockname()[1],))
        sender.start()
        connection, _ = server.accept()
    with connection, socket.create_connection(("127.0.0.1", door.port)) as onward:
        back = threading.Thread(target=_pump, args=(onward, connection, bytearray()))
        back.start()
        _pump(connection, onward, said)
        back.join(20)
    sender.join(20)
    assert not sender.is_alive()
    return bytes(said)


def _pump(here: socket.socket, there: socket.socket, said: bytearray) -> None:
    with suppress(OSError):
        while data := here.recv(1 << 16):
            said += data
            there.sendall(data)
    with suppress(OSError):
        there.shutdown(socket.SHUT_WR)


def good(door: Besieged, folder: Path) -> list[bytes]:
    """Record the senders: echo, objects of three syntaxes, a repetition, storage commitment."""
    study = new_study()
    native, implicit = image(study), image(study, str(ImplicitVRLittleEndian), size=40 << 10)
    compressed = image(study, str(JPEG2000Lossless))
    request = Dataset()
    request.TransactionUID = f"{study}.7"
    request.ReferencedSOPSequence = [Dataset()]
    request.ReferencedSOPSequence[0].ReferencedSOPClassUID = native.sop_class
    request.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = native.sop_uid

    def echo(port: int) -> None:
        with associated(port, contexts=[(Verification, str(ImplicitVRLittleEndian))]) as assoc:
            assoc.send_c_echo()

    def commit(port: int) -> None:
        contexts = [(StorageCommitmentPushModel, str(ImplicitVRLittleEndian))]
        with associated(port, contexts=contexts) as assoc:
            if assoc.accepted_contexts:
                well_known = "1.2.840.10008.1.20.1.1"
                assoc.send_n_action(request, 1, StorageCommitmentPushModel, well_known)

    senders: list[Callable[[int], object]] = [
        echo,
        commit,
        lambda port: statuses(port, [native]),
        lambda port: statuses(port, [native, implicit, compressed, native]),
    ]
    if shutil.which("storescu"):
        assert statuses(door.port, [native]) == [0]
        [row] = door.rows(study)
        shutil.copy(door.data / row.file, file := folder / "one.dcm")
        senders.append(lambda port: storescu(port, [file]))
    found = [recorded(door, send) for send in senders]
    assert all(each[0] == ASSOCIATE_RQ for each in found)
    return found


def pdus(stream: bytes) -> list[bytes]:
    """Cut a stream into its PDUs, the last of which may be anything."""
    found, at = [], 0
    while at + 6 <= len(stream):
        (length,) = struct.unpack_from(">L", stream, at + 2)
        found.append(stream[at : at + 6 + length])
        at += 6 + length
    return [*found, stream[at:]]


class Streams(Mutator):
    """Mutates associations by bytes, by PDUs, and inside PDUs whose length is put right."""

    def __init__(self, seed: int, corpus: list[bytes]) -> None:
        super().__init__(seed, corpus)
        self._associations = [pdus(each) for each in corpus]

    def one(self) -> bytes:
        """Return one bad stream."""
        way = self.chance.random()
        if way < 0.3:
            return super().one()
        parts = [*self.chance.choice(self._associations)]
        if way < 0.5:
            self._shuffle(parts)
            return b"".join(parts)
        at = self.chance.randrange(len(parts))
        body = bytearray(parts[at][6:])
        self.change(body)
        parts[at] = parts[at][:2] + struct.pack(">L", len(body)) + bytes(body)
        return b"".join(parts)

    def _shuffle(self, parts: list[bytes]) -> None:
        for _ in range(self.chance.choice((1, 1, 2, 4))):
            at, other = (self.chance.randrange(len(parts)) for _ in range(2))
            what = self.chance.randrange(4)
            if what == 0:
                parts[at], parts[other] = parts[other], parts[at]
            elif what == 1:
                parts[at:at] = [parts[other]] * self.chance.choice((1, 1, 30))
            elif what == 2 and len(parts) > 1:
                del parts[at]
            else:
                parts[at:at] = [self.chance.choice(self.chance.choice(self._associations))]


class Attacker:
    """Says the streams; some connections are reset, some are left hanging for a while."""

    def __init__(self, door: Besieged, mutator: Mutator) -> None:
        self._door, self._chance = door, mutator.chance
        self._hanging: deque[Peer] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for peer in self._hanging:
            peer.socket.close()

    def say(self, stream: bytes) -> None:
        """Say one and, mostly, wait until the door has hung up."""
        with ExitStack() as stack:
            peer = Peer(self._door.port, f"127.0.0.{self._chance.randrange(2, 30)}", CLOSED_S)
            stack.callback(peer.socket.close)
            first = len(pdus(stream)[0])
            if peer.send(stream[:first]) and self._chance.random() < 0.7:
                self._listen(peer)
            peer.send(stream[first:])
            fate = self._chance.random()
            if fate < 0.05:
                stack.pop_all()
                self._hanging.append(peer)
                if len(self._hanging) > LINGERING:
                    self._hanging.popleft().socket.close()
            elif fate < 0.15:
                peer.reset()
            else:
                with suppress(OSError):
                    peer.socket.shutdown(socket.SHUT_WR)
                peer.seconds_to_close(CLOSED_S)

    def _listen(self, peer: Peer) -> None:
        peer.socket.settimeout(0.05)  # for an answer that may never come
        with suppress(TimeoutError):
            peer.receive()
        peer.socket.settimeout(CLOSED_S)


def test_s44_mutated_associations_do_no_harm(
    tmp_path: Path, fuzz_seconds: float, fuzz_seed: int
) -> None:
    """The door lives, honest peers are served at once, and nothing is left behind."""
    limits = {"header_s": 1, "associate_s": 2, "idle_s": 4, "per_address": 20}
    with Besieged(tmp_path, limits=limits) as door:
        door.start()
        mutator = Streams(fuzz_seed, good(door, tmp_path))
        watch = Watch(door, tmp_path, door.store_s)
        with survived(watch), Attacker(door, mutator) as attacker:
            watch.run(fuzz_seconds, mutator.one, attacker.say)
