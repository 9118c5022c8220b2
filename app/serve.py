"""The resident composition: door, job log, workers and graph, until told to stop."""

import fcntl
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.config import Config
from app.config_door import Door
from app.door.process import DoorProcess
from app.errors import ConfigError
from app.files import make_folder, write_json
from app.installed import install, start_crew
from app.node import Node
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
        crew = start_crew(config)
        stack.callback(crew.stop)
        node = Node(config, store, models=models, crew=crew)

        def tell(door_pid: int, ports: dict[str, int]) -> None:
            log.info(
                "ready: %s; data in %s; %s",
                _doors(config.door, ports),
                config.data,
                ", ".join(f"model {each.card.identity}" for each in models.values()),
            )
            names = {"listening": "dicom_port", "http": "http_port"}
            told = {names[name]: port for name, port in ports.items()}
            write_json(ready, {"pid": os.getpid(), "door_pid": door_pid} | told)

        door = DoorProcess(config_path, config.data, tell)
        stack.callback(ready.unlink, missing_ok=True)
        stack.callback(door.close)
        door.open()

        def stop() -> None:
            log.info("stopping: the door closes, running jobs finish or are handed back")
            threading.Thread(target=door.close, name="door closing").start()
            node.stop()

        on_stop(stop)
        node.run(done=lambda: False)
    log.info("stopped")
    return 0


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
