"""Copies of the job log: made while it is written to, and read where they lie."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from pysqlite3 import dbapi2  # type: ignore[import-untyped]  # ships no types
from sqlalchemy import select

from app.errors import StoreError
from app.store.engine import Section
from app.store.retention import OVER
from app.store.schema import known_steps
from app.store.tables import Jobs


class Copies(Section):
    """How the log is copied without stopping who writes to it."""

    def copy_to(self, target: Path, still: Callable[[Sequence[str]], None]) -> None:
        """Copy the log as it is at one moment.

        `still` is given the jobs that are not over; while it is called no row can change.
        """
        going = select(Jobs.id).where(Jobs.state.not_in(OVER))
        self._database.copy(target, lambda c: still([*c.execute(going).scalars()]))


def check_copy(path: Path) -> str:
    """Return the step of a copy's tables; refuse one that is damaged or newer than this program."""
    with _reading(path) as connection:
        faults = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)")]
        if faults != ["ok"]:
            raise StoreError(f"the job log {path} is damaged: {'; '.join(faults)}")
        (step,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    if step not in known_steps():
        raise StoreError(
            f"the job log {path} was written by a newer version of this program (its tables are at"
            f" step {step}); restore with that version"
        )
    return str(step)


def files_in(path: Path) -> set[str]:
    """Return the file of every received object that a copy knows."""
    with _reading(path) as connection:
        return {file for (file,) in connection.execute("SELECT file FROM instances")}


def over_in(path: Path) -> set[str]:
    """Return the jobs that are over in a copy."""
    with _reading(path) as connection:
        jobs = connection.execute("SELECT id, state FROM jobs")
        return {job for job, state in jobs if state in OVER}


@contextmanager
def _reading(path: Path) -> Iterator[dbapi2.Connection]:
    """Open a copy without leaving anything beside it."""
    where = f"file:{quote(str(path))}?mode=ro&immutable=1"
    try:
        with closing(dbapi2.connect(where, uri=True)) as connection:
            yield connection
    except dbapi2.Error as error:
        raise StoreError(f"the job log {path} cannot be read: {error}") from error
