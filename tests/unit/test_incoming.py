"""Objects on their way in, piece by piece, with real files and a real job log.

Covered: what is kept, held, refused or dropped, its limits, many threads at once, and how often
the disk is waited for. Not covered: the network (tests/sockets), power cuts and kills
(tests/faults).
"""

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from app.config_door import Limits
from app.dicom.dimse import Status
from app.door.commit import Committer
from app.door.intake import GIGABYTE, LOOK_S, Intake
from app.door.partial import ALIGNED, BLOCK, Blocks, Partial
from app.door.refusals import MOST, WINDOW_S, Refusals
from app.errors import OutOfResources, StoreError
from app.pipeline.receive import prepare, read_spooled
from app.store.jobs import InstanceRow
from app.store.store import Store
from tests.log_rows import instance
from tests.sockets.scu import Made, image, images, new_study
from tests.waiting import wait_until

FREE = Limits(free_gb=0)


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


@pytest.mark.parametrize("head", [0, 300])
@pytest.mark.parametrize(
    "size", [0, 1, ALIGNED - 1, ALIGNED, ALIGNED + 1, BLOCK, BLOCK + 1, 2 * BLOCK + ALIGNED]
)
def test_a_file_ends_where_its_bytes_end(tmp_path: Path, size: int, head: int) -> None:
    """Whole pages are written past the cache and the rest through it; the head is not digested."""
    content = bytes(range(251)) * (size // 251 + 1)
    partial = Partial(tmp_path / "x.dcm", Blocks())
    partial.begin(b"h" * head)
    partial.append(content[:size])
    partial.complete()
    partial.sync()
    partial.rename(tmp_path / "x.dcm")
    assert (tmp_path / "x.dcm").read_bytes() == b"h" * head + content[:size]
    assert partial.sha256() == hashlib.sha256(content[:size]).hexdigest()
    assert partial.size == head + size
    partial.close()


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


class Slow:
    """Takes rows only when it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.batches: list[list[InstanceRow]] = []
        self.go = threading.Event()
        self._error = error

    def __call__(self, rows: Sequence[InstanceRow]) -> list[bool]:
        """Note the rows and wait."""
        self.batches.append([*rows])
        assert self.go.wait(30)
        if self._error:
            raise self._error
        return [row.sop_uid != "1.2.known" for row in rows]


def pairs(data: Path, number: int) -> list[tuple[InstanceRow, Partial]]:
    """Return rows with their files, which have no names yet."""
    made, blocks = [], Blocks()
    for name in ("known", *range(number - 1)):
        row = instance(f"1.2.{name}")
        partial = Partial(data / row.file, blocks)
        partial.append(b"content")
        partial.complete()
        made.append((row, partial))
    return made


def queued(committer: Committer, rows: int) -> Callable[[], bool]:
    """Return whether so many rows wait for their turn."""
    return lambda: len(committer._queue) == rows


def test_rows_that_end_together_share_a_transaction(data: Path) -> None:
    """One waits for the disk, nine queue up, and are written at once; each gets its own answer."""
    slow, rows = Slow(), pairs(data, 10)
    committer = Committer(data, slow)
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(committer.add, *rows[1])
        wait_until(lambda: slow.batches)
        others = [pool.submit(committer.add, *row) for row in (rows[0], *rows[2:])]
        wait_until(queued(committer, 9))
        slow.go.set()
        assert first.result()
        assert [each.result() for each in others] == [False] + [True] * 8
    assert [len(batch) for batch in slow.batches] == [1, 9]
    assert all((data / row.file).read_bytes() == b"content" for row, _ in rows)
    for _, partial in rows:
        partial.close()
    assert left(data) == []


@pytest.mark.parametrize("error", [OutOfResources("busy"), StoreError("damaged"), OSError("EIO")])
def test_a_transaction_that_fails_fails_for_all_who_share_it(data: Path, error: Exception) -> None:
    """And for nobody else."""
    slow, rows = Slow(error), pairs(data, 5)
    committer = Committer(data, slow)
    with ThreadPoolExecutor(5) as pool:
        sent = [pool.submit(committer.add, *row) for row in rows]
        wait_until(lambda: sum(map(len, slow.batches)) + len(committer._queue) == 5)
        slow.go.set()
        assert [type(each.exception()) for each in sent] == [type(error)] * 5
    slow._error = None
    for _, partial in rows:
        partial.close()
    assert left(data) == []
    (_, unused), (row, partial) = pairs(data, 2)
    assert committer.add(row, partial)
    partial.settle()
    for each in (unused, partial):
        each.close()
    assert left(data) == [data / row.file]


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
