"""The resident composition: door, job log, workers and graph, until told to stop."""

import fcntl
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from app.children import Child
from app.config import Config
from app.config_door import Door
from app.errors import ConfigError
from app.files import make_folder, write_json
from app.installed import Installed, install, start_crew
from app.node import Node
from app.retain import Cleaner, finish
from app.runner import now
from app.signals import on_stop
from app.store.store import Store

log = logging.getLogger(__name__)

READY = "ready.json"
"""File in the data folder that is there while the node is ready; says where it listens."""


def serve(config: Config, config_path: Path) -> int:
    """Run the node until SIGTERM or SIGINT."""
    os.umask(0o077)  # what lies in the data folder is nobody else's business
    with ExitStack() as stack:
        make_folder(config.data)
        stack.enter_context(only_node_in(config.data))
        ready = config.data / READY
        ready.unlink(missing_ok=True)
        models = install(config)
        store = Store.open(config.data / "node.db")
        stack.callback(store.close)
        orphans = store.recover(now(), all_running=True)
        if orphans:
            log.warning("%d jobs were left running by an earlier node and go on", len(orphans))
        finish(config, store)
        crew = start_crew(config)
        stack.callback(crew.stop)
        node = Node(config, store, models=models, crew=crew)

        announcement = Announcement(config, models, ready)
        stack.callback(ready.unlink, missing_ok=True)
        children = _children(config, config_path, announcement)
        for child in children:
            stack.callback(child.close)
            child.open()
        announcement.make()
        cleaner = Cleaner(config, store, now)
        stack.callback(cleaner.close)
        cleaner.open()

        def stop() -> None:
            log.info("stopping: the door closes, running jobs finish or are handed back")
            for child in children:
                threading.Thread(target=child.close, name="child closing").start()
            node.stop()

        on_stop(stop)
        node.run(done=lambda: False)
    log.info("stopped")
    return 0


class Announcement:
    """Says that the node is ready, in its log and in a file; again when a child was restarted."""

    def __init__(self, config: Config, models: Mapping[str, Installed], path: Path) -> None:
        self._config = config
        self._models = models
        self._path = path
        self._told: dict[str, Any] = {"pid": os.getpid()}
        self._ports: dict[str, int] = {}
        self._made = False
        self._lock = threading.Lock()

    def door(self, pid: int, ports: dict[str, int]) -> None:
        """Take the ports of a door that was opened."""
        names = {"listening": "dicom_port", "http": "http_port"}
        self._ports = ports
        self._take({names[name]: port for name, port in ports.items()} | {"door_pid": pid})

    def fetcher(self, pid: int, _told: dict[str, Any]) -> None:
        """Take the process that asks archives."""
        self._take({"fetch_pid": pid})

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

    def _announce(self) -> None:
        models = (f"model {each.card.identity}" for each in self._models.values())
        sources = (f"asks {each.archive}" for each in self._config.sources)
        log.info(
            "ready: %s; data in %s; %s",
            "; ".join((_doors(self._config.door, self._ports), *sources)),
            self._config.data,
            ", ".join(models),
        )
        write_json(self._path, self._told)


def _children(config: Config, config_path: Path, told: Announcement) -> list[Child]:
    """Return the processes beside this one, in the order in which they are started."""
    where = {"config_path": config_path, "data": config.data}
    children = [Child("door", "app.door", **where, on_ready=told.door)]
    if config.sources or config.counted:
        children.append(Child("fetcher", "app.fetch", **where, on_ready=told.fetcher))
    return children


def _doors(door: Door, ports: Mapping[str, int]) -> str:
    """Say where studies may come in, and from whom."""
    peers = "open to EVERY calling AE title" if door.open else f"{len(door.peers)} peers"
    tls = "TLS" if door.tls else "no TLS"
    doors = [f"DICOM {door.host}:{ports['listening']} as {door.ae_title}, {peers}, {tls}"]
    if door.http is not None and "http" in ports:
        secured = "https" if door.http.tls else "http"
        doors.append(f"STOW-RS {secured}://{door.http.host}:{ports['http']}")
    return "; ".join(doors)


@contextmanager
def only_node_in(data: Path) -> Iterator[None]:
    """Hold the data folder's lock; a second node on the same folder would run every job twice."""
    fd = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise ConfigError(
            f"{data}: another node works in this folder; stop it or give this one its own `data`"
        ) from error
    try:
        yield
    finally:
        os.close(fd)
