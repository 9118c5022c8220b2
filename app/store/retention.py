"""What may be removed: studies and results that no job, delivery or fetching needs any more."""

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, exists, func, insert, select, update

from app.store.arrivals import SENT_AGAIN
from app.store.delivery import UNSETTLED
from app.store.engine import Section
from app.store.jobs import RemoteState, State, StudyState
from app.store.tables import (
    Deliveries,
    Instances,
    Jobs,
    RemoteStudies,
    SeriesHeaders,
    Studies,
    StudyEvents,
)

OVER = (State.DONE, State.CANCELLED, State.SUPERSEDED)
"""Jobs that nobody acts on; a failed one waits for a person, who may retry it."""
_SETTLED_STUDIES = (StudyState.ROUTED, StudyState.FAILED)
_ON_ITS_WAY = (RemoteState.ASKED, RemoteState.FETCHING)


class Retention(Section):
    """The rows of what may go; who removes files asks here first."""

    def removable_studies(self, before: datetime, limit: int) -> list[str]:
        """Return studies to which nothing came since `before` and that nobody needs, the oldest."""
        query = select(Studies.study_uid).where(*_removable(before))
        with self._database.reading() as connection:
            ordered = query.order_by(Studies.last_received_at).limit(limit)
            return [*connection.execute(ordered).scalars()]

    def files_to_remove(self, study_uid: str) -> list[str]:
        """Return the files of a study's objects."""
        query = select(Instances.file).where(Instances.study_uid == study_uid)
        with self._database.reading() as connection:
            return [*connection.execute(query).scalars()]

    def bytes_of(self, study_uid: str) -> int:
        """Return how much the objects of a study take."""
        with self._database.reading() as connection:
            return _count(connection, study_uid)[1]

    def remove_study(self, study_uid: str, before: datetime, now: datetime) -> int | None:
        """Forget the objects of a study; None when somebody has come to need them.

        Its row, its jobs and their history stay, so that the same study sent again makes no second
        job. What headers said goes with the objects, since they would be read anew.
        """
        mine = Studies.study_uid == study_uid
        with self._database.writing() as connection:
            if (
                connection.execute(
                    select(Studies.study_uid).where(mine, *_removable(before))
                ).first()
                is None
            ):
                return None
            number, size = _count(connection, study_uid)
            for table in (Instances, SeriesHeaders):
                connection.execute(delete(table).where(table.study_uid == study_uid))
            gone = {"state": StudyState.REMOVED, "instances": 0, "expected": None}
            connection.execute(update(Studies).where(mine).values(gone))
            told = f"{number} objects, {size / 1e6:.1f} MB"
            line = {"study_uid": study_uid, "at": now, "event": "removed", "detail": told}
            connection.execute(insert(StudyEvents).values(line))
            return number

    def removable_results(self, job_ids: Collection[str], before: datetime) -> set[str]:
        """Return those of these jobs that are over since `before`, with all deliveries settled."""
        query = select(Jobs.id).where(Jobs.id.in_(job_ids), *_is_over(before))
        with self._database.reading() as connection:
            return {*connection.execute(query).scalars()}

    def remove_results(self, job_id: str, before: datetime, put_aside: Callable[[], None]) -> bool:
        """Put a job's results aside; False when somebody has come to need them.

        While `put_aside` moves them nobody can send the job again or retry it: whoever wants to
        waits for this transaction, and then finds all of the results or none.
        """
        query = select(Jobs.id).where(Jobs.id == job_id, *_is_over(before))
        with self._database.writing() as connection:
            if connection.execute(query).first() is None:
                return False
            put_aside()
            return True


def _removable(before: datetime) -> tuple[ColumnElement[bool], ...]:
    needed = exists().where(Jobs.study_uid == Studies.study_uid, Jobs.state.not_in(OVER))
    sent = exists().where(Jobs.study_uid == Studies.study_uid, _unsettled(Jobs.id))
    coming = exists().where(
        RemoteStudies.study_uid == Studies.study_uid, RemoteStudies.state.in_(_ON_ITS_WAY)
    )
    again = exists().where(
        StudyEvents.study_uid == Studies.study_uid,
        StudyEvents.event == SENT_AGAIN,
        StudyEvents.at >= before,
    )
    return (
        Studies.state.in_(_SETTLED_STUDIES),
        Studies.last_received_at < before,
        ~needed,
        ~sent,
        ~coming,
        ~again,
    )


def _is_over(before: datetime) -> tuple[ColumnElement[bool], ...]:
    return Jobs.state.in_(OVER), Jobs.updated_at < before, ~_unsettled(Jobs.id)


def _unsettled(job_id: Any) -> ColumnElement[bool]:
    return exists().where(Deliveries.job_id == job_id, Deliveries.state.in_(UNSETTLED))


def _count(connection: Connection, study_uid: str) -> tuple[int, int]:
    query = select(func.count(), func.coalesce(func.sum(Instances.size), 0))
    number, size = connection.execute(query.where(Instances.study_uid == study_uid)).one()
    return number, size
