"""Answers of one route to one study: when it grew and is routed again, the newer one counts."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import datetime

from sqlalchemy import Connection, insert

from app.store.deliveries import withdraw_deliveries
from app.store.jobs import PRIORITY_STEP, Event, Job, JobEvent, NewJob, State, after
from app.store.moves import FREE, FRESH, find_jobs, move
from app.store.tables import JobEvents, Jobs


def add_job(connection: Connection, job: NewJob, now: datetime) -> bool:
    """Add the job in place of the older answers; False when it is the answer that counts."""
    answers = find_jobs(
        connection,
        Jobs.study_uid == job.study_uid,
        Jobs.route == job.route,
        Jobs.series_uid == job.series_uid,
    )
    known = find_jobs(connection, Jobs.identity == job.identity)
    if known and known[0].state is not State.SUPERSEDED:
        return False
    version = 1 + max((each.version for each in answers), default=0)
    older = [each for each in answers if each.state is not State.SUPERSEDED]
    names = ", ".join(each.id for each in older)
    detail = f"version {version}" + (f", replaces {names}" if names else "") if version > 1 else ""
    if known:
        _revive(connection, known[0], job, version, detail, now)
    else:
        _insert(connection, job, version, detail, now)
    for each in older:
        _supersede(connection, each, job.id, now)
    return True


def withdraw(
    connection: Connection, study_uid: str, jobs: Iterable[NewJob], now: datetime
) -> list[str]:
    """End the study's jobs that are not among `jobs` by now, unless they are done."""
    left = find_jobs(
        connection,
        Jobs.study_uid == study_uid,
        Jobs.identity.not_in([job.identity for job in jobs]),
        Jobs.state.not_in([State.DONE, State.SUPERSEDED]),
    )
    return [_supersede(connection, job, None, now).id for job in left]


def _insert(connection: Connection, job: NewJob, version: int, detail: str, now: datetime) -> None:
    start = {
        "inputs": dict(job.inputs),
        "instances": {role: list(uids) for role, uids in job.instances.items()},
        "state": after(None, Event.CREATED),
        "fence": 0,
        "due_at": now,
        "created_at": now,
        "updated_at": now,
        "turn_at": now - job.priority * PRIORITY_STEP,
        "version": version,
    }
    values = {name: getattr(job, name) for name in NewJob.__slots__} | start | FRESH
    connection.execute(insert(Jobs).values(values))
    line = JobEvent(
        at=now,
        event=Event.CREATED,
        state=State.QUEUED,
        stage=job.stage,
        seconds=None,
        detail=detail,
    )
    connection.execute(insert(JobEvents).values(job_id=job.id, **asdict(line)))


def _revive(  # noqa: PLR0917  # as `move`
    connection: Connection, old: Job, job: NewJob, version: int, detail: str, now: datetime
) -> None:
    """Let an answer that was replaced count again: what replaced it is not asked for any more.

    It begins anew, since what a superseded job had computed is removed, unless all was computed.
    """
    stage = job.stage if old.published_at is None else old.stage
    changes = FRESH | {"stage": stage, "due_at": now, "version": version, "superseded_by": None}
    move(connection, replace(old, stage=stage), Event.REVIVED, now, changes, detail)


def _supersede(connection: Connection, job: Job, by: str | None, now: datetime) -> Job:
    """End a job on less than the study has by now; what was published stays where it is."""
    reason = f"replaced by {by}" if by else "its route does not take the study as it is by now"
    if job.published_at is None:
        sent = "nothing of it was sent"
    elif job.state is State.DONE:
        sent = "its results stay in the archive"
    else:
        sent = "sending had begun, an archive may hold its results"
    withdraw_deliveries(connection, job.id, reason, now)
    changes = FREE | {"superseded_by": by, "reason": reason}
    return move(connection, job, Event.SUPERSEDED, now, changes, f"{reason}; {sent}")
