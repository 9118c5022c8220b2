"""Files that survive a power cut: temp → fsync → rename → fsync of the folder."""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from app.errors import ConfigError

READY = "ready.json"
"""File in the data folder that is there while the node is ready; says where it listens."""
PARTIAL = ".part"
"""Suffix of a file that is being written; such a file is never a result."""


def sync_file(path: Path) -> None:
    """Put a file's bytes on stable storage."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Put the folder's own entries on stable storage."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Make a private folder and its parents so that they survive a power cut."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)


def make_writable(folder: Path) -> None:
    """Make a private folder that we may write to, or say why not."""
    try:
        make_folder(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "it is read-only for us")
    except OSError as error:
        raise ConfigError(
            f"{folder}: user {os.getuid()} cannot write there ({error.strerror});"
            " mount or name a folder that it owns"
        ) from error


@contextmanager
def durable(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing; it appears whole under its name, or not at all."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        with open(partial, "wb", opener=_private) as file:  # Path.open has no opener
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    sync_folder(path.parent)


@contextmanager
def locked(path: Path, *, refusal: str | None = None, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a file, which ends with the process; with a refusal nobody is waited for."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        give_to_owner(fd, path.parent)
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB if refusal else how)
        except BlockingIOError as error:
            raise ConfigError(refusal) from error
        yield
    finally:
        os.close(fd)


def give_to_owner(made: int | Path, folder: Path) -> None:
    """Let what root has made belong to the folder's owner: the node does not run as root."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(made, owner.st_uid, owner.st_gid)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, durably."""
    with durable(path) as file:
        file.write(json.dumps(value, indent=1).encode())


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote."""
    return json.loads(path.read_bytes())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
