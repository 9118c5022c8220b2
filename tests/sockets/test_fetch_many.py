"""Thousands of studies, archives that page badly, and ends in the midst: none missed, none twice.

Covered: every way of paging with 3,000 studies; kills and stops of the fetcher while it fetches,
judged by the requests that the archive saw; a study that ends the process; a process that cannot
ask any more. Not covered: the faults
of single answers (test_fetch).
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from pysqlite3 import dbapi2  # type: ignore[import-untyped]  # ships no types

from app.store.jobs import RemoteState
from tests.asked_archive import (
    AskedArchive,
    ct_series,
    cut,
    new_uid,
    running_asked_archive,
    status,
)
from tests.sockets.fetchers import Fetcher
from tests.waiting import wait_until

MANY = 3000


@pytest.fixture
def archive() -> Iterator[AskedArchive]:
    """Give an archive that is honest until it is told otherwise."""
    with running_asked_archive() as archive:
        yield archive


def fill(archive: AskedArchive, number: int, slices: int = 3) -> list[str]:
    """Put studies there that share their objects' bytes; only their number is of interest."""
    uids = [new_uid() for _ in range(number)]
    for uid in uids:
        archive.add(ct_series(uid, slices), study_uid=uid)
    return uids


def listed(archive: AskedArchive, number: int) -> list[str]:
    """Put studies there of which only the list is ever asked."""
    empty = ct_series(new_uid(), 0)
    return [archive.add(empty, study_uid=new_uid()) for _ in range(number)]


@pytest.mark.parametrize(
    "way", ["honest", "in one", "no offset", "204 at the end", "no counts", "slow"]
)
def test_every_way_of_paging_lists_each_study_once(
    tmp_path: Path, archive: AskedArchive, way: str
) -> None:
    """All are noted by the first list, and the next ones change nothing."""
    archive.knows_offset = way not in {"in one", "no offset"}
    archive.empty = 204 if way == "204 at the end" else 200
    archive.counts = way != "no counts"
    archive.page = 37 if way == "honest" else 500
    if way == "slow":
        archive.before_page = lambda _offset: archive.closing.wait(0.3) and None
    uids = listed(archive, MANY)
    with Fetcher(tmp_path, archive, source={"quiet_s": 3600}) as fetcher:
        fetcher.start()
        fetcher.polls(3, timeout_s=60)
        assert fetcher.states() == {"listed": MANY}
        assert {each.study_uid for each in fetcher.store.remotes(limit=MANY + 1)} == set(uids)
        assert fetcher.status().listed == MANY
        assert fetcher.peak_mb() < 250
    assert fetcher.output().count(f"{MANY} new or grown") == 1
    assert fetcher.output().count("new or grown") == 1


def test_pages_that_shift_while_they_are_read_hide_nothing(
    tmp_path: Path, archive: AskedArchive
) -> None:
    """Studies come in at the top and repeat what is behind, or go and skip it."""
    uids = listed(archive, MANY)
    arrived: list[str] = []

    def shift(offset: int) -> None:
        if 0 < offset < 1000 and len(arrived) < 50:  # it comes to the top of the list
            uid = new_uid()
            archive.studies = {uid: [ct_series(uid, 0)], **archive.studies}
            arrived.append(uid)
        elif offset == 1000:
            archive.studies.pop(uids[0], None)

    archive.before_page = shift
    with Fetcher(tmp_path, archive, source={"quiet_s": 3600}) as fetcher:
        fetcher.start()
        fetcher.polls(2, timeout_s=60)
        archive.before_page = lambda _offset: None
        fetcher.polls(2, timeout_s=60)
        known = {each.study_uid for each in fetcher.store.remotes(limit=2 * MANY)}
    assert arrived
    assert known == {*uids, *arrived}


def test_a_list_that_breaks_off_goes_on_next_time(tmp_path: Path, archive: AskedArchive) -> None:
    """What its first pages told is kept; the rest follows."""
    listed(archive, MANY)
    archive.faults["studies"] += [
        lambda handler: handler._studies(),
        lambda handler: handler._studies(),
        cut,
        status(503, Retry_After="1"),
    ]
    with Fetcher(tmp_path, archive, source={"quiet_s": 3600}) as fetcher:
        fetcher.start()
        wait_until(lambda: fetcher.states() == {"listed": 200}, 20, "two pages")
        fetcher.polls(1, timeout_s=60)
        assert fetcher.states() == {"listed": MANY}


@contextmanager
def renamed(log: Path, table: str) -> Iterator[None]:
    """Have a table of the job log go by another name for a while."""
    with closing(dbapi2.connect(str(log))) as connection:
        connection.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
        yield
        connection.execute(f"ALTER TABLE elsewhere RENAME TO {table}")


@pytest.mark.slow
def test_a_fetcher_that_is_killed_and_stopped_fetches_each_study_once(
    tmp_path: Path, archive: AskedArchive
) -> None:
    """Only what was on its way at a kill may be asked for again: one series a kill."""
    uids = fill(archive, 120)
    kills, stops = 3, 2
    with Fetcher(tmp_path, archive) as fetcher:
        for n in range(kills + stops):
            fetcher.start()
            wait_until(lambda n=n: fetcher.states().get("fetched", 0) > 20 * n, 60, "some")
            if n < kills:
                fetcher.kill()
            else:
                assert fetcher.process is not None
                fetcher.process.terminate()
                assert fetcher.wait() == 0
        fetcher.start()
        wait_until(lambda: fetcher.states() == {"fetched": 120}, 90, "all of them")
        for uid in uids:
            (series,) = archive.studies[uid]
            assert fetcher.sop_uids(uid) == set(series.objects)
        assert fetcher.quarantined() == []
        asked = Counter(archive.of("retrieve"))
        assert set(asked.values()) <= {1, 2}
        assert sum(asked.values()) <= 120 + kills + stops
        before = Counter(kind for kind, _ in archive.asked)
        fetcher.polls(2)
        after = Counter(kind for kind, _ in archive.asked)
        assert {kind for kind in after if after[kind] > before[kind]} == {"studies"}


def test_a_fetcher_that_cannot_ask_any_more_ends_and_a_new_one_asks(
    tmp_path: Path, archive: AskedArchive
) -> None:
    """A living process whose threads are dead would look well and fetch nothing."""
    fill(archive, 1)
    with Fetcher(tmp_path, archive) as fetcher:
        with renamed(fetcher.data / "node.db", "remote_studies"):
            fetcher.start()
            assert fetcher.wait() == 2
        assert "the thread 'from pacs' ended" in fetcher.output()
        fetcher.start()
        wait_until(lambda: fetcher.states() == {"fetched": 1}, 30, "the study")


def test_a_study_that_ends_the_process_is_left_after_three_times(
    tmp_path: Path, archive: AskedArchive
) -> None:
    """The others are fetched all the same."""
    uids = fill(archive, 2)
    with Fetcher(tmp_path, archive) as fetcher:
        for _ in range(3):
            (marker := tmp_path / "marker").touch()
            fetcher.start(MARGINALIA_CRASH_AT=f"fetch.begun:{marker}")
            assert fetcher.wait() == -9
        fetcher.start()
        wait_until(lambda: fetcher.states() == {"failed": 1, "fetched": 1}, 30, "both ends")
        failed = next(
            uid for uid in uids if (r := fetcher.remote(uid)) and r.state is RemoteState.FAILED
        )
        found = fetcher.remote(failed)
        assert found is not None
        assert "ended 3 times over it" in found.reason
