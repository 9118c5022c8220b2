"""Door and fetcher as the node sees them: child processes that are started, watched and ended."""

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.errors import ConfigError

log = logging.getLogger(__name__)

OnReady = Callable[[int, dict[str, Any]], None]
"""Takes the child's process id and what it said of itself when it was ready."""

STOP_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Before a child that ended is started again: twice as long each time, unless it …"""
WELL_S = 60.0
"""… ran so long."""


class Child:
    """Keeps one process running until it is closed; `on_ready` is told of every start."""

    def __init__(
        self, name: str, module: str, *, config_path: Path, data: Path, on_ready: OnReady
    ) -> None:
        self._name = name
        self._command = [
            *(sys.executable, "-m", module),
            *("--config", str(config_path), "--data", str(data)),
        ]
        self._on_ready = on_ready
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher = threading.Thread(target=self._watch, name=f"{name} watcher", daemon=True)

    def open(self) -> None:
        """Start it; ConfigError when it cannot do what it is told to."""
        if not self._start():
            raise ConfigError(f"the {self._name} did not start; its own message above says why")
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
        self._process = subprocess.Popen(  # noqa: S603  # our own module, no shell
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None  # noqa: S101  # for the type checker
        line = self._process.stdout.readline()
        if line:
            self._on_ready(self._process.pid, json.loads(line))
        return bool(line)

    def _watch(self) -> None:
        pause_s, began = FIRST_PAUSE_S, time.monotonic()
        while self._process is not None:
            code = self._process.wait()
            if self._closing.is_set():
                return
            if time.monotonic() - began > WELL_S:
                pause_s = FIRST_PAUSE_S
            log.error("the %s ended with status %d and is started again", self._name, code)
            while not self._closing.wait(pause_s) and not self._start():
                log.error("the %s did not start; trying again", self._name)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            pause_s, began = min(2 * pause_s, LONGEST_PAUSE_S), time.monotonic()
