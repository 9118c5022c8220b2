"""Rows for tests of the job log: short names in, whole values out."""

from datetime import UTC, datetime, timedelta

from app.store.jobs import InstanceRow, Job, NewJob
from app.store.store import Store

START = datetime(2030, 1, 1, tzinfo=UTC)
LEASE_S = 30.0


def at(seconds: float) -> datetime:
    """Return the time so many seconds after the test began."""
    return START + timedelta(seconds=seconds)


def instance(sop_uid: str, study_uid: str = "1.2") -> InstanceRow:
    """Return a received object."""
    return InstanceRow(
        sop_uid=sop_uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        study_uid=study_uid,
        series_uid=f"{study_uid}.1",
        transfer_syntax="1.2.840.10008.1.2.1",
        sha256="0" * 64,
        size=512,
        file=f"spool/{sop_uid}.dcm",
        source="PHANTOM@127.0.0.1",
        received_at=START,
    )


def new_job(job_id: str, study_uid: str = "1.2", priority: int = 0) -> NewJob:
    """Return a job that is to be made."""
    return NewJob(
        id=job_id,
        identity=f"{study_uid}/{job_id}",
        study_uid=study_uid,
        route="phantom-ct",
        model="phantom@1+000000000000",
        digest="0" * 64,
        stage="infer",
        inputs={"CT": f"{study_uid}.1"},
        instances={"CT": (f"{study_uid}.1.1", f"{study_uid}.1.2")},
        priority=priority,
        series_uid=job_id,  # so that it replaces no other
    )


def add_jobs(store: Store, *job_ids: str, now: datetime = START) -> list[str] | None:
    """Let a study arrive that makes these jobs."""
    uid = f"1.2.{len(store.studies(limit=10_000))}"
    assert store.add_instance(instance(f"{uid}.1.1", uid), now)
    return store.route_study(uid, 1, None, [new_job(job_id, uid) for job_id in job_ids], now)


def claimed(store: Store, job_id: str = "j1", owner: str = "a") -> Job:
    """Make a job and claim it."""
    add_jobs(store, job_id)
    (job,) = store.claim(owner, START, LEASE_S)
    return job
