"""The HTTP port for monitors: `/healthz`, `/readyz` and `/metrics`, for everybody who can reach it.

Nothing can be changed by it and no answer names a patient, a study or a secret. Answers are made of
what is known already: no request waits for an archive, a lock or a disk. Only the numbers of the
job log are read, and left out when that takes longer than two seconds.
"""

import json
import logging
from collections.abc import Callable
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from app.config_web import Web
from app.door.edge import SECURITY_HEADERS
from app.door.guard import Complaints
from app.door.http import HttpServer
from app.log import traced
from app.web.part import Overall, Report

log = logging.getLogger(__name__)

FIRST_S = 5.0
SILENT = 16
"""Connections that may wait without a request; the oldest makes room for one more."""
AT_ONCE = 64
CLOSE_S = 1.0
HEADERS = {**SECURITY_HEADERS, "Cache-Control": "no-store", "Connection": "close"}


class WebPort:
    """Serves health and metrics in a thread of its own."""

    def __init__(
        self,
        config: Web,
        *,
        lives: Callable[[], str],
        report: Callable[[], Report],
        metrics: Callable[[], bytes],
    ) -> None:
        self._config = config
        self._lives = lives
        self._report = report
        self._metrics = metrics
        app = Starlette(
            routes=[
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._told),
            ],
            exception_handlers={HTTPException: _say, Exception: _say_fault},
        )
        app.router.redirect_slashes = False
        self._server = HttpServer("web", app, Complaints("connections to the web port"))

    def open(self) -> int:
        """Listen; return the port."""
        where = self._config.host, self._config.port
        return self._server.open(*where, silent=SILENT, first_s=FIRST_S, at_once=AT_ONCE)

    def close(self) -> None:
        """End; who is still being answered does not hold the node."""
        self._server.close(CLOSE_S)

    async def _healthz(self, _request: Request) -> Response:
        """Say whether the process lives; 503 when starting it again would help."""
        wrong = self._lives()
        return PlainTextResponse(f"{wrong or 'alive'}\n", 503 if wrong else 200, HEADERS)

    async def _readyz(self, request: Request) -> Response:
        """Tell how each part is; 503 when studies cannot be taken in or worked on."""
        report = self._report()
        strict = request.query_params.get("strict") == "1"
        bad = report.overall is Overall.NOT_READY or (
            strict and report.overall is not Overall.READY
        )
        told = {
            "status": report.overall,
            "parts": {each.name: each.to_json() for each in report.parts},
        }
        content = json.dumps(told, indent=1) + "\n"
        return Response(content, 503 if bad else 200, HEADERS, "application/json")

    def _told(self, _request: Request) -> Response:
        """Tell the numbers; in a thread, since the job log is read for them."""
        return Response(self._metrics(), 200, HEADERS, CONTENT_TYPE_PLAIN_0_0_4)


async def _say(_request: Request, refusal: Any) -> Response:
    headers = HEADERS | dict(refusal.headers or {})
    return PlainTextResponse(f"{refusal.detail}\n", refusal.status_code, headers)


async def _say_fault(_request: Request, error: Exception) -> Response:
    log.error("a monitor could not be answered by a fault of ours:\n%s", traced(error))
    return PlainTextResponse("a fault of ours, see the log\n", 500, HEADERS)
