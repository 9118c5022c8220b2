"""Bytes on their way into a file: a block in memory, what exceeds it in a file without a name.

Written past the page cache where the file system can (O_DIRECT): copying half a megabyte into
fresh pages costs more than writing it, and a receiver does not read what it has just written. The
last bytes, which do not fill a page, go through it: cutting a padded file would read them back.
"""

import fcntl
import hashlib
import mmap
import os
from contextlib import suppress
from errno import EINVAL
from pathlib import Path

from app.files import PARTIAL, make_folder

BLOCK = 1 << 20
"""Memory of one object on its way, however large it becomes."""
ALIGNED = 4096
"""What lengths and addresses of direct writes are multiples of."""
SPARE = 32
"""How many blocks are kept for the next objects."""


class Blocks:
    """Memory that is used again: fresh pages cost as much as the bytes that go into them."""

    def __init__(self) -> None:
        self._free: list[mmap.mmap] = []

    def take(self) -> mmap.mmap:
        """Return a block of any content, at an address that direct writes accept."""
        try:
            return self._free.pop()
        except IndexError:
            return mmap.mmap(-1, BLOCK)

    def give_back(self, block: mmap.mmap) -> None:
        """Keep a block for the next object."""
        if len(self._free) < SPARE:
            self._free.append(block)


class Partial:
    """What becomes one file, a head of ours and a data set; used by one thread."""

    def __init__(self, path: Path, blocks: Blocks) -> None:
        self._path = path.with_name(path.name + PARTIAL)
        self._blocks = blocks
        self._block: mmap.mmap | None = blocks.take()
        self._digest = hashlib.sha256()
        self._used = 0
        self._digested = 0  # of what is in the block
        self._written = 0
        self._fd = -1
        self._stays = False

    def begin(self, head: bytes) -> None:
        """Write what is no part of the data set, before all else."""
        self.append(head)
        self._digested = self._used

    def append(self, piece: bytes | memoryview) -> None:
        """Add bytes."""
        rest = memoryview(piece)
        while rest:
            assert self._block is not None  # noqa: S101  # for the type checker
            if self._used == BLOCK:
                self._flush(BLOCK)
            taken = rest[: BLOCK - self._used]
            self._block[self._used : self._used + len(taken)] = taken
            self._used += len(taken)
            rest = rest[len(taken) :]

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self._written + self._used

    def sha256(self) -> str:
        """Return the digest of the data set."""
        self._digest_block()
        return self._digest.hexdigest()

    def content(self) -> mmap.mmap:
        """Return all bytes, and in the case of a short object any others after them."""
        assert self._block is not None  # noqa: S101  # for the type checker
        if self._fd < 0:
            return self._block
        self.complete()
        content = mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ)
        content.madvise(mmap.MADV_RANDOM)  # a walk steps over most of it
        return content

    def complete(self) -> None:
        """Put into the file what is still in memory; nothing may be added afterwards."""
        if self._used or self._fd < 0:
            assert self._block is not None  # noqa: S101  # for the type checker
            whole = self._used // ALIGNED * ALIGNED
            rest = self._block[whole : self._used]
            self._flush(whole)
            _use_page_cache(self._fd)
            _write(self._fd, memoryview(rest))
            self._written += len(rest)

    def sync(self) -> None:
        """Put the bytes, all of which must be in the file, on stable storage."""
        os.fdatasync(self._fd)

    def rename(self, target: Path) -> None:
        """Give synced bytes their name; their folder must be synced before anybody is told."""
        self._path.rename(target)
        self._path = target

    def take_name(self) -> None:
        """Take the name back; nobody may have been told of it."""
        hidden = self._path.with_name(self._path.name + PARTIAL)
        self._path.rename(hidden)
        self._path = hidden

    def settle(self) -> None:
        """Let the file stay when this is closed."""
        self._stays = True

    def close(self) -> None:
        """Give back what is held; a file that did not settle is removed."""
        if self._block is not None:
            self._blocks.give_back(self._block)
            self._block = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            if not self._stays:
                with suppress(OSError):
                    self._path.unlink(missing_ok=True)

    def _flush(self, length: int) -> None:
        if self._fd < 0:
            self._fd = _create(self._path)
        assert self._block is not None  # noqa: S101  # for the type checker
        self._digest_block()
        _write(self._fd, memoryview(self._block)[:length])
        self._written += length
        self._used = self._digested = 0

    def _digest_block(self) -> None:
        """Digest a block at once: each call of its own is a hand-over to another thread."""
        assert self._block is not None  # noqa: S101  # for the type checker
        self._digest.update(memoryview(self._block)[self._digested : self._used])
        self._digested = self._used


def _create(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    try:
        return os.open(path, flags | os.O_DIRECT, 0o600)
    except FileNotFoundError:
        make_folder(path.parent)
    except OSError as error:
        if error.errno != EINVAL:  # some file systems know no direct writes
            raise
        path.unlink(missing_ok=True)
    return os.open(path, flags, 0o600)


def _write(fd: int, rest: memoryview) -> None:
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except OSError as error:
            if error.errno != EINVAL or not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
                raise
            _use_page_cache(fd)  # aligned more coarsely there


def _use_page_cache(fd: int) -> None:
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)  # takes O_DIRECT away; how it was opened stays
