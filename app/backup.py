"""Make a backup of the data folder while the node works.

What makes it whole: at one moment nobody can change a row; then the log's state is fixed and the
results of jobs that are not over are linked, in a fraction of a second. Everything else that a row
of that moment names is there already and stays: a file is written before its row, never changes
after, and what removes files waits for the end of a backup. So they can be copied in any time.
"""

import logging
import os
import shutil
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from app.backup_folder import (
    ABOUT,
    CONFIG,
    CUT_SHORT,
    DATA,
    FORMAT,
    LOG,
    SPARE,
    STILL,
    Sums,
    copy,
    digest_of,
    found,
    has_room,
    in_words,
    make_folders,
    read_sums,
    sync_folders,
    whole,
    write_sums,
)
from app.config import Config, application_version
from app.config_archives import FilesArchive, FolderArchive
from app.errors import ConfigError, StoreError
from app.faults import crash_point
from app.files import locked, make_folder, read_json, sync_file, sync_folder, write_json
from app.pipeline.receive import REMOVING
from app.retain import BACKUP_LOCK
from app.store.copies import check_copy, files_in, over_in
from app.store.store import Store

log = logging.getLogger(__name__)

JOBS = "jobs"


@dataclass(slots=True, kw_only=True)
class Made:
    """What became of a backup."""

    path: Path
    files: int = 0
    copied: int = 0
    """Bytes that were copied; the rest was linked from the backup before."""
    linked: int = 0
    missing: list[str] = field(default_factory=list)
    """Files of objects that the log names and that are not in the data folder."""
    elsewhere: list[str] = field(default_factory=list)
    """Archives that are folders outside the data folder: not in the backup."""
    removed: list[str] = field(default_factory=list)

    @property
    def words(self) -> str:
        """It in a few lines."""
        copied = f"{self.files} files, {self.copied / 1e6:.1f} MB copied"
        lines = [f"{self.path}: {copied}, {self.linked} files linked from the backup before"]
        if self.missing:
            lines.append(
                f"warning: {len(self.missing)} objects have lost their file, first"
                f" {self.missing[0]}; have their studies sent again"
            )
        lines += [f"warning: archives.{each}: lies elsewhere, not in it" for each in self.elsewhere]
        lines += [f"removed {each}" for each in self.removed]
        return "\n".join(lines)


def back_up(
    config: Config,
    config_path: Path,
    store: Store,
    folder: Path,
    *,
    now: datetime,
    keep: int | None = None,
    full: bool = False,
) -> Made:
    """Make a backup in `folder`; with `full` nothing of the one before is used again."""
    folder = folder.absolute()
    _lies_apart(folder.resolve(), config.data)
    with in_words(folder), ExitStack() as stack:
        make_folder(folder)
        taken = f"{folder}: another backup is being made here; wait for its end"
        stack.enter_context(locked(folder / ".lock", refusal=taken))
        stack.enter_context(locked(config.data / BACKUP_LOCK))
        for left in folder.glob(f"*{CUT_SHORT}"):
            shutil.rmtree(left)
        before = _before(folder, config)
        millis = now.microsecond // 1000
        path = folder / f"{now:%Y%m%dT%H%M%S}.{millis:03}Z"
        backup = _Backup(config, store, path, None if full else before)
        try:
            backup.make(config_path, now)
        except BaseException:
            shutil.rmtree(backup.partial, ignore_errors=True)
            raise
        backup.made.elsewhere = _elsewhere(config)
        for old in whole(folder)[: -keep if keep else 0]:
            gone = old.with_name(f"{old.name}{CUT_SHORT}")  # from here on it never looks whole
            old.rename(gone)
            shutil.rmtree(gone)
            backup.made.removed.append(old.name)
    return backup.made


class _Backup:
    """One backup on its way."""

    def __init__(self, config: Config, store: Store, path: Path, before: Path | None) -> None:
        self.made = Made(path=path)
        self.partial = path.with_name(f"{path.name}{CUT_SHORT}")
        self._source = config.data
        self._store = store
        self._before = before
        self._known: Sums = read_sums(before) if before else {}
        self._sums: Sums = {}

    def make(self, config_path: Path, now: datetime) -> None:
        """Make it; only the last step gives it its name."""
        data, still = self._source, self._source / STILL
        has_room(self.partial.parent, self._needed())
        target = self.partial / DATA
        make_folders(target)
        shutil.rmtree(still, ignore_errors=True)  # of a backup that was killed
        try:
            (target / LOG).touch(mode=0o600)
            self._store.copy_to(target / LOG, lambda jobs: _hold_still(data, still, jobs))
            sync_file(target / LOG)
            crash_point("backup.log")
            step = check_copy(target / LOG)
            self._sums[f"{DATA}/{LOG}"] = digest_of(target / LOG)
            self.made.copied += (target / LOG).stat().st_size
            # lists of what is being removed come before their files, or a restored node would take
            # those that were still there for new arrivals
            self._copy_all(data, REMOVING)
            self._copy_all(still)
            over = over_in(target / LOG)
            self._copy_all(data, wanted=lambda path: _may_follow(path, over))
        finally:
            shutil.rmtree(still, ignore_errors=True)
        names = {f"{DATA}/{file}": file for file in files_in(target / LOG)}
        self.made.missing = sorted(names[each] for each in names.keys() - self._sums.keys())
        self._sums[CONFIG] = copy(config_path, self.partial / CONFIG)
        self._tell(step, now)
        write_sums(self.partial, self._sums)
        sync_folders(self.partial)
        crash_point("backup.written")
        self.partial.rename(self.made.path)
        sync_folder(self.made.path.parent)

    def _needed(self) -> int:
        """Return how many bytes are to be copied."""
        log_size = sum(
            (self._source / name).stat().st_size
            for name in (LOG, f"{LOG}-wal")
            if (self._source / name).exists()
        )
        sizes = (each.st_size for path, each in found(self._source) if not self._has(path, each))
        return sum(sizes) + log_size + SPARE

    def _has(self, path: str, now: os.stat_result) -> bool:
        """Return whether the backup before has this very file."""
        if self._before is None or f"{DATA}/{path}" not in self._known:
            return False
        try:
            then = (self._before / DATA / path).stat()
        except OSError:
            return False
        return (then.st_size, then.st_mtime_ns) == (now.st_size, now.st_mtime_ns)

    def _copy_all(
        self, source: Path, below: str = "", wanted: Callable[[str], bool] = lambda _: True
    ) -> None:
        for path, stat in found(source, below):
            if wanted(path):
                with suppress(FileNotFoundError):  # nobody's, or removed by hand: see `missing`
                    self._keep(source / path, path, stat)

    def _keep(self, source: Path, path: str, stat: os.stat_result) -> None:
        name, target = f"{DATA}/{path}", self.partial / DATA / path
        make_folders(target.parent)
        if self._before is not None and self._has(path, stat):
            with suppress(OSError):  # too many links, or a disk without them
                os.link(self._before / name, target)
                self._sums[name] = self._known[name]
                self.made.linked += 1
                return
        self._sums[name] = copy(source, target)
        self.made.copied += stat.st_size

    def _tell(self, step: str, now: datetime) -> None:
        self.made.files = len(self._sums)
        about = {
            "format": FORMAT,
            "program": application_version(),
            "node": _node(self._source),
            "moment": now.isoformat(),
            "log_step": step,
            "files": self.made.files,
            "missing": self.made.missing,
        }
        write_json(self.partial / ABOUT, about)
        self._sums[ABOUT] = digest_of(self.partial / ABOUT)


def _hold_still(data: Path, still: Path, jobs: Sequence[str]) -> None:
    """Link the results of jobs that are not over: their next stage may replace or remove them."""
    for job in jobs:
        for path, _ in found(data, f"{JOBS}/{job}"):
            target = still / path
            make_folders(target.parent)
            with suppress(FileNotFoundError):
                os.link(data / path, target)


def _may_follow(path: str, over: set[str]) -> bool:
    """Return whether a file may be copied after the moment of the log.

    Of a job that was not over, or not made, its files of now may be halves of what it needs.
    """
    first, _, rest = path.partition("/")
    return first != REMOVING and (first != JOBS or rest.partition("/")[0] in over)


def _lies_apart(folder: Path, data: Path) -> None:
    if folder.is_relative_to(data) or data.is_relative_to(folder):
        raise ConfigError(f"{folder}: lies in the data folder, or around it; give another folder")


def _before(folder: Path, config: Config) -> Path | None:
    """Return the newest backup that can be used again.

    One of another node is refused: `--keep` would remove that node's.
    """
    for backup in reversed(whole(folder)):
        try:
            node = read_json(backup / ABOUT)["node"]
            read_sums(backup)
        except (StoreError, ValueError, KeyError, OSError) as error:
            log.warning("%s is broken and not used again: %s", backup, error)
            continue
        if node != _node(config.data):
            raise ConfigError(f"{folder}: has backups of {node}; give another folder")
        return backup
    return None


def _node(data: Path) -> str:
    return f"{socket.gethostname()}:{data}"


def _elsewhere(config: Config) -> list[str]:
    return [
        name
        for name, each in config.archives.items()
        if isinstance(each, FolderArchive | FilesArchive)
        and not each.path.resolve().is_relative_to(config.data)
    ]
