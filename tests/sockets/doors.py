"""A real door in a process of its own, with a data folder and a job log, for tests."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import yaml

from app.store.jobs import InstanceRow
from app.store.store import Store
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
NODE: dict[str, Any] = {
    "archives": {"local": {"kind": "folder", "path": "archive"}},
    "models": [{"name": "phantom", "folder": "phantom"}],
    "routes": [
        {
            "name": "phantom-ct",
            "model": "phantom",
            "inputs": {"CT": [{"op": "equals", "tag": "Modality", "value": "CT"}]},
            "deliver_to": ["local"],
        }
    ],
}


class Door:
    """One door, open unless peers are given; `output` collects all that it ever wrote."""

    MODULE = "app.door"

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.data = folder / "data"
        self.output_path = folder / "output.txt"
        self._config = folder / "app.yaml"
        door = {"port": 0, "open": "peers" not in settings} | settings
        self._config.write_text(yaml.safe_dump({"node": NODE | {"door": door}}), encoding="utf-8")
        self.store = Store.open(self.data / "node.db")  # the node makes the tables
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.store.close()

    def start(self, **environment: str) -> Self:
        """Start it and wait until it listens."""
        self.launch(**environment)
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.output()
        self.port = json.loads(line).get("listening", 0)
        return self

    def launch(self, **environment: str) -> "subprocess.Popen[bytes]":
        """Start it without waiting for anything."""
        call = [sys.executable, "-m", self.MODULE]
        with self.output_path.open("ab") as output:
            self.process = subprocess.Popen(
                [*call, "--config", str(self._config), "--data", str(self.data)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=ROOT,
                env=os.environ | environment,
            )
        return self.process

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """End it as a power cut ends it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.wait()

    def wait(self, timeout_s: float = 20) -> int:
        """Wait for its end and return its status."""
        assert self.process is not None
        code = self.process.wait(timeout_s)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        return code

    def output(self) -> str:
        """Return all that it wrote so far, except the line with its port."""
        return self.output_path.read_text(encoding="utf-8")

    def said(self, words: str) -> None:
        """Wait until its log has these words."""
        wait_until(lambda: words in self.output(), 10, f"{words!r} in the log")

    def rows(self, study_uid: str) -> list[InstanceRow]:
        """Return what the job log has of a study."""
        return self.store.instances(study_uid)

    def spooled(self) -> list[Path]:
        """Return all files of the spool, whole or not."""
        return [path for path in (self.data / "spool").glob("*/*") if path.is_file()]

    def quarantined(self) -> list[Path]:
        """Return all files in quarantine."""
        return [*(self.data / "quarantine").iterdir()]

    @contextmanager
    def disk_full_beyond(self, size: int) -> Iterator[None]:
        """Let no file of its process grow beyond `size` inside the block."""
        before = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, before)

    def connect(self) -> socket.socket:
        """Open a bare TCP connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)
