"""How jobs move: leases with a fence, each move one row of the table and one line of history."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Exists,
    exists,
    insert,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.sqlite import insert as insert_or_ignore  # PostgreSQL has the same one

from app.errors import StoreError, StudyGrows
from app.store.engine import Section
from app.store.jobs import (
    MAX_ORPHANINGS,
    PRIORITY_STEP,
    Event,
    Job,
    JobEvent,
    LeaseLost,
    NewJob,
    State,
    StudyState,
    after,
)
from app.store.tables import JobEvents, Jobs, Studies

FREE = {"owner": None, "lease_until": None}
FRESH = {"attempts": 0, "orphanings": 0, "reason": ""}


class Ledger(Section):
    """The moves of a job; the owner's raise LeaseLost when the job is not its own any more."""

    def claim(
        self,
        owner: str,
        now: datetime,
        lease_s: float,
        limit: int = 1,
        held_at: str | None = None,
    ) -> list[Job]:
        """Take the jobs that are due and first in turn, for `lease_s` seconds from `now`.

        A job at the stage `held_at` is left until its study is routed as it is by now.
        """
        until = now + timedelta(seconds=lease_s)
        due = (
            Jobs.due_at <= now,
            or_(Jobs.stage != held_at, _study_is_routed()) if held_at else true(),
        )
        with self._database.writing() as connection:
            for job in _jobs(connection, Jobs.state == State.WAITING, *due):
                _move(connection, job, Event.DUE, now)
            ready = _jobs(connection, Jobs.state == State.QUEUED, *due, limit=limit)
            return [_claim(connection, job, owner, now, until) for job in ready]

    def publish(self, job: Job, now: datetime) -> None:
        """Note that sending begins; StudyGrows when more than the job knows has arrived."""
        with self._database.writing() as connection:
            held = _held(connection, job)
            if not connection.execute(select(_study_is_routed().where(Jobs.id == job.id))).scalar():
                raise StudyGrows
            if held.published_at is None:
                connection.execute(update(Jobs).where(Jobs.id == job.id).values(published_at=now))

    def extend(
        self, owner: str, now: datetime, lease_s: float, held: Iterable[str] | None = None
    ) -> set[str]:
        """Renew the leases of `owner`; return the ids of the jobs that it still holds.

        With `held` only these are renewed, so that a job which its owner let go of without a line
        in the log (the disk was full) is found to be an orphan.
        """
        mine = [Jobs.owner == owner, Jobs.state == State.RUNNING]
        if held is not None:
            mine.append(Jobs.id.in_(list(held)))
        until = now + timedelta(seconds=lease_s)
        with self._database.writing() as connection:
            connection.execute(update(Jobs).where(*mine).values(lease_until=until))
            return set(connection.execute(select(Jobs.id).where(*mine)).scalars())

    def passed(  # noqa: PLR0917  # one line of the history, in its order
        self,
        job: Job,
        stage_done: str,
        next_stage: str,
        seconds: float | None,
        detail: str,
        now: datetime,
    ) -> Job:
        """Note that a stage is done; attempts count anew, as the job made progress."""
        progress = FRESH | {"attempts": 1, "stage": next_stage}
        with self._database.writing() as connection:
            held = replace(_held(connection, job), stage=stage_done)
            return _move(connection, held, Event.PASSED, now, progress, detail, seconds)

    def finish(self, job: Job, seconds: float | None, detail: str, now: datetime) -> Job:
        """Note that the last stage is done, and the job with it."""
        changes = FREE | {"reason": ""}
        with self._database.writing() as connection:
            held = _held(connection, job)
            return _move(connection, held, Event.FINISHED, now, changes, detail, seconds)

    def postpone(
        self, job: Job, until: datetime, reason: str, now: datetime, *, counts: bool = True
    ) -> Job:
        """Let the job wait until the world may be ready for it."""
        with self._database.writing() as connection:
            held = _held(connection, job)
            attempts = held.attempts if counts else held.attempts - 1
            changes = FREE | {"due_at": until, "reason": reason, "attempts": attempts}
            return _move(connection, held, Event.POSTPONED, now, changes, reason)

    def give_up(self, job: Job, reason: str, now: datetime) -> Job:
        """End the job; a person must mend what the reason says and retry it."""
        changes = FREE | {"reason": reason}
        with self._database.writing() as connection:
            held = _held(connection, job)
            return _move(connection, held, Event.GAVE_UP, now, changes, reason)

    def hand_back(self, job: Job, reason: str, now: datetime) -> Job:
        """Put the job back because its owner stops; this attempt does not count."""
        with self._database.writing() as connection:
            held = _held(connection, job)
            changes = FREE | {"attempts": held.attempts - 1, "reason": reason, "due_at": now}
            return _move(connection, held, Event.HANDED_BACK, now, changes, reason)

    def recover(self, now: datetime, *, all_running: bool = False) -> list[Job]:
        """Take jobs from dead owners: back to the queue, or failed when it happens too often.

        Dead is whose lease is over; with `all_running` everybody is (a single node at its start).
        """
        dead = true() if all_running else Jobs.lease_until <= now
        with self._database.writing() as connection:
            orphans = _jobs(connection, Jobs.state == State.RUNNING, dead)
            return [_orphan(connection, job, now) for job in orphans]

    def retry(self, job_id: str, now: datetime, stage: str | None = None) -> Job:
        """Queue a failed or cancelled job again, at `stage` or where it stopped."""
        with self._database.writing() as connection:
            job = _job(connection, job_id)
            job = replace(job, stage=stage or job.stage)
            changes = FRESH | {"stage": job.stage, "due_at": now}
            return _move(connection, job, Event.RETRIED, now, changes, "by hand")

    def cancel(self, job_id: str, now: datetime) -> Job:
        """End a job that is not done yet; who runs it loses it."""
        changes = FREE | {"reason": "cancelled by hand"}
        with self._database.writing() as connection:
            job = _job(connection, job_id)
            return _move(connection, job, Event.CANCELLED, now, changes, "by hand")


def add_job(connection: Connection, job: NewJob, now: datetime) -> bool:
    """Add the job in place of the older answers to its question; False when it is known."""
    older = _jobs(
        connection,
        Jobs.study_uid == job.study_uid,
        Jobs.route == job.route,
        Jobs.series_uid == job.series_uid,
    )
    version = 1 + max((each.version for each in older), default=0)
    replaced = [each for each in older if each.state is not State.SUPERSEDED]
    if not _insert(connection, job, version, replaced, now):
        return False
    for each in replaced:
        _supersede(connection, each, job.id, now)
    return True


def withdraw(
    connection: Connection, study_uid: str, jobs: Iterable[NewJob], now: datetime
) -> list[str]:
    """End the study's jobs that are not among `jobs` by now, unless they are done."""
    jobs = list(jobs)
    left = _jobs(
        connection,
        Jobs.study_uid == study_uid,
        Jobs.identity.not_in([job.identity for job in jobs]),
        Jobs.state.not_in([State.DONE, State.SUPERSEDED]),
    )
    return [_supersede(connection, job, None, now).id for job in left]


def _insert(
    connection: Connection, job: NewJob, version: int, replaced: Iterable[Job], now: datetime
) -> bool:
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
    new = insert_or_ignore(Jobs).on_conflict_do_nothing(index_elements=["identity"])
    values = {name: getattr(job, name) for name in NewJob.__slots__} | start | FRESH
    if connection.execute(new.values(values)).rowcount == 0:
        return False
    names = ", ".join(each.id for each in replaced)
    line = JobEvent(
        at=now,
        event=Event.CREATED,
        state=State.QUEUED,
        stage=job.stage,
        seconds=None,
        detail=""
        if version == 1
        else f"version {version}" + (f", replaces {names}" if names else ""),
    )
    connection.execute(insert(JobEvents).values(job_id=job.id, **asdict(line)))
    return True


def _jobs(
    connection: Connection, *conditions: ColumnElement[bool], limit: int | None = None
) -> list[Job]:
    """Return the jobs for which all conditions hold, in their turn."""
    query = select(Jobs).where(*conditions).limit(limit)
    ordered = query.order_by(Jobs.turn_at, Jobs.id)
    return [Job.from_columns(**row) for row in connection.execute(ordered).mappings()]


def _job(connection: Connection, job_id: str) -> Job:
    found = _jobs(connection, Jobs.id == job_id)
    if not found:
        raise StoreError(f"there is no job {job_id}")
    return found[0]


def _held(connection: Connection, job: Job) -> Job:
    """Return the job as it is by now, if who holds `job` still owns it."""
    found = _job(connection, job.id)
    if (found.state, found.owner, found.fence) != (State.RUNNING, job.owner, job.fence):
        raise LeaseLost(f"job {job.id} was taken from {job.owner} and is {found.state} by now")
    return found


def _claim(connection: Connection, job: Job, owner: str, now: datetime, until: datetime) -> Job:
    """Give the job to `owner`; whoever held it before is fenced off."""
    counts = {"fence": job.fence + 1, "attempts": job.attempts + 1}
    changes = counts | {"owner": owner, "lease_until": until, "reason": ""}
    return _move(connection, job, Event.CLAIMED, now, changes, f"by {owner}")


def _study_is_routed() -> Exists:
    """Return the condition that nothing has come to a job's study since it was routed."""
    return exists().where(Studies.study_uid == Jobs.study_uid, Studies.state == StudyState.ROUTED)


def _supersede(connection: Connection, job: Job, by: str | None, now: datetime) -> Job:
    """End a job on less than the study has by now; what was published stays where it is."""
    reason = f"replaced by {by}" if by else "its route does not take the study as it is by now"
    if job.published_at is None:
        sent = "nothing of it was sent"
    elif job.state is State.DONE:
        sent = "its results stay in the archive"
    else:
        sent = "sending had begun, an archive may hold its results"
    changes = FREE | {"superseded_by": by, "reason": reason}
    return _move(connection, job, Event.SUPERSEDED, now, changes, f"{reason}; {sent}")


def _orphan(connection: Connection, job: Job, now: datetime) -> Job:
    """Take the job from its dead owner."""
    count = job.orphanings + 1
    event, reason = Event.ORPHANED, f"{job.owner} died while it ran the job"
    if count >= MAX_ORPHANINGS:
        event = Event.GAVE_UP
        reason = f"whoever ran {job.stage} died {count} times; look at the study and the model"
    changes = FREE | {"orphanings": count, "due_at": now, "reason": reason}
    return _move(connection, job, event, now, changes, reason)


def _move(  # noqa: PLR0917  # all moves read alike
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
