"""STOW-RS as a web application: who may ask, what is asked, and what is answered (PS3.18 10.5)."""

import asyncio
import logging
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.config_door import Http, Limits
from app.dicom.encoded import is_uid
from app.door.body import PATIENCE_S, Body, End, Pace
from app.door.credentials import Credentials
from app.door.intake import Intake
from app.door.upload import Upload
from app.errors import NodeError
from app.store.store import Store

log = logging.getLogger(__name__)

STUDIES = "/dicom-web/studies"
GIGABYTE = 10**9
KILOBYTE = 10**3
RETRY_AFTER = {"Retry-After": "30"}
USER = "marginalia.user"

LINGER_S = 1.0
LINGER_BYTES = 16 << 20
"""So much of a body that is not wanted is read all the same: a connection that is closed before
takes the answer away from a sender that is still busy sending."""
LINGERING = 64
"""For so many connections at once, no more."""

SECURITY_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}

ENDINGS = {
    End.TOO_LARGE: (413, "the body is too large; send several requests"),
    End.TOO_SLOW: (408, "the body came too slowly"),
    End.STOPPING: (503, "this receiver is stopping; send again later"),
    End.BROKEN: (400, "the body is no well-formed HTTP"),
    End.LOST: (400, "the connection was lost"),
}


class StowApp:
    """What the HTTP port serves."""

    def __init__(
        self,
        config: Http,
        limits: Limits,
        intake: Intake,
        store: Store,
        refused: Callable[[str], None],
    ) -> None:
        self._config = config
        self._limits = limits
        self._intake = intake
        self._store = store
        self._running: set[Body] = set()
        self._stopping = False
        self._threads = ThreadPoolExecutor(config.max_requests, thread_name_prefix="stow")
        routes = [
            Route(STUDIES, self._store_objects, methods=["POST"]),
            Route(f"{STUDIES}/{{study}}", self._store_objects, methods=["POST"]),
        ]
        inner = Starlette(
            routes=routes, exception_handlers={HTTPException: _say, Exception: _say_fault}
        )
        inner.router.redirect_slashes = False
        self.asgi: ASGIApp = Lingering(Authenticated(inner, Credentials(config), refused))

    def stop(self, grace_s: float) -> None:
        """Take no more requests, and soon no more of those that run; called in the loop."""
        self._stopping = True
        asyncio.get_running_loop().call_later(grace_s, self._end_bodies)

    def _end_bodies(self) -> None:
        for body in self._running:
            body.finish(End.STOPPING)

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- one request -------------------------------------------------------------------------

    async def _store_objects(self, request: Request) -> Response:
        study_uid = request.path_params.get("study")
        if study_uid is not None and not is_uid(study_uid):
            raise HTTPException(400, "the study in the address is no valid UID")
        boundary = self._check(request)
        upload = Upload(
            self._intake,
            source=f"{request.scope[USER]}@{_address(request.scope)}",
            study_uid=study_uid,
            boundary=boundary,
            max_parts=self._config.max_parts,
        )
        self._admit()
        pace = Pace(self._limits.min_rate_kb_s * KILOBYTE, min(PATIENCE_S, self._limits.idle_s))
        body = Body(pace, self._limit)
        self._running.add(body)
        try:
            return await self._take(request, upload, body)
        finally:
            body.finish(End.LOST)
            self._running.discard(body)

    async def _take(self, request: Request, upload: Upload, body: Body) -> Response:
        began = time.monotonic()
        filling = asyncio.create_task(body.fill(request.receive, request.scope["state"]))
        try:
            work = partial(self._work, upload, body)
            loop = asyncio.get_running_loop()
            response = await loop.run_in_executor(self._threads, work)
        finally:
            filling.cancel()
        log.info(
            "request from %s@%s answered %d after %.1f s and %.1f MB: %s",
            request.scope[USER],
            _address(request.scope),
            response.status_code,
            time.monotonic() - began,
            body.size / 1e6,
            ", ".join(f"{n} {what}" for what, n in sorted(upload.answers.items())) or "no objects",
        )
        return response

    def _work(self, upload: Upload, body: Body) -> Response:
        """Do in a thread all that may take its time."""
        refusal = upload.take(body.pieces())
        if upload.studies:
            self._release(upload.studies)
        if body.end is not None and body.end in ENDINGS:
            refusal = HTTPException(*ENDINGS[body.end])
        return _answer(upload, refusal)

    def _release(self, studies: set[str]) -> None:
        try:
            self._store.release(sorted(studies), datetime.now(UTC))
        except NodeError as error:
            # the studies are closed by their quiet time instead
            log.error("the end of a request is not noted: %s", error)  # noqa: TRY400

    # -- what is refused before a byte of the body is read -------------------------------------

    @property
    def _limit(self) -> int:
        return int(self._config.max_request_gb * GIGABYTE)

    def _check(self, request: Request) -> bytes:
        """Return the boundary of a request whose headers are in order."""
        headers = request.headers
        if "content-length" in headers and "transfer-encoding" in headers:
            raise HTTPException(400, "Content-Length and Transfer-Encoding exclude each other")
        if int(headers.get("content-length", "0")) > self._limit:
            limit = self._config.max_request_gb
            raise HTTPException(413, f"the body is larger than {limit:g} GB; send several requests")
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise HTTPException(415, "an encoded body is not accepted; send it as it is")
        types = headers.getlist("content-type")
        kind, options = parse_options_header(types[0] if len(types) == 1 else "")
        if kind != b"multipart/related":
            raise HTTPException(415, "send multipart/related")
        if options.get(b"type", b"").lower() != b"application/dicom":
            raise HTTPException(415, 'send multipart/related; type="application/dicom"')
        return options.get(b"boundary", b"")

    def _admit(self) -> None:
        """Refuse what cannot be served now."""
        if self._stopping:
            reason = "this receiver is stopping; send again later"
        elif len(self._running) >= self._config.max_requests:
            reason = "too many requests at once; send again later"
        elif not self._intake.has_room():
            reason = "the disk has no space to spare; send again later"
        else:
            return
        log.warning("a request is refused: %s", reason)
        raise HTTPException(503, reason, headers=RETRY_AFTER)


class Authenticated:
    """Lets nobody to any address who does not say who they are."""

    def __init__(
        self, app: ASGIApp, credentials: Credentials, refused: Callable[[str], None]
    ) -> None:
        self._app = app
        self._credentials = credentials
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it without reading its body."""
        user = self._credentials.user(scope["headers"])
        if user is None:
            self._refused(_address(scope))
            headers = SECURITY_HEADERS | {
                "WWW-Authenticate": self._credentials.challenge,
                "Connection": "close",
            }
            answer = PlainTextResponse("say who you are\n", 401, headers)
            await answer(scope, receive, send)
            return
        await self._app({**scope, USER: user}, receive, send)


class Lingering:
    """Lets an answer that comes before the end of the body reach its sender, then hangs up."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._number = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and watch how much of its body is read."""
        ended = not {b"content-length", b"transfer-encoding"} & {n for n, _ in scope["headers"]}
        waits = b"expect" in {name for name, _ in scope["headers"]}

        async def watched() -> Message:
            nonlocal ended
            message = await receive()
            ended = ended or not message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and not ended:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            elif not message.get("more_body", False) and not ended and not waits:
                await send({**message, "more_body": True})
                await self._linger(watched, lambda: ended)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self._app(scope, watched, answer)

    async def _linger(self, receive: Receive, ended: Callable[[], bool]) -> None:
        if self._number >= LINGERING:
            return
        left = LINGER_BYTES
        self._number += 1
        try:
            async with asyncio.timeout(LINGER_S):
                while left > 0 and not ended():
                    left -= len((await receive()).get("body", b""))
        except TimeoutError:
            pass  # whoever still sends had its time
        finally:
            self._number -= 1


def _answer(upload: Upload, refusal: HTTPException | None) -> Response:
    """Say what became of the objects, and what was wrong with the request as a whole."""
    status = refusal.status_code if refusal else upload.status
    headers = dict(SECURITY_HEADERS)
    if status == 503:  # noqa: PLR2004  # the one that asks for another try
        headers |= RETRY_AFTER
    if not upload.touched and refusal:
        return PlainTextResponse(f"{refusal.detail}\n", status, headers)
    if refusal:
        headers["Warning"] = f'299 marginalia "{refusal.detail}"'
    return Response(upload.listed(), status, headers, "application/dicom+json")


async def _say(_request: Request, refusal: Any) -> Response:
    headers = SECURITY_HEADERS | dict(refusal.headers or {})
    return PlainTextResponse(f"{refusal.detail}\n", refusal.status_code, headers)


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


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "nowhere"
