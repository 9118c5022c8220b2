"""The HTTP port: a web server in a thread of the door process."""

import asyncio
import logging
import ssl
import threading
from collections.abc import Collection
from typing import Any

import uvicorn

from app.config_door import Http, Limits
from app.door.connections import Listener, Protocol
from app.door.guard import Complaints
from app.door.intake import Intake
from app.door.web_app import WebApp
from app.errors import ConfigError
from app.store.store import Store
from app.tls import server_context

log = logging.getLogger(__name__)

START_S = 10.0
HEAD = 16 * 1024
"""Longest request line and headers, together."""


class WebServer:
    """One HTTP port; objects go to the intake as those of the DICOM port do."""

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
        self._limits = limits
        self._complaints = Complaints()
        self._app = WebApp(config, limits, intake=intake, store=store, sources=sources)
        self._asgi = self._app.asgi(self._refused)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> int:
        """Listen; return the port."""
        tls = self._config.tls
        context = server_context(tls, "door.http.tls") if tls else None
        host, port = self._config.host, self._config.port
        try:
            listener = Listener(host, port, self._limits.handshakes)
            bound = listener.start()
        except OSError as error:
            raise ConfigError(
                f"door.http.host, door.http.port: cannot listen on {host}:{port} ({error.strerror})"
                "; stop the other program there, or give an address of this machine and a free port"
            ) from error
        self._server = _Server(self._settings(listener, context), self._complaints)
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="web", daemon=True
        )
        self._thread.start()
        if not self._server.up.wait(START_S):
            raise ConfigError(f"door.http: nothing answers on {host}:{port} after {START_S:g} s")
        return bound

    def close(self, grace_s: float) -> None:
        """Let running requests come to the end of their object, at most `grace_s`."""
        if self._server is None or self._thread is None:
            return
        self._server.config.timeout_graceful_shutdown = max(1, round(grace_s) - 1)
        self._server.call(lambda: self._app.stop(grace_s / 2))
        self._server.should_exit = True
        self._thread.join(grace_s)
        self._app.close()
        self._complaints.sum_up()

    def _settings(self, listener: Listener, context: ssl.SSLContext | None) -> uvicorn.Config:
        for name in ("uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
            logger = logging.getLogger(name)
            logger.setLevel(logging.CRITICAL + 1)  # requests leave one line of ours
            logger.propagate = False
        protocol: Any = type(
            "WebProtocol",
            (Protocol,),
            {
                "listener": listener,
                "complaints": self._complaints,
                "first_s": self._limits.header_s,
            },
        )
        return uvicorn.Config(
            self._asgi,
            http=protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=5,
            h11_max_incomplete_event_size=HEAD,
            ssl_context_factory=(lambda _config, _default: context) if context else None,
        )

    def _refused(self, address: str) -> None:
        self._complaints.note(address, "no credentials")


class _Server(uvicorn.Server):
    """Says when it is up, and in which loop."""

    def __init__(self, config: uvicorn.Config, complaints: Complaints) -> None:
        super().__init__(config)
        self._complaints = complaints
        self.up = threading.Event()
        self._loop: Any = None

    async def startup(self, sockets: Any = None) -> None:
        """Begin to serve."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.up.set()

    async def on_tick(self, counter: int) -> bool:
        """Do what is due."""
        self._complaints.sum_up()
        return await super().on_tick(counter)

    def call(self, function: Any) -> None:
        """Call something in the loop."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)
