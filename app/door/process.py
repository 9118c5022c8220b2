"""The door as the node sees it: a child process that is started, watched and ended."""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from app.errors import ConfigError

log = logging.getLogger(__name__)

OnOpen = Callable[[int, dict[str, int]], None]
"""Takes the door's process id and the ports it listens on: `listening`, perhaps `http`."""

STOP_S = 10.0
RESTART_PAUSE_S = 1.0


class DoorProcess:
    """Keeps one door running until it is closed; `on_open` is told of every opening."""

    def __init__(self, config_path: Path, data: Path, on_open: OnOpen) -> None:
        self._command = [
            *(sys.executable, "-m", "app.door"),
            *("--config", str(config_path), "--data", str(data)),
        ]
        self._on_open = on_open
        self._closing = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._watcher = threading.Thread(target=self._watch, name="door watcher", daemon=True)

    def open(self) -> None:
        """Start the door; ConfigError when it cannot listen where it is told to."""
        if not self._start():
            raise ConfigError("the door did not open; its own message above says why")
        self._watcher.start()

    def close(self) -> None:
        """End the door: associations in progress finish their object, new ones are refused."""
        self._closing.set()
        if self._child is None:
            return
        if self._child.stdin is not None:
            self._child.stdin.close()
        try:
            self._child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _start(self) -> bool:
        # The door lives as long as its standard input is open: it ends with the node, however
        # that ends.
        self._child = subprocess.Popen(  # noqa: S603  # our own module, no shell
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._child.stdout is not None  # noqa: S101  # for the type checker
        line = self._child.stdout.readline()
        if line:
            self._on_open(self._child.pid, json.loads(line))
        return bool(line)

    def _watch(self) -> None:
        while self._child is not None:
            code = self._child.wait()
            if self._closing.is_set():
                return
            log.error("the door ended with status %d and is started again", code)
            while not self._closing.wait(RESTART_PAUSE_S) and not self._start():
                log.error("the door did not open; trying again")
