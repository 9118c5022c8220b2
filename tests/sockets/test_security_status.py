"""What a sender is told, row by row of the status table, spoken by hand.

Covered: 0000, an identical copy, other content, A900, C000 in its variants, 0122, rejections 1/1/3,
1/1/7 and 2/3/2, B50 (an abort after half), B53 (an unknown class among others); A700 on a disk that
is really full (a small tmpfs; root only) and below the watermark. Not covered: 0110 (test_door),
0124 (nobody is let in who may not send).
"""

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.dicom.dimse import Status
from tests.sockets.besieged import Besieged
from tests.sockets.hostile import (
    ABORT,
    CONTEXTS,
    CT,
    EXPLICIT,
    IMPLICIT,
    MR,
    VERIFICATION,
    dataset,
    element,
    pdu,
)
from tests.sockets.scu import new_study
from tests.waiting import wait_until

HALF_MB = element(0x7FE00010, b"OW", bytes(512 << 10))


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Besieged]:
    """One door for most tests."""
    with Besieged(tmp_path_factory.mktemp("door")) as one:
        yield one.start()
        one.check_integrity()


@pytest.fixture
def study() -> str:
    """A fresh Study Instance UID."""
    return new_study()


def test_0000_for_a_new_object_and_for_its_copy(door: Besieged, study: str) -> None:
    """The copy is not kept again."""
    uid = f"{study}.5"
    with door.peer() as peer:
        peer.associate()
        assert peer.store(dataset(uid, study), uid) == 0x0000
        before = sorted(door.spooled())
        assert [peer.store(dataset(uid, study), uid) for _ in range(3)] == [0x0000] * 3
    assert sorted(door.spooled()) == before
    assert len(door.rows(study)) == 1


def test_other_content_is_refused_and_kept_apart(door: Besieged, study: str) -> None:
    """C0DF, the copy held before is untouched, and both can be looked at."""
    uid = f"{study}.5"
    other = dataset(uid, study, element(0x00200013, b"IS", b"7 "))
    with door.peer() as peer:
        peer.associate()
        assert peer.store(dataset(uid, study), uid) == 0x0000
        [row] = door.rows(study)
        held = (door.data / row.file).read_bytes()
        assert peer.store(other, uid) == 0xC0DF
    assert (door.data / row.file).read_bytes() == held
    assert [path for path in door.quarantined() if path.read_bytes().endswith(other)]


def test_a900_when_command_and_data_set_differ(door: Besieged, study: str) -> None:
    """In the object's UID, and in its class."""
    uid = f"{study}.5"
    with door.peer() as peer:
        peer.associate()
        assert peer.store(dataset(uid, study), f"{study}.6") == 0xA900
        assert peer.store(dataset(uid, study, sop_class=MR), uid) == 0xA900
        assert peer.store(dataset(uid, study), uid) == 0x0000


def test_0122_when_the_class_is_not_the_context_s(door: Besieged, study: str) -> None:
    """Negotiated for CT, sent as MR, and as nothing that anybody knows."""
    uid = f"{study}.5"
    with door.peer() as peer:
        peer.associate()
        for sop_class in (MR, "1.2.3.4"):
            encoded = dataset(uid, study, sop_class=sop_class)
            assert peer.store(encoded, uid, sop_class=sop_class) == 0x0122
        assert peer.store(dataset(uid, study), uid) == 0x0000


def broken(uid: str, study: str) -> dict[str, bytes]:
    """Return what is no whole data set, by what is wrong with it."""
    good = dataset(uid, study, element(0x7FE00010, b"OW", bytes(500)))
    implicit = b"".join(
        struct.pack("<HHL", group, number, len(value)) + value
        for group, number, value in (
            (8, 0x16, CT.encode() + b"\0"),
            (8, 0x18, (uid + "\0")[: len(uid) + len(uid) % 2].encode()),
        )
    )
    return {
        "empty": b"",
        "cut in the pixels": good[:-1],
        "cut in a header": good[:-505],
        "cut after one element": good[:34],
        "garbage": os.urandom(4000),
        "zeros": bytes(4000),
        "text": b"GET / HTTP/1.1\r\n\r\n" * 10,
        "implicit VR in an explicit context": implicit,
        "no study": dataset(uid, b""),
        "no instance": dataset(b"", study),
        "no series": dataset(uid, study, series_uid=b""),
        "a length beyond the end": good + element(0x7FE10010, b"OB", b"1234", 4 << 20),
        "a length of four gigabytes": good + element(0x7FE10010, b"UN", b"1234", 0xFFFFFFFE),
        "a sequence without an end": good + element(0x7FE10010, b"SQ", b"", 0xFFFFFFFF),
        "elements out of order": element(0x7FE00010, b"OW", bytes(8)) + good[:-512],
        "the same element twice": good[:34] + good,
        "something after the end": good + b"\0\0\0",
        "a file of Part 10": bytes(128) + b"DICM" + good,
    }


@pytest.mark.parametrize("what", broken("1.2", "1.2"))
def test_c000_for_what_is_no_whole_data_set(door: Besieged, study: str, what: str) -> None:
    """The association lives on, nothing is kept, and the good object is taken afterwards."""
    uid = f"{study}.5"
    with door.peer() as peer:
        peer.associate()
        status = peer.store(broken(uid, study)[what], uid)
        assert status is not None
        assert status & 0xF000 == 0xC000
        assert not door.rows(study)
        assert peer.store(dataset(uid, study), uid) == 0x0000
    assert not door.partial()


def test_who_is_not_a_peer_and_who_means_another_is_rejected(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """1/1/3 for an unknown caller or address, 1/1/7 for another's title; known ones get in."""
    peers = [
        {"ae_title": "ANYWHERE"},
        {"ae_title": "ELSEWHERE", "addresses": ["127.0.9.0/24", "192.0.2.1"]},
    ]
    with Besieged(tmp_path_factory.mktemp("closed"), peers=peers) as door:
        door.start()
        told = {}
        for calling, called, source in (
            ("ANYWHERE", "MARGINALIA", "127.0.0.1"),
            ("ELSEWHERE", "MARGINALIA", "127.0.9.7"),
            ("ELSEWHERE", "MARGINALIA", "127.0.0.1"),
            ("STRANGER", "MARGINALIA", "127.0.0.1"),
            ("anywhere", "MARGINALIA", "127.0.0.1"),
            ("ANYWHERE", "ANOTHER", "127.0.0.1"),
            ("ANYWHERE", "marginalia", "127.0.0.1"),
        ):
            with door.peer(source) as peer:
                answer = peer.rejection(calling=calling.encode(), called=called.encode())
                told[calling, called, source] = answer
        door.lines()
    assert [*told.values()] == [
        *(None, None),
        *[b"\x01\x01\x03"] * 3,
        *[b"\x01\x01\x07"] * 2,
    ]


def test_b50_an_abort_after_half_keeps_what_was_acknowledged(door: Besieged, study: str) -> None:
    """The acknowledged half is there, the object on its way is not, and the rest is taken."""
    uids = [f"{study}.{number}" for number in range(10)]
    with door.peer() as peer:
        peer.associate()
        assert {peer.store(dataset(uid, study), uid) for uid in uids[:5]} == {0}
        peer.send(pdu(ABORT, bytes(4)))
        peer.seconds_to_close(5)
    wait_until(lambda: door.store.study(study).released_at is not None)
    assert {row.sop_uid for row in door.rows(study)} == {*uids[:5]}
    with door.peer() as peer:
        peer.associate()
        assert {peer.store(dataset(uid, study), uid) for uid in uids} == {0}
    assert len(door.rows(study)) == 10


def test_b53_an_unknown_class_refuses_its_context_alone(door: Besieged, study: str) -> None:
    """Unknown class (3), unknown transfer syntax (4); the rest of the association works."""
    contexts = (
        (1, VERIFICATION, (IMPLICIT,)),
        (3, CT, (EXPLICIT,)),
        (5, "1.2.826.0.1.3680043.2.1143.9", (EXPLICIT,)),
        (7, MR, ("1.2.3.4.5",)),
        (255, CT, ("1.2.3.4.5", IMPLICIT)),
    )
    with door.peer() as peer:
        peer.associate(contexts)
        assert peer.answers == {1: 0, 3: 0, 5: 3, 7: 4, 255: 0}
        assert peer.store(dataset(f"{study}.5", study), f"{study}.5") == 0x0000
        assert peer.echo() == 0


@pytest.mark.parametrize("context", [5, 7, 9, 2, 0])
def test_b53_a_message_in_no_accepted_context_is_no_object(
    door: Besieged, study: str, context: int
) -> None:
    """Refused before, never proposed, or no number for a context: an end, or a failure."""
    contexts = (*CONTEXTS[:2], (5, "1.2.3", (EXPLICIT,)), (7, MR, ("1.2.3.4.5",)))
    with door.peer() as peer:
        peer.associate(contexts)
        assert peer.store(dataset(f"{study}.5", study), f"{study}.5", context=context) != 0
    assert not door.rows(study)
    door.check_alive()


# -- no room -------------------------------------------------------------------------------------


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A data folder of eight megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path, leave: int = 0) -> None:
    """Take all space of the file system but `leave` bytes."""
    with path.open("wb", buffering=0) as filler:
        try:
            while shutil.disk_usage(path.parent).free > leave:
                filler.write(bytes(4096))
        except OSError:
            pass


def taken(door: Besieged, encoded: bytes, uid: str) -> bool:
    """Return whether an object is taken now, in an association of its own."""
    with door.peer() as peer:
        return peer.rejection() is None and peer.store(encoded, uid) == 0x0000


def test_a700_when_the_disk_is_full(tmpfs: Path, tmp_path: Path, study: str) -> None:
    """A700 on the same association, nothing partial; taken again when there is space."""
    fill(tmp_path / "small" / "filler.reserve", 6 << 20)
    with Besieged(tmp_path, tmpfs / "data") as door:
        door.start()
        uids = [f"{study}.{number}" for number in range(20)]
        with door.peer() as peer:
            peer.associate()
            told = [peer.store(dataset(uid, study, HALF_MB), uid) for uid in uids]
            kept = told.count(0)
            assert told == [0x0000] * kept + [0xA700] * (20 - kept)
            assert 3 <= kept < 15
            assert peer.echo() == 0
        assert not door.partial()
        assert len(door.spooled()) == len(door.rows(study)) == kept
        (tmp_path / "small" / "filler.reserve").unlink()
        wait_until(lambda: taken(door, dataset(uids[-1], study), uids[-1]), 10)
        door.check_integrity()
        assert len(door.rows(study)) == kept + 1
        assert not any("Traceback" in line["message"] for line in door.lines())


def test_a700_when_not_even_the_job_log_can_grow(tmpfs: Path, tmp_path: Path, study: str) -> None:
    """Not a byte is left: no success without a row, no end of the door, and all is well later."""
    filler = tmpfs / "filler.reserve"
    with Besieged(tmp_path, tmpfs / "data") as door:
        door.start().store_s()
        fill(filler)
        told = {}
        for number in range(30):
            uid = f"{study}.{number}"
            with door.peer() as peer:
                refused = peer.rejection()
                assert refused in {None, b"\x02\x03\x02"}
                told[uid] = 0xA700 if refused else peer.store(dataset(uid, study), uid)
        assert {*told.values()} <= {0x0000, 0xA700}
        assert 0xA700 in told.values()
        assert not door.partial()
        filler.unlink()
        wait_until(lambda: taken(door, dataset(f"{study}.99", study), f"{study}.99"), 10)
        held = {row.sop_uid for row in door.rows(study)}
        assert held >= {uid for uid, status in told.items() if status == 0}
        for uid in told:
            with door.peer() as peer:
                assert peer.associate().store(dataset(uid, study), uid) == 0
        door.check_integrity()
        assert len(door.rows(study)) == 31


def test_a700_or_a_transient_rejection_below_the_watermark(
    tmp_path_factory: pytest.TempPathFactory, study: str
) -> None:
    """The site wants more space kept free than the disk has: 2/3/2, or A700 for each object."""
    with Besieged(tmp_path_factory.mktemp("low"), limits={"free_gb": 1e6}) as door:
        door.start()
        with door.peer() as peer:
            refused = peer.rejection()
            assert refused in {None, b"\x02\x03\x02"}
            if refused is None:
                assert peer.store(dataset(f"{study}.5", study), f"{study}.5") == 0xA700
        assert not door.spooled()
        assert len(door.lines()) > 0


def test_the_table_has_no_other_answers() -> None:
    """What is tried here by number is what the code names."""
    assert {*Status} >= {0x0000, 0x0110, 0x0122, 0xA700, 0xA900, 0xC000, 0xC0DF}
