"""The SQLite file: how it is opened, what a transaction is, what its errors mean.

SQLite is the bundled build of pysqlite3: the one of Debian 12 (3.40.1) can corrupt a WAL that two
connections write to. The defaults would lose writes silently, hence the settings here.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from pysqlite3 import dbapi2  # type: ignore[import-untyped]  # ships no types
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import NodeError, OutOfResources, StoreError

BUSY = {dbapi2.SQLITE_BUSY, dbapi2.SQLITE_LOCKED}
SHORT = {
    dbapi2.SQLITE_CANTOPEN,
    dbapi2.SQLITE_FULL,
    dbapi2.SQLITE_IOERR,
    dbapi2.SQLITE_NOMEM,
    dbapi2.SQLITE_READONLY,
}
DAMAGED = {dbapi2.SQLITE_CORRUPT, dbapi2.SQLITE_NOTADB}

SETTINGS = (
    "PRAGMA journal_mode = WAL",  # readers never hold up the writer
    "PRAGMA synchronous = FULL",  # a commit survives a power cut; NORMAL would lose the last ones
    "PRAGMA foreign_keys = ON",  # off by default, for each connection
)

# IMMEDIATE: a transaction that reads first and then writes fails at once when another one wrote in
# between; the busy timeout does not apply to it
BEGIN_WRITING = "BEGIN IMMEDIATE"


TRIAL = (
    "SELECT id FROM jobs ORDER BY created_at DESC LIMIT 1",
    "UPDATE alembic_version SET version_num = version_num",
)
"""What a probe does before it takes all back."""


class Database:
    """One SQLite file, with one connection that writes and a few that can only read."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self.path = path
        self._closed = False
        # One writer a process: its threads queue in the pool, which is fair and costs nothing;
        # only other processes are waited for by polling the file's lock.
        self._writer = _engine(path, timeout_s, pool_size=1, max_overflow=0)
        self._settings(self._writer, SETTINGS, BEGIN_WRITING)
        self._reader = _engine(path, timeout_s, pool_size=2, max_overflow=8)
        self._settings(self._reader, ("PRAGMA query_only = ON",), "BEGIN")
        self._inode = (0, 0)

    def settle(self) -> None:
        """Remember which file it is, now that it is there."""
        self._inode = _inode(self.path)

    def close(self) -> None:
        """Close the file; a second time is harmless."""
        self._closed = True
        self._reader.dispose()
        self._writer.dispose()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Hold the one transaction that may write; it is kept whole or not at all."""
        with self._meaning(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def adding(self) -> Iterator[dbapi2.Cursor]:
        """Hold the same transaction by a cursor of the driver; quicker than `writing`."""
        with self._meaning():
            connection = self._writer.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute(BEGIN_WRITING)
                yield cursor
                connection.commit()
            finally:
                connection.close()  # what is not committed is rolled back

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Hold a transaction that sees one moment of the log and cannot change it."""
        with self._meaning(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def glancing(self) -> Iterator[dbapi2.Cursor]:
        """Hold a cursor of the driver for one statement that reads; quicker than `reading`."""
        with self._meaning():
            connection = self._reader.raw_connection()
            try:
                yield connection.cursor()
            finally:
                connection.close()

    def probe(self, timeout_s: float) -> None:
        """Find out whether the file can be read and written now; changes nothing.

        By a connection of its own: those that are open would not see that the file is gone, and
        waiting for their turn would say nothing about the file.
        """
        try:
            found = _inode(self.path)
        except OSError as error:
            raise StoreError(
                f"the job log {self.path} is gone ({error.strerror}); put it back and start the"
                " node again"
            ) from error
        if found != self._inode:
            raise StoreError(
                f"another file stands in the place of the job log {self.path}; start the node again"
            )
        with self._meaning():
            address = f"file:{quote(str(self.path))}?mode=rw"
            connection = dbapi2.connect(address, uri=True, timeout=timeout_s, isolation_level=None)
            try:
                connection.execute(BEGIN_WRITING)
                for statement in TRIAL:
                    connection.execute(statement).fetchall()
                connection.execute("ROLLBACK")
            finally:
                connection.close()

    def copy(self, target: Path, still: Callable[[Connection], None]) -> None:
        """Copy the log as it is at one moment to a new file.

        While `still` is called nobody can change a row; the copying itself holds up nobody.
        """
        with self._meaning(), closing(dbapi2.connect(str(self.path))) as moment:
            moment.isolation_level = None
            with self._writer.begin() as connection:
                moment.execute("BEGIN")
                moment.execute("SELECT count(*) FROM sqlite_master").fetchall()  # fixes the moment
                still(connection)
            try:
                with closing(dbapi2.connect(str(target))) as copy:
                    moment.backup(copy)
            except dbapi2.Error as error:
                raise OutOfResources(
                    f"the job log cannot be copied to {target} ({error}); look at the disk there"
                ) from error

    @staticmethod
    def _settings(engine: Engine, pragmas: tuple[str, ...], begin: str) -> None:
        @event.listens_for(engine, "connect")
        def set_up(connection: dbapi2.Connection, _record: object) -> None:
            connection.isolation_level = None  # the driver's own BEGIN comes too late
            for pragma in pragmas:
                connection.execute(pragma)

        @event.listens_for(engine, "begin")
        def start(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

    @contextmanager
    def _meaning(self) -> Iterator[None]:
        """Say what an error of the database means for the node."""
        if self._closed:
            raise StoreError(f"the job log {self.path} is closed")
        try:
            yield
        except PoolTimeout as error:
            raise OutOfResources(
                f"the job log {self.path} is too busy; it is tried later"
            ) from error
        except DBAPIError as error:
            raise self._translated(error.orig) from error
        except dbapi2.Error as error:
            raise self._translated(error) from error

    def _translated(self, error: BaseException | None) -> NodeError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extended part
        if code in BUSY:
            return OutOfResources(f"the job log {self.path} is locked by another process")
        if code in SHORT:
            return OutOfResources(
                f"the job log {self.path} cannot be written ({error}); "
                "look at the disk's space, rights and health"
            )
        if code in DAMAGED:
            return StoreError(
                f"the job log {self.path} is damaged ({error}); "
                "put it aside and restore a copy, the received files are not touched"
            )
        return StoreError(f"the job log {self.path} refused: {error}")


def _inode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _engine(path: Path, timeout_s: float, *, pool_size: int, max_overflow: int) -> Engine:
    return create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        module=dbapi2,
        connect_args={"timeout": timeout_s},
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_timeout=timeout_s,
        hide_parameters=True,  # an error's text goes to the log, what was received does not
    )


class Section:
    """A part of the store's methods; each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
