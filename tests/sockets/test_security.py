"""Names that are attacks: in UIDs, in AE titles, in front of a file, and in our own log.

Covered, by their numbers in the security catalogue: S1 (paths), S4 (commands), S24 (preambles), S27
and S29 (log lines), S30 (a log that rotates). Not covered: the same names in STOW requests
(test_stow), on a dashboard and towards an archive.
"""

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.dicom.dimse import Status
from tests.sockets.besieged import Besieged, snapshot
from tests.sockets.doors import ROOT
from tests.sockets.hostile import RELEASE, dataset, element, message
from tests.sockets.scu import new_study
from tests.waiting import wait_until

MARK = "s1-outside"
TEMPORARY = f"{tempfile.gettempdir()}/".encode()
EVIL_UIDS = (
    b"../" * 9 + MARK.encode(),
    b"..\\..\\" + MARK.encode(),
    TEMPORARY + MARK.encode(),
    b"1.2\0/../" + MARK.encode(),
    b"..",
    b".",
    b"spool/../../" + MARK.encode(),
    b"1.2.3\n" + MARK.encode(),
    b"1.2.3;touch " + MARK.encode(),
    b"$(touch " + MARK.encode() + b")",
    b"' OR 1=1--",
    b"1.2\x1b[2J\r\n{}",
    b"\xff\xfe\x80",
    b"node.db",
    b"9" * 3000,
    b"%s%n%d{0}",
)
EVIL_TITLES = (
    b"../../" + MARK.encode(),
    TEMPORARY + MARK.encode(),
    b"$(touch s1-x)",
    b"`touch s1-x`",
    b";id",
    b'A\n{"level":"E"}',
    b"A\r\n\x1b[31mred",
    b'"},{"',
    b"\xe4\xf6\xfc\x80\xff",
    b"\0" * 16,
    b" " * 16,
    b"\x7f\x85\xa0",
    b"%s%s%n",
    b"=HYPERLINK(1)",
)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Besieged]:
    """One door for all, deep enough in the tree that `../` meets folders of the test."""
    folder = tmp_path_factory.mktemp("a") / "b" / "c"
    folder.mkdir(parents=True)
    with Besieged(folder) as one:
        yield one.start()


@pytest.fixture(autouse=True)
def _nothing_outside_changes(door: Besieged) -> Iterator[None]:
    above = door.data.parents[2]
    before = snapshot(above, door.data, door.output_path)
    yield
    assert snapshot(above, door.data, door.output_path) == before
    for folder in (ROOT, Path(tempfile.gettempdir()), Path("/"), door.data):
        assert [path for path in folder.iterdir() if path.name.startswith("s1-")] == []
    door.check_integrity()
    assert not door.partial()
    door.check_alive()


@pytest.mark.parametrize("uid", EVIL_UIDS)
def test_s1_a_uid_is_never_a_path(door: Besieged, uid: bytes) -> None:
    """Refused, or kept under a name of ours; in each of the three UIDs that could name a file."""
    study = new_study()
    good = f"{study}.5"
    tries = (
        (uid, dataset(uid, study)),
        (good, dataset(good, uid)),
        (f"{good}.1", dataset(f"{good}.1", study, series_uid=uid)),
    )
    fair = {Status.SUCCESS, Status.UNREADABLE, Status.UIDS_DIFFER}
    for sop_uid, encoded in tries:
        with door.peer() as peer:
            status = peer.associate().store(encoded, sop_uid)
            if status is None and sop_uid == uid:
                continue  # a command set that cannot be read ends the association
            assert status in fair
            assert peer.echo() == 0  # the association lives on
    door.lines()


@pytest.mark.parametrize("title", EVIL_TITLES)
def test_s1_s4_s27_s29_an_ae_title_is_never_a_path_a_command_or_a_line(
    door: Besieged, title: bytes
) -> None:
    """As calling and as called title, in a whole association and in one that is refused."""
    study = new_study()
    with door.peer() as peer:
        refused = peer.rejection(calling=title)
        assert refused in {None, b"", b"\x01\x01\x03"}
        if refused is None:
            assert peer.store(dataset(f"{study}.5", study), f"{study}.5") == 0
            peer.send(RELEASE)
            peer.seconds_to_close(5)
    with door.peer() as peer:
        unknown = {b"\x01\x01\x07"}
        is_title = title.strip() and title.decode("latin-1").isprintable() and title.isascii()
        assert peer.rejection(called=title) in (unknown if is_title else {*unknown, b""})
    door.lines()


def test_s29_what_is_sent_never_gets_a_line_of_its_own(door: Besieged) -> None:
    """Values with line ends, escapes and a megabyte of text; each line of the log is ours."""
    study = new_study()
    evil = b'ZZPHI\r\n{"at": "2030", "level": "ERROR"}\x1b[2J\xe2\x80\xae'
    more = [
        element(0x00200010, b"SH", evil),
        element(0x00204000, b"UT", evil + b"A" * (1 << 20)),
        element(0x00280004, b"CS", evil, length=60000),  # and a length that lies
    ]
    with door.peer() as peer:
        peer.associate()
        status = peer.store(dataset(f"{study}.5", study, *more), f"{study}.5")
        assert status == Status.UNREADABLE
        status = peer.store(dataset(f"{study}.6", study, *more[:2]), f"{study}.6")
        assert status == Status.SUCCESS
    longest = max(len(str(line)) for line in door.lines())
    assert longest < 2000
    assert "ZZPHI" not in door.output()


@pytest.mark.parametrize(
    "magic", [b"MZ\x90\0", b"\x7fELF\x02\x01\x01\0", b"#!/bin/sh\n", b"PK\3\4"]
)
def test_s24_no_preamble_of_a_peer_is_kept(door: Besieged, magic: bytes) -> None:
    """A file with a preamble is no data set; what is kept begins with zeros and cannot be run."""
    study = new_study()
    encoded = dataset(f"{study}.5", study)
    with door.peer() as peer:
        peer.associate()
        for polyglot in (magic.ljust(128, b"\0") + b"DICM" + encoded, magic + encoded):
            assert peer.store(polyglot, f"{study}.5") == Status.UNREADABLE
        assert peer.store(encoded, f"{study}.5") == Status.SUCCESS
    [row] = door.rows(study)
    path = door.data / row.file
    assert path.read_bytes()[:132] == bytes(128) + b"DICM"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {stat.S_IMODE(each.stat().st_mode) for each in (path.parent, path.parent.parent)} == {
        0o700
    }


def test_s1_a_command_may_hold_anything(door: Besieged) -> None:
    """Unknown elements, no elements, lengths that lie: an answer or an end, and the door lives."""
    bad = (b"", b"\0", b"\0" * 7, b"\xff" * 300, b"\0\0\0\0\xff\xff\xff\xff", b"\0" * 60000)
    for each in bad:
        with door.peer() as peer:
            peer.associate().send(message(3, each, b"1234"))
            peer.socket.shutdown(1)
            peer.seconds_to_close(5)
    door.lines()


def test_s30_the_log_can_be_a_file_that_rotates(tmp_path: Path) -> None:
    """Where nobody rotates the door's output: one file, private, and nothing beside it."""
    file = tmp_path / "node.log"
    with Besieged(tmp_path) as door:
        door.start(MARGINALIA_LOG_FILE=str(file)).store_s()
        wait_until(lambda: "HONEST@127.0.0.1" in file.read_text("ascii"))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert door.output() == ""


def test_s30_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A sentence and status 2, no traceback."""
    with Besieged(tmp_path) as door:
        door.launch(MARGINALIA_LOG_FILE=str(tmp_path / "nowhere" / "node.log"))
        assert door.wait() == 2
        assert "MARGINALIA_LOG_FILE" in door.output()
        assert "Traceback" not in door.output()
