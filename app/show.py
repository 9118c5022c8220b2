"""What the job log says, in words for a terminal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from app.store.delivery import Delivery
from app.store.jobs import DoorEvent, Job, JobEvent, StudyRow
from app.trace_words import trace


def jobs(rows: Iterable[Job], replaced: Mapping[str, Sequence[str]]) -> str:
    """Return a table of jobs; `replaced` says for each which older ones it took the place of."""
    head = (
        f"{'job':12}  {'state':10}  {'stage':8}  {'tries':5}  {'route':20}  {'changed':19}  reason"
    )
    lines = [
        f"{job.id:12}  {job.state:10}  {job.stage:8}  {job.attempts:5}  {job.route:20}  "
        f"{_time(job.updated_at)}  {_told(job, replaced)}"
        for job in rows
    ]
    return "\n".join([head, *lines])


def _told(job: Job, replaced: Mapping[str, Sequence[str]]) -> str:
    older = ", ".join(replaced.get(job.id, ()))
    version = f"version {job.version}, replaces {older}" if older else ""
    return "; ".join(filter(None, [version, job.reason]))


def studies(rows: Iterable[StudyRow]) -> str:
    """Return a table of studies."""
    head = f"{'last object':19}  {'state':7}  {'objects':7}  study"
    lines = [
        f"{_time(row.last_received_at)}  {row.state:7}  {row.instances:7}  {row.study_uid}"
        for row in rows
    ]
    return "\n".join([head, *lines])


def refused(events: Iterable[DoorEvent]) -> str:
    """Return a table of what the door did not keep."""
    lines = [f"{_time(each.at)}  {each.event:11}  {each.source}  {each.detail}" for each in events]
    return "\n".join(lines) or "nothing was refused"


def sources(told: Iterable[Mapping[str, Any]], newest: Iterable[Mapping[str, Any]]) -> str:
    """Return how each archive that is asked fares, and its studies that changed last."""
    lines = []
    for each in told:
        polled = _time(each["polled_at"]) or "never"
        states = ", ".join(f"{n} {state}" for state, n in sorted(each["studies"].items()))
        lines.append(f"{each['source']}: {states or 'no studies known'}")
        lines.append(f"  last listed {polled}: {each['listed']} studies, {each['changed']} changed")
        if each["error"]:
            lines.append(f"  {_time(each['error_at'])}  {each['error']}")
    head = f"{'changed':19}  {'state':8}  {'objects':7}  {'source':12}  study  reason"
    return "\n".join([*lines, head, *map(_remote_line, newest)]) if lines else "no sources"


def remotes(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return what is known of a study that lies in archives, of which perhaps nothing is here."""
    lines = []
    for each in rows:
        lines.append(_remote_line(each))
        if each["trace"] is not None:
            lines.append(trace(each["trace"]))
    return "\n".join(lines)


def _remote_line(row: Mapping[str, Any]) -> str:
    number = "?" if row["instances"] is None else row["instances"]
    return (
        f"{_time(row['changed_at'])}  {row['state']:8}  {number:>7}  {row['source']:12}  "
        f"{row['study_uid']}  {row['reason']}"
    ).rstrip()


def story(told: Mapping[str, Any]) -> str:
    """Return everything that happened to a study and its jobs."""
    study = told["study"]
    lines = [f"study {study['study_uid']}, {study['instances']} objects, {study['state']}"]
    lines += [
        f"  {_time(event['at'])}  {event['event']:14}  {event['detail']}"
        for event in told["study_events"]
    ]
    lines += [f"  in an archive: {_remote_line(each)}" for each in told["remotes"]]
    lines.append(trace(told["trace"]))
    for job in told["jobs"]:
        lines.append(f"job {job['id']}: {job['route']}, {job['model']}, {job['state']}")
        if job["replaces"]:
            lines.append(f"  version {job['version']}, replaces {', '.join(job['replaces'])}")
        if job["reason"]:
            lines.append(f"  {job['reason']}")
        lines += [_job_line(event) for event in job["events"]]
        lines += _where(job["deliveries"], job["delivery_events"])
    return "\n".join(lines)


def _where(
    deliveries: Iterable[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Say of each destination whether it holds the results, and what happened on the way."""
    for each in deliveries:
        told = each["proof"] if each["state"] == "proved" else each["reason"]
        forms = ", ".join(each["forms"])
        yield f"  to {each['destination']} ({forms}): {each['state']}{told and f', {told}'}"
        for event in events:
            if event["destination"] == each["destination"]:
                detail = f"{event['event']:10}  {event['detail']}"
                yield f"    {_time(event['at'])}  {detail}".rstrip()


def deliveries(rows: Iterable[Delivery]) -> str:
    """Return a table of what goes where."""
    head = f"{'job':12}  {'to':16}  {'state':9}  {'tries':5}  {'due':19}  forms, reason or proof"
    lines = [
        f"{each.job_id:12}  {each.destination:16}  {each.state:9}  {each.attempts:5}  "
        f"{_time(each.due_at)}  {'+'.join(each.forms)}  {each.reason or each.proof}".rstrip()
        for each in rows
    ]
    return "\n".join([head, *lines]) if lines else "nothing of that kind"


def job_lines(events: Iterable[JobEvent]) -> list[str]:
    """Return a job's history, one line an event."""
    return [_job_line(asdict(event)) for event in events]


def _job_line(event: Mapping[str, Any]) -> str:
    seconds = "" if event["seconds"] is None else f"{event['seconds']:.1f} s"
    return (
        f"  {_time(event['at'])}  {event['event']:11}  {event['state']:10}  "
        f"{event['stage'] or '':8}  {seconds:>8}  {event['detail']}"
    )


def _time(at: datetime | str) -> str:
    return str(at)[:19]
