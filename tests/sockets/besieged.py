"""A door under attack: any settings, and what it costs the machine to stand."""

import contextlib
import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import yaml

from tests.sockets.doors import Door
from tests.sockets.hostile import Peer, dataset
from tests.waiting import wait_until

OURS = re.compile(
    r"(spool|quarantine)(/[0-9a-z_.-]+)*|node\.db(-wal|-shm|-journal)?|lock|[0-9a-z_-]+\.reserve"
)
"""What may lie in the data folder: names that we gave."""


class Besieged(Door):
    """A door in a process of its own, with any `door:` settings, and what it costs the machine."""

    def __init__(self, folder: Path, data: Path | None = None, **settings: Any) -> None:
        super().__init__(folder)
        if data is not None:
            self._move_to(data)
        written = yaml.safe_load(self._config.read_text(encoding="utf-8"))
        door: dict[str, Any] = {"port": 0, "open": True, "limits": {"free_gb": 0}}
        if "peers" in settings:
            del door["open"]
        door["limits"] |= settings.pop("limits", {})
        written["node"]["door"] = door | settings
        self._config.write_text(yaml.safe_dump(written), encoding="utf-8")
        self.http_port = 0

    def _move_to(self, data: Path) -> None:
        self.store.close()
        self.data = data
        self.store = type(self.store).open(data / "node.db")

    def start(self, **environment: str) -> Self:
        """Start it and wait until it listens."""
        self.launch(**environment)
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.output()
        said = json.loads(line)
        self.port, self.http_port = said["listening"], said.get("http", 0)
        return self

    def peer(self, source: str = "127.0.0.1") -> Peer:
        """Connect."""
        return Peer(self.port, source)

    def echo_s(self, source: str = "127.0.0.1") -> float:
        """Be an honest peer: associate, C-ECHO, release; return how long it took."""
        began = time.monotonic()
        with self.peer(source) as peer:
            assert peer.associate(calling=b"HONEST").echo() == 0
            peer.release()
        return time.monotonic() - began

    def store_s(self, source: str = "127.0.0.1") -> float:
        """Be an honest sender of one new object; return how long it took."""
        began = time.monotonic()
        uid = f"2.25.{time.time_ns()}"
        with self.peer(source) as peer:
            assert peer.associate(calling=b"HONEST").store(dataset(uid, f"{uid}.1"), uid) == 0
            peer.release()
        return time.monotonic() - began

    def check_alive(self) -> None:
        """It runs, and serves an honest peer at once."""
        assert self.process is not None
        assert self.process.poll() is None, self.output()[-2000:]
        assert self.echo_s() < 2

    def memory_mb(self, what: str = "VmRSS") -> float:
        """Return resident memory now, or its peak (VmHWM)."""
        return self._status(what) / 1024

    def forget_peak(self) -> None:
        """Let the peak of its memory begin anew (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")

    def threads(self) -> int:
        """Return how many threads it has."""
        return self._status("Threads")

    def descriptors(self) -> int:
        """Return how many files and connections it has open, the job log's pool left out."""
        opened = []
        for each in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed in the meantime
                opened.append(str(each.readlink()))
        return len([name for name in opened if "/node.db" not in name])

    def _status(self, key: str) -> int:
        text = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        [(number,)] = [re.findall(r"\d+", line) for line in text.splitlines() if key in line]
        return int(number)

    def lines(self) -> list[dict[str, Any]]:
        """Return its log; each line must be one JSON object without anything a terminal obeys."""
        raw = self.output_path.read_bytes()
        assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f-\xff]", raw), raw[-500:]
        return [json.loads(line) for line in raw.decode("ascii").splitlines()]

    def check_integrity(self) -> None:
        """The job log is whole, every row has its file, and every name is one of ours."""
        with contextlib.closing(sqlite3.connect(self.data / "node.db")) as log:
            assert log.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            files = [file for (file,) in log.execute("SELECT file FROM instances")]
        assert [file for file in files if not (self.data / file).is_file()] == []
        assert self.strange_names() == []

    def strange_names(self) -> list[str]:
        """Return what lies in the data folder under a name that is none of ours."""
        names = (str(path.relative_to(self.data)) for path in self.data.rglob("*"))
        return [name for name in names if not OURS.fullmatch(name)]

    def partial(self) -> list[Path]:
        """Return files whose writing never ended."""
        return [*self.data.rglob("*.part")]


@contextmanager
def back_to_base(door: Besieged, within_s: float = 10, slack: int = 0) -> Iterator[None]:
    """Whatever happens inside the block, threads and connections are given back afterwards."""
    before = door.threads(), door.descriptors()
    yield
    wait_until(
        lambda: door.threads() <= before[0] + slack and door.descriptors() <= before[1] + slack,
        within_s,
        f"the return of {door.threads()} threads, {door.descriptors()} descriptors to {before}",
    )


def snapshot(folder: Path, *without: Path) -> dict[str, tuple[int, int, int]]:
    """Return what lies in a folder, with modes, sizes and times."""
    found = {}
    for path in folder.rglob("*"):
        if not any(path.is_relative_to(each) for each in without):
            facts = path.lstat()
            found[str(path)] = (facts.st_mode, facts.st_size, facts.st_mtime_ns)
    return found
