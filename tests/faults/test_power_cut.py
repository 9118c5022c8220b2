"""The power fails right after an acknowledgement, at random moments, on a disk of its own.

The door's data folder lies on a small ext4 image that the kernel writes back only when it must
(`commit=600`). At a cut the door is stopped, the image is copied as the device has it, without any
sync, and the copy is mounted: its journal is replayed as after a power cut.

Covered: each object that was acknowledged, over C-STORE or STOW-RS, is there with its bytes and its
row, the job log is whole, nothing partial has a name; a door that does not sync would be found out.
Not covered: what a disk forgets although it said that it had been flushed, and cuts within
one system call (the door is stopped between two).
"""

import hashlib
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import requests
from pysqlite3 import dbapi2  # type: ignore[import-untyped]  # ships no types

from app.dicom.part10 import dataset_sha256
from app.errors import UnreadableDicom
from app.pipeline.receive import read_spooled
from app.store.store import Store
from tests.quick_scu import ENDED, QuickScu
from tests.sockets.doors import ROOT
from tests.sockets.scu import Made, image, new_study
from tests.sockets.stows import StowDoor
from tests.waiting import wait_until

IMAGE_MB = 128
CUTS = 20
SENDERS = 3
MOST_BETWEEN = 25
"""How many objects are acknowledged at most before a cut."""
SPARE = 2 * SENDERS
"""How many more may be on their way then: enough that nobody waits for us."""
SIZES = (256, 2048, 20 * 1024, 300 * 1024)

CARELESS = {
    # direct writes would hide it: they need no sync of their own, only their names do, and those
    # ext4 takes along when the job log is synced
    "files": "import os\nos.O_DIRECT = 0\nos.fsync = os.fdatasync = lambda fd: None\n",
    "rows": """
from app.store import engine
engine.SETTINGS = (*engine.SETTINGS, "PRAGMA synchronous = OFF")
""",
}
"""What a door does not sync → what Python reads at its start so that it does not."""


def run(*call: str) -> None:
    """Run a program that must succeed."""
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(call)}: {done.stderr}"


@contextmanager
def mounted(file: Path, folder: Path, options: str = "loop") -> Iterator[Path]:
    """Mount an image; it is unmounted at the end whatever happens."""
    folder.mkdir()
    run("mount", "-t", "ext4", "-o", options, str(file), str(folder))
    try:
        yield folder
    finally:
        if subprocess.run(["umount", folder], capture_output=True, check=False).returncode:
            run("umount", "--lazy", str(folder))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """An image and where it is mounted; skipped where nobody may mount."""
    if os.geteuid() != 0:
        pytest.skip("mounting an image needs root")
    file = tmp_path / "disk.img"
    with file.open("wb") as image_file:
        image_file.truncate(IMAGE_MB << 20)
    with ExitStack() as stack:
        try:
            run("mkfs.ext4", "-q", "-F", str(file))
            folder = stack.enter_context(mounted(file, tmp_path / "disk", "loop,commit=600"))
        except (AssertionError, FileNotFoundError) as error:
            reason = f"no image can be mounted here: {error}"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        yield file, folder


@dataclass
class Sent:
    """What the senders were told, by any thread."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    """SOP Instance UID → digest of the data set."""
    refused: list[int] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    allowed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """How many objects may still be sent: the disk is small."""

    def allow(self, number: int) -> None:
        """Let the senders send so many more, and a few."""
        self.allowed.release(number)

    def next(self) -> bool:
        """Wait until one more may be sent; False when it is over."""
        self.allowed.acquire()
        return not self.over.is_set()


def send_c_store(door: StowDoor, made: Iterator[Made], sent: Sent) -> None:
    """Send over one association until it is over."""
    first = next(made)
    with QuickScu(door.port, [(first.sop_class, first.syntax)]) as scu:
        while sent.next():
            each = next(made)
            status = scu.store(each.sop_class, each.sop_uid, each.syntax, each.dataset)
            if status == ENDED:
                return
            if status:
                sent.refused.append(status)
            else:
                sent.acknowledged[each.sop_uid] = digest_of(each)


def send_stow(door: StowDoor, made: Iterator[Made], sent: Sent) -> None:
    """Send requests of two objects until it is over; what the lists say counts."""
    while sent.next():
        pair = {each.sop_uid: each for each in (next(made), next(made))}
        try:
            answer = door.store_objects(pair.values())
        except requests.RequestException:
            return
        sent.refused += answer.failed.values()
        sent.acknowledged |= {uid: digest_of(pair[uid]) for uid in answer.stored}


def digest_of(made: Made) -> str:
    """Return the digest that its row must have."""
    return hashlib.sha256(made.dataset).hexdigest()


Send = Callable[[StowDoor, Iterator[Made], Sent], None]
WAYS: dict[str, Send] = {"C-STORE": send_c_store, "STOW-RS": send_stow}


def slices(seed: int) -> Iterator[Made]:
    """Make objects of changing size without end, of a few studies."""
    chance = random.Random(seed)  # noqa: S311  # sizes, not secrets
    studies = [new_study() for _ in range(2)]
    while True:
        yield image(chance.choice(studies), size=chance.choice(SIZES))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let no thread of a process run inside the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(partial(_all_stopped, pid), what="the stand-still")
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _all_stopped(pid: int) -> bool:
    states = [
        task.joinpath("stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        for task in Path(f"/proc/{pid}/task").iterdir()
    ]
    return set(states) == {"T"}


def lost(data: Path, acknowledged: dict[str, str]) -> list[str]:
    """Assert that what is there is whole; return the acknowledged objects that are not there."""
    with closing(dbapi2.connect(str(data / "node.db"))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    for path in (data / "spool").glob("*/*.dcm"):
        read_spooled(data, str(path.relative_to(data)))  # whole, or it raises
    return missing(data, acknowledged)


def missing(data: Path, acknowledged: dict[str, str]) -> list[str]:
    """Return the acknowledged objects that a data folder does not have with row and bytes."""
    with closing(Store.open(data / "node.db", migrate=False)) as store:
        rows = {uid: store.find_instance(uid) for uid in acknowledged}
    return [
        uid
        for uid, row in rows.items()
        if row is None
        or not (data / row.file).exists()
        or not acknowledged[uid] == row.sha256 == digest(data / row.file)
    ]


def digest(path: Path) -> str:
    """Return the digest of a file's data set; empty when there is no data set in it."""
    try:
        return dataset_sha256(path)
    except UnreadableDicom:
        return ""


@contextmanager
def sending(door: StowDoor, way: Send) -> Iterator[Sent]:
    """Send from several threads inside the block."""
    sent = Sent()
    threads = [
        threading.Thread(target=way, args=(door, slices(seed), sent)) for seed in range(SENDERS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield sent
    finally:
        sent.over.set()
        sent.allow(SENDERS)
        for thread in threads:
            thread.join(60)


def cut(disk: Path, door: StowDoor, sent: Sent, copy: Path) -> dict[str, str]:
    """Copy the disk as it is while the door stands still; return what was acknowledged before."""
    with stopped(door.pid):
        acknowledged = dict(sent.acknowledged)
        run("cp", "--sparse=always", str(disk), str(copy))
    return acknowledged


def until(sent: Sent, number: int) -> None:
    """Wait until so many objects were acknowledged, at once where possible."""
    deadline = time.monotonic() + 60
    while len(sent.acknowledged) < number:  # polled without a pause: the moment is the point
        assert time.monotonic() < deadline, f"{len(sent.acknowledged)} of {number}: {sent.refused}"


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_nothing_acknowledged_is_lost_by_a_power_cut(
    disk: tuple[Path, Path], tmp_path: Path, way: str
) -> None:
    """Twenty cuts; after the last one a door goes on from what it left."""
    file, folder = disk
    chance = random.Random(20261121)  # noqa: S311  # moments, not secrets
    copy = tmp_path / "cut.img"
    with StowDoor(folder) as door, sending(door.start(), WAYS[way]) as sent:
        sent.allow(SPARE)
        goal = 0
        for number in range(CUTS):
            more = chance.randint(1, MOST_BETWEEN)
            goal += more
            sent.allow(more)
            until(sent, goal)
            acknowledged = cut(file, door, sent, copy)
            with mounted(copy, tmp_path / f"cut {number}") as after:
                assert lost(after / "data", acknowledged) == []
    assert not sent.refused
    with mounted(copy, tmp_path / "again") as after, StowDoor(after) as door:
        door.start()
        assert lost(door.data, acknowledged) == []
        whole = [path for path in door.spooled() if path.suffix == ".dcm"]
        assert door.store.files() == {str(path.relative_to(door.data)) for path in whole}
        assert door.spooled() == whole


@pytest.mark.slow
@pytest.mark.parametrize("what", CARELESS)
def test_a_door_that_does_not_sync_is_found_out(
    disk: tuple[Path, Path], tmp_path: Path, what: str
) -> None:
    """The test above can fail: nothing is lost there only because the door waits for the disk."""
    file, folder = disk
    (tmp_path / "sitecustomize.py").write_text(CARELESS[what], encoding="utf-8")
    copy = tmp_path / "cut.img"
    with StowDoor(folder) as door:
        door.start(PYTHONPATH=f"{tmp_path}:{ROOT}")
        with sending(door, send_c_store) as sent:
            sent.allow(20 + SPARE)
            until(sent, 20)
            acknowledged = cut(file, door, sent, copy)
    with mounted(copy, tmp_path / "cut") as after:
        assert missing(after / "data", acknowledged)
