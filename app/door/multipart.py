"""A multipart body as it comes in: the caller is told of parts, nothing is kept (RFC 2046 5.1).

The parser of python-multipart does the work; here stand the limits on what surrounds the objects.
It can be slow on hostile bytes, so it runs where no event loop waits for it.
"""

import logging
import re
from typing import Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser
from starlette.exceptions import HTTPException

PREAMBLE = 16 * 1024
"""What may stand before the first boundary."""
HEADERS, HEADER = 16, 4096
"""Headers of a part, and bytes of one."""
BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")

logging.getLogger("python_multipart").setLevel(logging.CRITICAL + 1)  # it quotes what is sent


class Parts(Protocol):
    """Who is told."""

    def begin(self, headers: dict[str, str]) -> None:
        """A part begins; the names of its headers are in lower case."""

    def write(self, piece: memoryview) -> None:
        """Some bytes of its content."""

    def end(self) -> None:
        """It is whole."""


class MultipartReader:
    """Takes a body piece by piece; raises HTTPException with what is wrong with it."""

    def __init__(self, boundary: bytes, parts: Parts, max_parts: int) -> None:
        if not BOUNDARY.fullmatch(boundary):
            raise HTTPException(400, "the boundary is missing or not one of RFC 2046")
        self._parts = parts
        self._max_parts = max_parts
        self._delimiter = b"--" + boundary
        self._preamble: bytearray | None = bytearray()
        self._number = 0
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[str, str] = {}
        self.complete = False
        """Whether the closing boundary came."""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_name,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_content,
                "on_part_end": self._parts.end,
                "on_end": self._on_end,
            },
            max_header_count=HEADERS,
            max_header_size=HEADER,
        )

    def write(self, piece: bytes) -> None:
        """Take the next bytes of the body."""
        if self._preamble is not None:
            piece = self._behind_preamble(piece)
        if not piece or self.complete:  # an epilogue is ignored
            return
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise HTTPException(400, "the body is no well-formed multipart message") from error

    def _behind_preamble(self, piece: bytes) -> bytes:
        """Return what follows the preamble once its end is known."""
        assert self._preamble is not None  # noqa: S101  # for the type checker
        self._preamble += piece
        at = 0 if self._preamble.startswith(self._delimiter) else -1
        if at < 0:
            found = self._preamble.find(b"\r\n" + self._delimiter, 0, PREAMBLE)
            at = found + 2 if found >= 0 else -1
        if at >= 0:
            rest, self._preamble = bytes(self._preamble[at:]), None
            return rest
        if len(self._preamble) > PREAMBLE:
            raise HTTPException(400, f"no boundary within the first {PREAMBLE} bytes")
        return b""

    def _begin(self) -> None:
        self._number += 1
        if self._number > self._max_parts:
            raise HTTPException(413, f"more than {self._max_parts} parts; send several requests")
        self._headers = {}

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        name = self._name.decode("latin-1").lower()
        if name in self._headers:
            raise HTTPException(400, "a part has a header twice")
        self._headers[name] = self._value.decode("latin-1").strip()
        self._name, self._value = bytearray(), bytearray()

    def _on_headers(self) -> None:
        self._parts.begin(self._headers)

    def _on_content(self, data: bytes, start: int, end: int) -> None:
        self._parts.write(memoryview(data)[start:end])

    def _on_end(self) -> None:
        self.complete = True
