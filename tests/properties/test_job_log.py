"""The job log under any order of moves, deaths, pauses and power cuts.

A model of its own keeps who must hold which job and which lines were caused. A cut is a copy of the
file and its WAL taken while they are open, which is what `kill -9` leaves; pages that the kernel
had not synced yet are not dropped here.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.store.jobs import Event, Job, LeaseLost, State, after
from app.store.store import Store
from tests.log_rows import LEASE_S, START, add_jobs, instance, new_job

OWNERS = st.sampled_from(["a", "b"])
MOST_JOBS = 4  # so that much befalls each of them
ANY = st.integers(0, 1_000)


@cache
def _empty() -> bytes:
    """Return the file of an empty log, made once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "node.db"
        Store.open(path).close()
        return path.read_bytes()


class JobLog(RuleBasedStateMachine):
    """Nodes that share one log, and everything that can befall them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="job-log-")
        self.cuts = 0
        self._file().write_bytes(_empty())
        self.store = Store.open(self._file(), migrate=False)
        self.now = START
        self.lines: dict[str, list[Event]] = {}
        self.held: dict[str, Job] = {}
        self.lost: list[Job] = []
        self.fences: dict[str, int] = {}
        self.leases: dict[str, datetime] = {}

    def teardown(self) -> None:
        """Close what is open."""
        self.store.close()
        self.folder.cleanup()

    def _file(self) -> Path:
        return Path(self.folder.name) / f"{self.cuts}.db"

    def _note(self, job_id: str, event: Event) -> None:
        self.lines[job_id].append(event)

    def _pick(self, number: int) -> Job:
        return self.held[sorted(self.held)[number % len(self.held)]]

    def _any_job(self, number: int) -> str:
        return sorted(self.lines)[number % len(self.lines)]

    def _taken(self, jobs: list[Job]) -> None:
        """Note that these jobs were taken from their owners."""
        for job in jobs:
            self.lost.append(self.held.pop(job.id))
            ended = job.state == State.FAILED
            assert ended == (job.orphanings == 3)
            self._note(job.id, Event.GAVE_UP if ended else Event.ORPHANED)

    @initialize(owner=OWNERS)
    def begin(self, owner: str) -> None:
        """A short run too has jobs to move."""
        self.arrive(2)
        self.claim(owner, 2)

    @precondition(lambda self: len(self.lines) < MOST_JOBS)
    @rule(count=st.integers(1, 2))
    def arrive(self, count: int) -> None:
        """A study makes some jobs."""
        names = [f"job {len(self.lines) + number}" for number in range(count)]
        assert add_jobs(self.store, *names, now=self.now) == names
        self.lines.update({name: [Event.CREATED] for name in names})

    @rule(owner=OWNERS, limit=st.integers(1, 3))
    def claim(self, owner: str, limit: int) -> None:
        """A node takes work; nobody else may hold it."""
        waiting = self.store.jobs(State.WAITING)
        for job in [job for job in waiting if job.due_at <= self.now]:
            self._note(job.id, Event.DUE)
        for job in self.store.claim(owner, self.now, LEASE_S, limit):
            assert job.id not in self.held
            assert job.fence > self.fences.get(job.id, 0)
            assert job.due_at <= self.now
            self.fences[job.id] = job.fence
            self.leases[job.id] = self.now + timedelta(seconds=LEASE_S)
            self.held[job.id] = job
            self._note(job.id, Event.CLAIMED)

    @rule(owner=OWNERS)
    def beat(self, owner: str) -> None:
        """A node learns exactly which jobs it still holds."""
        mine = {job.id for job in self.held.values() if job.owner == owner}
        assert self.store.extend(owner, self.now, LEASE_S) == mine
        self.leases.update(dict.fromkeys(mine, self.now + timedelta(seconds=LEASE_S)))

    @precondition(lambda self: self.held)
    @rule(number=ANY)
    def pass_a_stage(self, number: int) -> None:
        """A stage is done; its owner goes on."""
        job = self._pick(number)
        self.held[job.id] = self.store.passed(job, job.stage, "next", 1.0, "", self.now)
        self._note(job.id, Event.PASSED)

    @precondition(lambda self: self.held)
    @rule(number=ANY, end=st.sampled_from(["finish", "postpone", "give_up", "hand_back"]))
    def let_go(self, number: int, end: str) -> None:
        """The owner ends its part."""
        job = self._pick(number)
        self._note(job.id, ENDS[end][0])
        ENDS[end][1](self.store, self.held.pop(job.id), self.now)

    @precondition(lambda self: self.held)
    @rule(number=ANY, owner=OWNERS)
    def postpone_and_come_back(self, number: int, owner: str) -> None:
        """The world was busy for a moment."""
        self.let_go(number, "postpone")
        self.wait(1)
        self.claim(owner, MOST_JOBS)

    @precondition(lambda self: self.lost)
    @rule(number=ANY, end=st.sampled_from(["finish", "postpone", "give_up", "hand_back"]))
    def wake_up_too_late(self, number: int, end: str) -> None:
        """An owner that lost its job writes nothing."""
        with pytest.raises(LeaseLost):
            ENDS[end][1](self.store, self.lost[number % len(self.lost)], self.now)

    @rule(seconds=st.sampled_from([1, LEASE_S]))
    def wait(self, seconds: int) -> None:
        """Time goes by."""
        self.now += timedelta(seconds=seconds)

    @rule()
    def recover(self) -> None:
        """A node looks for leases that are over."""
        over = {job_id for job_id in self.held if self.leases[job_id] <= self.now}
        recovered = self.store.recover(self.now)
        assert {job.id for job in recovered} == over
        self._taken(recovered)

    @precondition(lambda self: self.held)
    @rule(number=ANY, end=st.sampled_from(["finish", "postpone", "give_up", "hand_back"]))
    def sleep_through_the_lease(self, number: int, end: str) -> None:
        """Another node of the same name takes the work; the sleeper writes nothing."""
        sleeper = self._pick(number)
        self.wait(LEASE_S)
        self.recover()
        self.claim(str(sleeper.owner), MOST_JOBS)
        with pytest.raises(LeaseLost):
            ENDS[end][1](self.store, sleeper, self.now)

    @precondition(lambda self: self.lines)
    @rule(number=ANY)
    def cancel(self, number: int) -> None:
        """A person cancels a job that can be cancelled."""
        job = self.store.job(self._any_job(number))
        if job.state in {State.QUEUED, State.WAITING, State.RUNNING}:
            self.store.cancel(job.id, self.now)
            self._note(job.id, Event.CANCELLED)
            if job.id in self.held:
                self.lost.append(self.held.pop(job.id))

    @precondition(lambda self: self.lines)
    @rule(number=ANY)
    def retry(self, number: int) -> None:
        """A person brings back a job that ended."""
        job = self.store.job(self._any_job(number))
        if job.state in {State.FAILED, State.CANCELLED}:
            self.store.retry(job.id, self.now)
            self._note(job.id, Event.RETRIED)

    @precondition(lambda self: self.lines)
    @rule(number=ANY, answered=st.booleans())
    def grow(self, number: int, answered: bool) -> None:
        """More arrives for a job's study: its question gets a new answer, an old one, or none."""
        job = self.store.job(self._any_job(number))
        study = self.store.study(job.study_uid)
        of_study = self.store.jobs(study_uid=job.study_uid)
        rivals = [each for each in of_study if each.series_uid == job.series_uid]
        again = job.state is State.SUPERSEDED
        name = job.id if again else f"job {len(self.lines)}"
        jobs = [
            replace(new_job(each.id, job.study_uid), series_uid=each.series_uid)
            for each in of_study
            if each not in rivals and each.state is not State.SUPERSEDED
        ]
        if answered:
            jobs.append(replace(new_job(name, job.study_uid), series_uid=job.series_uid))
        more = instance(f"{job.study_uid}.{study.version + 1}", job.study_uid)
        assert self.store.add_instance(more, self.now)
        made = self.store.route_study(job.study_uid, study.version + 1, {}, jobs, self.now)
        assert made == ([name] if answered else [])
        stay = {State.SUPERSEDED} if answered else {State.SUPERSEDED, State.DONE}
        for each in rivals:
            if each.state not in stay:
                self._note(each.id, Event.SUPERSEDED)
                if each.id in self.held:
                    self.lost.append(self.held.pop(each.id))
        for each_name in made:
            self.lines.setdefault(each_name, [])
            self._note(each_name, Event.REVIVED if again else Event.CREATED)

    @rule()
    def cut_the_power(self) -> None:
        """Nothing is closed; the node starts again from what lies on the disk."""
        before = self._file()
        self.cuts += 1
        shutil.copy(before, self._file())
        shutil.copy(f"{before}-wal", f"{self._file()}-wal")
        self.store.close()
        self.store = Store.open(self._file(), migrate=False)
        recovered = self.store.recover(self.now, all_running=True)
        assert {job.id for job in recovered} == set(self.held)
        self._taken(recovered)

    @invariant()
    def no_line_is_lost_and_history_explains_the_state(self) -> None:
        """The log has the lines that were caused, and they lead to the state that it shows."""
        jobs = self.store.jobs(limit=10_000)
        assert {job.id for job in jobs} == set(self.lines)
        for job in jobs:
            lines = self.store.events(job.id)
            assert [line.event for line in lines] == self.lines[job.id]
            state = None
            for line in lines:
                state = after(state, line.event)
                assert state == line.state
            assert state == job.state

    @invariant()
    def who_holds_a_job_is_its_owner(self) -> None:
        """And what it holds is what the log says."""
        running = {job.id: (job.owner, job.fence) for job in self.store.jobs(State.RUNNING)}
        assert running == {job.id: (job.owner, job.fence) for job in self.held.values()}


ENDS: dict[str, tuple[Event, Callable[[Store, Job, datetime], Job]]] = {
    "finish": (Event.FINISHED, lambda store, job, now: store.finish(job, 1.0, "", now)),
    "postpone": (
        Event.POSTPONED,
        lambda store, job, now: store.postpone(job, now + timedelta(seconds=1), "", now),
    ),
    "give_up": (Event.GAVE_UP, lambda store, job, now: store.give_up(job, "", now)),
    "hand_back": (Event.HANDED_BACK, lambda store, job, now: store.hand_back(job, "", now)),
}

TestJobLog = JobLog.TestCase
TestJobLog.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
