"""What goes where: one row a job and destination, moved by couriers and people.

The state of the job follows in the same transaction: failed while a destination refuses, done when
all have shown that they hold the results.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, or_, select, update

from app.errors import StoreError
from app.store.delivery import (
    UNDER_WAY,
    UNSETTLED,
    Delivery,
    DeliveryEvent,
    DeliveryLine,
    DeliveryState,
    NewDelivery,
    after_delivery,
    all_settled,
)
from app.store.engine import Section
from app.store.jobs import Event, Job, State
from app.store.moves import FREE, find_job, held_job, move, study_is_routed
from app.store.tables import Deliveries, DeliveryEvents, Jobs


class DeliveryGone(StoreError):
    """The delivery was settled, sent anew or withdrawn by somebody else; drop the work."""


class DeliveryLog(Section):
    """The moves of deliveries; a courier's raise DeliveryGone when the row is not as it knew it."""

    def hand_over(
        self,
        job: Job,
        wanted: Sequence[NewDelivery],
        seconds: float | None,
        detail: str,
        now: datetime,
    ) -> Job:
        """Let couriers bring the job's results to `wanted`; what is proved stays proved.

        What its route does not name any more is withdrawn.
        """
        changes = FREE | {"reason": ""}
        with self._database.writing() as connection:
            held = held_job(connection, job)
            there = {each.destination: each for each in _find(connection, job.id)}
            for each in wanted:
                _want(connection, job.id, there.pop(each.destination, None), each, now)
            for left in there.values():
                if left.state in UNSETTLED:
                    told = "its route does not name this destination any more"
                    move_delivery(connection, left, DeliveryEvent.WITHDRAWN, now, detail=told)
            moved = move(connection, held, Event.HANDED_OVER, now, changes, detail, seconds)
            return _follow(connection, moved, now)

    def due_delivery(
        self, destination: str, now: datetime, *, probing: bool = False
    ) -> Delivery | None:
        """Return what is to be done next for a destination.

        `probing` asks for what was tried longest ago, due or not: whether the archive is back.
        Nothing is sent of a study that grows until it is routed again.
        """
        may_go = or_(Deliveries.state == DeliveryState.SENT, study_is_routed())
        mine = Deliveries.destination == destination, Deliveries.state.in_(UNDER_WAY), may_go
        query = select(Deliveries).join(Jobs, Jobs.id == Deliveries.job_id).where(*mine)
        queries = [query.where(Deliveries.due_at <= now).order_by(Deliveries.due_at, Jobs.turn_at)]
        if probing:
            unsent = query.where(Deliveries.state != DeliveryState.SENT)
            queries.append(unsent.order_by(Deliveries.updated_at))
        with self._database.reading() as connection:
            for each in queries:
                row = connection.execute(each.limit(1)).mappings().first()
                if row is not None:
                    return Delivery.from_columns(**row)
        return None

    def begin_delivery(self, delivery: Delivery, now: datetime) -> Delivery:
        """Count a try, and note in its job that an archive may hold results from now on."""
        with self._database.writing() as connection:
            _as_known(connection, delivery)
            job = find_job(connection, delivery.job_id)
            grows = not connection.execute(
                select(study_is_routed().where(Jobs.id == job.id))
            ).scalar()
            if grows and delivery.state is not DeliveryState.SENT:
                raise DeliveryGone
            if job.published_at is None:
                connection.execute(update(Jobs).where(Jobs.id == job.id).values(published_at=now))
            counted = replace(delivery, attempts=delivery.attempts + 1, updated_at=now)
            values = {"attempts": counted.attempts, "updated_at": now}
            _change(connection, delivery, values)
            return counted

    def settle_delivery(
        self,
        delivery: Delivery,
        event: DeliveryEvent,
        now: datetime,
        *,
        detail: str,
        **changes: Any,
    ) -> Delivery:
        """Note what came of a try; the job's state follows."""
        with self._database.writing() as connection:
            _as_known(connection, delivery)
            moved = move_delivery(connection, delivery, event, now, changes, detail)
            _follow(connection, find_job(connection, delivery.job_id), now)
            return moved

    def release_held(self, job_id: str, destination: str | None, now: datetime) -> list[Delivery]:
        """Let what is held be sent, to one destination or all."""
        with self._database.writing() as connection:
            held = _chosen(connection, job_id, destination, {DeliveryState.HELD})
            if not held:
                raise StoreError(f"nothing of job {job_id} is held{_for(destination)}")
            fresh = {"due_at": now, "began_at": now}
            event, told = DeliveryEvent.RELEASED, "by hand"
            return [move_delivery(connection, each, event, now, fresh, told) for each in held]

    def resend(self, job_id: str, destination: str | None, now: datetime) -> list[Delivery]:
        """Send again, to one destination or all, whatever became of it before."""
        again = {*DeliveryState} - {DeliveryState.HELD}
        fresh = _anew(now) | {"proof": "", "proved_at": None, "sent_at": None}
        with self._database.writing() as connection:
            job = find_job(connection, job_id)
            chosen = _chosen(connection, job_id, destination, again)
            if not chosen:
                raise StoreError(
                    f"nothing of job {job_id} was on its way{_for(destination)}; `retry` it, or"
                    " `release` what is held"
                )
            move(connection, job, Event.RESENT, now, {"reason": ""}, "by hand")
            event, told = DeliveryEvent.RESENT, "by hand"
            return [move_delivery(connection, each, event, now, fresh, told) for each in chosen]

    def hasten(self, now: datetime, destination: str | None = None) -> int:
        """Make all that waits due now; return how much that is."""
        late = [Deliveries.state.in_(UNDER_WAY), Deliveries.due_at > now]
        if destination is not None:
            late.append(Deliveries.destination == destination)
        with self._database.writing() as connection:
            return connection.execute(update(Deliveries).where(*late).values(due_at=now)).rowcount

    def deliveries(
        self,
        job_ids: Collection[str] | None = None,
        states: Collection[DeliveryState] | None = None,
        limit: int = 1000,
    ) -> list[Delivery]:
        """Return deliveries by destination, the oldest first; of some jobs, in some states."""
        conditions: list[ColumnElement[bool]] = []
        if job_ids is not None:
            conditions.append(Deliveries.job_id.in_(job_ids))
        if states is not None:
            conditions.append(Deliveries.state.in_(states))
        with self._database.reading() as connection:
            return _find(connection, None, *conditions, limit=limit)

    def delivery_lines(self, job_id: str) -> list[DeliveryLine]:
        """Return the history of a job's deliveries, the oldest line first."""
        columns = (
            DeliveryEvents.at,
            DeliveryEvents.destination,
            DeliveryEvents.event,
            DeliveryEvents.state,
            DeliveryEvents.detail,
        )
        query = select(*columns).where(DeliveryEvents.job_id == job_id).order_by(DeliveryEvents.id)
        with self._database.reading() as connection:
            return [DeliveryLine(**row) for row in connection.execute(query).mappings()]

    def destinations_under_way(self) -> set[str]:
        """Return the destinations that a courier has something to do for."""
        query = select(Deliveries.destination).where(Deliveries.state.in_(UNDER_WAY)).distinct()
        with self._database.reading() as connection:
            return {*connection.execute(query).scalars()}

    def delivery_counts(self) -> dict[str, dict[DeliveryState, int]]:
        """Return for each destination how many deliveries are in which state."""
        key = Deliveries.destination, Deliveries.state
        query = select(*key, func.count().label("number")).group_by(*key)
        counts: dict[str, dict[DeliveryState, int]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(query):
                counts.setdefault(row.destination, {})[row.state] = row.number
        return counts


def withdraw_deliveries(connection: Connection, job_id: str, why: str, now: datetime) -> None:
    """Stop what is not proved yet of a job that is not wanted any more."""
    for each in _find(connection, job_id, Deliveries.state.in_(UNSETTLED)):
        move_delivery(connection, each, DeliveryEvent.WITHDRAWN, now, detail=why)


def move_delivery(  # noqa: PLR0917  # as `move`
    connection: Connection,
    delivery: Delivery,
    event: DeliveryEvent,
    now: datetime,
    changes: Mapping[str, Any] | None = None,
    detail: str = "",
) -> Delivery:
    """Let `event` happen to the delivery: its row and the line of its history."""
    values = {"state": after_delivery(delivery.state, event), "updated_at": now, **(changes or {})}
    moved = replace(delivery, **values | {"forms": tuple(values.get("forms", delivery.forms))})
    _change(connection, delivery, values)
    if (moved.state, moved.reason) != (delivery.state, delivery.reason) or not moved.reason:
        _note(connection, moved, event, now, detail)  # a week of one reason is one line
    return moved


def _want(
    connection: Connection, job_id: str, there: Delivery | None, wanted: NewDelivery, now: datetime
) -> None:
    if there is None:
        event = DeliveryEvent.HELD if wanted.held else DeliveryEvent.CREATED
        made = Delivery(
            job_id=job_id,
            destination=wanted.destination,
            state=after_delivery(None, event),
            forms=wanted.forms,
            attempts=0,
            due_at=now,
            sent_at=None,
            proved_at=None,
            transaction_uid=None,
            reason="",
            proof="",
            began_at=now,
            updated_at=now,
        )
        connection.execute(insert(Deliveries).values(asdict(made) | {"forms": list(made.forms)}))
        _note(connection, made, event, now, ", ".join(wanted.forms))
    elif there.state in {DeliveryState.REFUSED, DeliveryState.WITHDRAWN}:
        again = _anew(now) | {"forms": list(wanted.forms)}
        move_delivery(connection, there, DeliveryEvent.RESENT, now, again, "by a retry of its job")


def _anew(now: datetime) -> dict[str, Any]:
    """Return what a delivery is when its tries begin again."""
    return {"due_at": now, "began_at": now, "attempts": 0, "reason": "", "transaction_uid": None}


def _follow(connection: Connection, job: Job, now: datetime) -> Job:
    """Let the job be what its deliveries make it."""
    if job.state is not State.DELIVERING:
        return job
    all_of_it = _find(connection, job.id)
    refused = [each for each in all_of_it if each.state is DeliveryState.REFUSED]
    if refused:
        reason = "; ".join(f"{each.destination}: {each.reason}" for each in refused)
        return move(connection, job, Event.GAVE_UP, now, {"reason": reason}, reason)
    if all_settled([each.state for each in all_of_it]):
        told = "; ".join(f"{each.destination}: {each.proof}" for each in all_of_it if each.proof)
        return move(connection, job, Event.FINISHED, now, {"reason": ""}, told)
    return job


def _as_known(connection: Connection, delivery: Delivery) -> None:
    """Refuse work on a delivery that is not any more as the courier knew it."""
    found = _find(connection, delivery.job_id, Deliveries.destination == delivery.destination)
    if not found or (found[0].state, found[0].attempts) != (delivery.state, delivery.attempts):
        raise DeliveryGone


def _chosen(
    connection: Connection,
    job_id: str,
    destination: str | None,
    states: Iterable[DeliveryState],
) -> list[Delivery]:
    conditions: list[ColumnElement[bool]] = [Deliveries.state.in_([*states])]
    if destination is not None:
        conditions.append(Deliveries.destination == destination)
    return _find(connection, job_id, *conditions)


def _find(
    connection: Connection,
    job_id: str | None,
    *conditions: ColumnElement[bool],
    limit: int | None = None,
) -> list[Delivery]:
    mine = [] if job_id is None else [Deliveries.job_id == job_id]
    query = select(Deliveries).where(*mine, *conditions).limit(limit)
    ordered = query.order_by(Deliveries.destination, Deliveries.began_at, Deliveries.job_id)
    return [Delivery.from_columns(**row) for row in connection.execute(ordered).mappings()]


def _change(connection: Connection, delivery: Delivery, values: Mapping[str, Any]) -> None:
    key = Deliveries.job_id == delivery.job_id, Deliveries.destination == delivery.destination
    connection.execute(update(Deliveries).where(*key).values(values))


def _note(
    connection: Connection, delivery: Delivery, event: DeliveryEvent, now: datetime, detail: str
) -> None:
    line = DeliveryLine(
        at=now, destination=delivery.destination, event=event, state=delivery.state, detail=detail
    )
    connection.execute(insert(DeliveryEvents).values(job_id=delivery.job_id, **asdict(line)))


def _for(destination: str | None) -> str:
    return f" for {destination}" if destination else ""
