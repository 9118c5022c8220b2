"""When something that failed is tried again."""

import random
import time
from collections.abc import Sequence

LONGEST_S = 3600.0
"""An archive may ask for more patience than this; it does not get it."""
JITTER = 0.2
"""So much of a wait is left to chance: nodes that failed together do not come back together."""


def wait_s(delays_s: Sequence[float], failures: int, asked_s: float | None = None) -> float:
    """Return how long to wait after so many failures in a row; at least what was asked for."""
    delay = delays_s[min(failures, len(delays_s)) - 1] if failures else 0.0
    jittered = delay * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  # not for secrets
    return min(max(jittered, asked_s or 0.0), LONGEST_S)


class Pause:
    """Leaves an archive alone after failures; longer each time, until something works."""

    def __init__(self, delays_s: Sequence[float], patience: int) -> None:
        self._delays_s = delays_s
        self._patience = patience
        self._failures = 0
        self._until = 0.0

    @property
    def over(self) -> bool:
        """Whether it may be asked."""
        return time.monotonic() >= self._until

    def failed(self, asked_s: float | None = None) -> None:
        """Pause when it asks for that, or when it failed too often in a row."""
        self._failures += 1
        beyond = self._failures - self._patience
        if beyond > 0 or asked_s:
            self._until = time.monotonic() + wait_s(self._delays_s, max(0, beyond), asked_s)

    def worked(self) -> None:
        """Begin anew."""
        self._failures, self._until = 0, 0.0
