"""How long the job log takes to answer when it is large.

`python -m tests.bench_log [--studies N] [--slower N]`. A log of 2,000 studies with 500 objects each
is made, and everything is measured that runs often or that a person waits for: the median of
several times, by itself, without the start of Python. Exit status 1 when something takes longer
than it may.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from app import show
from app.config import load_config
from app.installed import install, start_crew
from app.pipeline.assemble import complete_at, rules_for
from app.pipeline.work import StudyWork
from app.retain import clean
from app.runner import StageRunner, now
from app.store.jobs import State, StudyState
from app.store.store import Store
from app.trace_words import trace
from tests.large_log import START, Shape, make, uid
from tests.log_rows import instance
from tests.node import SETTINGS, Node

MAY_TAKE_MS, ROUTING_MS = 100.0, 50.0
TIMES = 7
TWENTY, TEN = uid("twenty series"), uid("ten series")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table."""

    what: str
    median_ms: float
    worst_ms: float
    may_take_ms: float


def measure(
    what: str,
    action: Callable[[], object],
    may_take_ms: float = MAY_TAKE_MS,
    before: Callable[[], object] = lambda: None,
) -> Figure:
    """Do it several times; what must happen `before` each time is not measured."""
    taken = []
    for _ in range(TIMES):
        before()
        started = time.perf_counter()
        action()
        taken.append(1000 * (time.perf_counter() - started))
    return Figure(
        what=what,
        median_ms=statistics.median(taken),
        worst_ms=max(taken),
        may_take_ms=may_take_ms,
    )


class Bench:
    """A large log and a node's parts on it; no worker is ever started."""

    def __init__(self, folder: Path, store: Store) -> None:
        several = [SETTINGS["routes"][0] | {"name": f"route-{n}"} for n in range(5)]
        config = load_config(Node(folder, {"routes": several}).config).at(folder)
        self.config = config
        self.store = store
        self.runner = StageRunner(
            config,
            store,
            models=install(config),
            crew=start_crew(config),
            left=lambda _: None,
        )
        self.objects = 0
        for job in store.jobs(limit=1000):
            (folder / "jobs" / job.id).mkdir(parents=True)

    def figures(self) -> list[Figure]:
        """Measure everything."""
        store = self.store
        return [
            measure("route 20 series × 500", lambda: self._route(TWENTY), ROUTING_MS, self._reopen),
            measure("route 10 series × 500", lambda: self._route(TEN), ROUTING_MS, self._reopen),
            measure("jobs", self._jobs),
            measure("jobs --state failed", lambda: store.jobs(State.FAILED, limit=50)),
            measure("studies", lambda: show.studies(store.studies())),
            measure("explain STUDY", lambda: trace(store.trace(TWENTY))),
            measure("show STUDY", lambda: self._show(TWENTY)),
            measure("show JOB", lambda: store.job(store.jobs(limit=1)[0].id[:6])),
            measure("the assembler's tick", self._tick),
            measure("claim one job", self._claim),
            measure("recover, extend", self._keep),
            measure("count the jobs", store.counts),
            measure("count all for a monitor", lambda: store.figures(now())),
            measure("the newest times of stages", lambda: store.stage_times(0, limit=100)),
            measure("try the log", store.probe),
            measure("receive one object", self._receive),
            measure("clean, nothing is over", self._clean),
        ]

    def _jobs(self) -> str:
        jobs = self.store.jobs(limit=50)
        return show.jobs(jobs, self.store.replaced(job.id for job in jobs))

    def _show(self, study_uid: str) -> None:
        self.store.study(study_uid)
        self.store.study_events(study_uid)
        self.store.trace(study_uid)
        for job in self.store.jobs(study_uid=study_uid):
            self.store.events(job.id)

    def _tick(self) -> None:
        for study in self.store.open_studies():
            complete_at(study, rules_for(study.source, self.config.assemble))
        self.store.claim("idle", now(), 30, limit=0)

    def _claim(self) -> None:
        (job,) = self.store.claim("bench", now(), 30)
        assert job.owner == "bench"

    def _keep(self) -> None:
        self.store.extend("bench", now(), 30)
        self.store.recover(now())

    def _clean(self) -> None:
        assert clean(self.config, self.store, START).studies == ()

    def _receive(self) -> None:
        self.objects += 1
        assert self.store.add_instance(instance(uid(f"late {self.objects}"), uid("late")), now())

    def _reopen(self) -> None:
        with self.store._database.writing() as connection:
            change = f"UPDATE studies SET state = 'open' WHERE study_uid IN ('{TWENTY}', '{TEN}')"  # noqa: S608
            connection.exec_driver_sql(change)

    def _route(self, study_uid: str) -> None:
        """Route an open study from rows; there are no files that could be read."""
        study = self.store.study(study_uid)
        work = StudyWork(study_uid=study_uid, version=study.version, signal="bench")
        self.runner.route(work)
        assert self.store.study(study_uid).state is StudyState.ROUTED


def main(argv: list[str] | None = None) -> int:
    """Print the table; 1 when something is too slow."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench_log", description=__doc__)
    parser.add_argument("--studies", type=int, default=2000, help="of 500 objects each")
    parser.add_argument(
        "--slower", type=float, default=1, help="everything may take so many times as long"
    )
    args = parser.parse_args(argv)
    shape = Shape(studies=args.studies, series=5, objects=100, open=20, queued=20)
    with tempfile.TemporaryDirectory(prefix="bench-log-") as name:
        path = Path(name) / "node.db"
        started = time.monotonic()
        make(path, shape, (TWENTY, 20), (TEN, 10))
        sys.stdout.write(
            f"{args.studies * 500 + 15_000:,} objects, {path.stat().st_size / 1e6:,.0f} MB,"
            f" made in {time.monotonic() - started:.0f} s\n"
        )
        with closing(Store.open(path)) as store:
            figures = Bench(Path(name), store).figures()
            wal = path.with_name(f"{path.name}-wal").stat().st_size
        sys.stdout.write(f"the WAL grew to {wal / 1e6:.1f} MB\n")
    slow = [each for each in figures if each.median_ms >= each.may_take_ms * args.slower]
    for each in figures:
        sys.stdout.write(
            f"{each.what:24} {each.median_ms:8.1f} ms, at worst {each.worst_ms:6.1f},"
            f" may take {each.may_take_ms * args.slower:.0f}"
            f"{'  TOO SLOW' if each in slow else ''}\n"
        )
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
