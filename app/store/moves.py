"""One move of a job: its row and the line of its history, together or not at all."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Exists, exists, insert, select, update

from app.errors import StoreError
from app.store.jobs import Event, Job, JobEvent, LeaseLost, State, StudyState, after
from app.store.tables import JobEvents, Jobs, Studies

FREE = {"owner": None, "lease_until": None}
FRESH = {"attempts": 0, "orphanings": 0, "reason": ""}


def find_jobs(
    connection: Connection, *conditions: ColumnElement[bool], limit: int | None = None
) -> list[Job]:
    """Return the jobs for which all conditions hold, in their turn."""
    query = select(Jobs).where(*conditions).limit(limit)
    ordered = query.order_by(Jobs.turn_at, Jobs.id)
    return [Job.from_columns(**row) for row in connection.execute(ordered).mappings()]


def find_job(connection: Connection, job_id: str) -> Job:
    """Return the job, or say that there is none."""
    found = find_jobs(connection, Jobs.id == job_id)
    if not found:
        raise StoreError(f"there is no job {job_id}")
    return found[0]


def held_job(connection: Connection, job: Job) -> Job:
    """Return the job as it is by now, if who holds `job` still owns it."""
    found = find_job(connection, job.id)
    if (found.state, found.owner, found.fence) != (State.RUNNING, job.owner, job.fence):
        raise LeaseLost(f"job {job.id} was taken from {job.owner} and is {found.state} by now")
    return found


def study_is_routed() -> Exists:
    """Return the condition that nothing has come to a job's study since it was routed.

    What was removed since then does not grow either: results that are kept may be sent again.
    """
    settled = Studies.state.in_([StudyState.ROUTED, StudyState.REMOVED])
    return exists().where(Studies.study_uid == Jobs.study_uid, settled)


def move(  # noqa: PLR0917  # all moves read alike
    connection: Connection,
    job: Job,
    event: Event,
    now: datetime,
    changes: Mapping[str, Any] | None = None,
    detail: str = "",
    seconds: float | None = None,
) -> Job:
    """Let `event` happen to the job: its row and the line of its history, at the stage of `job`.

    `job` was read in this transaction, which began with the write lock: it cannot be stale.
    """
    values = {"state": after(job.state, event), "updated_at": now, **(changes or {})}
    moved = replace(job, **values)
    line = JobEvent(
        at=now, event=event, state=moved.state, stage=job.stage, seconds=seconds, detail=detail
    )
    connection.execute(update(Jobs).where(Jobs.id == job.id).values(values))
    connection.execute(insert(JobEvents).values(job_id=job.id, **asdict(line)))
    return moved
