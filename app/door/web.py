"""The HTTP port of the door."""

from collections.abc import Collection

from app.config_door import Http, Limits
from app.door.guard import Complaints
from app.door.http import HttpServer
from app.door.intake import Intake
from app.door.web_app import WebApp
from app.store.store import Store
from app.tls import server_context


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
        self._server = HttpServer("door.http", self._app.asgi(self._refused), self._complaints)

    def open(self) -> int:
        """Listen; return the port."""
        tls = self._config.tls
        return self._server.open(
            self._config.host,
            self._config.port,
            silent=self._limits.handshakes,
            first_s=self._limits.header_s,
            tls=server_context(tls, "door.http.tls") if tls else None,
        )

    @property
    def turned_at(self) -> float:
        """When it was last ready for what came."""
        return self._server.turned_at

    def close(self, grace_s: float) -> None:
        """Let running requests come to the end of their object, at most `grace_s`."""
        self._server.call(lambda: self._app.stop(grace_s / 2))
        self._server.close(grace_s)
        self._app.close()
        self._complaints.sum_up()

    def _refused(self, address: str) -> None:
        self._complaints.note(address, "no credentials")
