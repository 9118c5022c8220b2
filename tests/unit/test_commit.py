"""One wait for the disk for all objects that end together, with files and rows that are told when.

Covered: who shares a transaction, and what becomes of those who shared one that failed. Not
covered: that what was synced is there after a power cut (tests/faults).
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.door.commit import Committer
from app.door.partial import Blocks, Partial
from app.errors import OutOfResources, StoreError
from app.pipeline.receive import prepare
from app.store.jobs import InstanceRow
from tests.log_rows import instance
from tests.waiting import wait_until


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder as the door prepares it."""
    prepare(tmp_path)
    return tmp_path


def left(data: Path) -> set[Path]:
    """Return all files of the spool, whole or not."""
    return {*(data / "spool").rglob("*.*")}


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
    assert left(data) == set()


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
    assert left(data) == set()
    (_, unused), (row, partial) = pairs(data, 2)
    assert committer.add(row, partial)
    partial.settle()
    for each in (unused, partial):
        each.close()
    assert left(data) == {data / row.file}
