"""Remove what nobody needs any more, by age and when the disk runs short.

A list of the files of a study is on stable storage before its rows go, and its files go after them.
So a power cut in between leaves neither a row without its file, for which the door would answer
that it holds the object, nor a file that a start would take for a new arrival. Results have no
rows: their folder is renamed in a transaction that finds that nobody needs them, and then removed.
"""

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

from app.config import Config
from app.errors import NodeError
from app.faults import crash_point
from app.files import locked, make_folder, read_json, sync_folder, write_json
from app.pipeline.receive import REMOVING, SPOOL
from app.store.store import Store

log = logging.getLogger(__name__)

BATCH, MOST_TOLD = 100, 100_000
BACKUP_LOCK = "backup.lock"
"""File in the data folder that a backup holds, so that nothing goes from under it."""
ASIDE = ".removing"
"""Suffix of a job's folder that nobody looks for any more."""
DAY = timedelta(days=1)
_GIGABYTE = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What went, or would go."""

    studies: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """It in one line."""
        return f"objects of {len(self.studies)} studies, results of {len(self.jobs)} jobs"


def clean(config: Config, store: Store, now: datetime, *, dry_run: bool = False) -> Cleaned:
    """Remove what is over its time; with little free space also what is younger, oldest first.

    Waits for the end of a backup that is being made.
    """
    with locked(config.data / BACKUP_LOCK, shared=True):
        return _clean(config, store, now, dry_run=dry_run)


def _clean(config: Config, store: Store, now: datetime, *, dry_run: bool) -> Cleaned:
    rules, cleaner = config.retain, _Cleaner(config, store, now, dry_run=dry_run)
    cleaner.studies(_before(now, rules.studies_days), lambda: True)
    cleaner.results(_before(now, rules.results_days), lambda: True)
    if rules.free_gb is not None:
        least = now - timedelta(hours=rules.least_hours)
        short = partial(cleaner.has_less_free, rules.free_gb)
        cleaner.studies(least, short)
        cleaner.results(least, short)
    return Cleaned(studies=tuple(cleaner.gone_studies), jobs=tuple(cleaner.gone_jobs))


def finish(config: Config, store: Store) -> None:
    """Bring to an end what an earlier process had begun to remove; before the door opens."""
    with _alone(config.data):
        for note in sorted((config.data / REMOVING).glob("*.json")):
            held = {*store.files_to_remove(note.stem)}
            _unlink(config.data, [file for file in read_json(note) if file not in held])
            note.unlink()
    for aside in (config.data / "jobs").glob(f"*{ASIDE}"):
        shutil.rmtree(aside, ignore_errors=True)


class Cleaner:
    """Cleans again and again, in a thread."""

    def __init__(self, config: Config, store: Store, clock: Callable[[], datetime]) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cleaner", daemon=True)

    def open(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Begin no other round."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(self._config.retain.every_s):
            try:
                gone = clean(self._config, self._store, self._clock())
            except (NodeError, OSError) as error:
                log.warning("nothing could be removed: %s", error)
                continue
            if gone.studies or gone.jobs:
                log.info("removed %s", gone.words)


class _Cleaner:
    """One round."""

    def __init__(self, config: Config, store: Store, now: datetime, *, dry_run: bool) -> None:
        self._data = config.data
        self._store = store
        self._now = now
        self._dry_run = dry_run
        self.gone_studies: dict[str, None] = {}
        self.gone_jobs: dict[str, None] = {}
        self._foreseen = 0
        """Bytes that would be free besides, were what a dry run names gone."""

    def has_less_free(self, least_gb: float) -> bool:
        """Whether the disk is short of space, or would be with what a dry run names gone."""
        disk = os.statvfs(self._data)
        free = disk.f_bavail * disk.f_frsize + self._foreseen
        return free < least_gb * _GIGABYTE

    def studies(self, before: datetime | None, wanted: Callable[[], bool]) -> None:
        """Remove the objects of studies, the oldest first, as long as that is wanted."""
        if before is None:
            return
        limit = MOST_TOLD if self._dry_run else BATCH
        while found := self._store.removable_studies(before, limit):
            for study_uid in found:
                if study_uid in self.gone_studies:  # a dry run left it there
                    continue
                if not wanted():
                    return
                if self._remove(study_uid, before):
                    self.gone_studies[study_uid] = None
            if len(found) < limit or self._dry_run:
                return

    def _remove(self, study_uid: str, before: datetime) -> bool:
        if self._dry_run:
            self._foreseen += self._store.bytes_of(study_uid)
            return True
        with _alone(self._data):
            return self._study(study_uid, before)

    def _study(self, study_uid: str, before: datetime) -> bool:
        files = self._store.files_to_remove(study_uid)
        note = self._data / REMOVING / f"{study_uid}.json"
        make_folder(note.parent)
        write_json(note, files)
        crash_point("retain.listed")
        removed = self._store.remove_study(study_uid, before, self._now) is not None
        crash_point("retain.forgotten")
        if removed:
            _unlink(self._data, files)
        note.unlink()
        return removed

    def results(self, before: datetime | None, wanted: Callable[[], bool]) -> None:
        """Remove the folders of jobs, the oldest first, as long as that is wanted."""
        if before is None:
            return
        folders = _oldest_first(self._data / "jobs")
        for at in range(0, len(folders), BATCH):
            some = {folder.name: folder for folder in folders[at : at + BATCH]}
            over = self._store.removable_results([*some], before)
            for job_id, folder in some.items():
                if job_id not in over or job_id in self.gone_jobs:
                    continue
                if not wanted():
                    return
                if self._results(folder, before):
                    self.gone_jobs[job_id] = None

    def _results(self, folder: Path, before: datetime) -> bool:
        if self._dry_run:
            self._foreseen += sum(path.lstat().st_size for path in folder.rglob("*"))
            return True
        aside = folder.with_name(f"{folder.name}.{uuid4().hex}{ASIDE}")
        moved = self._store.remove_results(folder.name, before, lambda: _move(folder, aside))
        crash_point("retain.aside")
        if moved:
            shutil.rmtree(aside, ignore_errors=True)  # follows no links
        return moved


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Wait until nobody else works with the lists, such as `clean` by hand beside the node."""
    with locked(data / "removing.lock"):
        yield


def _before(now: datetime, days: float | None) -> datetime | None:
    return None if days is None else now - days * DAY


def _oldest_first(jobs: Path) -> list[Path]:
    if not jobs.is_dir():
        return []
    with os.scandir(jobs) as entries:
        found = [
            (each.stat().st_mtime, each.path)
            for each in entries
            if each.is_dir(follow_symlinks=False)
        ]
    return [Path(path) for _, path in sorted(found)]


def _move(folder: Path, aside: Path) -> None:
    with suppress(FileNotFoundError):  # `clean` by hand may have met the node's own cleaning
        folder.rename(aside)


def _unlink(data: Path, files: Iterable[str]) -> None:
    """Remove files of the spool, durably; a name that leads out of it is left alone."""
    spool = (data / SPOOL).resolve()
    folders: set[Path] = set()
    for file in files:
        path = data / file
        if path.parent.resolve().is_relative_to(spool) and path.parent.is_dir():
            path.unlink(missing_ok=True)
            folders.add(path.parent)
    for folder in folders:
        sync_folder(folder)
