"""The body of a request on its way from the event loop to the thread that keeps it.

The loop never waits for a disk and the thread never for a loop: a few pieces lie between them. A
sender is read no faster than its objects are kept, and is dropped when it is too slow for us.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import Enum
from queue import SimpleQueue
from typing import Any

from starlette.types import Message, Receive

PIECES = 8
"""How many pieces may wait; one has at most what the server reads at once, some 300 KB."""

PATIENCE_S = 20.0
"""For so long a sender may be silent, or slower than the rate, before it is dropped."""


BROKEN = "broken"
"""Set in the state of a request whose body ended because it was no HTTP any more."""


class End(Enum):
    """How a body ended."""

    WHOLE = "whole"
    LOST = "lost"
    BROKEN = "broken"
    TOO_LARGE = "too large"
    TOO_SLOW = "too slow"
    STOPPING = "stopping"


class Pace:
    """Waits for a sender as long as it keeps to the rate; what it earns by speed is limited."""

    def __init__(self, rate_b_s: float, patience_s: float) -> None:
        self._rate = rate_b_s
        self._patience = patience_s
        self._credit = patience_s

    async def next(self, receive: Receive) -> Message | None:
        """Return the next message; None when the sender's time is over."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._credit):
                message = await receive()
        except TimeoutError:
            return None
        earned = self._earned(len(message.get("body", b"")))
        waited = time.monotonic() - began
        self._credit = min(self._patience, self._credit - waited + earned)
        return message if self._credit > 0 else None

    def _earned(self, size: int) -> float:
        if self._rate:
            return size / self._rate
        return self._patience if size else 0.0


class Body:
    """Pieces in from the event loop, out in the thread; made in the loop."""

    def __init__(self, pace: Pace, limit: int) -> None:
        self._pace = pace
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._space = asyncio.Semaphore(PIECES)
        self._pieces: SimpleQueue[bytes | None] = SimpleQueue()
        self.size = 0
        self.end: End | None = None

    async def fill(self, receive: Receive, state: Mapping[str, Any]) -> None:
        """Read the body to its end, whichever that is."""
        while self.end is None:
            message = await self._pace.next(receive)
            if message is None:
                self.finish(End.TOO_SLOW)
            elif message["type"] == "http.disconnect":
                self.finish(End.LOST)
            else:
                await self._add(message, state)

    def finish(self, end: End) -> None:
        """Let the thread come to an end; the first reason stays."""
        if self.end is None:
            self.end = end
            self._pieces.put(None)

    def pieces(self) -> Iterator[bytes]:
        """Yield what came, in the thread."""
        while (piece := self._pieces.get()) is not None:
            yield piece
            with suppress(RuntimeError):  # the loop is closed: nobody waits for space
                self._loop.call_soon_threadsafe(self._space.release)

    async def _add(self, message: Message, state: Mapping[str, Any]) -> None:
        piece = message.get("body", b"")
        self.size += len(piece)
        if self.size > self._limit:
            self.finish(End.TOO_LARGE)
            return
        if piece:
            await self._space.acquire()
            self._pieces.put(piece)
        if not message.get("more_body", False):
            self.finish(End.BROKEN if state.get(BROKEN) else End.WHOLE)
