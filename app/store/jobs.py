"""A job's life, and the values that the job log keeps; no I/O in here.

    queued ─claimed─► running ─handed_over─► delivering ─finished─► done
                        ├─passed────► running    (a stage is done, the next begins)
                        ├─finished──► done       (there is nothing to deliver)
                        ├─postponed─► waiting ─due─► queued
                        ├─gave_up───► failed ─retried─► queued
                        ├─orphaned──► queued     (its owner died)
                        └─handed_back─► queued   (its owner stops)
    delivering ─gave_up─► failed ─resent─► delivering
    done ─resent─► delivering
    queued, waiting, running, delivering ─cancelled─► cancelled ─retried─► queued
    every one of them ─superseded─► superseded ─revived─► queued   (a study that grew is routed)

*State* says who acts next, *stage* says where the work resumes. What goes to one destination has
states of its own, see app.store.delivery. All times are aware and UTC.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from app.errors import StoreError


class State(StrEnum):
    """Who acts next."""

    QUEUED = "queued"  # the node: it claims the job when it has room
    RUNNING = "running"  # the owner of the lease, until the lease is over
    WAITING = "waiting"  # the clock: the job is queued again when it is due
    DELIVERING = "delivering"  # the couriers, or who releases what is held
    DONE = "done"  # nobody: every archive has shown that it holds the results
    FAILED = "failed"  # a person: the reason says what to mend before a retry
    CANCELLED = "cancelled"  # nobody, unless a person retries it
    SUPERSEDED = "superseded"  # nobody, unless the study, as it grows, asks for it again


class Event(StrEnum):
    """What happened to a job."""

    CREATED = "created"
    CLAIMED = "claimed"
    PASSED = "passed"
    HANDED_OVER = "handed_over"
    RESENT = "resent"
    FINISHED = "finished"
    POSTPONED = "postponed"
    DUE = "due"
    GAVE_UP = "gave_up"
    ORPHANED = "orphaned"
    HANDED_BACK = "handed_back"
    RETRIED = "retried"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    REVIVED = "revived"


TRANSITIONS: dict[tuple[State | None, Event], State] = {
    (None, Event.CREATED): State.QUEUED,
    (State.QUEUED, Event.CLAIMED): State.RUNNING,
    (State.RUNNING, Event.PASSED): State.RUNNING,
    (State.RUNNING, Event.FINISHED): State.DONE,
    (State.RUNNING, Event.HANDED_OVER): State.DELIVERING,
    (State.DELIVERING, Event.FINISHED): State.DONE,
    (State.DELIVERING, Event.GAVE_UP): State.FAILED,
    (State.DELIVERING, Event.RESENT): State.DELIVERING,
    (State.FAILED, Event.RESENT): State.DELIVERING,
    (State.DONE, Event.RESENT): State.DELIVERING,
    (State.RUNNING, Event.POSTPONED): State.WAITING,
    (State.WAITING, Event.DUE): State.QUEUED,
    (State.RUNNING, Event.GAVE_UP): State.FAILED,
    (State.RUNNING, Event.ORPHANED): State.QUEUED,
    (State.RUNNING, Event.HANDED_BACK): State.QUEUED,
    (State.FAILED, Event.RETRIED): State.QUEUED,
    (State.CANCELLED, Event.RETRIED): State.QUEUED,
    (State.QUEUED, Event.CANCELLED): State.CANCELLED,
    (State.WAITING, Event.CANCELLED): State.CANCELLED,
    (State.RUNNING, Event.CANCELLED): State.CANCELLED,  # the owner finds out by its fence
    (State.DELIVERING, Event.CANCELLED): State.CANCELLED,  # what was sent stays sent
    (State.QUEUED, Event.SUPERSEDED): State.SUPERSEDED,
    (State.WAITING, Event.SUPERSEDED): State.SUPERSEDED,
    (State.RUNNING, Event.SUPERSEDED): State.SUPERSEDED,  # the owner finds out by its fence
    (State.DELIVERING, Event.SUPERSEDED): State.SUPERSEDED,
    (State.FAILED, Event.SUPERSEDED): State.SUPERSEDED,
    (State.CANCELLED, Event.SUPERSEDED): State.SUPERSEDED,
    (State.DONE, Event.SUPERSEDED): State.SUPERSEDED,  # its results stay where they are
    (State.SUPERSEDED, Event.REVIVED): State.QUEUED,
}
"""Every arrow there is; None stands for a job that does not exist yet."""


PRIORITY_STEP = timedelta(minutes=10)
"""What one step of priority is worth: a job made so much earlier comes first all the same."""

MAX_ORPHANINGS = 3
"""How often a job may lose its owner at one stage before it is held to be the cause."""


class LeaseLost(StoreError):
    """The job belongs to somebody else by now; drop the work."""


def after(state: State | None, event: Event) -> State:
    """Return the state that follows when `event` happens to a job in `state`."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        start = "that does not exist yet" if state is None else f"that is {state}"
        raise StoreError(f"a job {start} cannot be {event}") from None


class StudyState(StrEnum):
    """Whether a study still grows."""

    OPEN = "open"  # assembly: it waits for more, or for the quiet time
    ROUTED = "routed"  # its jobs; a late instance opens it again
    FAILED = "failed"  # a person: it cannot be read; a new instance opens it again
    REMOVED = "removed"  # nobody: its time was over; a new instance opens it again


class RemoteState(StrEnum):
    """Who acts next on a study that lies in an archive."""

    LISTED = "listed"  # the clock: it may still grow there
    ASKED = "asked"  # the fetcher: somebody said that it is whole
    FETCHING = "fetching"  # the fetcher: it is on its way here
    FETCHED = "fetched"  # nobody, until it grows there: what a route needs is here
    UNWANTED = "unwanted"  # nobody, until it grows there: no route takes it
    FAILED = "failed"  # a person: the reason says what to mend


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteStudy:
    """A study that an archive lists or that somebody asked us to get from it."""

    source: str
    study_uid: str
    state: RemoteState
    instances: int | None
    """How many objects the archive lists; None when it was not asked."""
    attempts: int
    changed_at: datetime
    """When the archive last listed another number, or somebody asked."""
    due_at: datetime | None
    """Not to be tried before."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """One received object; its bytes lie in `file`."""

    sop_uid: str
    sop_class_uid: str
    study_uid: str
    series_uid: str
    transfer_syntax: str
    sha256: str
    size: int
    file: str
    """Relative to the data folder."""
    source: str
    """AE title and address of the sender, or `batch`."""
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """What is known of a study without reading its objects."""

    study_uid: str
    state: StudyState
    source: str
    """Where its first instance came from."""
    instances: int
    version: int
    """Counts up with each instance, so that a decision on an older version is noticed."""
    first_received_at: datetime
    last_received_at: datetime
    released_at: datetime | None
    """When the sender closed its association; None again as soon as more arrives."""
    complete_signal: str | None
    """Who said that it is complete; None again as soon as more arrives."""
    expected: int | None
    """How many objects the archive says it has, as far as it was asked."""
    being_fetched: bool
    """Whether objects of it are on their way from an archive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRow:
    """What the headers of a series say; JSON whose form belongs to `app.dicom`."""

    study_uid: str
    series_uid: str
    instances: int
    """How many objects were read for it; more may have arrived since."""
    summary: Any
    """What routing needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyEvent:
    """One line of a study's history."""

    at: datetime
    event: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorEvent:
    """One line of the door's history."""

    at: datetime
    source: str
    """Who was refused, as far as it said."""
    event: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """One route on one study, not yet in the log."""

    id: str
    identity: str
    """Unique in the log: the same study, route, model and instances make no second job."""
    study_uid: str
    route: str
    model: str
    digest: str
    stage: str
    """Where the work begins."""
    inputs: Mapping[str, str]
    """Series Instance UID of each role."""
    instances: Mapping[str, tuple[str, ...]]
    """SOP Instance UIDs of each role."""
    priority: int = 0
    series_uid: str = ""
    """The series that the job is for where a route makes a job a series, else nothing.

    Jobs of one study, route and `series_uid` are versions of one answer.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as the log has it at one moment."""

    id: str
    identity: str
    study_uid: str
    route: str
    model: str
    digest: str
    inputs: Mapping[str, str]
    instances: Mapping[str, tuple[str, ...]]
    priority: int
    series_uid: str
    """The series that the job is for where a route makes a job a series, else nothing."""
    state: State
    stage: str
    attempts: int
    """Claims since a stage last passed, this one included."""
    orphanings: int
    """Lost owners since a stage last passed."""
    fence: int
    """Counts up with each claim; who holds an older one has lost the job."""
    due_at: datetime
    owner: str | None
    lease_until: datetime | None
    reason: str
    """Why it waits, failed or was put back; empty while all is well."""
    created_at: datetime
    updated_at: datetime
    turn_at: datetime
    """Its place in the queue: when it was made, less ten minutes a step of its priority."""
    version: int
    """Counts the answers of one route to one study, as late slices make new ones."""
    superseded_by: str | None
    """The job whose results replace this one's."""
    published_at: datetime | None
    """When sending began: from then on an archive may hold its results."""

    @classmethod
    def from_columns(cls, instances: Mapping[str, list[str]], **columns: Any) -> "Job":
        """Make the value of one row of the table."""
        return cls(instances={role: tuple(uids) for role, uids in instances.items()}, **columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """One line of a job's history."""

    at: datetime
    event: Event
    state: State
    """The state that the event led to."""
    stage: str
    """The stage it happened in; for `passed`, the one that is done."""
    seconds: float | None
    """How long the stage took, where that is known."""
    detail: str
