"""The body of a STOW-RS request with one object, read from the file as it is sent."""

import mmap
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

PIECE = 64 * 1024


class Multipart:
    """A multipart/related body whose boundary is fresh and does not occur in the file.

    With a fixed boundary, bytes inside an object could end its part and begin another object
    (RFC 2046 5.1). It can be iterated more than once, and says its length beforehand.
    """

    def __init__(self, path: Path) -> None:
        self._resources = ExitStack()
        file = self._resources.enter_context(path.open("rb"))
        self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._resources.callback(self._file.close)
        self.boundary = secrets.token_hex(24)
        while self._file.find(self.boundary.encode()) != -1:
            self.boundary = secrets.token_hex(24)
        self._head = f"--{self.boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._tail = f"\r\n--{self.boundary}--\r\n".encode()

    @property
    def content_type(self) -> str:
        """The header that goes with the body."""
        return f'multipart/related; type="application/dicom"; boundary={self.boundary}'

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def __len__(self) -> int:
        return len(self._head) + len(self._file) + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        for at in range(0, len(self._file), PIECE):
            yield self._file[at : at + PIECE]
        yield self._tail
