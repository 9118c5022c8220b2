"""What people and pages read; nothing here can change the log."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import func, select

from app.errors import StoreError
from app.store.engine import Section
from app.store.intake import STUDY_COLUMNS
from app.store.jobs import DoorEvent, Job, JobEvent, State, StudyEvent, StudyRow
from app.store.tables import DoorEvents, JobEvents, Jobs, Studies, StudyEvents

LAST = "\U0010ffff"
"""Sorts after every other letter: `between` with it finds what begins with a text, by an index."""


class History(Section):
    """Jobs and studies as they are, and what happened to them."""

    def jobs(
        self, state: State | None = None, study_uid: str | None = None, limit: int = 100
    ) -> list[Job]:
        """Return the newest jobs, all or only those of one state or study."""
        query = select(Jobs).order_by(Jobs.created_at.desc(), Jobs.id.desc()).limit(limit)
        if state is not None:
            query = query.where(Jobs.state == state)
        if study_uid is not None:
            query = query.where(Jobs.study_uid == study_uid)
        with self._database.reading() as connection:
            return [Job.from_columns(**row) for row in connection.execute(query).mappings()]

    def job(self, name: str) -> Job:
        """Return the job of this id, or of an id that begins like this and is the only one."""
        exact = (Jobs.id == name).desc()
        query = select(Jobs).where(Jobs.id.between(name, f"{name}{LAST}")).order_by(exact)
        with self._database.reading() as connection:
            rows = connection.execute(query.limit(2)).mappings().all()
        found = [Job.from_columns(**row) for row in rows]
        if not found:
            raise StoreError(f"there is no job {name}")
        if len(found) > 1 and found[0].id != name:
            raise StoreError(f"more than one job begins with {name}; give more of its id")
        return found[0]

    def replaced(self, job_ids: Iterable[str]) -> dict[str, list[str]]:
        """Return for each of these jobs that replaced others the ids of those."""
        query = select(Jobs.id, Jobs.superseded_by).where(Jobs.superseded_by.in_(list(job_ids)))
        found: dict[str, list[str]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(query.order_by(Jobs.version)):
                found.setdefault(row.superseded_by, []).append(row.id)
        return found

    def events(self, job_id: str) -> list[JobEvent]:
        """Return the job's history, the oldest line first."""
        line = JobEvents.at, JobEvents.event, JobEvents.state, JobEvents.stage
        query = select(*line, JobEvents.seconds, JobEvents.detail).order_by(JobEvents.id)
        with self._database.reading() as connection:
            rows = connection.execute(query.where(JobEvents.job_id == job_id)).mappings()
            return [JobEvent(**row) for row in rows]

    def studies(self, limit: int = 100) -> list[StudyRow]:
        """Return the studies that grew last."""
        query = select(*STUDY_COLUMNS).order_by(Studies.last_received_at.desc()).limit(limit)
        with self._database.reading() as connection:
            return [StudyRow(**row) for row in connection.execute(query).mappings()]

    def find_study(self, study_uid: str) -> StudyRow | None:
        """Return the study, if anything of it was received."""
        query = select(*STUDY_COLUMNS).where(Studies.study_uid == study_uid)
        with self._database.reading() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else StudyRow(**row)

    def study(self, study_uid: str) -> StudyRow:
        """Return one study."""
        found = self.find_study(study_uid)
        if found is None:
            raise StoreError(f"there is no study {study_uid}")
        return found

    def study_events(self, study_uid: str) -> list[StudyEvent]:
        """Return the study's history, the oldest line first."""
        query = select(StudyEvents.at, StudyEvents.event, StudyEvents.detail)
        ordered = query.where(StudyEvents.study_uid == study_uid).order_by(StudyEvents.id)
        with self._database.reading() as connection:
            return [StudyEvent(**row) for row in connection.execute(ordered).mappings()]

    def door_events(self, limit: int = 100) -> list[DoorEvent]:
        """Return the last lines of the door's history, the newest first."""
        line = DoorEvents.at, DoorEvents.source, DoorEvents.event, DoorEvents.detail
        query = select(*line).order_by(DoorEvents.id.desc()).limit(limit)
        with self._database.reading() as connection:
            return [DoorEvent(**row) for row in connection.execute(query).mappings()]

    def trace(self, study_uid: str) -> Any:
        """Return why each route did or did not match when the study was last routed, or None."""
        query = select(Studies.trace).where(Studies.study_uid == study_uid)
        with self._database.reading() as connection:
            return connection.execute(query).scalar_one_or_none()

    def counts(self) -> dict[State, int]:
        """Return how many jobs there are in each state."""
        query = select(Jobs.state, func.count().label("jobs")).group_by(Jobs.state)
        with self._database.reading() as connection:
            found = {row.state: row.jobs for row in connection.execute(query)}
        return {state: found.get(state, 0) for state in State}
