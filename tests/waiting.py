"""Wait for a condition, never for a time."""

import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout_s: float = 30.0, what: str = "it") -> T:
    """Return the first true value of `condition`; fail when `timeout_s` is over."""
    deadline = time.monotonic() + timeout_s
    pause = Event()
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
        pause.wait(0.02)
    return value
