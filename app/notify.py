"""Tell whoever supervises the node how it is, as sd_notify(3) describes: a line to a socket.

Without NOTIFY_SOCKET, nothing is told to anybody.
"""

import logging
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Self

log = logging.getLogger(__name__)

SOCKET, WATCHDOG, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"


class Notifier:
    """The node's line to its supervisor; used by one thread at a time."""

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address and address[0] == "@" else address
        self._every_s = watchdog_s / 4 if watchdog_s else None
        self._next = 0.0

    @classmethod
    def take(cls, environment: MutableMapping[str, str] = os.environ) -> Self:
        """Read the environment, and take it away: processes that are started have no say."""
        address, usec, pid = (
            environment.pop(name, "") for name in (SOCKET, WATCHDOG, WATCHDOG_PID)
        )
        mine = pid in {"", str(os.getpid())}
        return cls(address or None, int(usec) / 1e6 if usec.isdigit() and mine else None)

    def ready(self, status: str) -> None:
        """Say that the node can be used."""
        self._tell(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """Say that it is about to end."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """Say that the node's loop turns; who calls it too rarely is started again."""
        if self._every_s is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every_s
            self._tell("WATCHDOG=1")

    def _tell(self, words: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
                line.settimeout(1)
                line.sendto(words.encode(), self._address)
        except OSError as error:
            log.warning("the supervisor at %s does not listen: %s", SOCKET, error)
