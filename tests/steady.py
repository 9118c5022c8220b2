"""pynetdicom's sending side without the race that loses it an answer now and then.

Its reactor notes that it waits before it waits, and that it goes on after it went on. Who sends in
between takes the one for the other, and the reactor takes the answer away: "Received unexpected
C-STORE service message", and then a time-out of 30 s. It is rare, less so on a busy machine.
"""

import threading
from typing import Any

import pynetdicom.ae
from pynetdicom.association import Association


class Checkpoint:
    """Stands in for the event at which the reactor waits: waiting and its note are one step."""

    def __init__(self, assoc: Association) -> None:
        self._assoc = assoc
        self._changed = threading.Condition()
        self._is_open = True

    def set(self) -> None:
        """Let the reactor go on."""
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Have the reactor wait when it next comes here."""
        with self._changed:
            self._is_open = False

    def wait(self) -> None:
        """Wait as long as it is closed, also where it was open for a moment."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_open)
            self._assoc._is_paused = False


class SteadyAssociation(Association):
    """An association that loses no answer."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._reactor_checkpoint = Checkpoint(self)


def mend_pynetdicom() -> None:
    """Have every association that is asked for from now on be a steady one."""
    pynetdicom.ae.Association = SteadyAssociation
