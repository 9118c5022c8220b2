"""A real fetcher in a process of its own, with a data folder and a job log, for tests."""

import json
from pathlib import Path
from typing import Any

import yaml

from app.fetch.status import SourceStatus, read_status
from app.pipeline.receive import prepare
from app.store.jobs import RemoteState, RemoteStudy
from app.store.store import Store
from tests.asked_archive import AskedArchive
from tests.sockets.doors import NODE, Door
from tests.waiting import wait_until

ROUTE = {
    "name": "phantom-ct",
    "model": "phantom",
    "inputs": {
        "CT": [
            {"op": "equals", "tag": "Modality", "value": "CT"},
            {"op": "between", "tag": "slices", "low": 3, "high": 2000},
        ]
    },
    "deliver_to": ["pacs"],
}
SOURCE = {"archive": "pacs", "poll_s": 1, "quiet_s": 0}


class Fetcher(Door):
    """One fetcher that asks one archive, which it calls `pacs`."""

    MODULE = "app.fetch"

    def __init__(
        self,
        folder: Path,
        archive: AskedArchive,
        *,
        source: dict[str, Any] | None = None,
        timeout_s: float = 5,
        **settings: Any,
    ) -> None:
        self.data = folder / "data"
        self.output_path = folder / "output.txt"
        self._config = folder / "app.yaml"
        node = {
            "door": {"port": 0, "open": True, "limits": {"free_gb": 0}},
            "archives": {"pacs": {"kind": "dicomweb", "url": archive.url, "timeout_s": timeout_s}},
            "jobs": {"retry_delays_s": [0.2]},
            "routes": [ROUTE],
            "sources": [SOURCE | (source or {})],
        }
        self._config.write_text(yaml.safe_dump({"node": NODE | node | settings}), encoding="utf-8")
        self.store = Store.open(self.data / "node.db")  # the node makes the tables
        prepare(self.data)  # the door makes the folders
        self.process = None

    def remote(self, study_uid: str) -> RemoteStudy | None:
        """Return what is known of a study in the archive."""
        return next(iter(self.store.remotes(study_uid)), None)

    def reaches(self, study_uid: str, state: RemoteState, timeout_s: float = 30) -> RemoteStudy:
        """Wait until a study has come to a state."""

        def reached() -> RemoteStudy | None:
            found = self.remote(study_uid)
            return found if found and found.state is state else None

        found = wait_until(reached, timeout_s, f"{state}; {self.remote(study_uid)}")
        assert found is not None
        return found

    def states(self) -> dict[str, int]:
        """Return how many studies are in which state."""
        return {str(state): n for state, n in self.store.remote_counts().get("pacs", {}).items()}

    def status(self) -> SourceStatus:
        """Return how the source fares."""
        return read_status(self.data, "pacs")

    def polls(self, number: int = 1, timeout_s: float = 30) -> None:
        """Wait until the archive has been listed so many times more."""
        for _ in range(number):
            before = self.status().polls
            wait_until(lambda: self.status().polls > before, timeout_s, "a list")  # noqa: B023

    def peak_mb(self) -> float:
        """Return the most memory that it ever had."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1000

    def sop_uids(self, study_uid: str) -> set[str]:
        """Return the objects of a study that are here."""
        return {row.sop_uid for row in self.store.instances(study_uid)}

    def trace(self, study_uid: str) -> str:
        """Return the stored trace as text."""
        return json.dumps(self.store.remote_trace("pacs", study_uid))
