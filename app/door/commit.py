"""File, name and row on stable storage: one wait for all objects that end together."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from app.door.partial import Partial
from app.faults import crash_point
from app.files import sync_folder
from app.store.jobs import InstanceRow

AddRows = Callable[[Sequence[InstanceRow]], list[bool]]
"""Keeps rows in one transaction; False for each whose UID is known already."""


class _Ticket:
    """One row on its way; `added` or `error` is set when its transaction has ended."""

    __slots__ = ("added", "error", "row")

    def __init__(self, row: InstanceRow) -> None:
        self.row = row
        self.added: bool | None = None
        self.error: BaseException | None = None


class Committer:
    """Syncs folders and commits rows, in the thread of whoever comes first.

    While one transaction is written the next ones queue up, and then the first of those threads
    takes all of them along. A sender that is alone waits for nobody and wakes no other thread.
    """

    def __init__(self, data: Path, add_rows: AddRows) -> None:
        self._data = data
        self._add_rows = add_rows
        self._turn = threading.Lock()
        self._adding = threading.Lock()
        self._queue: list[_Ticket] = []

    def add(self, row: InstanceRow, partial: Partial) -> bool:
        """Sync a file, give it its name and its row; False when its UID is known already.

        Success or not, the file has its name or is as before; it stays only when it is settled.
        """
        # Bytes before names: after a power cut nothing that has a name may be incomplete. Each
        # thread waits for its own bytes, since the file system takes such waits together.
        partial.sync()
        partial.rename(self._data / row.file)
        ticket = _Ticket(row)
        with self._adding:
            self._queue.append(ticket)
        with self._turn:
            if ticket.added is None and ticket.error is None:
                self._commit()
        if ticket.error is not None:
            raise ticket.error
        return bool(ticket.added)

    def _commit(self) -> None:
        with self._adding:
            batch, self._queue = self._queue, []
        try:
            for folder in {Path(ticket.row.file).parent for ticket in batch}:
                sync_folder(self._data / folder)
            crash_point("receive.kept")
            added = self._add_rows([ticket.row for ticket in batch])
        except BaseException as error:
            for ticket in batch:
                ticket.error = error
            raise
        for ticket, each in zip(batch, added, strict=True):
            ticket.added = each
