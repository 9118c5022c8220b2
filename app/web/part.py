"""A part of the node as a monitor sees it, and what all parts together mean."""

import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

log = logging.getLogger(__name__)

UID = re.compile(r"\b(?:2\.25\.\d+|[0-2](?:\.\d+){4,})\b")
"""What may stand in an archive's words; an IPv4 address is shorter."""


class PartState(StrEnum):
    """How a part is."""

    OK = "ok"  # it was seen to work
    IDLE = "idle"  # it has nothing to do yet and was not started
    UNKNOWN = "unknown"  # it was asked for the first time and has not answered yet
    FAILING = "failing"  # the sentence says why


class Overall(StrEnum):
    """What the parts mean together."""

    READY = "ready"  # all parts are well
    DEGRADED = "degraded"  # studies come in and are worked on, but something is failing
    NOT_READY = "not ready"  # studies cannot be taken in or worked on


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look at a part found."""

    state: PartState
    says: str
    last_ok: datetime | None = None
    """When it last answered well, where it is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part; `look` returns at once, whatever the part does."""

    name: str
    essential: bool
    """Whether studies cannot be taken in or worked on without it."""
    look: Callable[[], Look]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartReport:
    """How a part is, and since when."""

    name: str
    essential: bool
    state: PartState
    since: datetime
    says: str
    last_ok: datetime | None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        told = {
            "state": self.state,
            "essential": self.essential,
            "since": _text(self.since),
            "says": self.says,
        }
        return told if self.last_ok is None else told | {"last_ok": _text(self.last_ok)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All parts at one moment."""

    parts: tuple[PartReport, ...]

    @property
    def overall(self) -> Overall:
        """What they mean together."""
        bad = {PartState.FAILING, PartState.UNKNOWN}
        if any(part.essential and part.state in bad for part in self.parts):
            return Overall.NOT_READY
        return Overall.DEGRADED if self.failing else Overall.READY

    @property
    def failing(self) -> list[str]:
        """The names of the parts that fail."""
        return [part.name for part in self.parts if part.state is PartState.FAILING]


class Board:
    """Looks at all parts, remembers since when each is as it is, and logs every change.

    Unless `quiet` says that changes are meant, as they are while the node stops.
    """

    def __init__(self, parts: Sequence[Part], quiet: Callable[[], bool] = lambda: False) -> None:
        self._parts = parts
        self._quiet = quiet
        self._lock = threading.Lock()
        self._since: dict[str, tuple[PartState, datetime]] = {}

    def look(self) -> Report:
        """Look at every part now."""
        with self._lock:
            return Report(parts=tuple(map(self._look_at, self._parts)))

    def _look_at(self, part: Part) -> PartReport:
        found = part.look()
        says = UID.sub("…", found.says)
        before, since = self._since.get(part.name, (PartState.UNKNOWN, datetime.now(UTC)))
        if found.state is not before:
            since = datetime.now(UTC)
            if not self._quiet():
                _log_change(part, before, found.state, says)
        self._since[part.name] = (found.state, since)
        return PartReport(
            name=part.name,
            essential=part.essential,
            state=found.state,
            since=since,
            says=says,
            last_ok=found.last_ok,
        )


def _log_change(part: Part, before: PartState, now: PartState, says: str) -> None:
    if now is PartState.FAILING:
        log.warning("%s is failing: %s", part.name, says)
    elif before is PartState.FAILING:
        log.info("%s is well again: %s", part.name, says)


def _text(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
