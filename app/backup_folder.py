"""A backup as it lies on the disk: names, the list of its files, and what makes it whole.

FOLDER/                        one node's backups
  20301231T020000.000Z/        one of them; `.partial` behind the name: cut short
    backup.json                of which node, when, at which step of the job log, how much
    app.yaml                   as it was
    data/                      the data folder, the job log copied at one moment
    SHA256SUMS                 of all these, as `sha256sum --check` reads it
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from app.dicom.folder import INDEX, STAGING
from app.errors import OutOfResources, StoreError
from app.files import PARTIAL, give_to_owner, sync_folder
from app.retain import ASIDE, BACKUP_LOCK

LOCK = "lock"
"""File in the data folder that the node holds while it works there."""
RESTORING = "restoring"
"""File in the data folder while a backup is being put back; no node starts there."""
STILL = "backing-up"
"""Folder in the data folder with links to the results of unfinished jobs, all of one moment."""

DATA, LOG, SUMS, ABOUT, CONFIG = "data", "node.db", "SHA256SUMS", "backup.json", "app.yaml"
CUT_SHORT = ".partial"
NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z")
BLOCK = 1 << 20
FORMAT = 1
SPARE = 64 << 20
"""Bytes beside the files themselves: folders, the list, what comes in meanwhile."""

_OF_THE_NODE = {LOCK, "ready.json", RESTORING, STILL, BACKUP_LOCK, "removing.lock", "lost+found"}
_OF_THE_LOG = {LOG, f"{LOG}-wal", f"{LOG}-shm"}
_LINE = re.compile(rb"(\\?)([0-9a-f]{64})  (.+)", re.DOTALL)

Sums = dict[str, str]
"""Path relative to the backup → SHA-256, in hexadecimal."""


def whole(folder: Path) -> list[Path]:
    """Return the backups in a folder that are whole, the oldest first."""
    if not folder.is_dir():
        return []
    return sorted(each for each in folder.iterdir() if NAME.fullmatch(each.name))


def found(data: Path, below: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yield what belongs into a backup: regular files, by their path in the data folder.

    The log is copied apart. An index of a folder archive is made anew from its files; files that
    are being written are nobody's yet. Only a folder that is a link in the data folder itself is
    followed: a spool on a disk of its own.
    """
    try:
        with os.scandir(data / below) as entries:
            here = [*entries]
    except FileNotFoundError:
        return  # a folder that was removed meanwhile
    for entry in here:
        path = f"{below}/{entry.name}" if below else entry.name
        if _is_left_out(path, entry.name):
            continue
        if entry.is_dir(follow_symlinks=not below):
            yield from found(data, path)
        elif entry.is_file(follow_symlinks=False):
            try:
                stat = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield path, stat


def _is_left_out(path: str, name: str) -> bool:
    return (
        path in _OF_THE_NODE | _OF_THE_LOG
        or name.endswith((PARTIAL, ASIDE))
        or name.startswith(INDEX)
        or name in {STAGING, ".lock"}
    )


def make_folders(folder: Path, *, like: Path | None = None) -> None:
    """Make a private folder and its parents; with `like` they belong to that folder's owner."""
    if not folder.is_dir():
        make_folders(folder.parent, like=like)
        folder.mkdir(mode=0o700)
        if like is not None:
            give_to_owner(folder, like)


def copy(source: Path, target: Path, *, like: Path | None = None) -> str:
    """Copy a file with its time; return its digest. With `like` it belongs to that folder's owner.

    Each is synced at once: much that waits for the disk at the end would hold up the door, which
    answers a sender only after a sync of its own.
    """
    digest = hashlib.sha256()
    with source.open("rb") as old:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as new:
            while block := old.read(BLOCK):
                digest.update(block)
                new.write(block)
            if like is not None:
                give_to_owner(fd, like)
            new.flush()
            times = os.fstat(old.fileno())
            os.utime(fd, ns=(times.st_atime_ns, times.st_mtime_ns))
            os.fsync(fd)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """Return a file's digest."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(backup: Path, sums: Mapping[str, str]) -> None:
    """Write the list of files as `sha256sum` does."""
    fd = os.open(backup / SUMS, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        for path, digest in sorted(sums.items()):
            name = os.fsencode(path)
            escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
            mark = b"\\" if escaped != name else b""
            file.write(mark + digest.encode() + b"  " + escaped + b"\n")
        file.flush()
        os.fsync(fd)


def read_sums(backup: Path) -> Sums:
    """Read the list of files; StoreError where it is not one."""
    sums: Sums = {}
    try:
        text = (backup / SUMS).read_bytes()
    except OSError as error:
        raise StoreError(
            f"{backup}: is no whole backup: {SUMS} cannot be read ({error})"
        ) from error
    if not text.endswith(b"\n"):
        raise StoreError(f"{backup}: is broken: {SUMS} ends early; take another backup")
    for number, line in enumerate(text[:-1].split(b"\n"), 1):
        parts = _LINE.fullmatch(line)
        if parts is None:
            raise StoreError(
                f"{backup}: is broken: line {number} of {SUMS} is none; take another backup"
            )
        mark, digest, name = parts.groups()
        sums[os.fsdecode(_unescaped(name) if mark else name)] = digest.decode()
    return sums


def _unescaped(name: bytes) -> bytes:
    plain = {b"n": b"\n", b"r": b"\r", b"\\": b"\\"}
    return re.sub(rb"\\(.)", lambda found: plain.get(found[1], found[0]), name)


def listed(backup: Path) -> Iterator[str]:
    """Yield every file that lies in a backup, the list itself left out."""
    for folder, _, names in os.walk(backup):
        for name in names:
            path = os.path.relpath(Path(folder) / name, backup)
            if path != SUMS:
                yield path


def has_room(folder: Path, size: int) -> None:
    """Refuse to begin what the disk has no space for."""
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < size:
        raise OutOfResources(
            f"{folder}: {size / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free; make room"
        )


def sync_folders(root: Path) -> None:
    """Put the names of all files below a folder on stable storage, their bytes are there."""
    for folder, _, _ in os.walk(root):
        sync_folder(Path(folder))


@contextmanager
def in_words(folder: Path) -> Iterator[None]:
    """Say what an error of the disk means."""
    try:
        yield
    except OSError as error:
        raise OutOfResources(
            f"{error.filename or folder}: {error.strerror or error}; look at the disk's space,"
            " rights and health"
        ) from error
