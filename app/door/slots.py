"""So many requests at once: a body is read at its pace while a thread does what takes its time."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NoReturn

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.config_door import Limits
from app.door.body import PATIENCE_S, Body, End, Pace

log = logging.getLogger(__name__)

KILOBYTE = 10**3
RETRY_AFTER = {"Retry-After": "30"}

ENDINGS = {
    End.TOO_LARGE: (413, "the body is larger than one request may bring"),
    End.TOO_SLOW: (408, "the body came too slowly"),
    End.STOPPING: (503, "this receiver is stopping; send again later"),
    End.BROKEN: (400, "the body is no well-formed HTTP"),
    End.LOST: (400, "the connection was lost"),
}


class Slots:
    """The places for requests of one kind; one kind never takes those of another."""

    def __init__(self, number: int, limits: Limits, name: str) -> None:
        self._number = number
        self._limits = limits
        self._running: set[Body] = set()
        self._stopping = False
        self._threads = ThreadPoolExecutor(number, thread_name_prefix=name)

    async def take(
        self, request: Request, limit: int, work: Callable[[Body], Response]
    ) -> Response:
        """Return what `work` answers; it runs in a thread and reads at most `limit` bytes."""
        self._admit()
        rate = self._limits.min_rate_kb_s * KILOBYTE
        body = Body(Pace(rate, min(PATIENCE_S, self._limits.idle_s)), limit)
        self._running.add(body)
        filling = asyncio.create_task(body.fill(request.receive, request.scope["state"]))
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, partial(work, body))
        finally:
            filling.cancel()
            body.finish(End.LOST)
            self._running.discard(body)

    def stop(self, grace_s: float) -> None:
        """Take no more requests, and soon no more of those that run; called in the loop."""
        self._stopping = True
        asyncio.get_running_loop().call_later(grace_s, self._end_bodies)

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _end_bodies(self) -> None:
        for body in self._running:
            body.finish(End.STOPPING)

    def _admit(self) -> None:
        if self._stopping:
            refuse_for_now("this receiver is stopping; send again later")
        if len(self._running) >= self._number:
            refuse_for_now("too many requests at once; send again later")


def refuse_for_now(reason: str) -> NoReturn:
    """Refuse what cannot be served now."""
    log.warning("a request is refused: %s", reason)
    raise HTTPException(503, reason, headers=RETRY_AFTER)


def check_framing(headers: Mapping[str, str], limit: int, largest: str) -> None:
    """Refuse a body by its headers: how long it is, and how it is packed."""
    if "content-length" in headers and "transfer-encoding" in headers:
        raise HTTPException(400, "Content-Length and Transfer-Encoding exclude each other")
    if int(headers.get("content-length", "0")) > limit:
        raise HTTPException(413, f"the body is larger than {largest}")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise HTTPException(415, "an encoded body is not accepted; send it as it is")


def fault_of(body: Body) -> HTTPException | None:
    """Return what is wrong with how the body ended, if anything."""
    return HTTPException(*ENDINGS[body.end]) if body.end in ENDINGS else None


def whole(body: Body) -> bytes:
    """Return all of a small body; called in the thread."""
    content = b"".join(body.pieces())
    fault = fault_of(body)
    if fault is not None:
        raise fault
    return content
