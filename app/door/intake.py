"""Decide what becomes of an object that came in: kept, held already, put aside or refused."""

import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from app.dicom.dimse import Status
from app.dicom.part10 import read_part10
from app.errors import OutOfResources, UnreadableDicom
from app.faults import crash_point
from app.pipeline.receive import (
    SPOOL,
    Arrived,
    Kept,
    examine,
    keep,
    put_aside,
    quarantine_name,
    read_spooled,
)
from app.store.jobs import InstanceRow
from app.store.store import Store

log = logging.getLogger(__name__)

MARKER = "adopted"
MARGIN_S = 3600.0
"""How far the clock may have been set back since the last start without an orphan being missed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is answered, and the study that grew or was complete already."""

    status: Status
    study_uid: str | None = None
    new: bool = False


class Intake:
    """Where objects come in; used by many threads at once."""

    def __init__(self, data: Path, store: Store) -> None:
        self._data = data
        self._store = store
        self._named = threading.Lock()  # two threads may not write one path; fresh names differ

    def take(
        self, dataset: bytes, transfer_syntax: str, *, claimed: tuple[str, str], source: str
    ) -> Outcome:
        """Keep an object unless its identical copy is held; `claimed` is SOP class and UID.

        The order is the promise: file, row, and only then success. Whatever it ends with, a copy
        held before is not touched.
        """
        try:
            arrived = examine(dataset, transfer_syntax)
        except UnreadableDicom as error:
            log.warning("an object from %s is refused: %s", source, error)
            return Outcome(status=Status.UNREADABLE)
        if claimed != (arrived.identifiers.sop_class_uid, arrived.identifiers.sop_uid):
            return Outcome(status=Status.UIDS_DIFFER)
        try:
            return self._take(dataset, arrived, source)
        except (OSError, OutOfResources, MemoryError) as error:
            log.error("an object from %s could not be kept: %s", source, error)  # noqa: TRY400
            return Outcome(status=Status.OUT_OF_RESOURCES)

    def _take(self, dataset: bytes, arrived: Arrived, source: str) -> Outcome:
        held = self._store.find_instance(arrived.identifiers.sop_uid)
        if held is not None:
            return self._repeated(dataset, arrived, held, source)
        kept = keep(self._data, dataset, arrived)
        crash_point("receive.kept")
        if self._store.add_instance(_row(arrived, kept, source), _now()):
            crash_point("receive.noted")
            return Outcome(status=Status.SUCCESS, study_uid=arrived.identifiers.study_uid, new=True)
        # another association brought the same UID in the meantime
        held = self._store.find_instance(arrived.identifiers.sop_uid)
        outcome = self._repeated(dataset, arrived, held, source)
        (self._data / kept.file).unlink(missing_ok=True)
        return outcome

    def _repeated(
        self, dataset: bytes, arrived: Arrived, held: InstanceRow | None, source: str
    ) -> Outcome:
        if held is None:
            raise OutOfResources("the row of a known object is gone again; send it once more")
        if _same(arrived, held):
            self._keep_once(dataset, arrived, held.file)
            return Outcome(status=Status.SUCCESS, study_uid=arrived.identifiers.study_uid)
        target = quarantine_name(arrived)
        self._keep_once(dataset, arrived, target)
        self._raise_alarm(arrived, held, target, source)
        return Outcome(status=Status.OTHER_CONTENT)

    def _keep_once(self, dataset: bytes, arrived: Arrived, file: str) -> None:
        with self._named:
            if not (self._data / file).exists():
                keep(self._data, dataset, arrived, file)

    def _raise_alarm(self, arrived: Arrived, held: InstanceRow, file: str, source: str) -> None:
        uids = arrived.identifiers
        where = "" if held.study_uid == uids.study_uid else f", which is in study {held.study_uid}"
        detail = f"other content for object {uids.sop_uid}{where}; kept as {file}, from {source}"
        log.error("study …%s: %s", uids.study_uid[-12:], detail)
        self._store.quarantine(uids.study_uid, detail, _now())

    # -- at start ----------------------------------------------------------------------------

    def adopt_orphans(self) -> int:
        """Note the whole files that a process left in the spool without a row; return how many.

        Nobody was told that they are kept, but their senders may be content with a lost answer.
        Only files since the last call are looked at, so that a large spool does not delay a start.
        """
        marker = self._data / SPOOL / MARKER
        since = marker.stat().st_mtime - MARGIN_S if marker.exists() else 0.0
        marker.touch()
        return sum(self._adopt(file) for file in _files_since(self._data, since))

    def _adopt(self, file: str) -> bool:
        try:
            sop_uid = read_part10(self._data / file).identifiers.sop_uid
        except UnreadableDicom as error:
            log.error("a spooled file is broken and left alone: %s", error)  # noqa: TRY400
            return False
        held = self._store.find_instance(sop_uid)
        if held is not None and held.file == file:
            return False
        arrived = read_spooled(self._data, file)
        if held is None:
            kept = Kept(file=file, sha256=arrived.sha256, size=arrived.size)
            return self._store.add_instance(_row(arrived, kept, "the spool"), _now())
        if not _same(arrived, held):
            put_aside(self._data, file, target := quarantine_name(arrived))
            self._raise_alarm(arrived, held, target, "the spool")
        elif (self._data / held.file).exists():
            (self._data / file).unlink()
        else:
            put_aside(self._data, file, held.file)
        return False


def _files_since(data: Path, since: float) -> Iterator[str]:
    for folder in sorted((data / SPOOL).iterdir()):
        if folder.is_dir():
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".dcm") and entry.stat().st_mtime >= since:
                        yield f"{SPOOL}/{folder.name}/{entry.name}"


def _same(arrived: Arrived, held: InstanceRow) -> bool:
    return (arrived.sha256, arrived.transfer_syntax) == (held.sha256, held.transfer_syntax)


def _row(arrived: Arrived, kept: Kept, source: str) -> InstanceRow:
    uids = arrived.identifiers
    return InstanceRow(
        sop_uid=uids.sop_uid,
        sop_class_uid=uids.sop_class_uid,
        study_uid=uids.study_uid,
        series_uid=uids.series_uid,
        transfer_syntax=arrived.transfer_syntax,
        sha256=kept.sha256,
        size=kept.size,
        file=kept.file,
        source=source,
        received_at=_now(),
    )


def _now() -> datetime:
    return datetime.now(UTC)
