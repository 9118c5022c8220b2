"""What the processes that the node starts have in common: arguments, readiness, their end.

They print one JSON line on standard output when they are ready and one every second from then on,
so that one that is stopped or hangs is noticed. They end on SIGTERM, on SIGINT, and when the pipe
that the node holds as their standard input is closed.
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
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from app.errors import ConfigError, NodeError
from app.log import set_up

log = logging.getLogger(__name__)

STDIN, STDOUT = 0, 1
BEAT_S = 1.0
M_ARENA_MAX = -8  # malloc.h

Serve = Callable[[Path, Path, threading.Event], None]
"""Takes app.yaml, the data folder and the event on which to end."""

Pulse = Callable[[], Mapping[str, Any]]
"""Returns what a process says of itself every second: `ages`, seconds since each of its loops last
turned, and `counts`, what happened since its start."""


def run(module: str, words: str, serve: Serve, argv: list[str] | None = None) -> int:
    """Serve until told to stop; 0 after a clean stop, 2 when it could not begin or go on."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=words)
    parser.add_argument("--config", type=Path, required=True, help="the site's app.yaml")
    parser.add_argument("--data", type=Path, required=True, help="the node's data folder")
    args = parser.parse_args(argv)
    _keep_memory_together()
    try:
        set_up(stream=sys.stderr)
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        threading.excepthook = _note_thread
        serve(args.config, args.data, _stop_event())
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
    except (NodeError, OSError) as error:
        log.error("%s ends: %s", module, error)  # noqa: TRY400  # a sentence will do
    else:
        return 0
    return 2


def ready(told: Mapping[str, Any], pulse: Pulse) -> None:
    """Tell the node that the process does its work now, and from then on how it is."""
    _tell(told)
    threading.Thread(target=_beat, args=(pulse,), name="beat", daemon=True).start()


def _beat(pulse: Pulse) -> None:
    pause = threading.Event()
    with suppress(OSError):  # nobody listens any more
        while not pause.wait(BEAT_S):
            _tell(pulse())


def _tell(told: Mapping[str, Any]) -> None:
    # past the buffer of sys.stdout, whose lock a full pipe would keep from everybody
    line = json.dumps(told).encode() + b"\n"
    while line:
        line = line[os.write(STDOUT, line) :]


def leave(code: int) -> NoReturn:
    """End at once: threads that wait for a silent peer would hold the process."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


def _stop_event() -> threading.Event:
    """Return what is set when the process is to end.

    No handler of Python's sets it: that runs in the main thread once it wakes up, which a signal
    taken by another thread does not do, and while the main thread may hold the event's own lock.
    What C writes to the pipe at that moment is read by a thread of ours.
    """
    stop = threading.Event()
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    # the parent may have blocked them before it started us
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    mode = os.fstat(STDIN).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        threading.Thread(target=_await_end_of_input, args=(tell,), daemon=True).start()
    threading.Thread(target=_await_word, args=(told, stop), daemon=True).start()
    return stop


def _await_word(told: int, stop: threading.Event) -> None:
    os.read(told, 1)
    stop.set()


def _await_end_of_input(tell: int) -> None:
    while os.read(STDIN, 1024):
        pass
    os.write(tell, b"\0")


def _keep_memory_together() -> None:
    """Let all threads share two heaps; each of glibc's sixteen keeps what a crowd once took."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def _note_thread(args: threading.ExceptHookArgs) -> None:
    """Write one line where Python would print a traceback with what a peer sent."""
    log.error("a thread ended by %s", args.exc_type.__name__)
