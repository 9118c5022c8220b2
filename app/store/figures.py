"""How much there is of everything: what a monitor reads again and again, from indexes alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from app.store.delivery import UNDER_WAY, DeliveryState
from app.store.engine import Section
from app.store.jobs import State, StudyState
from app.store.tables import Deliveries, JobEvents, Jobs, Studies


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The log in numbers, at one moment."""

    studies: Mapping[StudyState, int]
    jobs: Mapping[tuple[State, str], int]
    """State and route → jobs."""
    queued_since: datetime | None
    """When the job that could have been claimed longest ago was due; None without one."""
    deliveries: Mapping[tuple[str, DeliveryState], int]
    """Destination and state → deliveries."""
    unproved_since: Mapping[str, datetime]
    """Destination → since when its oldest delivery is under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """How long one stage of one job took; `id` is its line in the history."""

    id: int
    stage: str
    route: str
    seconds: float


class FigureLog(Section):
    """Numbers about the log."""

    def figures(self, now: datetime) -> Figures:
        """Return how much there is of what."""
        number = func.count().label("number")
        due = select(func.min(Jobs.due_at)).where(Jobs.state == State.QUEUED, Jobs.due_at <= now)
        open_since = (
            select(Deliveries.destination, func.min(Deliveries.began_at).label("since"))
            .where(Deliveries.state.in_(UNDER_WAY))
            .group_by(Deliveries.destination)
        )
        key = Deliveries.destination, Deliveries.state
        with self._database.reading() as connection:
            studies = connection.execute(select(Studies.state, number).group_by(Studies.state))
            found = {row.state: row.number for row in studies}
            jobs = connection.execute(
                select(Jobs.state, Jobs.route, number).group_by(Jobs.state, Jobs.route)
            )
            return Figures(
                studies={state: found.get(state, 0) for state in StudyState},
                jobs={(row.state, row.route): row.number for row in jobs},
                queued_since=connection.execute(due).scalar(),
                deliveries={
                    (row.destination, row.state): row.number
                    for row in connection.execute(select(*key, number).group_by(*key))
                },
                unproved_since={
                    row.destination: row.since for row in connection.execute(open_since)
                },
            )

    def stage_times(self, after: int, limit: int = 10_000) -> list[StageTime]:
        """Return how long stages took, of lines behind `after` in the order of the history."""
        line = JobEvents.id, JobEvents.stage, Jobs.route, JobEvents.seconds
        query = (
            select(*line)
            .join(Jobs, Jobs.id == JobEvents.job_id)
            .where(JobEvents.id > after, JobEvents.seconds.is_not(None))
        )
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(JobEvents.id).limit(limit)).mappings()
            return [StageTime(**row) for row in rows]
