"""A job log as it is after years: studies, objects, series, jobs and their history by plain SQL.

Every UID is as long as real ones are, and what headers say is that of a real series. The tables
are made by the program; only their rows are put there past it, since a million of them through its
methods would take an hour.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from pysqlite3 import dbapi2  # type: ignore[import-untyped]  # ships no types

from app.dicom.headers import read_headers
from app.dicom.series import Series
from app.store.store import Store
from tests.phantoms.dicom import write_study

START = datetime(2025, 1, 1, tzinfo=UTC)
CT = "1.2.840.10008.5.1.4.1.1.2"
ENDS = ("done",) * 6 + ("superseded", "failed", "cancelled")
LIFE = ("created", "claimed", "passed", "passed", "finished")
TRACE = [{"condition": "Modality equals CT", "found": "CT", "holds": True}] * 10
"""About as much as twenty series leave in the trace of a study."""

STUDY = "INSERT INTO studies VALUES (?, ?, 'CT1@10.0.0.5', ?, ?, ?, ?, ?, ?, NULL, NULL)"
STUDY_LINE = "INSERT INTO study_events (study_uid, at, event, detail) VALUES (?, ?, ?, '')"
OBJECT = (
    f"INSERT INTO instances VALUES (?, '{CT}', ?, ?, '1.2.840.10008.1.2.1', ?, 524288, ?, ?, ?)"  # noqa: S608
)
SERIES = "INSERT INTO series VALUES (?, ?, ?, ?, ?)"
JOB = (
    "INSERT INTO jobs (id, identity, study_uid, route, model, digest, inputs, instances, priority,"
    " state, stage, attempts, orphanings, fence, due_at, reason, created_at, updated_at, turn_at)"
    " VALUES (?, ?, ?, 'phantom-ct', 'phantom@1.0+000000000000', ?, '{}', ?, 0, ?, 'deliver', 1, 0,"
    " 1, ?, '', ?, ?, ?)"
)
JOB_LINE = (
    "INSERT INTO job_events (job_id, at, event, state, stage, detail)"
    " VALUES (?, ?, ?, 'running', 'infer', '')"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large the log is."""

    studies: int
    series: int
    """In each study."""
    objects: int
    """In each series."""
    open: int
    """How many of the newest studies still grow."""
    queued: int
    """How many of the newest jobs are to be done; as many again wait."""


class LargeLog:
    """A file that is filled study by study."""

    def __init__(self, path: Path, objects: int) -> None:
        Store.open(path).close()
        self._connection = dbapi2.connect(str(path))
        self._connection.execute("PRAGMA synchronous = OFF")
        with tempfile.TemporaryDirectory() as folder:
            files = write_study(Path(folder), shape=(8, 8), slices=objects)
            (headers,) = read_headers(files.paths)
        self._headers = json.dumps(headers.to_json())
        self._series = headers.series()
        self._trace = json.dumps({"signal": "quiet", "routes": [{"checks": TRACE}] * 20})

    def fill(self, shape: Shape) -> None:
        """Add all studies and their jobs, the oldest first."""
        for number in range(shape.studies):
            from_end = shape.studies - number - 1
            at = _text(START + timedelta(minutes=number))
            state = "open" if from_end < shape.open else "routed"
            study_uid = uid(f"study {number}")
            uids = self.study(study_uid, state, at, shape.series, shape.objects)
            state = "queued" if from_end < shape.queued else ENDS[number % len(ENDS)]
            if shape.queued <= from_end < 2 * shape.queued:
                state = "waiting"
            self._job(study_uid, number, state, at, uids)

    def study(self, study_uid: str, state: str, at: str, series: int, objects: int) -> list[str]:
        """Add one study with what its headers say; return the objects of its first series."""
        trace = None if state == "open" else self._trace
        count = series * objects
        self._connection.execute(STUDY, (study_uid, state, count, count, at, at, None, trace))
        lines = ((study_uid, at, event) for event in ("received_first", "routed"))
        self._connection.executemany(STUDY_LINE, lines)
        uids: list[list[str]] = []
        for number in range(series):
            series_uid = uid(f"{study_uid} {number}")
            uids.append([uid(f"{series_uid} {k}") for k in range(objects)])
            self._connection.executemany(OBJECT, _objects(study_uid, series_uid, uids[-1], at))
            found = replace(
                self._series,
                study_uid=study_uid,
                series_uid=series_uid,
                sop_uids=tuple(sorted(uids[-1])),
            )
            self._connection.execute(SERIES, self._row(found))
        return uids[0]

    def _row(self, series: Series) -> Sequence[Any]:
        summary = json.dumps(series.to_json())
        return series.study_uid, series.series_uid, len(series.sop_uids), summary, self._headers

    def _job(self, study_uid: str, number: int, state: str, at: str, uids: list[str]) -> None:
        name = uuid5(NAMESPACE_OID, f"job {number}").hex
        instances = json.dumps({"CT": uids})
        due = at if state != "waiting" else _text(START + timedelta(days=36500))
        row = (name[:12], f"{study_uid}/{name}", study_uid, name * 2, instances, state, due)
        self._connection.execute(JOB, (*row, at, at, at))
        self._connection.executemany(JOB_LINE, ((name[:12], at, event) for event in LIFE))

    def close(self) -> None:
        """Keep what was added."""
        self._connection.commit()
        self._connection.close()


def uid(what: str) -> str:
    """Return a UID of full length."""
    return f"2.25.{uuid5(NAMESPACE_OID, what).int}"


def make(path: Path, shape: Shape, *more: tuple[str, int]) -> None:
    """Make a log, and in it open studies of `more`: UID and number of series of 500 objects."""
    with closing(LargeLog(path, shape.objects)) as log:
        log.fill(shape)
        for study_uid, series in more:
            log.study(study_uid, "open", _text(START), series, 500)


def _objects(
    study_uid: str, series_uid: str, uids: Sequence[str], at: str
) -> Iterator[Sequence[str]]:
    for sop_uid in uids:
        file = f"spool/{sop_uid[-2:]}/{sop_uid[5:37]}.dcm"
        yield sop_uid, study_uid, series_uid, "0" * 64, file, "CT1@10.0.0.5", at


def _text(time: datetime) -> str:
    return time.replace(tzinfo=None).isoformat(" ", "microseconds")
