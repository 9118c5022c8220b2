"""What a look at each part of the node finds; none of these waits for anything."""

import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app.children import Vitals
from app.errors import OutOfResources
from app.web.part import Look, PartState
from app.workers import Condition

STALLED_S = 8.0
"""A main loop, or a child's port, that did not turn for so long is failing."""
SILENT_S = 5.0
"""A child that said nothing for so long is stopped or hangs; it speaks every second."""
PORTS = {"listening": "DICOM", "http": "HTTP"}
GIGABYTE = 1e9
TRIAL = b"\0" * 4096


class Loop(Protocol):
    """The node's main loop."""

    @property
    def turned_at(self) -> float:
        """When it last turned, by the monotonic clock."""

    @property
    def stopping(self) -> bool:
        """Whether it takes no more work."""


def look_at_loop(loop: Loop) -> Look:
    """Look whether the main loop turns."""
    age_s = time.monotonic() - loop.turned_at
    if loop.stopping:
        return Look(state=PartState.FAILING, says="the node is stopping")
    if age_s > STALLED_S:
        return Look(state=PartState.FAILING, says=f"its main loop has stood for {age_s:.0f} s")
    return Look(state=PartState.OK, says="its main loop turns")


def look_at_child(vitals: Vitals) -> Look:
    """Look whether a child lives, speaks, and whether its ports are ready."""
    silent_s = time.monotonic() - vitals.heard_at
    late = {port: age for port, age in vitals.ages.items() if age > STALLED_S}
    if not vitals.alive:
        return Look(state=PartState.FAILING, says=f"{vitals.ended}; it is started again")
    if silent_s > SILENT_S:
        says = f"says nothing for {silent_s:.0f} s: it is stopped or hangs"
        return Look(state=PartState.FAILING, says=says)
    if late:
        port, age_s = next(iter(late.items()))
        says = f"its {PORTS.get(port, port)} port has not been ready for {age_s:.0f} s"
        return Look(state=PartState.FAILING, says=says)
    again = f"; started {vitals.starts} times, the last one {vitals.ended}" if vitals.ended else ""
    return Look(state=PartState.OK, says=f"up{again}")


def look_at_worker(condition: Condition) -> Look:
    """Look what a worker does; one that died is started again by itself."""
    lost = f"; lost {condition.losses} times: {condition.ended}" if condition.ended else ""
    if condition.doing:
        since_s = time.monotonic() - condition.began_at
        says = f"busy with {condition.doing} for {since_s:.0f} s of at most {condition.limit_s:g}"
        return Look(state=PartState.OK, says=f"{says}{lost}")
    if condition.pid is not None:
        return Look(state=PartState.OK, says=f"waits for work{lost}")
    if not condition.starts:
        return Look(state=PartState.IDLE, says="not started yet; the first job starts it")
    return Look(state=PartState.FAILING, says=f"{condition.ended}; it is started again")


@dataclass(slots=True)
class Disk:
    """The disk of the data folder; `ask` really writes, and may hang where the disk does."""

    data: Path
    least_free_gb: float
    free_bytes: int | None = None
    """What was free the last time."""

    def ask(self) -> str:
        """Look for free space, write a little and wait until it is on stable storage."""
        found = os.statvfs(self.data)
        self.free_bytes = found.f_bavail * found.f_frsize
        free = f"{self.free_bytes / GIGABYTE:.1f} GB are free"
        if self.free_bytes < self.least_free_gb * GIGABYTE:
            raise OutOfResources(f"{free}, door.limits.free_gb asks for {self.least_free_gb:g}")
        with tempfile.TemporaryFile(dir=self.data, buffering=0) as file:
            file.write(TRIAL)
            os.fsync(file.fileno())
        return f"{free}, and it can be written"


def look_at_archive(
    found: Look, name: str, backlog: Mapping[str, str], away: Mapping[str, str]
) -> Look:
    """Add to an archive's own answer what its courier knows."""
    told = [found.says]
    told += [f"its courier waits: {away[name]}"] if name in away else []
    told += [backlog[name]] if name in backlog else []
    return Look(state=found.state, says="; ".join(told), last_ok=found.last_ok)
