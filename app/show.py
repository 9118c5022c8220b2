"""What the job log says, in words for a terminal."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from app.store.jobs import DoorEvent, Job, JobEvent, StudyRow


def jobs(rows: Iterable[Job]) -> str:
    """Return a table of jobs."""
    head = (
        f"{'job':12}  {'state':9}  {'stage':8}  {'tries':5}  {'route':20}  {'changed':19}  reason"
    )
    lines = [
        f"{job.id:12}  {job.state:9}  {job.stage:8}  {job.attempts:5}  {job.route:20}  "
        f"{_time(job.updated_at)}  {job.reason or ''}"
        for job in rows
    ]
    return "\n".join([head, *lines])


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


def trace(routed: Mapping[str, Any] | None) -> str:
    """Return the decision trace of a study: every route, role, series and condition."""
    if routed is None:
        return "not routed yet"
    lines = [f"complete: {routed['signal']}"] if "signal" in routed else []
    for verdict in routed["routes"]:
        lines += _verdict_lines(verdict)
    return "\n".join(lines)


def _verdict_lines(verdict: Mapping[str, Any]) -> list[str]:
    word = "TAKEN" if verdict["taken"] else "not taken"
    mode = "" if verdict["mode"] == "live" else f" ({verdict['mode']})"
    lines = [f"route {verdict['route']} → {verdict['model']}{mode}: {word}, {verdict['reason']}"]
    lines += [f"  study {_check_line(check)}" for check in verdict["study"]]
    lines += [
        f"  series {each['series_uid']} is never an input: {each['guard']}"
        for each in verdict["candidates"]
        if each["guard"] and each["role"] == next(iter(verdict["roles"]))
    ]
    for role, told in verdict["roles"].items():
        lines.append(f"  {role}: {told}")
        chosen = {pick[role] for pick in verdict["picks"]}
        for candidate in verdict["candidates"]:
            if candidate["role"] == role and not candidate["guard"]:
                lines += _candidate_lines(candidate, chosen)
        lines += [
            f"    {_check_line(each)}" for each in verdict["relations"] if each["role"] == role
        ]
    return lines


def _candidate_lines(candidate: Mapping[str, Any], chosen: set[str]) -> list[str]:
    uid = candidate["series_uid"]
    fits = "is taken" if uid in chosen else "fits" if candidate["fits"] else "does not fit"
    lines = [f"    {uid} {fits}"]
    several = any(check["alternative"] for check in candidate["checks"])
    lines += [
        f"      {_check_line(check)}" + (f" (list {check['alternative'] + 1})" if several else "")
        for check in candidate["checks"]
    ]
    return lines + [f"      ✗ {gate['code']}: {gate['reason']}" for gate in candidate["gates"]]


def _check_line(check: Mapping[str, Any]) -> str:
    return f"{'✓' if check['holds'] else '✗'} {check['condition']}, found {check['found']}"


def story(told: Mapping[str, Any]) -> str:
    """Return everything that happened to a study and its jobs."""
    study = told["study"]
    lines = [f"study {study['study_uid']}, {study['instances']} objects, {study['state']}"]
    lines += [
        f"  {_time(event['at'])}  {event['event']:14}  {event['detail']}"
        for event in told["study_events"]
    ]
    lines.append(trace(told["trace"]))
    for job in told["jobs"]:
        lines.append(f"job {job['id']}: {job['route']}, {job['model']}, {job['state']}")
        if job["reason"]:
            lines.append(f"  {job['reason']}")
        lines += [_job_line(event) for event in job["events"]]
    return "\n".join(lines)


def job_lines(events: Iterable[JobEvent]) -> list[str]:
    """Return a job's history, one line an event."""
    return [_job_line(asdict(event)) for event in events]


def _job_line(event: Mapping[str, Any]) -> str:
    seconds = "" if event["seconds"] is None else f"{event['seconds']:.1f} s"
    return (
        f"  {_time(event['at'])}  {event['event']:11}  {event['state']:9}  "
        f"{event['stage'] or '':8}  {seconds:>8}  {event['detail']}"
    )


def _time(at: datetime | str) -> str:
    return str(at)[:19]
