"""Rows of received objects, many in one transaction; the part of the log that must be quick.

Plain SQL on the driver's cursor: a mapping layer would cost more than SQLite itself.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from app.store.jobs import InstanceRow, StudyState

COLUMNS = (
    *("sop_uid", "sop_class_uid", "study_uid", "series_uid", "transfer_syntax"),
    *("sha256", "size", "file", "source", "received_at"),
)
FIND = f"SELECT {', '.join(COLUMNS)} FROM instances WHERE sop_uid = ?"  # noqa: S608  # our own names
ADD = (
    f"INSERT INTO instances ({', '.join(COLUMNS)}) "  # noqa: S608  # our own names
    f"VALUES ({', '.join('?' * len(COLUMNS))}) ON CONFLICT (sop_uid) DO NOTHING"
)
STATE = "SELECT state FROM studies WHERE study_uid = ?"
BEGIN = (
    "INSERT INTO studies (study_uid, state, source, instances, version, first_received_at, "
    "last_received_at) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
GROW = (
    "UPDATE studies SET state = ?, instances = instances + ?, version = version + ?, "
    "last_received_at = ?, released_at = NULL, complete_signal = NULL WHERE study_uid = ?"
)
SENT_AGAIN = "sent_again"
"""Event of a study of which copies came that are held already: they keep it as new ones do."""
NOTE = "INSERT INTO study_events (study_uid, at, event, detail) VALUES (?, ?, ?, ?)"


class Cursor(Protocol):
    """What is needed of the driver's cursor."""

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""

    def execute(self, sql: str, parameters: Sequence[Any], /) -> Any:
        """Run one statement."""

    def fetchone(self) -> Any:
        """Return the next row."""


def find(cursor: Cursor, sop_uid: str) -> InstanceRow | None:
    """Return the object of this UID, if it was received before."""
    cursor.execute(FIND, (sop_uid,))
    found = cursor.fetchone()
    if found is None:
        return None
    *values, received_at = found
    when = datetime.fromisoformat(received_at).replace(tzinfo=UTC)
    return InstanceRow(**dict(zip(COLUMNS, (*values, when), strict=True)))


def add(cursor: Cursor, rows: Sequence[InstanceRow], now: datetime) -> list[bool]:
    """Keep the objects and let their studies grow; False for each whose UID is known already."""
    added = []
    arrived: dict[str, list[InstanceRow]] = {}
    for row in rows:
        cursor.execute(ADD, _values(row))
        added.append(cursor.rowcount == 1)
        if added[-1]:
            arrived.setdefault(row.study_uid, []).append(row)
    for study_uid, new in arrived.items():
        _grow(cursor, study_uid, new[0].source, len(new), _text(now))
    return added


def copied(cursor: Cursor, sop_uid: str, source: str, now: datetime) -> bool:
    """Note that a held object was sent again; False when it is not held any more."""
    held = find(cursor, sop_uid)
    if held is not None:
        cursor.execute(NOTE, (held.study_uid, _text(now), SENT_AGAIN, f"from {source}"))
    return held is not None


def _grow(cursor: Cursor, study_uid: str, source: str, count: int, now: str) -> None:
    """Count more instances; a closed study is open again."""
    cursor.execute(STATE, (study_uid,))
    found = cursor.fetchone()
    if found is None:
        cursor.execute(BEGIN, (study_uid, StudyState.OPEN, source, count, count, now, now))
        cursor.execute(NOTE, (study_uid, now, "received_first", f"from {source}"))
        return
    cursor.execute(GROW, (StudyState.OPEN, count, count, now, study_uid))
    if found[0] != StudyState.OPEN:
        cursor.execute(NOTE, (study_uid, now, "reopened", f"more arrived from {source}"))


def _values(row: InstanceRow) -> tuple[str | int, ...]:
    values = [getattr(row, column) for column in COLUMNS[:-1]]
    return (*values, _text(row.received_at))


def _text(time: datetime) -> str:
    """Write a time as the mappings in tables.py do."""
    if time.tzinfo is None:
        raise ValueError(f"{time} has no time zone; the job log keeps UTC")
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
