"""What every HTTP request passes first: who asks, and that a sender hears our answer."""

import asyncio
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.door.credentials import Credentials

USER = "marginalia.user"
SECURITY_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}

LINGER_S = 1.0
LINGER_BYTES = 16 << 20
"""So much of a body that is not wanted is read all the same: a connection that is closed before
takes the answer away from a sender that is still busy sending."""
LINGERING = 64
"""For so many connections at once, no more."""


def sender(request: Request) -> str:
    """Return our name for who sends the request, and where it is."""
    return f"{request.scope[USER]}@{_address(request.scope)}"


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


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "nowhere"
