"""Watches every part of the running node and serves what it sees."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from app.children import Child
from app.config import Config
from app.config_web import Web
from app.connect import ask_archive
from app.fetch.status import read_status
from app.installed import Crew, Installed
from app.store.delivery import UNDER_WAY
from app.store.store import Store
from app.web.looks import (
    GIGABYTE,
    Disk,
    Loop,
    look_at_archive,
    look_at_child,
    look_at_loop,
    look_at_worker,
)
from app.web.numbers import Numbers, Sources
from app.web.part import Board, Look, Part
from app.web.probe import PATIENCE_S, Probe
from app.web.server import WebPort
from app.workers import Worker

LOCK_S = 3.0
"""How long the job log may be locked by others before it is failing."""
LOST_S = 60.0
"""After a stall so long the main loop is held to be lost: starting again helps."""
LOOK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What is looked at."""

    config: Config
    store: Store
    models: Mapping[str, Installed]
    crew: Crew
    children: Sequence[Child]
    loop: Loop
    away: Callable[[], Mapping[str, str]]
    """Destinations that couriers hold to be away, with the reason."""


class Watch:
    """The parts of the node, their probes, and the port that tells of them."""

    def __init__(self, web: Web, watched: Watched, version: str) -> None:
        self._watched = watched
        self._backlog: Mapping[str, str] = {}
        self._stopping = threading.Event()
        config = watched.config
        self._disk = Disk(config.data, config.door.limits.free_gb)
        self._archives = {
            name: Probe(f"archive {name}", partial(self._ask, name), web.probe_s)
            for name in config.archives
        }
        database = Probe("database", self._try_log, web.probe_s)
        disk = Probe("disk", self._disk.ask, web.probe_s)
        self._probes = [database, disk, *self._archives.values()]
        self._board = Board(
            [*self._own_parts(database, disk), *self._archive_parts()],
            quiet=lambda: watched.loop.stopping,
        )
        self._port = WebPort(
            web,
            lives=self._lives,
            report=self._board.look,
            metrics=Numbers(self._sources(version), watched.store).text,
        )

    def open(self) -> int:
        """Begin to watch and to serve; return the port."""
        for probe in self._probes:
            probe.open()
        threading.Thread(target=self._keep_looking, name="watch", daemon=True).start()
        return self._port.open()

    def close(self) -> None:
        """End; what hangs is left behind."""
        self._stopping.set()
        for probe in self._probes:
            probe.close()
        self._port.close()

    def _keep_looking(self) -> None:
        """Look also when nobody asks, so that it is known since when something fails."""
        while not self._stopping.wait(LOOK_S):
            self._board.look()

    def _lives(self) -> str:
        """Return what a new start would help against; empty while the node lives."""
        stalled_s = time.monotonic() - self._watched.loop.turned_at
        return f"the main loop has stood for {stalled_s:.0f} s" if stalled_s > LOST_S else ""

    # -- the parts ---------------------------------------------------------------------------

    def _own_parts(self, database: Probe, disk: Probe) -> list[Part]:
        watched = self._watched
        children = [
            Part(
                name=child.name,
                essential=child.name == "door",
                look=partial(_look_at_child, child),
            )
            for child in watched.children
        ]
        workers = [
            Part(
                name=name,
                essential=True,
                look=partial(_look_at_worker, worker),
            )
            for name, worker in watched.crew.by_name.items()
        ]
        return [
            Part(name="graph", essential=True, look=partial(look_at_loop, watched.loop)),
            *children,
            *workers,
            Part(name="database", essential=True, look=database.look),
            Part(name="disk", essential=True, look=disk.look),
        ]

    def _archive_parts(self) -> list[Part]:
        return [
            Part(
                name=f"archive {name}",
                essential=False,
                look=partial(self._look_at_archive, name, probe),
            )
            for name, probe in self._archives.items()
        ]

    def _look_at_archive(self, name: str, probe: Probe) -> Look:
        return look_at_archive(probe.look(), name, self._backlog, self._watched.away())

    # -- what is asked in threads ------------------------------------------------------------

    def _ask(self, name: str) -> str:
        config = self._watched.config
        told = [ask_archive(config, name, PATIENCE_S)]
        if any(source.archive == name for source in config.sources):
            status = read_status(config.data, name)
            told += [f"last listed {status.polled_at}"] if status.polled_at else []
            told += [f"the fetcher says: {status.error}"] if status.error else []
        return "; ".join(told)

    def _try_log(self) -> str:
        store = self._watched.store
        store.probe(LOCK_S)
        figures = store.figures(datetime.now(UTC))
        waiting: dict[str, int] = {}
        for (destination, state), number in figures.deliveries.items():
            if state in UNDER_WAY:
                waiting[destination] = waiting.get(destination, 0) + number
        self._backlog = {
            name: f"{number} deliveries are under way, the oldest since"
            f" {figures.unproved_since[name]:%Y-%m-%d %H:%M:%S} UTC"
            for name, number in waiting.items()
            if name in figures.unproved_since
        }
        return "can be read and written"

    # -- the numbers -------------------------------------------------------------------------

    def _sources(self, version: str) -> Sources:
        watched = self._watched
        return Sources(
            version=version,
            models={name: each.card.identity for name, each in watched.models.items()},
            routes=tuple(route.name for route in watched.config.routes),
            destinations=tuple(watched.config.archives),
            report=self._board.look,
            children=lambda: {child.name: child.vitals for child in watched.children},
            workers=lambda: {n: each.condition for n, each in watched.crew.by_name.items()},
            usage=watched.crew.usage,
            free_bytes=lambda: self._disk.free_bytes,
            least_free_bytes=watched.config.door.limits.free_gb * GIGABYTE,
            answer_seconds=lambda: {name: each.seconds for name, each in self._archives.items()},
            clock=time.monotonic,
        )


def _look_at_child(child: Child) -> Look:
    return look_at_child(child.vitals)


def _look_at_worker(worker: Worker) -> Look:
    return look_at_worker(worker.condition)
