"""The life of one job's results on their way to one destination; no I/O in here.

    pending ─sent─► sent ─proved─► proved
       │               └─put_off─► waiting   (tried again when due; so does pending)
       └─refused─► refused ─resent─► pending (a person must look first; proved may be resent too)
    held ─released─► pending
    all but proved ─withdrawn─► withdrawn    (the job was cancelled or superseded)

What the job is follows from these: failed while one is refused, done when all are proved.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from app.errors import StoreError


class DeliveryState(StrEnum):
    """Who acts next."""

    HELD = "held"  # a person: it waits to be released
    PENDING = "pending"  # the courier: it is sent when its turn comes
    WAITING = "waiting"  # the clock: the courier tries again when it is due
    SENT = "sent"  # the courier: it asks until the archive shows that it holds all
    PROVED = "proved"  # nobody: the archive has shown that it holds all
    REFUSED = "refused"  # a person: the reason says what to mend before it is sent again
    WITHDRAWN = "withdrawn"  # nobody: its job was cancelled or superseded


class DeliveryEvent(StrEnum):
    """What happened to a delivery."""

    CREATED = "created"
    HELD = "held"
    RELEASED = "released"
    SENT = "sent"
    PROVED = "proved"
    PUT_OFF = "put_off"
    REFUSED = "refused"
    RESENT = "resent"
    WITHDRAWN = "withdrawn"


UNDER_WAY = frozenset({DeliveryState.PENDING, DeliveryState.WAITING, DeliveryState.SENT})
"""States in which a courier acts."""
UNSETTLED = UNDER_WAY | {DeliveryState.HELD, DeliveryState.REFUSED}
"""States in which an archive may still need what lies in the job's folder."""

_AS_UNDER_WAY = {
    DeliveryEvent.SENT: DeliveryState.SENT,
    DeliveryEvent.PROVED: DeliveryState.PROVED,
    DeliveryEvent.PUT_OFF: DeliveryState.WAITING,
    DeliveryEvent.REFUSED: DeliveryState.REFUSED,
}

DELIVERY_TRANSITIONS: dict[tuple[DeliveryState | None, DeliveryEvent], DeliveryState] = {
    (None, DeliveryEvent.CREATED): DeliveryState.PENDING,
    (None, DeliveryEvent.HELD): DeliveryState.HELD,
    (DeliveryState.HELD, DeliveryEvent.RELEASED): DeliveryState.PENDING,
    **{(state, event): to for state in UNDER_WAY for event, to in _AS_UNDER_WAY.items()},
    **{
        (state, DeliveryEvent.RESENT): DeliveryState.PENDING
        for state in DeliveryState
        if state is not DeliveryState.HELD
    },
    **{(state, DeliveryEvent.WITHDRAWN): DeliveryState.WITHDRAWN for state in UNSETTLED},
}
"""Every arrow there is; None stands for a delivery that does not exist yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """What is to go to one destination."""

    destination: str
    """Name of an archive, or `sender:` and an AE title."""
    forms: tuple[str, ...]
    """What it gets, by the names of `accepts`."""
    held: bool = False
    """Whether a person must release it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One job's results on their way to one destination, as the log has it at one moment."""

    job_id: str
    destination: str
    state: DeliveryState
    forms: tuple[str, ...]
    attempts: int
    """Tries since it was made or sent anew."""
    due_at: datetime
    """Not to be tried before."""
    sent_at: datetime | None
    """When the archive said that it had taken all."""
    proved_at: datetime | None
    transaction_uid: str | None
    """The storage commitment that was asked for and is not answered yet."""
    reason: str
    """Why it waits or was refused; empty while all is well."""
    proof: str
    """Who says that the archive holds it."""
    began_at: datetime
    """When it was made, released or sent anew: tries are given up so long after."""
    updated_at: datetime

    @classmethod
    def from_columns(cls, forms: list[str], **columns: Any) -> "Delivery":
        """Make the value of one row of the table."""
        return cls(forms=tuple(forms), **columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLine:
    """One line of a delivery's history."""

    at: datetime
    destination: str
    event: DeliveryEvent
    state: DeliveryState
    """The state that the event led to."""
    detail: str


def after_delivery(state: DeliveryState | None, event: DeliveryEvent) -> DeliveryState:
    """Return the state that follows when `event` happens to a delivery in `state`."""
    try:
        return DELIVERY_TRANSITIONS[state, event]
    except KeyError:
        raise StoreError(f"a delivery that is {state or 'not there'} cannot be {event}") from None


def all_settled(states: Collection[DeliveryState]) -> bool:
    """Return whether nobody has to act on any of them."""
    return not UNSETTLED & {*states}
