"""Door and fetcher as the node sees them: child processes that are started, watched and ended.

A child says every second how it is. One that says nothing for a minute hangs: it is killed, and
started again as one that died.
"""

import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.errors import ConfigError
from app.workers.process import in_words

log = logging.getLogger(__name__)

OnReady = Callable[[int, dict[str, Any]], None]
"""Takes the child's process id and what it said of itself when it was ready."""

STOP_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Before a child that ended is started again: twice as long each time, unless it …"""
WELL_S = 60.0
"""… ran so long."""
HUNG_S = 60.0
"""After so long without a word it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """How a child is, as far as it said."""

    alive: bool = False
    starts: int = 0
    ended: str = ""
    """How the last process ended; empty while none has."""
    heard_at: float = 0.0
    """When it last said something, by the monotonic clock."""
    ages: Mapping[str, float] = field(default_factory=dict)
    """Seconds since each of its loops had last turned when it said so."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What happened since its start."""


class Child:
    """Keeps one process running until it is closed; `on_ready` is told of every start."""

    def __init__(
        self, name: str, module: str, *, config_path: Path, data: Path, on_ready: OnReady
    ) -> None:
        self.name = name
        self.vitals = Vitals()
        self._command = [
            *(sys.executable, "-m", module),
            *("--config", str(config_path), "--data", str(data)),
        ]
        self._on_ready = on_ready
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher = threading.Thread(target=self._watch, name=f"{name} watcher", daemon=True)

    def open(self) -> None:
        """Start it; ConfigError when it cannot do what it is told to."""
        if not self._start():
            raise ConfigError(f"the {self.name} did not start; its own message above says why")
        self._watcher.start()

    def close(self) -> None:
        """End it: what is in progress comes to an end, nothing new is begun."""
        self._closing.set()
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> bool:
        # It lives as long as its standard input is open: it ends with the node, however that ends.
        self._process = process = subprocess.Popen(  # noqa: S603  # our own module, no shell
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # what was read too much would be hidden from poll
            start_new_session=True,
        )
        assert process.stdout is not None  # noqa: S101  # for the type checker
        line = process.stdout.readline()
        if line:
            now, starts = time.monotonic(), self.vitals.starts + 1
            self._note(alive=True, starts=starts, heard_at=now, ages={}, counts={})
            threading.Thread(
                target=self._listen, args=(process,), name=f"{self.name} listener", daemon=True
            ).start()
            self._on_ready(process.pid, json.loads(line))
        return bool(line)

    def _listen(self, process: "subprocess.Popen[bytes]") -> None:
        """Take what it says; kill it when it says nothing for too long."""
        assert process.stdout is not None  # noqa: S101  # for the type checker
        said, heard = process.stdout.fileno(), b""
        poll = select.poll()
        poll.register(said, select.POLLIN)
        with process.stdout:
            while True:
                if not poll.poll(HUNG_S * 1000):
                    log.error("the %s hangs: no word for %g s; it is killed", self.name, HUNG_S)
                    process.kill()
                    continue
                chunk = os.read(said, 65536)
                if not chunk:
                    return
                *lines, heard = (heard + chunk).split(b"\n")
                for line in lines:
                    self._note(heard_at=time.monotonic(), **json.loads(line))

    def _note(self, **told: Any) -> None:
        with self._lock:
            self.vitals = replace(self.vitals, **told)

    def _watch(self) -> None:
        pause_s, began = FIRST_PAUSE_S, time.monotonic()
        while self._process is not None:
            code = self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._note(alive=False, ended=in_words(code))
            if self._closing.is_set():
                return
            if time.monotonic() - began > WELL_S:
                pause_s = FIRST_PAUSE_S
            log.error("the %s %s and is started again", self.name, in_words(code))
            while not self._closing.wait(pause_s) and not self._start():
                log.error("the %s did not start; trying again", self.name)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            pause_s, began = min(2 * pause_s, LONGEST_PAUSE_S), time.monotonic()
