"""Questions that may hang: each in a thread of its own, whose silence is itself the answer."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Generic, TypeVar

from app.errors import NodeError
from app.log import sentence, traced
from app.web.part import Look, PartState

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_S = 4.0
"""A question without an answer for so long is failing; asked every 5 s, that is known within 10 s.
What is asked over the network is given up then, so that the next try finds whoever is back."""
LEAST_PAUSE_S = 0.1


class Probe:
    """Asks the same question again and again; `ask` returns a sentence or raises why it fails."""

    def __init__(self, name: str, ask: Callable[[], str], every_s: float) -> None:
        self._ask = ask
        self._every_s = every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"probe of {name}", daemon=True)
        self._name = name
        self._found = Look(state=PartState.UNKNOWN, says="not asked yet")
        self._asked_at: float | None = None
        self.seconds: float | None = None
        """How long the last good answer took."""

    def open(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def close(self) -> None:
        """Ask no more; a question that hangs is left behind."""
        self._stopping.set()

    def look(self) -> Look:
        """Return what is known; never waits."""
        asked_at, found = self._asked_at, self._found
        silent_s = 0.0 if asked_at is None else time.monotonic() - asked_at
        if silent_s <= PATIENCE_S:
            return found
        words = f"no answer for {silent_s:.0f} s"
        return Look(state=PartState.FAILING, says=words, last_ok=found.last_ok)

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stopping.wait(pause_s):
            began = self._asked_at = time.monotonic()
            self._found = self._answer()
            self._asked_at = None
            pause_s = max(LEAST_PAUSE_S, self._every_s - (time.monotonic() - began))

    def _answer(self) -> Look:
        began = time.monotonic()
        try:
            says = self._ask()
        except NodeError as error:
            says = str(error)
        except OSError as error:
            says = error.strerror or type(error).__name__
        except Exception as error:  # noqa: BLE001  # a part that cannot even be asked is failing
            log.error("failed by a fault of ours:\n%s", traced(error))  # noqa: TRY400  # no values
            says = f"a fault of ours, see the log: {sentence(error)}"
        else:
            self.seconds = time.monotonic() - began
            return Look(state=PartState.OK, says=says, last_ok=datetime.now(UTC))
        return Look(state=PartState.FAILING, says=says, last_ok=self._found.last_ok)


class Reading(Generic[T]):
    """Reads something when it is asked for, one at a time, and waits for it no longer than told."""

    def __init__(self, name: str, read: Callable[[], T]) -> None:
        self._name = name
        self._read = read
        self._lock = threading.Lock()
        self._done: threading.Event | None = None
        self._value: T | None = None

    def get(self, limit_s: float) -> T | None:
        """Return what is read now; None when that fails or takes too long."""
        with self._lock:
            if self._done is None:
                self._done = threading.Event()
                threading.Thread(
                    target=self._run, args=(self._done,), name=self._name, daemon=True
                ).start()
            done = self._done
        return self._value if done.wait(limit_s) else None

    def _run(self, done: threading.Event) -> None:
        try:
            self._value = self._read()
        except (NodeError, OSError) as error:
            log.warning("%s cannot be read: %s", self._name, error)
            self._value = None
        finally:
            with self._lock:
                self._done = None
            done.set()
