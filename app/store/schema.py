"""The version of the tables: bring a file to the current one, or refuse it.

Each step is one Alembic revision in `migrations/versions`, never edited once it is released.
"""

import logging
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from pysqlite3 import dbapi2  # type: ignore[import-untyped]  # ships no types
from sqlalchemy import Connection, inspect, text

from app.errors import StoreError
from app.files import PARTIAL, sync_file, sync_folder
from app.store.engine import Database

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"


def check(database: Database, scripts: Path = MIGRATIONS) -> None:
    """Refuse a file whose tables are not the current ones."""
    if not database.path.is_file():
        raise StoreError(
            f"there is no job log at {database.path}; start the node once, it makes one"
        )
    with database.reading() as connection:
        version = _version(connection, database.path)
    if _is_behind(version, database.path, scripts):
        raise StoreError(f"the job log {database.path} is of an older version; start the node once")


def migrate(database: Database, scripts: Path = MIGRATIONS) -> None:
    """Bring the file to the current version; what is there already is copied first."""
    with database.writing() as connection:
        version = _version(connection, database.path)
        if not _is_behind(version, database.path, scripts):
            return
        if version is not None:
            _copy(database.path, database.path.with_name(f"{database.path.name}.{version}.bak"))
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(scripts).replace("%", "%%"))
        command.upgrade(config, "head")  # in this transaction: a power cut leaves the old version
    sync_folder(database.path.parent)
    log.info("the job log %s was brought to its current version", database.path)


def _version(connection: Connection, path: Path) -> str | None:
    """Return the step that the tables are at, None when there are no tables yet."""
    tables = inspect(connection).get_table_names()
    if tables and "alembic_version" not in tables:
        raise StoreError(f"{path} is a database, but no job log; give the path of another file")
    if not tables:
        return None
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())


def _is_behind(version: str | None, path: Path, scripts: Path) -> bool:
    """Return whether a step is missing; refuse what no step can mend."""
    if version is not None and version not in known_steps(scripts):
        raise StoreError(
            f"the job log {path} was written by a newer version of this program (its tables are "
            f"at step {version}); run that version, or restore the copy made before the update"
        )
    return version != ScriptDirectory(str(scripts)).get_current_head()


def known_steps(scripts: Path = MIGRATIONS) -> set[str]:
    """Return the steps that this program knows."""
    return {step.revision for step in ScriptDirectory(str(scripts)).walk_revisions()}


def _copy(source: Path, target: Path) -> None:
    """Copy the file as it was before this transaction, with what still stands in its WAL."""
    partial = target.with_name(target.name + PARTIAL)
    try:
        partial.unlink(missing_ok=True)
        with (
            closing(dbapi2.connect(str(source))) as old,
            closing(dbapi2.connect(str(partial))) as new,
        ):
            old.backup(new)
        sync_file(partial)
        partial.rename(target)
        sync_folder(target.parent)
    except (dbapi2.Error, OSError) as error:
        raise StoreError(
            f"the job log {source} must change its tables and cannot be copied to {target} before "
            f"({error}); make room there and start again"
        ) from error
    log.info("the job log was copied to %s before its tables change", target)
