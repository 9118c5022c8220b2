"""How jobs move: leases with a fence, each move one row of the table and one line of history."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, select, true, update

from app.store.deliveries import withdraw_deliveries
from app.store.engine import Section
from app.store.jobs import MAX_ORPHANINGS, Event, Job, State
from app.store.moves import FREE, FRESH, find_job, find_jobs, held_job, move
from app.store.tables import Jobs


class Ledger(Section):
    """The moves of a job; the owner's raise LeaseLost when the job is not its own any more."""

    def claim(
        self,
        owner: str,
        now: datetime,
        lease_s: float,
        limit: int = 1,
    ) -> list[Job]:
        """Take the jobs that are due and first in turn, for `lease_s` seconds from `now`."""
        until = now + timedelta(seconds=lease_s)
        due = Jobs.due_at <= now
        with self._database.writing() as connection:
            for job in find_jobs(connection, Jobs.state == State.WAITING, due):
                move(connection, job, Event.DUE, now)
            ready = find_jobs(connection, Jobs.state == State.QUEUED, due, limit=limit)
            return [_claim(connection, job, owner, now, until) for job in ready]

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
            held = replace(held_job(connection, job), stage=stage_done)
            return move(connection, held, Event.PASSED, now, progress, detail, seconds)

    def finish(self, job: Job, seconds: float | None, detail: str, now: datetime) -> Job:
        """Note that the last stage is done and nothing is to be delivered: the job is done."""
        changes = FREE | {"reason": ""}
        with self._database.writing() as connection:
            held = held_job(connection, job)
            return move(connection, held, Event.FINISHED, now, changes, detail, seconds)

    def postpone(self, job: Job, until: datetime, reason: str, now: datetime) -> Job:
        """Let the job wait until the world may be ready for it."""
        changes = FREE | {"due_at": until, "reason": reason}
        with self._database.writing() as connection:
            held = held_job(connection, job)
            return move(connection, held, Event.POSTPONED, now, changes, reason)

    def give_up(self, job: Job, reason: str, now: datetime) -> Job:
        """End the job; a person must mend what the reason says and retry it."""
        changes = FREE | {"reason": reason}
        with self._database.writing() as connection:
            held = held_job(connection, job)
            return move(connection, held, Event.GAVE_UP, now, changes, reason)

    def hand_back(self, job: Job, reason: str, now: datetime) -> Job:
        """Put the job back because its owner stops; this attempt does not count."""
        with self._database.writing() as connection:
            held = held_job(connection, job)
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
            job = find_job(connection, job_id)
            job = replace(job, stage=stage or job.stage)
            changes = FRESH | {"stage": job.stage, "due_at": now}
            return move(connection, job, Event.RETRIED, now, changes, "by hand")

    def cancel(self, job_id: str, now: datetime) -> Job:
        """End a job that is not done yet; who runs it loses it."""
        changes = FREE | {"reason": "cancelled by hand"}
        with self._database.writing() as connection:
            job = find_job(connection, job_id)
            withdraw_deliveries(connection, job.id, "its job was cancelled by hand", now)
            return move(connection, job, Event.CANCELLED, now, changes, "by hand")


def _claim(connection: Connection, job: Job, owner: str, now: datetime, until: datetime) -> Job:
    """Give the job to `owner`; whoever held it before is fenced off."""
    counts = {"fence": job.fence + 1, "attempts": job.attempts + 1}
    changes = counts | {"owner": owner, "lease_until": until, "reason": ""}
    return move(connection, job, Event.CLAIMED, now, changes, f"by {owner}")


def _orphan(connection: Connection, job: Job, now: datetime) -> Job:
    """Take the job from its dead owner."""
    count = job.orphanings + 1
    event, reason = Event.ORPHANED, f"{job.owner} died while it ran the job"
    if count >= MAX_ORPHANINGS:
        event = Event.GAVE_UP
        reason = f"whoever ran {job.stage} died {count} times; look at the study and the model"
    changes = FREE | {"orphanings": count, "due_at": now, "reason": reason}
    return move(connection, job, event, now, changes, reason)
