"""The door as a process: `python -m app.door --config app.yaml --data FOLDER`.

Prints one JSON line, `{"listening": port}`, when it takes associations, with `"http": port` if it
has an HTTP door too; then one each second: how long ago each port was ready for the next visitor,
and what came in. Ends on SIGTERM, on SIGINT, and when the pipe that its parent holds as our
standard input is closed.
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from app.child import leave, ready, run
from app.config import Config, load_config
from app.config_door import Http
from app.dicom.dimse import silence_pynetdicom
from app.door.intake import Intake
from app.door.scp import Scp
from app.pipeline.receive import prepare
from app.store.store import Store

log = logging.getLogger(__name__)

GRACE_S = 5.0


def main(argv: list[str] | None = None) -> int:
    """Listen until told to stop; 0 after a clean stop, 2 when it could not listen."""
    return run("app.door", __doc__ or "", _serve, argv)


def _serve(config: Path, data: Path, stop: threading.Event) -> None:
    silence_pynetdicom()
    node = load_config(config)
    door = node.door
    if door.open:
        log.warning("the door is OPEN: every calling AE title is let in, from every address")
    prepare(data)
    with ExitStack() as stack:
        store = Store.open(data / "node.db", migrate=False)
        stack.callback(store.close)
        intake = Intake(data, store, door.limits)
        stack.callback(intake.close)
        adopted = intake.adopt_orphans()
        if adopted:
            log.warning("%d objects of an earlier process were noted now", adopted)
        servers: dict[str, Server] = {"listening": Scp(door, intake, store)}
        if door.http is not None:
            servers["http"] = _web(node, door.http, intake, store)
        stack.callback(_close, servers.values())
        ready(
            {name: server.open() for name, server in servers.items()},
            lambda: {"ages": _ages(servers), "counts": intake.tally.counts()},
        )
        stop.wait()


class Server(Protocol):
    """One of the door's ports."""

    @property
    def turned_at(self) -> float:
        """When it was last ready for the next visitor, by the monotonic clock."""

    def open(self) -> int:
        """Listen; return the port."""

    def close(self, grace_s: float) -> None:
        """Let what is on its way come to its end."""


def _ages(servers: Mapping[str, Server]) -> dict[str, float]:
    now = time.monotonic()
    return {name: round(now - server.turned_at, 1) for name, server in servers.items()}


def _close(servers: Iterable[Server]) -> None:
    """Close all at once, so that their times of grace do not add up."""
    closing = [threading.Thread(target=each.close, args=(GRACE_S,)) for each in servers]
    for each in closing:
        each.start()
    for each in closing:
        each.join()


def _web(node: Config, http: Http, intake: Intake, store: Store) -> Server:
    from app.door.web import WebServer  # noqa: PLC0415  # a door without it loads no web server

    sources = [each.archive for each in node.sources]
    return WebServer(http, intake.limits, intake=intake, store=store, sources=sources)


if __name__ == "__main__":
    leave(main())
