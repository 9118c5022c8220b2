"""A real node in a process of its own, with everything it writes in one folder."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import requests
import yaml

from app.files import READY, read_json
from app.store.jobs import Job, State
from app.store.store import Store
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent

SETTINGS: dict[str, Any] = {
    "door": {"port": 0, "open": True, "limits": {"free_gb": 0}},
    "assemble": {"settle_s": 0.2, "quiet_s": 30},
    "jobs": {"lease_s": 5, "retry_delays_s": [0.5]},
    "archives": {"local": {"kind": "folder", "path": "archive", "accepts": ["seg"]}},
    "models": [{"name": "phantom", "folder": "phantom"}],
    "routes": [
        {
            "name": "phantom-ct",
            "model": "phantom",
            "inputs": {
                "CT": [
                    {"op": "equals", "tag": "Modality", "value": "CT"},
                    {"op": "between", "tag": "slices", "low": 10, "high": 2000},
                ]
            },
            "deliver_to": ["local"],
        }
    ],
}
"""A node that takes any free port and loses no time waiting."""


class Node:
    """One node; it can be started again on the same folder."""

    python, root = sys.executable, ROOT
    """Which program runs: this one, unless a test has installed another."""

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.data = folder / "data"
        self.config = folder / "app.yaml"
        self.log = folder / "node.log"
        folder.mkdir(parents=True, exist_ok=True)
        node = SETTINGS | {"data": str(self.data)} | dict(settings or {})
        self.config.write_text(yaml.safe_dump({"application": {"version": "0"}, "node": node}))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> Self:
        """Start it and wait until it is ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.python, "-m", "app", "serve", *self.named],
                cwd=self.root,
                env=os.environ | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._ready_or_ended, 60, "the node's start")
        assert self.process.poll() is None, self.log.read_text()
        return self

    @property
    def named(self) -> list[str]:
        """The options that name its configuration and its data."""
        return ["--config", str(self.config), "--data", str(self.data)]

    def _ready_or_ended(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None or (
            (self.data / READY).exists() and self.ready["pid"] == self.process.pid
        )

    @property
    def ready(self) -> dict[str, int]:
        """What the node says of itself."""
        ready: dict[str, int] = read_json(self.data / READY)
        return ready

    @property
    def port(self) -> int:
        """The DICOM port."""
        return self.ready["dicom_port"]

    def ask(self, path: str) -> requests.Response:
        """Ask the web port, which must answer at once."""
        return requests.get(f"http://127.0.0.1:{self.ready['web_port']}{path}", timeout=10)

    def part(self, name: str) -> dict[str, str]:
        """Return how a part is by `/readyz`."""
        told: dict[str, str] = self.ask("/readyz").json()["parts"][name]
        return told

    def becomes(self, name: str, state: str, words: str = "", timeout_s: float = 30) -> None:
        """Wait until a part is in this state and says this."""

        def so() -> bool:
            part = self.part(name)
            return part["state"] == state and words in part["says"]

        wait_until(so, timeout_s, f"{name} {state} {words!r}")

    def kill(self) -> None:
        """End the node's own process as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)

    def stop(self, timeout_s: float = 40) -> int:
        """Ask it to stop and return its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout_s)

    def end(self) -> None:
        """Leave nothing running."""
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop(10)
            except subprocess.TimeoutExpired:
                self.kill()

    @contextmanager
    def store(self) -> Iterator[Store]:
        """Open the job log."""
        store = Store.open(self.data / "node.db", migrate=False)
        try:
            yield store
        finally:
            store.close()

    def settled(self, number: int = 1, timeout_s: float = 90) -> list[Job]:
        """Wait until this many jobs have ended and return them, oldest first."""
        ended = {State.DONE, State.FAILED, State.CANCELLED, State.SUPERSEDED}
        with self.store() as store:

            def enough() -> list[Job]:
                jobs = store.jobs()
                return jobs if len(jobs) >= number and {j.state for j in jobs} <= ended else []

            jobs = wait_until(enough, timeout_s, f"the end of {number} jobs")
        return sorted(jobs, key=lambda job: job.created_at)

    def command(
        self, name: str, *arguments: str, check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Run one of the node's commands on the same folder, unless another one is given."""
        answer = python_m_app(name, *self.named, *arguments)
        assert answer.returncode == 0 or not check, answer.stdout + answer.stderr
        return answer


def python_m_app(*arguments: str, **environment: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run the program as a person would."""
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT,
        env=os.environ | {name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@contextmanager
def running(
    folder: Path, settings: Mapping[str, Any] | None = None, **environment: str
) -> Iterator[Node]:
    """Give a node that is ready, and leave nothing running."""
    node = Node(folder, settings)
    try:
        yield node.start(**environment)
    finally:
        node.end()
    assert "ended by itself" not in node.log.read_text(), "the graph was not told to end"
