"""The job log stays quick when it is large: no question reads a whole table.

Covered: the plan that SQLite makes for everything that a node asks often or a person waits for,
which does not depend on how much there is, and the bench itself on a small log. Not covered: how
long it takes on a million objects; `make bench-log` measures that.
"""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pysqlite3 import dbapi2  # type: ignore[import-untyped]  # ships no types
from sqlalchemy import event

from app.store.store import Store
from tests import bench_log
from tests.large_log import Shape, make


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a log with every kind of row."""
    path: Path = tmp_path_factory.mktemp("log") / "node.db"
    shape = Shape(studies=30, series=2, objects=5, open=3, queued=10)
    make(path, shape, (bench_log.TWENTY, 2), (bench_log.TEN, 1))
    return path


def asked(path: Path) -> Iterator[str]:
    """Yield every statement of the bench, as SQLite was given it."""
    heard: list[str] = []
    with closing(Store.open(path)) as store:
        for engine in (store._database._writer, store._database._reader):

            @event.listens_for(engine, "connect")
            def listen(connection: Any, _record: object) -> None:
                connection.set_trace_callback(heard.append)

            engine.dispose()  # so that every connection is a new one
        bench_log.Bench(path.parent, store).figures()
    yield from dict.fromkeys(re.sub(r"'[^']*'", "'x'", each) for each in heard)


def test_no_question_reads_a_whole_table(path: Path) -> None:
    """Reading an index in its order until there is enough is as good as a search."""
    statements = [each for each in asked(path) if each.startswith(("SELECT", "UPDATE", "INSERT"))]
    assert len(statements) > 30
    scans = []
    with closing(dbapi2.connect(str(path))) as connection:
        for each in statements:
            plan = [line for *_, line in connection.execute(f"EXPLAIN QUERY PLAN {each}")]
            scans += [f"{line}: {each}" for line in plan if re.fullmatch(r"SCAN \w+", line)]
    assert not scans, "\n".join(scans)


@pytest.mark.alone
@pytest.mark.parametrize(("studies", "slower", "status"), [("60", "4", 0), ("4", "0", 1)])
def test_the_bench_says_how_long_everything_takes(
    studies: str, slower: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its exit status is 0 when all is quick enough and 1 when something is not."""
    assert bench_log.main(["--studies", studies, "--slower", slower]) == status
    told = capsys.readouterr().out
    for what in ("route 20 series × 500", "jobs", "explain STUDY", "the assembler's tick"):
        assert what in told
    assert ("TOO SLOW" in told) == bool(status)
