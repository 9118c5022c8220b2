"""Decide what becomes of an object that came in: kept, held already, put aside or refused."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from app.config_door import Limits
from app.dicom.dimse import Status
from app.dicom.part10 import read_part10
from app.door.commit import Committer
from app.door.incoming import Incoming, Outcome
from app.door.partial import Blocks
from app.door.refusals import Refusals
from app.door.tally import BYTES, HELD, KEPT, REFUSED, Tally
from app.errors import OutOfResources, UnreadableDicom
from app.faults import crash_point
from app.files import make_folder, sync_folder
from app.pipeline.receive import (
    SPOOL,
    Arrived,
    being_removed,
    put_aside,
    quarantine_name,
    read_spooled,
)
from app.store.jobs import InstanceRow
from app.store.store import Store

__all__ = ["Incoming", "Intake", "Outcome"]

log = logging.getLogger(__name__)

GIGABYTE = 10**9
LOOK_S = 1.0
"""How long what was seen of the free space is believed."""
AGAIN_S = 600.0
"""How often at most it is noted that copies of one study come; `retain` keeps it for hours then."""
MOST_AGAIN = 1000
"""Studies of which that is remembered."""


class Intake:
    """Where objects come in; used by many threads at once."""

    def __init__(self, data: Path, store: Store, limits: Limits | None = None) -> None:
        self._data = data
        self._store = store
        self._limits = limits or Limits()
        self._named = threading.Lock()  # two threads may not write one path; fresh names differ
        self._committer = Committer(data, lambda rows: store.add_instances(rows, _now()))
        self._blocks = Blocks()
        self._refusals = Refusals(store)
        self.tally = Tally()
        self._again: dict[str, float] = {}
        self._looked_at = -LOOK_S
        self._room = True

    def begin(
        self,
        transfer_syntax: str,
        *,
        claimed: tuple[str, str],
        source: str,
        study_uid: str | None = None,
    ) -> Incoming:
        """Let an object in; `claimed` is the SOP class and UID that its sender says it has.

        With a `study_uid` an object of another study is refused.
        """
        return Incoming(self, transfer_syntax, claimed=claimed, source=source, study_uid=study_uid)

    def take(
        self, dataset: bytes, transfer_syntax: str, *, claimed: tuple[str, str], source: str
    ) -> Outcome:
        """Take an object that is here in one piece."""
        with self.begin(transfer_syntax, claimed=claimed, source=source) as incoming:
            incoming.write(dataset)
            return incoming.finish()

    def has_room(self) -> bool:
        """Return whether the disk has the space that must stay free; looks once a second."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            try:
                disk = os.statvfs(self._data)
                self._room = disk.f_bavail * disk.f_frsize >= self._limits.free_gb * GIGABYTE
            except OSError:
                self._room = False
            self._looked_at = now
        return self._room

    def close(self) -> None:
        """Write what is still to be noted; nothing comes in any more."""
        self._refusals.close()

    # -- for what is on its way --------------------------------------------------------------

    @property
    def data(self) -> Path:
        """The node's data folder."""
        return self._data

    @property
    def limits(self) -> Limits:
        """What one object may take of us."""
        return self._limits

    @property
    def refusals(self) -> Refusals:
        """Where it is noted that an object was refused."""
        return self._refusals

    @property
    def blocks(self) -> Blocks:
        """Memory for what is on its way."""
        return self._blocks

    def count(self, outcome: Outcome, size: int = 0) -> None:
        """Count an object that came, by what became of it."""
        if outcome.status is not Status.SUCCESS:
            self.tally.add(f"{REFUSED} {outcome.status:04X}")
        elif outcome.new:
            self.tally.add(KEPT)
            self.tally.add(BYTES, size)
        else:
            self.tally.add(HELD)

    def settle(self, incoming: Incoming, arrived: Arrived) -> Outcome:
        """Keep an object unless its identical copy is held.

        The order is the promise: file, row, and only then success. Whatever it ends with, a copy
        held before is not touched.
        """
        held = self._store.find_instance(arrived.identifiers.sop_uid)
        if held is None:
            partial = incoming.complete()
            if self._committer.add(_row(arrived, incoming.file, incoming.source), partial):
                partial.settle()
                crash_point("receive.noted")
                return _outcome(Status.SUCCESS, arrived, new=True)
            # another association brought the same UID in the meantime
            partial.take_name()
            held = self._store.find_instance(arrived.identifiers.sop_uid)
        return self._repeated(incoming, arrived, held)

    def _repeated(self, incoming: Incoming, arrived: Arrived, held: InstanceRow | None) -> Outcome:
        same = held is not None and _same(arrived, held)
        if held is None or (same and not self._stays(held, incoming.source)):
            raise OutOfResources("the row of a known object is gone again; send it once more")
        if same:
            self._keep_once(incoming, held.file)
            return _outcome(Status.SUCCESS, arrived)
        target = quarantine_name(arrived)
        self._keep_once(incoming, target)
        reason = self._raise_alarm(arrived, held, target, incoming.source)
        return _outcome(Status.OTHER_CONTENT, arrived, reason=reason)

    def _stays(self, held: InstanceRow, source: str) -> bool:
        """Let the study of a held object be kept on; False when it has just been removed.

        Without it a study could go while it is sent again, between one object that is said to be
        held and the next, and what is left of it would be routed as a study.
        """
        now = time.monotonic()
        if now - self._again.get(held.study_uid, -AGAIN_S) < AGAIN_S:
            return True
        stays = self._store.copied(held.sop_uid, source, _now())
        if stays:
            if len(self._again) >= MOST_AGAIN:
                self._again.clear()
            self._again[held.study_uid] = now
        return stays

    def _keep_once(self, incoming: Incoming, file: str) -> None:
        with self._named:
            target = self._data / file
            if not target.exists():
                make_folder(target.parent)
                partial = incoming.complete()
                partial.sync()
                partial.rename(target)
                partial.settle()
        sync_folder(target.parent)

    def _raise_alarm(self, arrived: Arrived, held: InstanceRow, file: str, source: str) -> str:
        uids = arrived.identifiers
        where = "" if held.study_uid == uids.study_uid else f", which is in study {held.study_uid}"
        detail = f"other content for object {uids.sop_uid}{where}; kept as {file}, from {source}"
        log.error("study …%s: %s", uids.study_uid[-12:], detail)
        self._store.quarantine(uids.study_uid, detail, _now())
        return detail

    # -- at start ----------------------------------------------------------------------------

    def adopt_orphans(self) -> int:
        """Note the whole files that a process left in the spool without a row; return how many.

        Nobody was told that they are kept, but their senders may be content with a lost answer.
        """
        known = self._store.files() | being_removed(self._data)
        spooled = [*_spooled(self._data)]
        return sum(self._adopt(file) for file in spooled if file not in known)

    def _adopt(self, file: str) -> bool:
        try:
            sop_uid = read_part10(self._data / file).identifiers.sop_uid
        except UnreadableDicom as error:
            log.error("a spooled file is broken and left alone: %s", error)  # noqa: TRY400
            return False
        held = self._store.find_instance(sop_uid)
        if held is not None and held.file == file:
            return False  # another process has noted it since its row was looked for
        arrived = read_spooled(self._data, file)
        if held is None:
            return self._store.add_instance(_row(arrived, file, "the spool"), _now())
        if not _same(arrived, held):
            put_aside(self._data, file, target := quarantine_name(arrived))
            self._raise_alarm(arrived, held, target, "the spool")
        elif (self._data / held.file).exists():
            (self._data / file).unlink()
        else:
            put_aside(self._data, file, held.file)
        return False


def _spooled(data: Path) -> Iterator[str]:
    for folder in sorted((data / SPOOL).iterdir()):
        if folder.is_dir():
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".dcm"):
                        yield f"{SPOOL}/{folder.name}/{entry.name}"


def _outcome(status: Status, arrived: Arrived, *, new: bool = False, reason: str = "") -> Outcome:
    uids = arrived.identifiers
    return Outcome(
        status=status,
        sop_class_uid=uids.sop_class_uid,
        sop_uid=uids.sop_uid,
        study_uid=uids.study_uid,
        new=new,
        reason=reason,
    )


def _same(arrived: Arrived, held: InstanceRow) -> bool:
    return (arrived.sha256, arrived.transfer_syntax) == (held.sha256, held.transfer_syntax)


def _row(arrived: Arrived, file: str, source: str) -> InstanceRow:
    uids = arrived.identifiers
    return InstanceRow(
        sop_uid=uids.sop_uid,
        sop_class_uid=uids.sop_class_uid,
        study_uid=uids.study_uid,
        series_uid=uids.series_uid,
        transfer_syntax=arrived.transfer_syntax,
        sha256=arrived.sha256,
        size=arrived.size,
        file=file,
        source=source,
        received_at=_now(),
    )


def _now() -> datetime:
    return datetime.now(UTC)
