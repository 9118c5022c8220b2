"""What the door refused, as lines of the job log: few enough that no peer fills the disk with them.

A refused object belongs to no study that we know; without these lines only the log would say why.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from app.errors import NodeError
from app.store.store import Store

log = logging.getLogger(__name__)

MOST = 60
"""Lines in one window, before the one that only says how many more there were."""
WINDOW_S = 60.0


class Refusals:
    """Writes at most MOST + 1 lines a minute; used by many threads at once."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self._written = 0
        self._left_out = 0

    def note(self, source: str, detail: str, event: str = "refused") -> None:
        """Add a line, unless there were too many lately; never raises."""
        with self._lock:
            left_out = self._end_window() if self._clock() - self._began >= WINDOW_S else 0
            self._written += 1
            wanted = self._written <= MOST
            self._left_out += not wanted
        self._sum_up(left_out)
        if wanted:
            self._write(source, event, detail)

    def close(self) -> None:
        """Say what was left out since the last summary."""
        with self._lock:
            left_out = self._end_window()
        self._sum_up(left_out)

    def _end_window(self) -> int:
        left_out, self._began, self._written, self._left_out = self._left_out, self._clock(), 0, 0
        return left_out

    def _sum_up(self, left_out: int) -> None:
        if left_out:
            self._write("", "left_out", f"{left_out} more within a minute are in the log only")

    def _write(self, source: str, event: str, detail: str) -> None:
        try:
            self._store.door_event(source, event, detail, datetime.now(UTC))
        except NodeError as error:
            log.error("a refusal is not noted: %s", error)  # noqa: TRY400  # a sentence will do
