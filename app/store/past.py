"""What was decided of studies in the past, and the rows from which it can be decided again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, tuple_

from app.store.engine import Section
from app.store.jobs import Event
from app.store.tables import JobEvents, Jobs, SeriesHeaders, Studies


@dataclass(frozen=True, slots=True, kw_only=True)
class PastStudy:
    """A study of the log, as it was routed last."""

    study_uid: str
    last_received_at: datetime
    trace: Any
    """Why each route did or did not take it; None when it was never routed."""
    series: tuple[Any, ...]
    """What routing needs of each series; none when it was not kept."""


class Past(Section):
    """Questions about many studies at once; nothing here can change the log."""

    def past_studies(
        self,
        since: datetime,
        until: datetime | None = None,
        *,
        before: PastStudy | None = None,
        limit: int = 100,
    ) -> list[PastStudy]:
        """Return studies that grew last from `since` to before `until`, the newest first.

        `before` is the last one of the page before.
        """
        order = Studies.last_received_at, Studies.study_uid
        query = select(Studies.study_uid, Studies.last_received_at, Studies.trace)
        query = query.where(Studies.last_received_at >= since)
        if until is not None:
            query = query.where(Studies.last_received_at < until)
        if before is not None:
            query = query.where(tuple_(*order) < (before.last_received_at, before.study_uid))
        with self._database.reading() as connection:
            ordered = query.order_by(*(each.desc() for each in order)).limit(limit)
            rows = connection.execute(ordered).mappings().all()
            series = _series(connection, [row["study_uid"] for row in rows])
        return [PastStudy(**row, series=series.get(row["study_uid"], ())) for row in rows]

    def finished_models(self) -> frozenset[str]:
        """Return the identities of the models of which a job has finished here, ever."""
        query = select(Jobs.model).distinct().join(JobEvents, JobEvents.job_id == Jobs.id)
        with self._database.reading() as connection:
            found = connection.execute(query.where(JobEvents.event == Event.FINISHED))
            return frozenset(found.scalars())


def _series(connection: Any, study_uids: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    columns = SeriesHeaders.study_uid, SeriesHeaders.summary
    query = select(*columns).where(SeriesHeaders.study_uid.in_(study_uids))
    found: dict[str, tuple[Any, ...]] = {}
    for uid, summary in connection.execute(query.order_by(SeriesHeaders.series_uid)):
        found[uid] = (*found.get(uid, ()), summary)
    return found
