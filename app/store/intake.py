"""What the door and the assembly write: instances, and the studies that they add up to."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.dialects.sqlite import (
    insert as insert_or_ignore,  # portable only to PostgreSQL's own
)

from app.store.engine import Section
from app.store.jobs import InstanceRow, NewJob, StudyRow, StudyState
from app.store.ledger import add_job
from app.store.tables import Instances, Studies, StudyEvents

STUDY_COLUMNS = (
    Studies.study_uid,
    Studies.state,
    Studies.source,
    Studies.instances,
    Studies.version,
    Studies.first_received_at,
    Studies.last_received_at,
    Studies.released_at,
)


class Intake(Section):
    """How a study grows until its jobs are made."""

    def find_instance(self, sop_uid: str) -> InstanceRow | None:
        """Return the object of this UID, if it was received before."""
        with self._database.reading() as connection:
            query = select(Instances).where(Instances.sop_uid == sop_uid)
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else InstanceRow(**row)

    def add_instance(self, row: InstanceRow, now: datetime) -> bool:
        """Keep a received object and let its study grow; False when its UID is known already."""
        with self._database.writing() as connection:
            new = insert_or_ignore(Instances).on_conflict_do_nothing(index_elements=["sop_uid"])
            if connection.execute(new.values(asdict(row))).rowcount == 0:
                return False
            _grow(connection, row, now)
            return True

    def release(self, study_uids: Iterable[str], now: datetime) -> None:
        """Note that the sender of these studies closed its association."""
        still_open = Studies.study_uid.in_(list(study_uids)), Studies.state == StudyState.OPEN
        with self._database.writing() as connection:
            connection.execute(update(Studies).where(*still_open).values(released_at=now))

    def quarantine(self, study_uid: str, detail: str, now: datetime) -> None:
        """Raise an alarm: an object of the study was kept apart."""
        self.study_event(study_uid, "quarantined", detail, now)

    def study_event(self, study_uid: str, event: str, detail: str, now: datetime) -> None:
        """Add a line to the study's history."""
        with self._database.writing() as connection:
            _note(connection, study_uid, event, detail, now)

    def open_studies(self) -> list[StudyRow]:
        """Return the studies that still grow, the oldest first."""
        query = select(*STUDY_COLUMNS).where(Studies.state == StudyState.OPEN)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(Studies.first_received_at)).mappings()
            return [StudyRow(**row) for row in rows]

    def instances(self, study_uid: str) -> list[InstanceRow]:
        """Return the objects of a study, sorted by their UIDs."""
        query = select(Instances).where(Instances.study_uid == study_uid)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(Instances.sop_uid)).mappings()
            return [InstanceRow(**row) for row in rows]

    def route_study(
        self, study_uid: str, version: int, trace: Any, jobs: Sequence[NewJob], now: datetime
    ) -> list[str] | None:
        """Close the study with its jobs; return the ids of those that are new.

        None, and nothing is changed, when the study is not open at `version` any more: decide
        again on what it has become. `trace` is JSON: why each route did or did not match.
        """
        with self._database.writing() as connection:
            if not _settle(connection, study_uid, version, state=StudyState.ROUTED, trace=trace):
                return None
            new = [job.id for job in jobs if add_job(connection, job, now)]
            known = [job.id for job in jobs if job.id not in new]
            detail = f"jobs made: {len(new)}" + (f", known: {', '.join(known)}" if known else "")
            _note(connection, study_uid, "routed", detail, now)
            return new

    def fail_study(self, study_uid: str, version: int, reason: str, now: datetime) -> bool:
        """Close a study that cannot be read; False when it is not open at `version` any more."""
        with self._database.writing() as connection:
            settled = _settle(connection, study_uid, version, state=StudyState.FAILED)
            if settled:
                _note(connection, study_uid, "failed", reason, now)
            return settled


def _grow(connection: Connection, row: InstanceRow, now: datetime) -> None:
    """Count one more instance; a closed study is open again."""
    this = Studies.study_uid == row.study_uid
    state = connection.execute(select(Studies.state).where(this)).scalar_one_or_none()
    if state is None:
        first = {"study_uid": row.study_uid, "source": row.source, "first_received_at": now}
        counts = {"state": StudyState.OPEN, "instances": 1, "version": 1, "last_received_at": now}
        connection.execute(insert(Studies).values(**first, **counts))
        _note(connection, row.study_uid, "received_first", f"from {row.source}", now)
        return
    connection.execute(
        update(Studies)
        .where(this)
        .values(
            state=StudyState.OPEN,
            instances=Studies.instances + 1,
            version=Studies.version + 1,
            last_received_at=now,
            released_at=None,
        )
    )
    if state != StudyState.OPEN:
        _note(connection, row.study_uid, "reopened", f"more arrived from {row.source}", now)


def _settle(connection: Connection, study_uid: str, version: int, **values: Any) -> bool:
    """Change the study if nothing arrived since `version`."""
    this = Studies.study_uid == study_uid, Studies.version == version
    change = update(Studies).where(*this, Studies.state == StudyState.OPEN).values(**values)
    return connection.execute(change).rowcount == 1


def _note(connection: Connection, study_uid: str, event: str, detail: str, now: datetime) -> None:
    line = {"study_uid": study_uid, "at": now, "event": event, "detail": detail}
    connection.execute(insert(StudyEvents).values(line))
