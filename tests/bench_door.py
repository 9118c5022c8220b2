"""How fast slices come in, and what that costs: our door beside dcmtk's storescp and Orthanc.

`python -m tests.bench_door [--rounds N]`. All receivers get the same CT slices of 512×512 from the
same senders on the same machine, one after the other, each time with an empty folder: dcmtk's
storescu over one association (300 slices) and over eight at once (75 each), and one sender of our
own that measures how long each answer takes. Only our door has put a slice on stable storage when
it answers; storescp has not synced anything then, Orthanc not its index.

storescp gets TCP_NODELAY=1, without which it waits 40 ms for a delayed acknowledgement.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from app.dicom.part10 import header, read_part10
from tests.peers import Orthanc, find, free_port
from tests.phantoms.dicom import write_study
from tests.quick_scu import QuickScu
from tests.sockets.doors import Door
from tests.waiting import wait_until

ONE, MANY = 300, 8
EACH = 75
NODELAY = os.environ | {"TCP_NODELAY": "1"}
TICKS = os.sysconf("SC_CLK_TCK")
LOOK_S = 0.05
HEAD = ("receiver", "1 assoc", "8 assoc", "p50", "p99", "CPU", "memory")
UNITS = ("", "slices/s", "slices/s", "ms", "ms", "s for 600", "peak MB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One object to send."""

    path: Path
    sop_class: str
    sop_uid: str
    syntax: str
    dataset: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A receiver that listens."""

    pid: int
    port: int
    called: str = "MARGINALIA"


Receiver = Callable[[Path], AbstractContextManager[Running]]


@dataclass(slots=True)
class Figures:
    """What the rounds gave for one receiver."""

    one: list[float] = field(default_factory=list)
    many: list[float] = field(default_factory=list)
    answers_ms: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    rss_mb: float = 0.0


# -- receivers -----------------------------------------------------------------------------------


@contextmanager
def our_door(folder: Path) -> Iterator[Running]:
    """Run the real process with its real job log."""
    with Door(folder, limits={"free_gb": 0, "per_address": MANY + 1}) as door:
        door.start()
        yield Running(pid=door.pid, port=door.port)


def storescp(*options: str) -> Receiver:
    """Return how dcmtk's receiver is run."""

    @contextmanager
    def running(folder: Path) -> Iterator[Running]:
        port = free_port()
        call = [find("storescp") or "storescp", *options, "-od", str(folder), str(port)]
        with subprocess.Popen(call, env=NODELAY, stdout=subprocess.DEVNULL) as process:
            try:
                wait_until(lambda: _listens(port), what="storescp")
                yield Running(pid=process.pid, port=port)
            finally:
                process.terminate()

    return running


@contextmanager
def orthanc(folder: Path) -> Iterator[Running]:
    """Run Debian's Orthanc."""
    server = Orthanc(folder)
    with server:
        yield Running(pid=server.pid, port=server.dicom_port, called="ORTHANC")


RECEIVERS: dict[str, Receiver] = {
    "our door": our_door,
    "storescp": storescp("--fork"),
    "storescp +B": storescp("--fork", "--bit-preserving"),
    "Orthanc": orthanc,
}


def _listens(port: int) -> bool:
    table = Path("/proc/net/tcp").read_text(encoding="ascii") + Path("/proc/net/tcp6").read_text()
    return any(f":{port:04X} " in line and " 0A " in line for line in table.splitlines())


# -- senders -------------------------------------------------------------------------------------


def make_slices(folder: Path, number: int) -> list[Slice]:
    """Write slices that differ in their UIDs; their pixels are those of a few phantoms."""
    study = write_study(folder / "phantom", seed=1, shape=(512, 512), slices=4)
    found = [(path, read_part10(path)) for path in study.paths]
    made = []
    for each in range(number):
        path, info = found[each % len(found)]
        old = info.identifiers.sop_uid
        new = f"2.25.{10 ** (len(old) - 6) + each}"
        dataset = path.read_bytes()[info.dataset_at :].replace(old.encode(), new.encode())
        kind, syntax = info.identifiers.sop_class_uid, info.transfer_syntax
        target = folder / f"{each:04}.dcm"
        target.write_bytes(header(kind, new, syntax) + dataset)
        made.append(Slice(path=target, sop_class=kind, sop_uid=new, syntax=syntax, dataset=dataset))
    return made


def send_all(running: Running, parts: Sequence[Sequence[Slice]]) -> float:
    """Send each part over an association of its own, all at once; return slices a second."""
    names = ["-aet", "PEER", "-aec", running.called, "127.0.0.1", str(running.port)]
    began = time.perf_counter()
    senders = [
        subprocess.Popen(
            [find("storescu") or "storescu", "-R", *names, *(str(each.path) for each in part)],
            env=NODELAY,
        )
        for part in parts
    ]
    codes = [sender.wait() for sender in senders]
    took = time.perf_counter() - began
    assert codes == [0] * len(parts), codes
    return sum(map(len, parts)) / took


def measure_answers(running: Running, slices: Sequence[Slice]) -> list[float]:
    """Send over one association; return the milliseconds from first byte to answer."""
    took = []
    kinds = [(each.sop_class, each.syntax) for each in slices]
    with QuickScu(running.port, kinds, called=running.called) as scu:
        for each in slices:
            began = time.perf_counter()
            status = scu.store(each.sop_class, each.sop_uid, each.syntax, each.dataset)
            took.append((time.perf_counter() - began) * 1e3)
            assert status == 0, f"{status:04X}"
        scu.release()
    return took


# -- what it costs -------------------------------------------------------------------------------


class Cost:
    """Processor time and largest memory of a process and its children, inside the block."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self.peak_mb = 0.0
        self.cpu_s = 0.0

    def __enter__(self) -> Self:
        self._before = self._spent()
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watcher.join()
        self.cpu_s = self._spent() - self._before

    def _spent(self) -> float:
        """Its own time and that of children that ended and are waited for."""
        fields = Path(f"/proc/{self._pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
        return sum(map(int, fields.split()[11:15])) / TICKS

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            listed = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
            total = sum(map(_resident_mb, [self._pid, *map(int, listed)]))
            self.peak_mb = max(self.peak_mb, total)


def _resident_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


# -- the run -------------------------------------------------------------------------------------


def measure(receiver: Receiver, slices: Sequence[Slice], folder: Path, figures: Figures) -> None:
    """Run one round: three times an empty folder, three ways of sending."""
    with _fresh(receiver, folder) as running:
        figures.one.append(send_all(running, [slices[:ONE]]))
    with _fresh(receiver, folder) as running, Cost(running.pid) as cost:
        parts = [slices[at : at + EACH] for at in range(0, MANY * EACH, EACH)]
        figures.many.append(send_all(running, parts))
    figures.cpu_s.append(cost.cpu_s)
    figures.rss_mb = max(figures.rss_mb, cost.peak_mb)
    with _fresh(receiver, folder) as running:
        figures.answers_ms += measure_answers(running, slices[:ONE])


@contextmanager
def _fresh(receiver: Receiver, above: Path) -> Iterator[Running]:
    """Run a receiver with a folder of its own.

    What it wrote is cut off afterwards, so that what was never synced does not burden the next
    one. The files stay until the end: ext4 looks for free inodes among those deleted lately, and
    that would cost the next one more than all the rest.
    """
    folder = Path(tempfile.mkdtemp(dir=above))
    with receiver(folder) as running:
        yield running
    for path in folder.rglob("*"):
        if path.is_file():
            os.truncate(path, 0)


def table(found: dict[str, Figures]) -> Iterator[str]:
    """Yield the lines of the result."""
    for head in (HEAD, UNITS):
        first, *others = head
        yield f"{first:12}" + "".join(f"{word:>10}" for word in others)
    for name, each in found.items():
        answers = statistics.quantiles(each.answers_ms, n=100)
        yield (
            f"{name:12}{statistics.median(each.one):10.0f}{statistics.median(each.many):10.0f}"
            f"{answers[49]:10.2f}{answers[98]:10.2f}{statistics.median(each.cpu_s):10.2f}"
            f"{each.rss_mb:10.0f}"
        )
    ours = found["our door"]
    for name, each in found.items():
        if each is not ours:
            one = statistics.median(ours.one) / statistics.median(each.one)
            many = statistics.median(ours.many) / statistics.median(each.many)
            yield f"ours / {name}: {one:.2f} × at one association, {many:.2f} × at eight"


def main(argv: list[str] | None = None) -> int:
    """Print the table; 2 when a peer is not installed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench_door", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often; the median counts")
    parser.add_argument("--only", nargs="*", default=[*RECEIVERS], choices=[*RECEIVERS])
    args = parser.parse_args(argv)
    missing = [tool for tool in ("storescu", "storescp", "Orthanc") if find(tool) is None]
    if missing:
        sys.stderr.write(f"not installed: {', '.join(missing)}\n")
        return 2
    found = {name: Figures() for name in args.only}
    with tempfile.TemporaryDirectory(prefix="bench-door-") as folder:
        slices = make_slices(Path(folder), MANY * EACH)
        for _ in range(args.rounds):  # in turns, so that what else runs here burdens all alike
            for name, figures in found.items():
                measure(RECEIVERS[name], slices, Path(folder), figures)
    sys.stdout.write("\n".join(table(found)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
