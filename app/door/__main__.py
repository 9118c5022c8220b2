"""The door as a process: `python -m app.door --config app.yaml --data FOLDER`.

Prints one JSON line, `{"listening": port}`, when it takes associations, with `"http": port` if it
has an HTTP door too. Ends on SIGTERM, on SIGINT, and when the pipe that its parent holds as our
standard input is closed.
"""

import argparse
import ctypes
import json
import logging
import os
import signal
import stat
import sys
import threading
import warnings
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

from app.config import load_config
from app.config_door import Http
from app.dicom.dimse import silence_pynetdicom
from app.door.intake import Intake
from app.door.scp import Scp
from app.errors import ConfigError, NodeError
from app.log import set_up
from app.pipeline.receive import prepare
from app.store.store import Store

log = logging.getLogger(__name__)

GRACE_S = 5.0
STDIN = 0
M_ARENA_MAX = -8  # malloc.h


def main(argv: list[str] | None = None) -> int:
    """Listen until told to stop; 0 after a clean stop, 2 when it could not listen."""
    parser = argparse.ArgumentParser(prog="python -m app.door", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the site's app.yaml")
    parser.add_argument("--data", type=Path, required=True, help="the node's data folder")
    args = parser.parse_args(argv)
    _keep_memory_together()
    try:
        set_up(stream=sys.stderr)
        silence_pynetdicom()
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        threading.excepthook = _note_thread
        return _serve(args.config, args.data)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
    except (NodeError, OSError) as error:
        log.error("the door does not open: %s", error)  # noqa: TRY400  # a sentence will do
    return 2


def _serve(config: Path, data: Path) -> int:
    stop = _stop_event()
    door = load_config(config).door
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
            servers["http"] = _web(door.http, intake, store)
        stack.callback(_close, servers.values())
        ports = {name: server.open() for name, server in servers.items()}
        sys.stdout.write(json.dumps(ports) + "\n")
        sys.stdout.flush()
        stop.wait()
    return 0


class Server(Protocol):
    """One of the door's ports."""

    def open(self) -> int:
        """Listen; return the port."""

    def close(self, grace_s: float) -> None:
        """Let what is on its way come to its end."""


def _close(servers: Iterable[Server]) -> None:
    """Close all at once, so that their times of grace do not add up."""
    closing = [threading.Thread(target=each.close, args=(GRACE_S,)) for each in servers]
    for each in closing:
        each.start()
    for each in closing:
        each.join()


def _web(http: Http, intake: Intake, store: Store) -> Server:
    from app.door.web import WebServer  # noqa: PLC0415  # a door without it loads no web server

    # no archive can be asked yet
    return WebServer(http, intake.limits, intake=intake, store=store, sources=())


def _stop_event() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    # the parent may have blocked them before it started us
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    mode = os.fstat(STDIN).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        threading.Thread(target=_await_end_of_input, args=(stop,), daemon=True).start()
    return stop


def _await_end_of_input(stop: threading.Event) -> None:
    while os.read(STDIN, 1024):
        pass
    stop.set()


def _keep_memory_together() -> None:
    """Let all threads share two heaps; each of glibc's sixteen keeps what a crowd once took."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def _note_thread(args: threading.ExceptHookArgs) -> None:
    """Write one line where Python would print a traceback with what a peer sent."""
    log.error("a thread of the door ended by %s", args.exc_type.__name__)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)  # threads that wait for a silent peer would hold the process
