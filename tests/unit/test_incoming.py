"""Objects on their way in, piece by piece, with real files and a real job log.

Covered: what is kept, held, refused or dropped, its limits, and many threads at once. Not
covered: how often the disk is waited for (test_commit.py), the network (tests/sockets), power
cuts and kills (tests/faults).
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from app.config_door import Limits
from app.dicom.dimse import Status
from app.door.intake import GIGABYTE, LOOK_S, Intake
from app.door.partial import BLOCK
from app.door.refusals import MOST, WINDOW_S, Refusals
from app.pipeline.receive import prepare, read_spooled
from app.store.store import Store
from tests.sockets.scu import Made, image, images, new_study
from tests.waiting import wait_until

FREE = Limits(free_gb=0)
SYNTAXES = [
    *(ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian),
    JPEG2000Lossless,
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder as the door prepares it."""
    prepare(tmp_path)
    return tmp_path


@pytest.fixture
def store(data: Path) -> Iterator[Store]:
    """Its job log."""
    store = Store.open(data / "node.db")
    yield store
    store.close()


@pytest.fixture
def intake(data: Path, store: Store) -> Intake:
    """Where objects come in."""
    return Intake(data, store, FREE)


def bring(intake: Intake, made: Made, piece: int = 1 << 16) -> tuple[Status, bool]:
    """Bring an object in by pieces of this size."""
    claimed = (made.sop_class, made.sop_uid)
    with intake.begin(made.syntax, claimed=claimed, source="PEER@127.0.0.1") as incoming:
        for at in range(0, len(made.dataset), piece):
            incoming.write(memoryview(made.dataset)[at : at + piece])
        outcome = incoming.finish()
    return outcome.status, outcome.new


def left(data: Path) -> list[Path]:
    """Return all files of spool and quarantine, whole or not."""
    return [p for folder in ("spool", "quarantine") for p in (data / folder).rglob("*.*")]


@pytest.mark.parametrize("size", [256, BLOCK - 1024, BLOCK, BLOCK + 4096, 3 * BLOCK + 512])
@pytest.mark.parametrize("piece", [999, 1 << 17, 1 << 30])
def test_pieces_become_one_file(
    intake: Intake, data: Path, store: Store, size: int, piece: int
) -> None:
    """Below, at and beyond the size that stays in memory, whatever the pieces are."""
    made = image(new_study(), size=size)
    assert bring(intake, made, piece) == (Status.SUCCESS, True)
    [path] = left(data)
    [row] = store.instances(made.study_uid)
    assert data / row.file == path
    assert path.read_bytes().endswith(made.dataset)
    assert read_spooled(data, row.file).sha256 == row.sha256
    assert (row.size, row.source) == (len(made.dataset), "PEER@127.0.0.1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert bring(intake, made, piece) == (Status.SUCCESS, False)
    assert left(data) == [path]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_kept_object_is_a_file_with_the_bytes_as_they_came(
    intake: Intake, data: Path, store: Store, syntax: str
) -> None:
    """The header is ours, what follows is theirs; every reader finds both, and so does a start."""
    made = image(new_study(), syntax)
    assert bring(intake, made) == (Status.SUCCESS, True)
    [row] = store.instances(made.study_uid)
    content = (data / row.file).read_bytes()
    assert content[:132] == bytes(128) + b"DICM"
    assert content.endswith(made.dataset)
    assert row.sha256 == hashlib.sha256(made.dataset).hexdigest()
    ds = pydicom.dcmread(data / row.file)
    assert ds.file_meta.TransferSyntaxUID == row.transfer_syntax == syntax
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID == made.sop_uid
    assert ds.file_meta.MediaStorageSOPClassUID == ds.SOPClassUID == made.sop_class
    again = read_spooled(data, row.file)
    assert (again.identifiers.sop_uid, again.identifiers.series_uid) == (
        row.sop_uid,
        row.series_uid,
    )
    assert (again.transfer_syntax, again.sha256, again.size) == (syntax, row.sha256, row.size)


def test_names_of_kept_files_have_nothing_of_the_sender(
    intake: Intake, data: Path, store: Store
) -> None:
    """They are random, each in the folder of its first two letters."""
    study = new_study()
    for made in images(study, 2):
        assert bring(intake, made) == (Status.SUCCESS, True)
    first, second = (row.file for row in store.instances(study))
    assert first != second
    for file in (first, second):
        spool, folder, name = file.split("/")
        assert (spool, folder) == ("spool", name[:2])
        assert set(name.removesuffix(".dcm")) <= set("0123456789abcdef")
        assert "2.25" not in file
        assert (data / file).is_file()


def test_memory_is_used_again_and_shows_nothing_of_the_last_object(
    intake: Intake, data: Path, store: Store
) -> None:
    """A short object after a long one ends where it ends."""
    long, short = image(new_study(), size=BLOCK // 2), image(new_study(), size=256)
    for made in (long, short):
        assert bring(intake, made) == (Status.SUCCESS, True)
    [row] = store.instances(short.study_uid)
    content = (data / row.file).read_bytes()
    assert content.endswith(short.dataset)
    assert len(content) < len(short.dataset) + 512


def test_a_walk_ends_where_the_object_ends(intake: Intake, data: Path) -> None:
    """A cut object is not completed by what an earlier one left in memory."""
    made = image(new_study(), size=4096)
    assert bring(intake, made)[0] == Status.SUCCESS
    again = image(new_study(), size=4096)
    cut = replace(again, dataset=again.dataset[:-100])
    assert bring(intake, cut) == (Status.UNREADABLE, False)
    assert len(left(data)) == 1


@pytest.mark.parametrize("size", [2048, 2 * BLOCK])
def test_what_is_left_without_an_end_leaves_nothing(
    intake: Intake, data: Path, store: Store, size: int
) -> None:
    """The sender went away in the middle."""
    made = image(new_study(), size=size)
    claimed = (made.sop_class, made.sop_uid)
    with intake.begin(made.syntax, claimed=claimed, source="PEER") as incoming:
        incoming.write(made.dataset[: size - 1])
        assert incoming.failed is None
    assert left(data) == []
    assert store.find_instance(made.sop_uid) is None


def test_too_much_is_refused_as_soon_as_it_is_seen(data: Path, store: Store) -> None:
    """And takes no more of the disk than its limit."""
    intake = Intake(data, store, Limits(free_gb=0, object_gb=2 * BLOCK / GIGABYTE))
    made = image(new_study(), size=4 * BLOCK)
    claimed = (made.sop_class, made.sop_uid)
    with intake.begin(made.syntax, claimed=claimed, source="PEER") as incoming:
        incoming.write(made.dataset[: 3 * BLOCK])
        assert incoming.failed is Status.UNREADABLE
        assert left(data) == []
        incoming.write(made.dataset[3 * BLOCK :])
        outcome = incoming.finish()
    assert outcome.status is Status.UNREADABLE
    assert "larger than 0.00209715 GB" in outcome.reason
    [event] = store.door_events()
    assert (event.source, event.detail) == ("PEER", f"C000: {outcome.reason}")
    assert bring(intake, image(new_study(), size=BLOCK))[0] is Status.SUCCESS


def test_an_object_has_its_time(data: Path, store: Store) -> None:
    """A sender that stretches one object over hours is refused."""
    intake = Intake(data, store, Limits(free_gb=0, object_s=0.001))
    made = image(new_study())
    claimed = (made.sop_class, made.sop_uid)
    with intake.begin(made.syntax, claimed=claimed, source="PEER") as incoming:
        wait_until(lambda: incoming.write(b"\x08\x00") or incoming.failed)
        assert incoming.finish().status is Status.OUT_OF_RESOURCES
    assert left(data) == []


def test_a_full_disk_lets_nothing_in_until_there_is_room(
    data: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before a byte is written, and taken again without a restart."""
    intake = Intake(data, store, Limits(free_gb=1))
    made = image(new_study())
    real = os.statvfs(data)
    full = os.statvfs_result([*real[:4], 1, *real[5:]])  # blocks that we may use
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda _path: full)
        assert not intake.has_room()
        assert bring(intake, made) == (Status.OUT_OF_RESOURCES, False)
        assert left(data) == []
    wait_until(intake.has_room, LOOK_S + 5)
    assert bring(intake, made) == (Status.SUCCESS, True)


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, "1.2.3", "", "ß", "\n"])
def test_a_transfer_syntax_that_is_not_ours_is_refused(
    intake: Intake, data: Path, syntax: str
) -> None:
    """A deflated object could be a thousand times larger inside."""
    assert bring(intake, replace(image(new_study()), syntax=syntax))[0] is Status.UNREADABLE
    assert left(data) == []


@pytest.mark.parametrize("claimed", [("1.2", "3.4"), ("", ""), ("../../x", "\0"), ("1" * 70, "²")])
def test_what_is_claimed_must_be_what_is_there(
    intake: Intake, data: Path, claimed: tuple[str, str]
) -> None:
    """However odd the claim is."""
    made = image(new_study())
    with intake.begin(made.syntax, claimed=claimed, source="PEER") as incoming:
        incoming.write(made.dataset)
        assert incoming.finish().status is Status.UIDS_DIFFER
    assert left(data) == []


def test_nothing_and_nonsense_are_unreadable(intake: Intake, data: Path) -> None:
    """Also where there is so much of it that it went to the disk."""
    made = image(new_study())
    for content in (b"", b"nonsense", bytes(2 * BLOCK)):
        assert bring(intake, replace(made, dataset=content))[0] is Status.UNREADABLE
    compressed = replace(made, syntax=str(JPEG2000Lossless))
    assert bring(intake, compressed)[0] is Status.UNREADABLE
    assert left(data) == []


def test_other_content_is_kept_apart_once(intake: Intake, data: Path, store: Store) -> None:
    """Both are there afterwards, however often the second is sent."""
    made = image(new_study())
    other = replace(made, dataset=made.dataset[:-1] + b"!")
    assert bring(intake, made) == (Status.SUCCESS, True)
    for _ in range(3):
        assert bring(intake, other) == (Status.OTHER_CONTENT, False)
    [aside] = (data / "quarantine").iterdir()
    assert aside.read_bytes().endswith(other.dataset)
    [row] = store.instances(made.study_uid)
    assert (data / row.file).read_bytes().endswith(made.dataset)
    assert "quarantined" in {event.event for event in store.study_events(made.study_uid)}


# -- many at once --------------------------------------------------------------------------------


def at_once(intake: Intake, objects: Sequence[Made], threads: int = 8) -> list[tuple[Status, bool]]:
    """Bring objects in, in as many threads."""
    with ThreadPoolExecutor(threads) as pool:
        return [*pool.map(lambda made: bring(intake, made), objects)]


def test_many_threads_bring_a_study_in(intake: Intake, data: Path, store: Store) -> None:
    """Each gets its own answer, and the study counts them all."""
    study = new_study()
    objects = images(study, 100)
    assert at_once(intake, objects) == [(Status.SUCCESS, True)] * 100
    rows = store.instances(study)
    assert {row.sop_uid for row in rows} == {made.sop_uid for made in objects}
    assert {data / row.file for row in rows} == {*left(data)}
    assert store.study(study).instances == store.study(study).version == 100


def test_one_object_from_many_threads_is_kept_once(
    intake: Intake, data: Path, store: Store
) -> None:
    """One is new, the others are held; not a file too many."""
    for made in images(new_study(), 20):
        answers = at_once(intake, [made] * 8)
        assert sorted(answers) == [(Status.SUCCESS, False)] * 7 + [(Status.SUCCESS, True)]
        [row] = [row for row in store.instances(made.study_uid) if row.sop_uid == made.sop_uid]
        assert (data / row.file).read_bytes().endswith(made.dataset)
    assert len(left(data)) == 20


def test_two_contents_from_many_threads_are_both_kept(intake: Intake, data: Path) -> None:
    """Whichever comes first; the other is put aside and never called a success."""
    made = image(new_study())
    other = replace(made, dataset=made.dataset[:-1] + b"!")
    answers = at_once(intake, [made, other] * 4)
    assert [new for _, new in answers].count(True) == 1
    assert [status for status, _ in answers].count(Status.SUCCESS) == 4
    assert len(left(data)) == 2


def test_a_log_that_takes_nothing_is_no_success(intake: Intake, data: Path, store: Store) -> None:
    """Every sender that waited is told, and no file is left."""
    store.close()
    study = new_study()
    answers = at_once(intake, images(study, 16))
    assert {status for status, _ in answers} == {Status.OUR_FAULT}
    assert left(data) == []


# -- refusals ------------------------------------------------------------------------------------


def test_refusals_are_noted_but_not_without_end(store: Store) -> None:
    """A flood leaves a bounded number of lines and one that says how many are missing."""
    now = 0.0
    refusals = Refusals(store, clock=lambda: now)
    for _ in range(MOST + 500):
        refusals.note("EVIL", "why")
    assert len(store.door_events(1000)) == MOST
    now += WINDOW_S
    refusals.note("EVIL", "once more")
    newest, summary, *_ = store.door_events(1000)
    assert (newest.detail, summary.event) == ("once more", "left_out")
    assert summary.detail.startswith("500 more")
    refusals.close()
    assert len(store.door_events(1000)) == MOST + 2


def test_a_refusal_that_cannot_be_noted_is_still_a_refusal(store: Store) -> None:
    """Nothing is raised into the thread that answers the sender."""
    refusals = Refusals(store)
    store.close()
    refusals.note("EVIL", "why")
    refusals.close()
