"""Says that the node is ready: what listens where, how secured, and who is let in."""

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.config import Config
from app.config_door import Door, Http, Tls, is_loopback
from app.config_web import Web
from app.files import write_json
from app.installed import Installed

log = logging.getLogger(__name__)


class Announcement:
    """Says that the node is ready, in its log and in a file; again when a child was restarted."""

    def __init__(self, config: Config, models: Mapping[str, Installed], path: Path) -> None:
        self._config = config
        self._models = models
        self._path = path
        self._told: dict[str, Any] = {"pid": os.getpid()}
        self._made = False
        self._lock = threading.Lock()

    def door(self, pid: int, ports: dict[str, int]) -> None:
        """Take the ports of a door that was opened."""
        names = {"listening": "dicom_port", "http": "http_port"}
        self._take({names[name]: port for name, port in ports.items()} | {"door_pid": pid})

    def fetcher(self, pid: int, _told: dict[str, Any]) -> None:
        """Take the process that asks archives."""
        self._take({"fetch_pid": pid})

    def web(self, port: int) -> None:
        """Take the port where health and metrics are served."""
        self._take({"web_port": port})

    def make(self) -> None:
        """Announce that everything is ready."""
        with self._lock:
            self._made = True
            self._announce()

    def _take(self, told: Mapping[str, Any]) -> None:
        with self._lock:
            self._told |= told
            if self._made:
                self._announce()

    def _words(self) -> Iterator[str]:
        """Say what listens where, how secured, and what else a person would ask first."""
        config, ports = self._config, self._told
        yield _dicom(config.door, ports["dicom_port"])
        if config.door.http is not None and "http_port" in ports:
            yield _http(config.door.http, ports["http_port"])
        if config.web is not None and "web_port" in ports:
            yield _health(config.web, ports["web_port"])
        yield from (f"asks {each.archive}" for each in config.sources)
        yield f"data in {config.data}"
        yield ", ".join(f"model {each.card.identity}" for each in self._models.values())

    def _announce(self) -> None:
        log.info("ready: %s", "; ".join(self._words()))
        write_json(self._path, self._told)


def _dicom(door: Door, port: int) -> str:
    """Say where the DICOM port is and who is let in."""
    return f"DICOM {door.host}:{port} as {door.ae_title}, {_who(door)}, {_tls(door.tls)}"


def _who(door: Door) -> str:
    if door.open:
        return "OPEN to every calling AE title"
    if not door.peers:
        return "nobody is let in: door.peers is empty"
    bound = sum(bool(peer.addresses or peer.certificate) for peer in door.peers)
    anywhere = len(door.peers) - bound
    told = f"{len(door.peers)} peers are let in"
    return f"{told}, {anywhere} of them from any address" if anywhere else told


def _http(http: Http, port: int) -> str:
    """Say where the HTTP port of the door is and by what senders show who they are."""
    scheme = "https" if http.tls else "http"
    ways = ["a password"] if http.user else []
    ways += ["a token"] if http.token_env else []
    return (
        f"STOW-RS and events {scheme}://{http.host}:{port} with {' or '.join(ways)},"
        f" {_tls(http.tls)}"
    )


def _health(web: Web, port: int) -> str:
    """Say where health and metrics are, and to whom."""
    whom = "this machine" if is_loopback(web.host) else "the whole network"
    return (
        f"health and metrics http://{web.host}:{port} to {whom}, no credentials asked:"
        " states and numbers alone"
    )


def _tls(tls: Tls | None) -> str:
    if tls is None:
        return "no TLS"
    return "TLS with client certificates" if tls.require_client_certificate else "TLS"
