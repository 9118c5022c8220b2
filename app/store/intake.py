"""What the door and the assembly write: instances, and the studies that they add up to."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, exists, insert, select, update

from app.store import arrivals
from app.store.engine import Section
from app.store.jobs import InstanceRow, NewJob, RemoteState, StudyRow, StudyState
from app.store.tables import DoorEvents, Instances, RemoteStudies, Studies, StudyEvents
from app.store.versions import add_job, withdraw

STUDY_COLUMNS = (
    Studies.study_uid,
    Studies.state,
    Studies.source,
    Studies.instances,
    Studies.version,
    Studies.first_received_at,
    Studies.last_received_at,
    Studies.released_at,
    Studies.complete_signal,
    Studies.expected,
    exists(
        select(RemoteStudies.study_uid).where(
            RemoteStudies.state == RemoteState.FETCHING,
            RemoteStudies.study_uid == Studies.study_uid,
        )
    ).label("being_fetched"),
)


class Intake(Section):
    """How a study grows until its jobs are made."""

    def find_instance(self, sop_uid: str) -> InstanceRow | None:
        """Return the object of this UID, if it was received before."""
        with self._database.glancing() as cursor:
            return arrivals.find(cursor, sop_uid)

    def add_instance(self, row: InstanceRow, now: datetime) -> bool:
        """Keep a received object and let its study grow; False when its UID is known already."""
        return self.add_instances([row], now)[0]

    def add_instances(self, rows: Sequence[InstanceRow], now: datetime) -> list[bool]:
        """Keep several objects in one transaction; say of each what `add_instance` says."""
        with self._database.adding() as cursor:
            return arrivals.add(cursor, rows, now)

    def copied(self, sop_uid: str, source: str, now: datetime) -> bool:
        """Note that a held object was sent again; False when it is not held any more."""
        with self._database.adding() as cursor:
            return arrivals.copied(cursor, sop_uid, source, now)

    def files(self) -> set[str]:
        """Return the file of every received object."""
        with self._database.glancing() as cursor:
            cursor.execute("SELECT file FROM instances")
            return {file for (file,) in cursor.fetchall()}

    def door_event(self, source: str, event: str, detail: str, now: datetime) -> None:
        """Add a line to the door's own history: of what was refused there is no study."""
        line = {"at": now, "source": source, "event": event, "detail": detail}
        with self._database.writing() as connection:
            connection.execute(insert(DoorEvents).values(line))

    def release(self, study_uids: Iterable[str], now: datetime) -> None:
        """Note that the sender of these studies closed its association."""
        still_open = Studies.study_uid.in_(list(study_uids)), Studies.state == StudyState.OPEN
        with self._database.writing() as connection:
            connection.execute(update(Studies).where(*still_open).values(released_at=now))

    def complete(self, study_uid: str, signal: str, now: datetime) -> bool:
        """Note that somebody says the study is complete; False when it is not open here."""
        this = Studies.study_uid == study_uid, Studies.state == StudyState.OPEN
        with self._database.writing() as connection:
            change = update(Studies).where(*this).values(complete_signal=signal)
            told = connection.execute(change).rowcount == 1
            if told:
                _note(connection, study_uid, "complete", signal, now)
            return told

    def expect(self, study_uid: str, instances: int) -> None:
        """Note how many objects the archive says the study has."""
        with self._database.writing() as connection:
            this = update(Studies).where(Studies.study_uid == study_uid)
            connection.execute(this.values(expected=instances))

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
        again on what it has become. `trace` is JSON: why each route did or did not match. Jobs of
        what the study was before, if they are not among `jobs`, end as superseded.
        """
        with self._database.writing() as connection:
            if not _settle(connection, study_uid, version, state=StudyState.ROUTED, trace=trace):
                return None
            new = [job.id for job in jobs if add_job(connection, job, now)]
            known = [job.id for job in jobs if job.id not in new]
            void = withdraw(connection, study_uid, jobs, now)
            told = [f"jobs made: {len(new)}"]
            told += [
                f"{word}: {', '.join(ids)}"
                for word, ids in (("known", known), ("withdrawn", void))
                if ids
            ]
            _note(connection, study_uid, "routed", ", ".join(told), now)
            return new

    def fail_study(
        self, study_uid: str, version: int, reason: str, now: datetime, event: str = "failed"
    ) -> bool:
        """Close a study that cannot be used; False when it is not open at `version` any more."""
        with self._database.writing() as connection:
            settled = _settle(connection, study_uid, version, state=StudyState.FAILED)
            if settled:
                _note(connection, study_uid, event, reason, now)
            return settled


def _settle(connection: Connection, study_uid: str, version: int, **values: Any) -> bool:
    """Change the study if nothing arrived since `version`."""
    this = Studies.study_uid == study_uid, Studies.version == version
    change = update(Studies).where(*this, Studies.state == StudyState.OPEN).values(**values)
    return connection.execute(change).rowcount == 1


def _note(connection: Connection, study_uid: str, event: str, detail: str, now: datetime) -> None:
    line = {"study_uid": study_uid, "at": now, "event": event, "detail": detail}
    connection.execute(insert(StudyEvents).values(line))
