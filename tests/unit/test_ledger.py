"""How jobs move, each move with its line of history, on a real SQLite file.

Covered: every method of a job's owner, of whoever finds it orphaned, and of a person. Not covered:
the order of many moves (properties/test_job_log.py).
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.errors import StoreError
from app.store.jobs import Event, Job, LeaseLost, State
from app.store.store import Store
from tests.log_rows import LEASE_S, START, add_jobs, at, claimed, instance, new_job


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return an empty job log that does not wait long for a lock."""
    with closing(Store.open(tmp_path / "node.db", timeout_s=0.2)) as opened:
        yield opened


def _line(store: Store, job_id: str = "j1") -> tuple[Event, State, str, float | None, str]:
    """Return the newest line of the job's history."""
    last = store.events(job_id)[-1]
    return last.event, last.state, last.stage, last.seconds, last.detail


def test_the_most_urgent_and_oldest_job_is_claimed_first(store: Store) -> None:
    """Priority before age, and no more than was asked for."""
    add_jobs(store, "old", now=at(0))
    store.add_instance(instance("1.2.1"), at(1))
    store.route_study("1.2", 1, {}, [new_job("urgent", priority=5)], at(1))
    add_jobs(store, "new", now=at(2))
    assert [job.id for job in store.claim("a", at(3), LEASE_S, limit=2)] == ["urgent", "old"]
    assert [job.id for job in store.claim("b", at(3), LEASE_S, limit=2)] == ["new"]
    assert store.claim("c", at(3), LEASE_S) == []


def test_a_claim_is_a_lease_with_a_fence(store: Store) -> None:
    """What comes back is what the log has."""
    job = claimed(store)
    assert (job.owner, job.lease_until, job.fence, job.attempts) == ("a", at(LEASE_S), 1, 1)
    assert job == store.job("j1")
    assert _line(store) == (Event.CLAIMED, State.RUNNING, "infer", None, "by a")


def test_a_job_passes_its_stages_and_is_done(store: Store) -> None:
    """Each stage has its line with the time it took; progress starts the attempts anew."""
    job = claimed(store)
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
    job = store.passed(claimed(store), "infer", "deliver", None, "", at(1))
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
    job = store.passed(claimed(store), "infer", "deliver", None, "", START)
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
    job = store.hand_back(claimed(store), "node stops", at(1))
    assert (job.state, job.attempts, job.owner) == (State.QUEUED, 0, None)
    assert _line(store) == (Event.HANDED_BACK, State.QUEUED, "infer", None, "node stops")
    (job,) = store.claim("b", at(1), LEASE_S)
    assert (job.attempts, job.fence) == (1, 2)


def test_a_heartbeat_keeps_the_lease(store: Store) -> None:
    """Only the owner's own, and it learns which jobs are still its own."""
    claimed(store, "j1", "a")
    claimed(store, "j2", "b")
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
    mine = claimed(store)
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
    job = claimed(store)
    assert store.finish(job, None, "", at(LEASE_S + 60)).state == State.DONE
    assert store.recover(at(1_000)) == []


def test_a_job_that_kills_its_owners_ends(store: Store) -> None:
    """The third death at one stage is its last, and a retry by hand starts the count anew."""
    claimed(store)
    for count in (1, 2):
        (job,) = store.recover(at(LEASE_S))
        assert (job.state, job.orphanings, job.due_at) == (State.QUEUED, count, at(LEASE_S))
        assert (job.owner, job.lease_until) == (None, None)
        assert job == store.job("j1")
        assert _line(store)[:2] == (Event.ORPHANED, State.QUEUED)
        store.claim("a", at(LEASE_S), 0)
    (job,) = store.recover(at(LEASE_S))
    assert job == store.job("j1")
    assert (job.state, job.orphanings) == (State.FAILED, 3)
    assert "whoever ran infer died 3 times" in job.reason
    assert store.retry("j1", at(60)).orphanings == 0


def test_progress_clears_the_orphanings(store: Store) -> None:
    """Restarts of the node while a job goes on do not add up to a failure."""
    claimed(store)
    store.recover(START, all_running=True)
    (job,) = store.claim("a", START, LEASE_S)
    assert job.orphanings == 1
    assert store.passed(job, "infer", "encode", None, "", START).orphanings == 0


def test_a_restarted_node_takes_back_all_that_ran(store: Store) -> None:
    """Whether the leases are over or not: nobody else can hold them."""
    claimed(store)
    assert store.recover(START) == []
    assert [job.id for job in store.recover(START, all_running=True)] == ["j1"]


def test_a_running_job_can_be_cancelled(store: Store) -> None:
    """Its owner finds out when it next writes; a retry brings the job back."""
    mine = claimed(store)
    assert store.cancel("j1", at(1)).state == State.CANCELLED
    assert _line(store) == (Event.CANCELLED, State.CANCELLED, "infer", None, "by hand")
    assert store.extend("a", at(2), LEASE_S) == set()
    with pytest.raises(LeaseLost, match="is cancelled by now"):
        store.finish(mine, None, "", at(2))
    assert store.retry("j1", at(3)).state == State.QUEUED


def test_a_move_that_does_not_fit_the_state_is_refused(store: Store) -> None:
    """With the state in the sentence, and nothing written."""
    job = claimed(store)
    with pytest.raises(StoreError, match="a job that is running cannot be retried"):
        store.retry("j1", START)
    store.finish(job, None, "", START)
    with pytest.raises(StoreError, match="a job that is done cannot be cancelled"):
        store.cancel("j1", START)
    with pytest.raises(StoreError, match="there is no job j9"):
        store.cancel("j9", START)
    assert len(store.events("j1")) == 3
