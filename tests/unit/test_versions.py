"""Late slices: a study is routed again, and what was made of less of it is replaced.

Covered, on a real SQLite file: in which state an older job may be and what its history then says,
which jobs answer the same question, versions, the hold of results while a study grows, and jobs
that nothing takes the place of. Not covered: the whole way with a real node
(acceptance/test_late_slices.py).
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from app.errors import StoreError
from app.store.deliveries import DeliveryGone
from app.store.delivery import Delivery, DeliveryEvent, DeliveryState, NewDelivery
from app.store.jobs import Event, Job, LeaseLost, NewJob, State
from app.store.store import Store
from tests.log_rows import LEASE_S, at, instance, new_job

STUDY = "1.2"
LAST = "deliver"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return an empty job log that does not wait long for a lock."""
    with closing(Store.open(tmp_path / "node.db", timeout_s=0.2)) as opened:
        yield opened


def answer(job_id: str, series_uid: str = "", **changes: str) -> NewJob:
    """Return an answer of the one route to the one study."""
    return replace(new_job(job_id), series_uid=series_uid, **changes)


def grow(store: Store) -> int:
    """Let one more object arrive; return the study's version."""
    number = len(store.instances(STUDY)) + 1
    assert store.add_instance(instance(f"1.2.1.{number}"), at(number))
    return store.study(STUDY).version


def routed(store: Store, *jobs: NewJob) -> list[str] | None:
    """Let one more object arrive and the study be routed."""
    return store.route_study(STUDY, grow(store), {}, jobs, at(100))


def running(store: Store) -> Job:
    """Make the first job and claim it."""
    routed(store, answer("j1"))
    (job,) = store.claim("a", at(100), LEASE_S)
    return job


def _queued(store: Store) -> None:
    routed(store, answer("j1"))


def _running(store: Store) -> None:
    running(store)


def _waiting(store: Store) -> None:
    store.postpone(running(store), at(900), "away", at(101))


def _failed(store: Store) -> None:
    store.give_up(running(store), "slices are missing", at(101))


def _cancelled(store: Store) -> None:
    routed(store, answer("j1"))
    store.cancel("j1", at(101))


def _shadowed(store: Store) -> None:
    store.finish(running(store), 1.0, "shadow", at(101))


def _handed_over(store: Store) -> Delivery:
    to = NewDelivery(destination="pacs", forms=("seg",))
    store.hand_over(running(store), [to], 1.0, "", at(101))
    delivery = store.due_delivery("pacs", at(101))
    assert delivery is not None
    return delivery


def _delivering(store: Store) -> None:
    _handed_over(store)


def _sending(store: Store) -> None:
    store.begin_delivery(_handed_over(store), at(101))


def _published(store: Store) -> None:
    begun = store.begin_delivery(_handed_over(store), at(101))
    store.settle_delivery(begun, DeliveryEvent.PROVED, at(102), detail="stored", proof="stored")


NOTHING = "replaced by j2; nothing of it was sent"
BEFORE: dict[Callable[[Store], None], str] = {
    _queued: NOTHING,
    _running: NOTHING,
    _waiting: NOTHING,
    _failed: NOTHING,
    _cancelled: NOTHING,
    _shadowed: NOTHING,
    _delivering: NOTHING,
    _sending: "replaced by j2; sending had begun, an archive may hold its results",
    _published: "replaced by j2; its results stay in the archive",
}


@pytest.mark.parametrize("before", BEFORE, ids=lambda before: before.__name__[1:])
def test_more_slices_replace_what_was_made_of_less(
    store: Store, before: Callable[[Store], None]
) -> None:
    """Whatever state the older job is in; both histories tell it."""
    before(store)
    assert routed(store, answer("j2")) == ["j2"]
    old, new = store.job("j1"), store.job("j2")
    assert (old.state, old.superseded_by, old.owner) == (State.SUPERSEDED, "j2", None)
    assert old.reason == "replaced by j2"
    assert (new.state, new.version, new.superseded_by) == (State.QUEUED, 2, None)
    line = store.events("j1")[-1]
    assert (line.event, line.state, line.detail) == (
        Event.SUPERSEDED,
        State.SUPERSEDED,
        BEFORE[before],
    )
    (line,) = store.events("j2")
    assert line.detail == "version 2, replaces j1"
    assert store.replaced(["j1", "j2"]) == {"j2": ["j1"]}


def test_a_running_job_is_lost_to_its_owner(store: Store) -> None:
    """It can write nothing more, and nobody claims the job again."""
    job = running(store)
    routed(store, answer("j2"))
    with pytest.raises(LeaseLost, match="is superseded by now"):
        store.passed(job, "infer", "encode", 1.0, "", at(101))
    with pytest.raises(LeaseLost):
        store.hand_over(job, [NewDelivery(destination="pacs", forms=("seg",))], 1.0, "", at(101))
    assert [each.id for each in store.claim("a", at(999), LEASE_S, limit=9)] == ["j2"]
    assert store.recover(at(998)) == []


def test_versions_count_on(store: Store) -> None:
    """The third answer replaces the second; the first keeps its place in the chain."""
    for number in (1, 2, 3):
        routed(store, answer(f"j{number}"))
    jobs = {job.id: (job.version, job.superseded_by) for job in store.jobs()}
    assert jobs == {"j1": (1, "j2"), "j2": (2, "j3"), "j3": (3, None)}
    assert store.events("j3")[0].detail == "version 3, replaces j2"


def test_the_same_objects_make_no_new_version(store: Store) -> None:
    """An object that the route does not read opens the study; its job is known."""
    job = running(store)
    assert routed(store, answer("j1")) == []
    assert store.job("j1") == job


def test_another_series_is_the_same_question_unless_the_route_makes_a_job_each(
    store: Store,
) -> None:
    """With `take: one` a better series that comes late replaces; with `all` it stands beside."""
    routed(store, answer("all-a", "1.2.1"), answer("one"))
    made = routed(store, answer("all-a", "1.2.1"), answer("all-b", "1.2.2"), answer("other"))
    assert made == ["all-b", "other"]
    jobs = {job.id: (job.version, job.state) for job in store.jobs()}
    assert jobs == {
        "all-a": (1, State.QUEUED),
        "all-b": (1, State.QUEUED),
        "one": (1, State.SUPERSEDED),
        "other": (2, State.QUEUED),
    }


@pytest.mark.parametrize("before", [_queued, _published])
def test_an_answer_that_is_asked_for_again_counts_again(
    store: Store, before: Callable[[Store], None]
) -> None:
    """Late slices spoiled the better series, or a newer model was taken back."""
    before(store)
    sent = store.job("j1").published_at
    routed(store, answer("j2"))
    assert routed(store, answer("j1")) == ["j1"]
    first, second = store.job("j1"), store.job("j2")
    assert (first.state, first.version, first.superseded_by) == (State.QUEUED, 3, None)
    assert (second.state, second.superseded_by) == (State.SUPERSEDED, "j1")
    assert first.published_at == sent
    assert store.events("j1")[-1].event is Event.REVIVED
    assert store.events("j1")[-1].detail == "version 3, replaces j2"
    assert routed(store, answer("j1")) == []
    with pytest.raises(StoreError, match="superseded cannot be retried"):
        store.retry("j2", at(200))


def test_another_route_is_another_question(store: Store) -> None:
    """Two routes that read one series do not replace each other."""
    routed(store, answer("j1"), answer("other", route="other"))
    assert {job.state for job in store.jobs()} == {State.QUEUED}


@pytest.mark.parametrize("before", [_queued, _running, _waiting, _failed, _cancelled])
def test_a_job_that_the_grown_study_does_not_ask_for_ends(
    store: Store, before: Callable[[Store], None]
) -> None:
    """More slices may be why a route takes the study no more; a subset is then nobody's answer."""
    before(store)
    assert routed(store) == []
    old = store.job("j1")
    assert (old.state, old.superseded_by) == (State.SUPERSEDED, None)
    assert "its route does not take the study as it is by now" in old.reason
    assert store.study_events(STUDY)[-1].detail == "jobs made: 0, withdrawn: j1"


def test_a_published_answer_that_nothing_replaces_stays(store: Store) -> None:
    """It is in the archive, and there is no other."""
    _published(store)
    routed(store)
    assert store.job("j1").state is State.DONE


def test_a_result_is_held_while_the_study_grows(store: Store) -> None:
    """Sending begins only when the study is routed as it is; then it goes on."""
    delivery = _handed_over(store)
    grow(store)
    assert store.due_delivery("pacs", at(102)) is None
    with pytest.raises(DeliveryGone):
        store.begin_delivery(delivery, at(102))
    assert store.job("j1").published_at is None
    store.route_study(STUDY, store.study(STUDY).version, {}, [answer("j1")], at(104))
    assert store.due_delivery("pacs", at(104)) == delivery
    begun = store.begin_delivery(delivery, at(105))
    assert begun.attempts == 1
    later = store.settle_delivery(begun, DeliveryEvent.PUT_OFF, at(105), detail="away")
    store.begin_delivery(later, at(106))
    assert store.job("j1").published_at == at(105)


def test_only_results_are_held(store: Store) -> None:
    """What comes before may as well be computed: the new objects may not concern the job."""
    routed(store, answer("j1"))
    grow(store)
    (job,) = store.claim("a", at(101), LEASE_S)
    assert job.stage == "infer"


def test_a_study_that_cannot_be_used_holds_its_results(store: Store) -> None:
    """Such as one with a second patient in it: nothing more of it is sent."""
    _handed_over(store)
    version = grow(store)
    assert store.fail_study(STUDY, version, "two patients", at(102), "alarm")
    assert store.study_events(STUDY)[-1].event == "alarm"
    assert store.due_delivery("pacs", at(104)) is None


def test_what_was_not_proved_of_a_replaced_answer_is_withdrawn(store: Store) -> None:
    """A courier that has it in hand finds out when it wants to write what came of it."""
    begun = store.begin_delivery(_handed_over(store), at(101))
    routed(store, answer("j2"))
    with pytest.raises(DeliveryGone):
        store.settle_delivery(begun, DeliveryEvent.PROVED, at(103), detail="stored")
    (delivery,) = store.deliveries(["j1"])
    assert delivery.state is DeliveryState.WITHDRAWN
    assert store.delivery_lines("j1")[-1].detail == "replaced by j2"


def test_urgent_jobs_come_first_but_none_waits_for_ever(store: Store) -> None:
    """One step of priority is worth ten minutes: five steps, fifty minutes."""
    routed(store, answer("low"))
    first = []
    for minute in range(1, 60):
        now = at(100 + 60 * minute)
        urgent = replace(new_job(f"u{minute}", f"9.{minute}"), priority=5)
        store.add_instance(instance(f"9.{minute}.1", f"9.{minute}"), now)
        store.route_study(f"9.{minute}", 1, {}, [urgent], now)
        first += [job.id for job in store.claim("a", now, LEASE_S)]
    assert first.index("low") == 49, "made at minute 0, it comes before all made after minute 50"
    assert set(first) >= {f"u{minute}" for minute in range(1, 50)}
