"""What arrives, the way from a study to its jobs, and what people read, on a real SQLite file.

Not covered here: how jobs move (test_ledger.py), many writers and broken disks
(test_store_file.py), opening old or damaged files (test_migrations.py).
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy.exc import StatementError

from app.errors import StoreError
from app.store.jobs import Event, State, StudyState
from app.store.store import Store
from tests.log_rows import LEASE_S, START, add_jobs, at, instance, new_job

BATCH = [("1.1", "1.2"), ("2.1", "3.4"), ("1.1", "1.2"), ("1.3", "1.2"), ("8.1", "8"), ("8.0", "8")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return an empty job log that does not wait long for a lock."""
    with closing(Store.open(tmp_path / "node.db", timeout_s=0.2)) as opened:
        yield opened


def _study_lines(store: Store, study_uid: str = "1.2") -> list[str]:
    return [line.event for line in store.study_events(study_uid)]


def test_an_instance_is_found_as_it_was_kept(store: Store) -> None:
    """All of its row comes back, and None for a UID that never came."""
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


def test_routing_closes_the_study_and_makes_its_jobs(store: Store) -> None:
    """The jobs come back as they were given, with their first line; the trace is kept."""
    store.add_instance(instance("1.2.1"), START)
    trace = {"phantom-ct": [{"taken": True, "why": "CT"}]}
    assert store.route_study("1.2", 1, trace, [new_job("j1"), new_job("j2")], at(9)) == ["j1", "j2"]
    job = store.job("j1")
    assert (job.state, job.stage, job.attempts, job.fence) == (State.QUEUED, "infer", 0, 0)
    assert (job.inputs, job.instances) == ({"CT": "1.2.1"}, {"CT": ("1.2.1.1", "1.2.1.2")})
    assert (job.created_at, job.due_at, job.owner) == (at(9), at(9), None)
    (line,) = store.events("j1")
    assert (line.event, line.state, line.stage) == (Event.CREATED, State.QUEUED, "infer")
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


def test_somebody_says_that_a_study_is_complete(store: Store) -> None:
    """Only of an open one; as soon as more arrives it is not true any more."""
    assert not store.complete("1.2", "by hand", START)
    store.add_instance(instance("1.2.1"), START)
    assert store.complete("1.2", "by hand", at(1))
    assert store.study("1.2").complete_signal == "by hand"
    assert _study_lines(store) == ["received_first", "complete"]
    store.add_instance(instance("1.2.2"), at(2))
    assert store.study("1.2").complete_signal is None
    store.route_study("1.2", 2, {}, [], at(3))
    assert not store.complete("1.2", "by hand", at(4))


def test_what_an_archive_lists_is_kept_while_the_study_grows(store: Store) -> None:
    """It is about the archive; a study that is not here is no fault."""
    store.add_instance(instance("1.2.1"), START)
    store.expect("1.2", 300)
    store.expect("9.9", 1)
    store.add_instance(instance("1.2.2"), at(2))
    assert (store.study("1.2").expected, store.study("1.2").instances) == (300, 2)


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


def test_times_are_kept_in_utc(store: Store) -> None:
    """A time of another zone is the same moment; one without a zone is refused."""
    tokyo = START.astimezone(timezone(timedelta(hours=9)))
    store.add_instance(instance("1.2.1"), tokyo)
    kept = store.study("1.2").last_received_at
    assert kept == START
    assert kept.utcoffset() == timedelta(0)
    naive = datetime(2030, 1, 1)  # noqa: DTZ001  # the point
    with pytest.raises(ValueError, match="has no time zone"):
        store.add_instance(instance("1.2.2"), naive)
    with pytest.raises(StatementError, match="has no time zone"):
        store.release(["1.2"], naive)
    assert store.study("1.2").version == 1


def test_many_instances_in_one_transaction_are_as_many_in_their_own(
    store: Store, tmp_path: Path
) -> None:
    """The same rows, counts, versions and lines; only the moments of a study are one."""
    rows = [instance(name, study) for name, study in BATCH]
    with closing(Store.open(tmp_path / "other.db")) as other:
        for log in (store, other):
            log.add_instance(instance("8.0", "8"), START)
            assert log.fail_study("8", 1, "unreadable", START)
        alone = [other.add_instance(row, at(9)) for row in rows]
        assert store.add_instances(rows, at(9)) == alone
        assert alone == [True, True, False, True, True, False]
        assert sorted(store.studies(), key=str) == sorted(other.studies(), key=str)
        for study in ("1.2", "3.4", "8"):
            assert store.instances(study) == other.instances(study) != []
            assert store.study_events(study) == other.study_events(study)
    assert store.files() == {row.file for row in rows} | {instance("8.0", "8").file}
    assert store.add_instances([], START) == []


def test_one_row_that_cannot_be_kept_keeps_the_others_out(store: Store) -> None:
    """A transaction is whole or not at all, also for the study's count."""
    broken = replace(instance("1.2.3"), file=None)  # type: ignore[arg-type]  # the point
    with pytest.raises(StoreError, match="NOT NULL"):
        store.add_instances([instance("1.2.1"), broken], START)
    assert store.find_instance("1.2.1") is None
    assert store.studies() == []
    assert store.add_instances([instance("1.2.1")], START) == [True]


def test_the_door_has_a_history_of_its_own(store: Store) -> None:
    """For what was refused and belongs to no study."""
    store.door_event("EVIL@127.0.0.1", "refused", "SOPInstanceUID is missing", START)
    store.door_event("EVIL@127.0.0.1", "refused", "again", at(1))
    newest, first = store.door_events()
    assert (first.at, first.source, first.event) == (START, "EVIL@127.0.0.1", "refused")
    assert newest.detail == "again"
    assert store.door_events(limit=1) == [newest]
