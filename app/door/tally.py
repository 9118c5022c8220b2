"""How much came in since the process began, by what became of it."""

import threading
from collections import Counter

KEPT, BYTES, HELD, REFUSED = "kept", "bytes", "held", "refused"
ASSOCIATIONS, REJECTED = "associations", "rejected"


class Tally:
    """Counts by name; used by many threads at once.

    A name is one of the above, with what was answered behind a space: `refused A700`. So there are
    few of them, whoever calls.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str, number: int = 1) -> None:
        """Count so many more."""
        with self._lock:
            self._counts[name] += number

    def counts(self) -> dict[str, int]:
        """Return what was counted."""
        with self._lock:
            return dict(self._counts)
