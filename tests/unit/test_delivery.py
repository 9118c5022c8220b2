"""Deliveries in the job log: their states, and what follows from them for the job.

The table of arrows is written by hand from the decision. Covered, on a real SQLite file: handing
over, what a courier and a person may do, and that who comes too late changes nothing. Not covered:
archives (sockets/test_couriers), studies that grow (test_versions).
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.errors import StoreError
from app.store.deliveries import DeliveryGone
from app.store.delivery import (
    Delivery,
    DeliveryEvent,
    DeliveryState,
    NewDelivery,
    after_delivery,
)
from app.store.jobs import Event, State
from app.store.store import Store
from tests.log_rows import LEASE_S, at, claimed

UNDER_WAY = ("pending", "waiting", "sent")
ALLOWED = {
    ("", "created"): "pending",
    ("", "held"): "held",
    ("held", "released"): "pending",
    ("held", "withdrawn"): "withdrawn",
    ("refused", "withdrawn"): "withdrawn",
    ("refused", "resent"): "pending",
    ("proved", "resent"): "pending",
    ("withdrawn", "resent"): "pending",
    **{(state, "sent"): "sent" for state in UNDER_WAY},
    **{(state, "proved"): "proved" for state in UNDER_WAY},
    **{(state, "put_off"): "waiting" for state in UNDER_WAY},
    **{(state, "refused"): "refused" for state in UNDER_WAY},
    **{(state, "resent"): "pending" for state in UNDER_WAY},
    **{(state, "withdrawn"): "withdrawn" for state in UNDER_WAY},
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return an empty job log."""
    with closing(Store.open(tmp_path / "node.db")) as opened:
        yield opened


def handed_over(store: Store, *names: str, held: bool = False) -> str:
    """Make a job whose results are handed over to these destinations; return its id."""
    wanted = [NewDelivery(destination=name, forms=("seg", "sr"), held=held) for name in names]
    job = store.hand_over(claimed(store), wanted, 1.5, "to all", at(10))
    assert job.state is State.DELIVERING
    return job.id


def begun(store: Store, destination: str, seconds: float = 60) -> Delivery:
    """Let a courier begin what is due for a destination."""
    due = store.due_delivery(destination, at(seconds))
    assert due is not None
    return store.begin_delivery(due, at(seconds))


def settle(store: Store, destination: str, event: DeliveryEvent, detail: str = "told") -> Delivery:
    """Let a courier try and come to an end."""
    changes = {"proof": detail} if event is DeliveryEvent.PROVED else {"reason": detail}
    found = begun(store, destination)
    return store.settle_delivery(found, event, at(61), detail=detail, **changes)


@pytest.mark.parametrize("state", ["", *map(str, DeliveryState)])
@pytest.mark.parametrize("event", [*map(str, DeliveryEvent)])
def test_an_event_leads_to_the_agreed_state_or_is_refused(state: str, event: str) -> None:
    """Every pair of a state and an event."""
    before = DeliveryState(state) if state else None
    if (state, event) in ALLOWED:
        assert after_delivery(before, DeliveryEvent(event)) == ALLOWED[state, event]
    else:
        with pytest.raises(StoreError, match=f"cannot be {event}"):
            after_delivery(before, DeliveryEvent(event))


def test_a_job_is_done_when_every_destination_has_proved_it(store: Store) -> None:
    """Not before the last; its history names each proof."""
    job_id = handed_over(store, "pacs", "research")
    settle(store, "pacs", DeliveryEvent.PROVED, "lists it")
    assert store.job(job_id).state is State.DELIVERING
    settle(store, "research", DeliveryEvent.PROVED, "has it")
    assert store.job(job_id).state is State.DONE
    last = store.events(job_id)[-1]
    assert (last.event, last.detail) == (Event.FINISHED, "pacs: lists it; research: has it")


def test_a_job_fails_at_once_when_a_destination_refuses_and_the_others_go_on(store: Store) -> None:
    """A person is wanted now, not when the last one has been proved."""
    job_id = handed_over(store, "pacs", "research")
    settle(store, "pacs", DeliveryEvent.REFUSED, "says no")
    assert store.job(job_id).state is State.FAILED
    assert store.job(job_id).reason == "pacs: says no"
    settle(store, "research", DeliveryEvent.PROVED)
    assert store.job(job_id).state is State.FAILED
    store.resend(job_id, "pacs", at(30))
    assert store.job(job_id).state is State.DELIVERING
    settle(store, "pacs", DeliveryEvent.PROVED)
    assert store.job(job_id).state is State.DONE


def test_a_retry_sends_again_what_was_refused_and_nothing_that_is_proved(store: Store) -> None:
    """The job comes through `deliver` once more; forms are those of app.yaml as it is now."""
    job_id = handed_over(store, "pacs", "research")
    settle(store, "research", DeliveryEvent.PROVED)
    settle(store, "pacs", DeliveryEvent.REFUSED)
    store.retry(job_id, at(30))
    (job,) = store.claim("a", at(31), LEASE_S)
    wanted = [NewDelivery(destination=name, forms=("seg",)) for name in ("pacs", "research")]
    store.hand_over(job, wanted, 0.1, "", at(32))
    found = {each.destination: each for each in store.deliveries([job_id])}
    assert (found["pacs"].state, found["pacs"].forms) == (DeliveryState.PENDING, ("seg",))
    assert found["research"].state is DeliveryState.PROVED


def test_a_destination_that_the_route_names_no_more_is_withdrawn(store: Store) -> None:
    """Between a failure and its retry somebody took it out of app.yaml."""
    job_id = handed_over(store, "old")
    settle(store, "old", DeliveryEvent.REFUSED)
    store.retry(job_id, at(30))
    (job,) = store.claim("a", at(31), LEASE_S)
    store.hand_over(job, [NewDelivery(destination="new", forms=("seg",))], 0.1, "", at(32))
    settle(store, "new", DeliveryEvent.PROVED)
    assert store.job(job_id).state is State.DONE
    states = {each.destination: str(each.state) for each in store.deliveries([job_id])}
    assert states == {"old": "withdrawn", "new": "proved"}


def test_a_cancelled_job_is_sent_nowhere(store: Store) -> None:
    """What was not proved by then is withdrawn, and a courier that has it in hand finds out."""
    job_id = handed_over(store, "pacs", "research")
    in_hand = begun(store, "pacs")
    store.cancel(job_id, at(30))
    assert store.due_delivery("research", at(31)) is None
    with pytest.raises(DeliveryGone):
        store.settle_delivery(in_hand, DeliveryEvent.PROVED, at(32), detail="")
    assert {each.state for each in store.deliveries([job_id])} == {DeliveryState.WITHDRAWN}


def test_an_older_try_cannot_settle_what_a_newer_one_has_in_hand(store: Store) -> None:
    """A courier that stood still for an hour wakes up beside its successor."""
    job_id = handed_over(store, "pacs")
    old = begun(store, "pacs")
    due = store.due_delivery("pacs", at(22))
    assert due is not None
    newer = store.begin_delivery(due, at(22))
    with pytest.raises(DeliveryGone):
        store.settle_delivery(old, DeliveryEvent.REFUSED, at(23), detail="")
    store.settle_delivery(newer, DeliveryEvent.PROVED, at(24), detail="", proof="has it")
    assert store.job(job_id).state is State.DONE


def test_a_reason_that_stays_the_same_is_one_line(store: Store) -> None:
    """A week without the archive must not fill the history."""
    job_id = handed_over(store, "pacs")
    for _ in range(5):
        settle(store, "pacs", DeliveryEvent.PUT_OFF, "away")
    settle(store, "pacs", DeliveryEvent.PUT_OFF, "busy")
    told = [(str(line.event), line.detail) for line in store.delivery_lines(job_id)]
    assert told == [("created", "seg, sr"), ("put_off", "away"), ("put_off", "busy")]
    assert store.deliveries([job_id])[0].attempts == 6


def test_what_waits_can_be_made_due_at_once(store: Store) -> None:
    """For one destination or all."""
    handed_over(store, "pacs", "research")
    for name in ("pacs", "research"):
        found = begun(store, name)
        event = DeliveryEvent.PUT_OFF
        store.settle_delivery(found, event, at(61), detail="", due_at=at(9999))
    assert store.due_delivery("pacs", at(62)) is None
    assert store.due_delivery("pacs", at(30), probing=True) is not None
    assert store.hasten(at(30), "pacs") == 1
    assert store.due_delivery("pacs", at(30)) is not None
    assert store.due_delivery("research", at(62)) is None
    assert store.hasten(at(30)) == 1


def test_what_is_held_cannot_be_resent(store: Store) -> None:
    """It was never sent: releasing it is another decision."""
    job_id = handed_over(store, "pacs", held=True)
    with pytest.raises(StoreError, match="`release` what is held"):
        store.resend(job_id, None, at(30))
    assert [each.destination for each in store.release_held(job_id, None, at(31))] == ["pacs"]
    assert store.due_delivery("pacs", at(31)) is not None


def test_deliveries_are_listed_and_counted(store: Store) -> None:
    """By destination and state; couriers are wanted only where something is under way."""
    job_id = handed_over(store, "pacs", "research")
    settle(store, "pacs", DeliveryEvent.PROVED)
    assert store.destinations_under_way() == {"research"}
    assert store.delivery_counts() == {
        "pacs": {DeliveryState.PROVED: 1},
        "research": {DeliveryState.PENDING: 1},
    }
    (proved,) = store.deliveries(states=[DeliveryState.PROVED])
    assert (proved.job_id, proved.destination, proved.proof) == (job_id, "pacs", "told")
