"""How jobs move: leases with a fence, each move one row of the table and one line of history."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, Exists, exists, or_, select, true, update

from app.errors import StoreError, StudyGrows
from app.store.engine import Section
from app.store.jobs import MAX_ORPHANINGS, Event, Job, LeaseLost, State, StudyState
from app.store.moves import FREE, FRESH, find_jobs, move
from app.store.tables import Jobs, Studies


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
            for job in find_jobs(connection, Jobs.state == State.WAITING, *due):
                move(connection, job, Event.DUE, now)
            ready = find_jobs(connection, Jobs.state == State.QUEUED, *due, limit=limit)
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
            return move(connection, held, Event.PASSED, now, progress, detail, seconds)

    def finish(self, job: Job, seconds: float | None, detail: str, now: datetime) -> Job:
        """Note that the last stage is done, and the job with it."""
        changes = FREE | {"reason": ""}
        with self._database.writing() as connection:
            held = _held(connection, job)
            return move(connection, held, Event.FINISHED, now, changes, detail, seconds)

    def postpone(
        self, job: Job, until: datetime, reason: str, now: datetime, *, counts: bool = True
    ) -> Job:
        """Let the job wait until the world may be ready for it."""
        with self._database.writing() as connection:
            held = _held(connection, job)
            attempts = held.attempts if counts else held.attempts - 1
            changes = FREE | {"due_at": until, "reason": reason, "attempts": attempts}
            return move(connection, held, Event.POSTPONED, now, changes, reason)

    def give_up(self, job: Job, reason: str, now: datetime) -> Job:
        """End the job; a person must mend what the reason says and retry it."""
        changes = FREE | {"reason": reason}
        with self._database.writing() as connection:
            held = _held(connection, job)
            return move(connection, held, Event.GAVE_UP, now, changes, reason)

    def hand_back(self, job: Job, reason: str, now: datetime) -> Job:
        """Put the job back because its owner stops; this attempt does not count."""
        with self._database.writing() as connection:
            held = _held(connection, job)
            changes = FREE | {"attempts": held.attempts - 1, "reason": reason, "due_at": now}
            return move(connection, held, Event.HANDED_BACK, now, changes, reason)

    def recover(self, now: datetime, *, all_running: bool = False) -> list[Job]:
        """Take jobs from dead owners: back to the queue, or failed when it happens too often.

        Dead is whose lease is over; with `all_running` everybody is (a single node at its start).
        """
        dead = true() if all_running else Jobs.lease_until <= now
        with self._database.writing() as connection:
            orphans = find_jobs(connection, Jobs.state == State.RUNNING, dead)
            return [_orphan(connection, job, now) for job in orphans]

    def retry(self, job_id: str, now: datetime, stage: str | None = None) -> Job:
        """Queue a failed or cancelled job again, at `stage` or where it stopped."""
        with self._database.writing() as connection:
            job = _job(connection, job_id)
            job = replace(job, stage=stage or job.stage)
            changes = FRESH | {"stage": job.stage, "due_at": now}
            return move(connection, job, Event.RETRIED, now, changes, "by hand")

    def cancel(self, job_id: str, now: datetime) -> Job:
        """End a job that is not done yet; who runs it loses it."""
        changes = FREE | {"reason": "cancelled by hand"}
        with self._database.writing() as connection:
            job = _job(connection, job_id)
            return move(connection, job, Event.CANCELLED, now, changes, "by hand")


def _job(connection: Connection, job_id: str) -> Job:
    found = find_jobs(connection, Jobs.id == job_id)
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
    return move(connection, job, Event.CLAIMED, now, changes, f"by {owner}")


def _study_is_routed() -> Exists:
    """Return the condition that nothing has come to a job's study since it was routed."""
    return exists().where(Studies.study_uid == Jobs.study_uid, Studies.state == StudyState.ROUTED)


def _orphan(connection: Connection, job: Job, now: datetime) -> Job:
    """Take the job from its dead owner."""
    count = job.orphanings + 1
    event, reason = Event.ORPHANED, f"{job.owner} died while it ran the job"
    if count >= MAX_ORPHANINGS:
        event = Event.GAVE_UP
        reason = f"whoever ran {job.stage} died {count} times; look at the study and the model"
    changes = FREE | {"orphanings": count, "due_at": now, "reason": reason}
    return move(connection, job, event, now, changes, reason)
