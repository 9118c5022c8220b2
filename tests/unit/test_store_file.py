"""What the file of the job log promises: many writers, a locked file, a full disk, true history.

Covered with real threads, processes, locks and failing writes. Not covered: pages that a power cut
drops although they were synced, and other databases than SQLite.
"""

import multiprocessing
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from pysqlite3 import dbapi2  # type: ignore[import-untyped]  # ships no types
from sqlalchemy import text

from app.errors import OutOfResources, StoreError
from app.store.jobs import State
from app.store.store import Store
from tests.log_rows import LEASE_S, START, add_jobs, claimed, instance


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return an empty job log that does not wait long for a lock."""
    with closing(Store.open(tmp_path / "node.db", timeout_s=0.2)) as opened:
        yield opened


def _study_lines(store: Store, study_uid: str = "1.2") -> list[str]:
    return [line.event for line in store.study_events(study_uid)]


def test_a_commit_is_set_up_to_survive_a_power_cut(store: Store) -> None:
    """The defaults of SQLite or of the driver would differ in at least one of these."""
    with store._database.writing() as connection:
        asked = ["journal_mode", "synchronous", "foreign_keys"]
        said = [connection.execute(text(f"PRAGMA {name}")).scalar() for name in asked]
        bug_free = connection.execute(text("SELECT sqlite_version()")).scalar_one()
    assert said == ["wal", 2, 1]
    assert tuple(map(int, bug_free.split("."))) >= (3, 51, 3)


@pytest.mark.parametrize("table", ["job_events", "study_events", "door_events"])
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE {} SET detail = 'forged'",
        "DELETE FROM {}",
        "INSERT OR REPLACE INTO {0} SELECT * FROM {0}",
    ],
)
def test_history_cannot_be_changed(store: Store, table: str, change: str) -> None:
    """Not even by SQL of another program on the same file."""
    claimed(store)
    store.door_event("A@127.0.0.1", "refused", "why", START)
    with store._database.reading() as connection:
        before = connection.execute(text(f"SELECT * FROM {table}")).all()  # noqa: S608  # see above
    with (
        pytest.raises(StoreError, match=f"{table} is append-only"),
        store._database.writing() as connection,
    ):
        connection.execute(text(change.format(table)))
    with store._database.reading() as connection:
        after = connection.execute(text(f"SELECT * FROM {table}")).all()  # noqa: S608  # same
    assert after == before != []


def test_readers_cannot_write(store: Store) -> None:
    """The connections of pages and commands refuse, whatever they are asked."""
    with (
        pytest.raises(OutOfResources, match="readonly"),
        store._database.reading() as connection,
    ):
        connection.execute(text("DELETE FROM jobs"))


def test_readers_are_not_held_up_by_a_writer(store: Store) -> None:
    """They see the moment before its transaction."""
    with store._database.writing() as connection:
        connection.execute(text("INSERT INTO study_events VALUES (1, '1.2', '', 'x', '')"))
        assert store.study_events("1.2") == []


def test_a_closed_log_says_so(store: Store) -> None:
    """Closing twice is harmless; using it afterwards is not silently opening it again."""
    store.close()
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.counts()


def test_a_job_needs_its_study(store: Store) -> None:
    """Foreign keys are on: a row that refers to nothing is refused at commit."""
    add_jobs(store, "j1")
    with (
        pytest.raises(StoreError, match="FOREIGN KEY"),
        store._database.writing() as connection,
    ):
        connection.execute(text("DELETE FROM studies"))


def test_threads_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    """6 × 20 read-then-write transactions on one row; SQLite's defaults lose most of them."""
    with closing(Store.open(tmp_path / "node.db")) as store, ThreadPoolExecutor(6) as pool:
        start = threading.Barrier(6)

        def write(thread: int) -> int:
            start.wait()
            names = (f"1.2.{thread}.{number}" for number in range(20))
            return sum(store.add_instance(instance(name), START) for name in names)

        assert list(pool.map(write, range(6))) == [20] * 6
        assert (store.study("1.2").instances, store.study("1.2").version) == (120, 120)
        assert len(store.instances("1.2")) == 120
        assert _study_lines(store) == ["received_first"]


def _write_and_claim(path: Path, name: str) -> None:
    """Send 20 instances of one's own and 20 of everybody's, then take jobs until none is left."""
    with closing(Store.open(path, migrate=False)) as store:
        own = sum(store.add_instance(instance(f"1.2.{name}.{n}"), START) for n in range(20))
        common = sum(store.add_instance(instance(f"1.2.0.{n}"), START) for n in range(20))
        store.study_event("1.2", name, f"{own} {common}", START)
        while jobs := store.claim(name, START, LEASE_S):
            store.finish(jobs[0], None, name, START)


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    """The door and the node: each instance is new to one of them, each job is run by one."""
    path = tmp_path / "node.db"
    with closing(Store.open(path)) as store:
        add_jobs(store, *(f"j{number}" for number in range(30)))
        spawn = multiprocessing.get_context("spawn")
        both = [spawn.Process(target=_write_and_claim, args=(path, name)) for name in "12"]
        for process in both:
            process.start()
        for process in both:
            process.join(60)
        assert [process.exitcode for process in both] == [0, 0]
        said = [line.detail for line in store.study_events("1.2") if line.event in "12"]
        own, common = zip(*(map(int, line.split()) for line in said), strict=True)
        assert (own, sum(common)) == ((20, 20), 20)
        assert store.study("1.2").version == 60
        assert store.counts()[State.DONE] == 30
        assert {len(store.events(job.id)) for job in store.jobs()} == {3}


def test_a_locked_log_is_waited_for_and_then_out_of_resources(store: Store, tmp_path: Path) -> None:
    """A second writer holds the file; nothing is half written, and all is well when it lets go."""
    add_jobs(store, "j1")
    with closing(dbapi2.connect(str(tmp_path / "node.db"))) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutOfResources, match="locked by another process"):
            store.add_instance(instance("1.2.3"), START)
        with pytest.raises(OutOfResources, match="locked"):
            store.claim("a", START, LEASE_S)
        assert store.find_instance("1.2.3") is None
    assert store.add_instance(instance("1.2.3"), START)
    assert len(store.claim("a", START, LEASE_S)) == 1


def test_a_thread_that_holds_the_writer_too_long_is_not_waited_for_for_ever(store: Store) -> None:
    """The queue inside one process has the same limit as the lock of the file."""
    with (
        store._database.writing(),
        ThreadPoolExecutor(1) as pool,
        pytest.raises(OutOfResources, match="too busy"),
    ):
        pool.submit(store.claim, "a", START, LEASE_S).result()


def test_a_full_disk_is_out_of_resources(store: Store) -> None:
    """SQLite says that the disk is full; no instance without its row is acknowledged."""
    with store._database.writing() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        connection.execute(text(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(OutOfResources, match="is full"):
        _fill(store)
    kept = len(store.instances("1.2"))
    assert store.study("1.2").version == kept
    with store._database.writing() as connection:
        connection.execute(text("PRAGMA max_page_count = 10000"))
    assert store.add_instance(instance("1.2.999"), START)


def test_a_disk_that_refuses_to_write_is_out_of_resources(store: Store) -> None:
    """The kernel fails the write itself; afterwards the file is whole and goes on."""
    wal = store._database.path.with_name("node.db-wal")
    with (
        _no_file_longer_than(wal.stat().st_size),
        pytest.raises(OutOfResources, match="look at the disk"),
    ):
        _fill(store)
    assert store.add_instance(instance("1.2.999"), START)
    assert store.study("1.2").version == len(store.instances("1.2"))
    with store._database.reading() as connection:
        assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"


def _fill(store: Store) -> None:
    for number in range(500):
        store.add_instance(instance(f"1.2.{number}"), START)


@contextmanager
def _no_file_longer_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_damage_found_later_asks_for_a_copy(tmp_path: Path) -> None:
    """Pages that rot under a running node are named for what they are."""
    path = tmp_path / "node.db"
    with closing(Store.open(path)) as store:
        add_jobs(store, "j1")
    whole = path.read_bytes()
    with closing(Store.open(path, migrate=False)) as store:
        path.write_bytes(whole[: 2 * 4096] + b"\xff" * (len(whole) - 2 * 4096))
        with pytest.raises(StoreError, match="restore a copy"):
            store.add_instance(instance("1.2.3"), START)
