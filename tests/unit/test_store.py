"""The job log on a real SQLite file: what arrives, how jobs move, who may write when.

Covered: every method, threads and processes that write at once, a locked file, a full disk, a
disk that cannot be written to, history that cannot be changed. Not covered: the order of many moves
(properties/test_job_log.py), opening old or damaged files (test_migrations.py), pages that a power
cut drops although they were synced, and PostgreSQL.
"""

import multiprocessing
import resource
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from pysqlite3 import dbapi2  # type: ignore[import-untyped]  # ships no types
from sqlalchemy import text
from sqlalchemy.exc import StatementError

from app.errors import OutOfResources, StoreError
from app.store.jobs import Event, Job, LeaseLost, State, StudyState
from app.store.store import Store
from tests.log_rows import START, add_jobs, at, instance, new_job

LEASE_S = 30.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return an empty job log that does not wait long for a lock."""
    with closing(Store.open(tmp_path / "node.db", timeout_s=0.2)) as opened:
        yield opened


def _claimed(store: Store, job_id: str = "j1", owner: str = "a") -> Job:
    """Make a job and claim it."""
    add_jobs(store, job_id)
    (job,) = store.claim(owner, START, LEASE_S)
    return job


def _line(store: Store, job_id: str = "j1") -> tuple[Event, State, str, float | None, str]:
    """Return the newest line of the job's history."""
    last = store.events(job_id)[-1]
    return last.event, last.state, last.stage, last.seconds, last.detail


def _study_lines(store: Store, study_uid: str = "1.2") -> list[str]:
    return [line.event for line in store.study_events(study_uid)]


# -- what arrives --------------------------------------------------------------------------------


def test_an_instance_is_found_as_it_was_kept(store: Store) -> None:
    """All of its row comes back, and nothing for a UID that never came."""
    assert store.add_instance(instance("1.2.3"), START)
    assert store.find_instance("1.2.3") == instance("1.2.3")
    assert store.find_instance("1.2.4") is None


def test_an_instance_is_kept_once(store: Store) -> None:
    """A second object of the same UID changes nothing, whatever it says of itself."""
    store.add_instance(instance("1.2.3"), START)
    before = store.study("1.2")
    assert not store.add_instance(instance("1.2.3"), at(5))
    assert not store.add_instance(instance("1.2.3", study_uid="6.6"), at(5))
    assert store.study("1.2") == before
    assert [study.study_uid for study in store.studies()] == ["1.2"]


def test_a_study_grows_with_each_instance(store: Store) -> None:
    """Count, version and times follow; only the first instance has a line."""
    for number in range(3):
        store.add_instance(instance(f"1.2.{number}"), at(number))
    (study,) = store.open_studies()
    assert (study.instances, study.version, study.state) == (3, 3, StudyState.OPEN)
    assert (study.first_received_at, study.last_received_at) == (at(0), at(2))
    assert study.source == "PHANTOM@127.0.0.1"
    assert [row.sop_uid for row in store.instances("1.2")] == ["1.2.0", "1.2.1", "1.2.2"]
    assert _study_lines(store) == ["received_first"]


def test_more_takes_back_the_release(store: Store) -> None:
    """Only the studies that are named are released, and only while nothing more arrives."""
    store.add_instance(instance("1.2.1"), START)
    store.add_instance(instance("3.4.1", "3.4"), START)
    store.release(["1.2", "7.7"], at(3))
    assert [study.released_at for study in store.open_studies()] == [at(3), None]
    store.add_instance(instance("1.2.2"), at(4))
    assert store.study("1.2").released_at is None
    assert store.study("1.2").version == 2


def test_an_alarm_needs_no_study(store: Store) -> None:
    """The object of an unknown study can be quarantined too."""
    store.quarantine("9.9", "1.2.3 came with other pixels", at(1))
    (line,) = store.study_events("9.9")
    assert (line.at, line.event, line.detail) == (
        at(1),
        "quarantined",
        "1.2.3 came with other pixels",
    )


# -- from a study to its jobs --------------------------------------------------------------------


def test_routing_closes_the_study_and_makes_its_jobs(store: Store) -> None:
    """The jobs come back as they were given, with their first line; the trace is kept."""
    store.add_instance(instance("1.2.1"), START)
    trace = {"phantom-ct": [{"taken": True, "why": "CT"}]}
    assert store.route_study("1.2", 1, trace, [new_job("j1"), new_job("j2")], at(9)) == ["j1", "j2"]
    job = store.job("j1")
    assert (job.state, job.stage, job.attempts, job.fence) == (State.QUEUED, "infer", 0, 0)
    assert (job.inputs, job.instances) == ({"CT": "1.2.1"}, {"CT": ("1.2.1.1", "1.2.1.2")})
    assert (job.created_at, job.due_at, job.owner) == (at(9), at(9), None)
    assert _line(store) == (Event.CREATED, State.QUEUED, "infer", None, "")
    assert store.trace("1.2") == trace
    assert store.study("1.2").state == StudyState.ROUTED
    assert store.open_studies() == []


def test_a_decision_on_an_older_version_is_not_kept(store: Store) -> None:
    """A slice that came while the routes were tried is not left out."""
    store.add_instance(instance("1.2.1"), START)
    store.add_instance(instance("1.2.2"), START)
    assert store.route_study("1.2", 1, {}, [new_job("j1")], START) is None
    assert not store.fail_study("1.2", 1, "unreadable", START)
    assert store.jobs() == []
    assert store.study("1.2").state == StudyState.OPEN
    assert _study_lines(store) == ["received_first"]


def test_a_study_is_routed_once(store: Store) -> None:
    """The second decision on the same version finds it closed."""
    store.add_instance(instance("1.2.1"), START)
    assert store.route_study("1.2", 1, {}, [new_job("j1")], START) == ["j1"]
    assert store.route_study("1.2", 1, {}, [new_job("j2")], START) is None


def test_a_job_of_a_known_identity_is_not_made_again(store: Store) -> None:
    """A late instance that no route wants leads to the same jobs; the study's history says so."""
    store.add_instance(instance("1.2.1"), START)
    store.route_study("1.2", 1, {}, [new_job("j1")], START)
    (job,) = store.claim("a", START, LEASE_S)
    store.add_instance(instance("1.2.2"), at(60))
    again = replace(new_job("other name"), identity=new_job("j1").identity)
    assert store.route_study("1.2", 2, {}, [again, new_job("j2")], at(70)) == ["j2"]
    assert store.job("j1") == job
    assert [line.event for line in store.events("j1")] == [Event.CREATED, Event.CLAIMED]
    assert store.study_events("1.2")[-1].detail == "jobs made: 1, known: other name"


def test_a_late_instance_opens_a_routed_study_again(store: Store) -> None:
    """It is routed once more, as a new version."""
    store.add_instance(instance("1.2.1"), START)
    store.route_study("1.2", 1, {}, [], START)
    store.add_instance(instance("1.2.2"), at(60))
    assert [study.version for study in store.open_studies()] == [2]
    assert _study_lines(store) == ["received_first", "routed", "reopened"]


def test_an_unreadable_study_waits_for_more(store: Store) -> None:
    """It is not looked at again until something new arrives, and its history says why."""
    store.add_instance(instance("1.2.1"), START)
    assert store.fail_study("1.2", 1, "no pixel data", at(1))
    assert store.open_studies() == []
    assert store.study_events("1.2")[-1].detail == "no pixel data"
    store.add_instance(instance("1.2.2"), at(2))
    assert [study.study_uid for study in store.open_studies()] == ["1.2"]


def test_routing_is_whole_or_not_at_all(store: Store) -> None:
    """A job that cannot be kept takes the others and the study's new state with it."""
    store.add_instance(instance("1.2.1"), START)
    clash = replace(new_job("j1"), identity="another")
    with pytest.raises(StoreError, match=r"UNIQUE constraint failed: jobs\.id"):
        store.route_study("1.2", 1, {}, [new_job("j1"), clash], START)
    assert store.jobs() == []
    assert store.study("1.2").state == StudyState.OPEN


# -- how jobs move -------------------------------------------------------------------------------


def test_the_most_urgent_and_oldest_job_is_claimed_first(store: Store) -> None:
    """Priority before age, and no more than was asked for."""
    store.add_instance(instance("1.2.1"), START)
    jobs = [new_job("old"), new_job("urgent", priority=5)]
    store.route_study("1.2", 1, {}, jobs, START)
    add_jobs(store, "new", now=at(1))
    assert [job.id for job in store.claim("a", at(2), LEASE_S, limit=2)] == ["urgent", "old"]
    assert [job.id for job in store.claim("b", at(2), LEASE_S, limit=2)] == ["new"]
    assert store.claim("c", at(2), LEASE_S) == []


def test_a_claim_is_a_lease_with_a_fence(store: Store) -> None:
    """What comes back is what the log has."""
    job = _claimed(store)
    assert (job.owner, job.lease_until, job.fence, job.attempts) == ("a", at(LEASE_S), 1, 1)
    assert job == store.job("j1")
    assert _line(store) == (Event.CLAIMED, State.RUNNING, "infer", None, "by a")


def test_a_job_passes_its_stages_and_is_done(store: Store) -> None:
    """Each stage has its line with the time it took; progress starts the attempts anew."""
    job = replace(_claimed(store))
    job = store.passed(job, "infer", "encode", 41.5, "3 labels", at(42))
    assert (job.state, job.stage, job.attempts) == (State.RUNNING, "encode", 1)
    assert job == store.job("j1")
    assert _line(store) == (Event.PASSED, State.RUNNING, "infer", 41.5, "3 labels")
    job = store.finish(job, 0.5, "stored", at(43))
    assert (job.state, job.stage, job.owner, job.lease_until) == (State.DONE, "encode", None, None)
    assert job == store.job("j1")
    assert _line(store) == (Event.FINISHED, State.DONE, "encode", 0.5, "stored")


def test_a_postponed_job_is_claimed_when_it_is_due(store: Store) -> None:
    """Not a second before; the attempts count up and the stage is kept."""
    job = store.passed(_claimed(store), "infer", "deliver", None, "", at(1))
    job = store.postpone(job, at(100), "archive away", at(2))
    assert (job.state, job.reason, job.owner) == (State.WAITING, "archive away", None)
    assert _line(store) == (Event.POSTPONED, State.WAITING, "deliver", None, "archive away")
    assert store.claim("b", at(99.9), LEASE_S) == []
    (again,) = store.claim("b", at(100), LEASE_S)
    assert (again.stage, again.attempts, again.fence, again.reason) == ("deliver", 2, 2, "")
    kinds = [line.event for line in store.events("j1")]
    assert kinds[-3:] == [Event.POSTPONED, Event.DUE, Event.CLAIMED]


def test_a_job_that_gave_up_waits_for_a_person(store: Store) -> None:
    """Nobody claims it; a retry by hand begins with no attempts, where it stopped or at a stage."""
    job = store.passed(_claimed(store), "infer", "deliver", None, "", START)
    store.give_up(job, "refused", at(1))
    assert _line(store) == (Event.GAVE_UP, State.FAILED, "deliver", None, "refused")
    assert store.job("j1").reason == "refused"
    assert store.claim("b", at(1_000), LEASE_S) == []
    job = store.retry("j1", at(2))
    assert (job.stage, job.attempts, job.reason, job.due_at) == ("deliver", 0, "", at(2))
    (job,) = store.claim("b", at(2), LEASE_S)
    store.give_up(job, "refused", at(3))
    assert store.retry("j1", at(4), stage="infer").stage == "infer"
    assert _line(store) == (Event.RETRIED, State.QUEUED, "infer", None, "by hand")


def test_a_job_handed_back_counts_no_attempt(store: Store) -> None:
    """It can be claimed at once, by somebody else."""
    job = store.hand_back(_claimed(store), "node stops", at(1))
    assert (job.state, job.attempts, job.owner) == (State.QUEUED, 0, None)
    assert _line(store) == (Event.HANDED_BACK, State.QUEUED, "infer", None, "node stops")
    (job,) = store.claim("b", at(1), LEASE_S)
    assert (job.attempts, job.fence) == (1, 2)


def test_a_heartbeat_keeps_the_lease(store: Store) -> None:
    """Only the owner's own, and it learns which jobs are still its own."""
    _claimed(store, "j1", "a")
    _claimed(store, "j2", "b")
    assert store.extend("a", at(20), LEASE_S) == {"j1"}
    assert [job.id for job in store.recover(at(LEASE_S))] == ["j2"]
    assert store.extend("b", at(31), LEASE_S) == set()
    assert store.recover(at(49.9)) == []
    assert [job.id for job in store.recover(at(50))] == ["j1"]


def test_a_job_that_its_owner_forgot_becomes_an_orphan(store: Store) -> None:
    """The owner lives and renews the leases of the jobs that it knows of."""
    add_jobs(store, "known", "forgotten")
    store.claim("a", START, LEASE_S, limit=2)
    assert store.extend("a", at(20), LEASE_S, held=["known", "not mine"]) == {"known"}
    assert [job.id for job in store.recover(at(LEASE_S))] == ["forgotten"]


MOVES: list[Callable[[Store, Job], Job]] = [
    lambda store, job: store.passed(job, "infer", "encode", 1.0, "", at(60)),
    lambda store, job: store.finish(job, 1.0, "", at(60)),
    lambda store, job: store.postpone(job, at(90), "", at(60)),
    lambda store, job: store.give_up(job, "", at(60)),
    lambda store, job: store.hand_back(job, "", at(60)),
]


@pytest.mark.parametrize(
    "move", MOVES, ids=["passed", "finish", "postpone", "give_up", "hand_back"]
)
def test_a_paused_owner_cannot_move_a_job_that_was_taken(
    store: Store, move: Callable[[Store, Job], Job]
) -> None:
    """Not while it is queued, nor while its next owner has it, even one of the same name."""
    mine = _claimed(store)
    store.recover(at(LEASE_S))
    with pytest.raises(LeaseLost, match="job j1 was taken from a and is queued"):
        move(store, mine)
    (theirs,) = store.claim("a", at(40), LEASE_S)
    with pytest.raises(LeaseLost):
        move(store, mine)
    assert store.job("j1") == theirs
    assert len(store.events("j1")) == 4
    assert move(store, theirs) == store.job("j1")


def test_an_owner_whose_lease_ran_out_unnoticed_may_finish(store: Store) -> None:
    """Nobody took the job, so nothing is made twice."""
    job = _claimed(store)
    assert store.finish(job, None, "", at(LEASE_S + 60)).state == State.DONE
    assert store.recover(at(1_000)) == []


def test_a_job_that_kills_its_owners_ends(store: Store) -> None:
    """The third death at one stage is its last, and a retry by hand starts the count anew."""
    _claimed(store)
    for count in (1, 2):
        (job,) = store.recover(at(LEASE_S))
        assert (job.state, job.orphanings, job.due_at) == (State.QUEUED, count, at(LEASE_S))
        assert _line(store)[:2] == (Event.ORPHANED, State.QUEUED)
        store.claim("a", at(LEASE_S), 0)
    (job,) = store.recover(at(LEASE_S))
    assert job == store.job("j1")
    assert (job.state, job.orphanings) == (State.FAILED, 3)
    assert "whoever ran infer died 3 times" in job.reason
    assert store.retry("j1", at(60)).orphanings == 0


def test_progress_clears_the_orphanings(store: Store) -> None:
    """Restarts of the node while a job goes on do not add up to a failure."""
    _claimed(store)
    store.recover(START, all_running=True)
    (job,) = store.claim("a", START, LEASE_S)
    assert job.orphanings == 1
    assert store.passed(job, "infer", "encode", None, "", START).orphanings == 0


def test_a_restarted_node_takes_back_all_that_ran(store: Store) -> None:
    """Whether the leases are over or not: nobody else can hold them."""
    _claimed(store)
    assert store.recover(START) == []
    assert [job.id for job in store.recover(START, all_running=True)] == ["j1"]


def test_a_running_job_can_be_cancelled(store: Store) -> None:
    """Its owner finds out when it next writes; a retry brings the job back."""
    mine = _claimed(store)
    assert store.cancel("j1", at(1)).state == State.CANCELLED
    assert _line(store) == (Event.CANCELLED, State.CANCELLED, "infer", None, "by hand")
    assert store.extend("a", at(2), LEASE_S) == set()
    with pytest.raises(LeaseLost, match="is cancelled by now"):
        store.finish(mine, None, "", at(2))
    assert store.retry("j1", at(3)).state == State.QUEUED


def test_a_move_that_does_not_fit_the_state_is_refused(store: Store) -> None:
    """With the state in the sentence, and nothing written."""
    job = _claimed(store)
    with pytest.raises(StoreError, match="a job that is running cannot be retried"):
        store.retry("j1", START)
    store.finish(job, None, "", START)
    with pytest.raises(StoreError, match="a job that is done cannot be cancelled"):
        store.cancel("j1", START)
    with pytest.raises(StoreError, match="there is no job j9"):
        store.cancel("j9", START)
    assert len(store.events("j1")) == 3


# -- what people read ----------------------------------------------------------------------------


def test_jobs_are_listed_newest_first(store: Store) -> None:
    """All, or those of one state, one study, or only so many."""
    add_jobs(store, "j1", now=at(1))
    add_jobs(store, "j2", now=at(2))
    store.claim("a", at(3), LEASE_S)
    assert [job.id for job in store.jobs()] == ["j2", "j1"]
    assert [job.id for job in store.jobs(state=State.RUNNING)] == ["j1"]
    assert [job.id for job in store.jobs(study_uid="1.2.1")] == ["j2"]
    assert [job.id for job in store.jobs(limit=1)] == ["j2"]


def test_a_job_is_found_by_the_start_of_its_name(store: Store) -> None:
    """As long as only one begins so; a whole name is always found, and wildcards are not."""
    add_jobs(store, "ab", "abc", "b%")
    assert store.job("abc").id == "abc"
    assert store.job("ab").id == "ab"
    assert store.job("b").id == "b%"
    with pytest.raises(StoreError, match="more than one job begins with a"):
        store.job("a")
    with pytest.raises(StoreError, match="there is no job %"):
        store.job("%")


def test_studies_are_listed_by_what_came_last(store: Store) -> None:
    """A study that nobody sent is refused by name, and has no trace."""
    store.add_instance(instance("1.2.1"), at(1))
    store.add_instance(instance("3.4.1", "3.4"), at(2))
    store.add_instance(instance("1.2.2"), at(3))
    assert [study.study_uid for study in store.studies()] == ["1.2", "3.4"]
    assert [study.study_uid for study in store.studies(limit=1)] == ["1.2"]
    assert store.trace("1.2") is None
    assert store.trace("9.9") is None
    with pytest.raises(StoreError, match=r"there is no study 9\.9"):
        store.study("9.9")


def test_every_state_is_counted(store: Store) -> None:
    """Also those that no job is in."""
    assert store.counts() == dict.fromkeys(State, 0)
    add_jobs(store, "j1", "j2")
    store.claim("a", START, LEASE_S)
    assert store.counts() == dict.fromkeys(State, 0) | {State.QUEUED: 1, State.RUNNING: 1}


def test_the_node_knows_how_long_it_can_sleep(store: Store) -> None:
    """Until the next job is due, not at all when one is, for ever when none is left."""
    assert store.next_due(START) is None
    job = _claimed(store)
    assert store.next_due(at(1)) is None
    store.postpone(job, at(100), "", at(1))
    assert store.next_due(at(2)) == at(100)
    assert store.next_due(at(150)) == at(150)


def test_times_are_kept_in_utc(store: Store) -> None:
    """A time of another zone is the same moment; one without a zone is refused."""
    tokyo = START.astimezone(timezone(timedelta(hours=9)))
    store.add_instance(instance("1.2.1"), tokyo)
    kept = store.study("1.2").last_received_at
    assert kept == START
    assert kept.utcoffset() == timedelta(0)
    with pytest.raises(StatementError, match="has no time zone"):
        store.add_instance(instance("1.2.2"), datetime(2030, 1, 1))  # noqa: DTZ001  # the point


# -- what the file promises ----------------------------------------------------------------------


def test_a_commit_is_set_up_to_survive_a_power_cut(store: Store) -> None:
    """The defaults of SQLite or of the driver would differ in at least one of these."""
    with store._database.writing() as connection:
        asked = ["journal_mode", "synchronous", "foreign_keys"]
        said = [connection.execute(text(f"PRAGMA {name}")).scalar() for name in asked]
        bug_free = connection.execute(text("SELECT sqlite_version()")).scalar_one()
    assert said == ["wal", 2, 1]
    assert tuple(map(int, bug_free.split("."))) >= (3, 51, 3)


@pytest.mark.parametrize("table", ["job_events", "study_events"])
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
    _claimed(store)
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


# -- many writers --------------------------------------------------------------------------------


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


# -- when the world is in the way ----------------------------------------------------------------


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
