"""The HTTP port as a web application: its resources, who may ask, and how a refusal is said."""

import logging
import traceback
from collections.abc import Callable, Collection
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from app.config_door import Http, Limits
from app.door.credentials import Credentials
from app.door.edge import SECURITY_HEADERS, Authenticated, Lingering
from app.door.events import Events
from app.door.intake import Intake
from app.door.slots import RETRY_AFTER, Slots
from app.door.stow_rs import StowRs
from app.errors import TransientError
from app.store.store import Store

log = logging.getLogger(__name__)

EVENTS_AT_ONCE = 8
"""They are small; uploads, which are not, have places of their own."""


class WebApp:
    """What the HTTP port serves."""

    def __init__(
        self,
        config: Http,
        limits: Limits,
        *,
        intake: Intake,
        store: Store,
        sources: Collection[str],
    ) -> None:
        self._config = config
        uploads = Slots(config.max_requests, limits, "stow")
        events = Slots(EVENTS_AT_ONCE, limits, "events")
        self._slots = [uploads, events]
        self._inner = Starlette(
            routes=[
                *StowRs(config, intake, store, uploads).routes,
                *Events(store, events, sources).routes,
            ],
            exception_handlers={
                HTTPException: _say,
                TransientError: _say_busy,
                Exception: _say_fault,
            },
        )
        self._inner.router.redirect_slashes = False

    def asgi(self, refused: Callable[[str], None]) -> ASGIApp:
        """Return the application; `refused` is told the address of each who is not let in."""
        return Lingering(Authenticated(self._inner, Credentials(self._config), refused))

    def stop(self, grace_s: float) -> None:
        """Take no more requests, and soon no more of those that run; called in the loop."""
        for slots in self._slots:
            slots.stop(grace_s)

    def close(self) -> None:
        """Let the threads go."""
        for slots in self._slots:
            slots.close()


async def _say(_request: Request, refusal: Any) -> Response:
    headers = SECURITY_HEADERS | dict(refusal.headers or {})
    return PlainTextResponse(f"{refusal.detail}\n", refusal.status_code, headers)


async def _say_busy(_request: Request, error: Exception) -> Response:
    log.warning("a request is refused: %s", error)
    headers = SECURITY_HEADERS | RETRY_AFTER
    return PlainTextResponse("the job log is busy; send again later\n", 503, headers)


async def _say_fault(_request: Request, error: Exception) -> Response:
    """Name a fault of ours by its kind and place; its text could quote what was sent."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    log.error(
        "a request failed by a fault of ours: %s at %s:%d",
        type(error).__name__,
        frame.filename,
        frame.lineno,
    )
    return PlainTextResponse("the receiver failed; send again\n", 500, SECURITY_HEADERS)
