"""A web server in a thread of its own, with few connections and none that lingers."""

import asyncio
import logging
import ssl
import threading
import time
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from app.door.connections import Listener, Protocol
from app.door.guard import Complaints
from app.errors import ConfigError

START_S = 10.0
HEAD = 16 * 1024
"""Longest request line and headers, together."""


class HttpServer:
    """One HTTP port that serves one application; `key` is its place in app.yaml."""

    def __init__(self, key: str, app: ASGIApp, complaints: Complaints) -> None:
        self._key = key
        self._app = app
        self._complaints = complaints
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def open(
        self,
        host: str,
        port: int,
        *,
        silent: int,
        first_s: float,
        tls: ssl.SSLContext | None = None,
        at_once: int | None = None,
    ) -> int:
        """Listen; return the port.

        At most `silent` connections may wait without a request, each for `first_s`; with `at_once`
        whoever comes while there are so many of all kinds is told to come later.
        """
        try:
            listener = Listener(host, port, silent)
            bound = listener.start()
        except OSError as error:
            raise ConfigError(
                f"{self._key}.host, {self._key}.port: cannot listen on {host}:{port}"
                f" ({error.strerror}); stop the other program there, or give an address of this"
                " machine and a free port"
            ) from error
        settings = self._settings(listener, first_s, tls, at_once)
        self._server = _Server(settings, self._complaints)
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name=self._key, daemon=True
        )
        self._thread.start()
        if not self._server.up.wait(START_S):
            raise ConfigError(f"{self._key}: nothing answers on {host}:{port} after {START_S:g} s")
        return bound

    @property
    def turned_at(self) -> float:
        """When it was last ready for what came, by the monotonic clock."""
        return self._server.turned_at if self._server else 0.0

    def call(self, function: Any) -> None:
        """Call something in the server's thread."""
        if self._server is not None:
            self._server.call(function)

    def close(self, grace_s: float) -> None:
        """Let running requests come to their end, at most `grace_s`."""
        if self._server is None or self._thread is None:
            return
        self._server.config.timeout_graceful_shutdown = max(1, round(grace_s) - 1)
        self._server.should_exit = True
        self._thread.join(grace_s)

    def _settings(
        self,
        listener: Listener,
        first_s: float,
        tls: ssl.SSLContext | None,
        at_once: int | None,
    ) -> uvicorn.Config:
        for name in ("uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
            logger = logging.getLogger(name)
            logger.setLevel(logging.CRITICAL + 1)  # requests leave one line of ours, or none
            logger.propagate = False
        own = {"listener": listener, "complaints": self._complaints, "first_s": first_s}
        protocol: Any = type("WebProtocol", (Protocol,), own)
        return uvicorn.Config(
            self._app,
            http=protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=at_once,
            timeout_keep_alive=5,
            h11_max_incomplete_event_size=HEAD,
            ssl_context_factory=(lambda _config, _default: tls) if tls else None,
        )


class _Server(uvicorn.Server):
    """Says when it is up, and in which loop."""

    def __init__(self, config: uvicorn.Config, complaints: Complaints) -> None:
        super().__init__(config)
        self._complaints = complaints
        self.up = threading.Event()
        self.turned_at = time.monotonic()
        self._loop: Any = None

    async def startup(self, sockets: Any = None) -> None:
        """Begin to serve."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.up.set()

    async def on_tick(self, counter: int) -> bool:
        """Do what is due."""
        self.turned_at = time.monotonic()
        self._complaints.sum_up()
        return await super().on_tick(counter)

    def call(self, function: Any) -> None:
        """Call something in the loop."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)
