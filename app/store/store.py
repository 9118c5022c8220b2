"""The job log as one object: what arrived, what was made of it, and all that happened to it."""

from pathlib import Path
from typing import Self

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from app.errors import StoreError
from app.files import make_folder
from app.store import schema
from app.store.commitments import CommitmentLog
from app.store.copies import Copies
from app.store.deliveries import DeliveryLog
from app.store.engine import Database
from app.store.figures import FigureLog
from app.store.history import History
from app.store.intake import Intake
from app.store.ledger import Ledger
from app.store.past import Past
from app.store.remotes import Remotes
from app.store.retention import Retention
from app.store.series import SeriesLog

BUSY_TIMEOUT_S = 5.0


class Store(
    Intake,
    SeriesLog,
    Ledger,
    DeliveryLog,
    CommitmentLog,
    Retention,
    Remotes,
    History,
    Past,
    FigureLog,
    Copies,
):
    """The job log: every method is one transaction, every change of state has its line.

    May be used by many threads at once, and by many processes on one file.
    """

    @classmethod
    def open(
        cls, where: str | Path, *, migrate: bool = True, timeout_s: float = BUSY_TIMEOUT_S
    ) -> Self:
        """Open the log at a path or `sqlite:///` URL.

        The node makes or updates the tables; everybody else opens with `migrate=False` and is
        refused when they are not the current ones. `timeout_s` is how long a lock is waited for.
        """
        path = _path(where)
        if migrate:
            make_folder(path.parent)
        database = Database(path, timeout_s)
        try:
            (schema.migrate if migrate else schema.check)(database)
            database.settle()
        except BaseException:
            database.close()
            raise
        return cls(database)

    def probe(self, timeout_s: float = BUSY_TIMEOUT_S) -> None:
        """Raise what is wrong when the log cannot be read and written now; changes nothing."""
        self._database.probe(timeout_s)

    def close(self) -> None:
        """Close the file; a second time is harmless."""
        self._database.close()


def _path(where: str | Path) -> Path:
    if isinstance(where, Path) or "://" not in where:
        return Path(where).absolute()
    try:
        url = make_url(where)
    except ArgumentError as error:
        raise StoreError(f"{where} is no database URL; give a path") from error
    if url.get_backend_name() != "sqlite" or not url.database:
        raise StoreError(f"a {url.get_backend_name()} job log is not supported; give a path")
    return Path(url.database).absolute()
