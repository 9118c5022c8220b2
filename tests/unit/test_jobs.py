"""A job's life: which event may follow which state, and what the values promise.

The table of arrows here is written by hand from the decision, not derived from the code. Not
covered: that the store follows the table (test_store.py, properties/test_job_log.py).
"""

from dataclasses import FrozenInstanceError

import pytest

from app.errors import StoreError
from app.store.jobs import TRANSITIONS, Event, LeaseLost, State, after
from tests.log_rows import instance

ALLOWED = {
    ("", "created"): "queued",
    ("queued", "claimed"): "running",
    ("queued", "cancelled"): "cancelled",
    ("running", "passed"): "running",
    ("running", "finished"): "done",
    ("running", "handed_over"): "delivering",
    ("delivering", "finished"): "done",
    ("delivering", "gave_up"): "failed",
    ("delivering", "resent"): "delivering",
    ("failed", "resent"): "delivering",
    ("done", "resent"): "delivering",
    ("delivering", "cancelled"): "cancelled",
    ("delivering", "superseded"): "superseded",
    ("running", "postponed"): "waiting",
    ("running", "gave_up"): "failed",
    ("running", "orphaned"): "queued",
    ("running", "handed_back"): "queued",
    ("running", "cancelled"): "cancelled",
    ("waiting", "due"): "queued",
    ("waiting", "cancelled"): "cancelled",
    ("failed", "retried"): "queued",
    ("cancelled", "retried"): "queued",
    ("queued", "superseded"): "superseded",
    ("running", "superseded"): "superseded",
    ("waiting", "superseded"): "superseded",
    ("failed", "superseded"): "superseded",
    ("cancelled", "superseded"): "superseded",
    ("done", "superseded"): "superseded",
    ("superseded", "revived"): "queued",
}
ALL = [(state, event) for state in ("", *map(str, State)) for event in map(str, Event)]


@pytest.mark.parametrize(("state", "event"), ALL)
def test_an_event_leads_to_the_agreed_state_or_is_refused(state: str, event: str) -> None:
    """Every pair of a state and an event, the absent job included."""
    before = State(state) if state else None
    if (state, event) in ALLOWED:
        assert after(before, Event(event)) == ALLOWED[state, event]
    else:
        with pytest.raises(StoreError, match=f"cannot be {event}"):
            after(before, Event(event))


def test_the_states_and_events_are_the_agreed_ones() -> None:
    """A state or event that the hand-written table does not know fails here."""
    agreed = {"queued", "running", "waiting", "delivering", "done", "failed", "cancelled"}
    assert set(State) == agreed | {"superseded"}
    assert {event for _, event in ALLOWED} == set(Event)


def test_a_refusal_says_what_the_job_is() -> None:
    """The sentence names the state and the event."""
    with pytest.raises(StoreError, match="a job that is done cannot be claimed"):
        after(State.DONE, Event.CLAIMED)
    with pytest.raises(StoreError, match="a job that does not exist yet cannot be claimed"):
        after(None, Event.CLAIMED)


def test_only_superseded_ends_a_job_for_ever() -> None:
    """For a person: every other job can be brought back. Routing a study again may replace any."""
    by_routing = {Event.SUPERSEDED, Event.REVIVED}
    left = {state for state, event in TRANSITIONS if event not in by_routing}
    assert set(State) - left == {State.SUPERSEDED}


def test_a_lost_lease_is_not_tried_again() -> None:
    """Its work belongs to somebody else."""
    assert issubclass(LeaseLost, StoreError)
    assert not LeaseLost.retry


def test_values_cannot_be_changed() -> None:
    """What was read from the log stays as it was read."""
    row = instance("1.1")
    with pytest.raises(FrozenInstanceError):
        row.size = 0  # type: ignore[misc]  # the point of the test
