"""Opening a job log: new, current, older, newer, foreign, damaged, missing.

Covered with real files and real Alembic steps, also one that breaks off. Not covered: a power cut
inside a step (SQLite's own promise, the step is one transaction) and other databases.
"""

import shutil
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pysqlite3 import dbapi2  # type: ignore[import-untyped]  # ships no types
from sqlalchemy import text

from app.errors import OutOfResources, StoreError
from app.store import schema
from app.store.engine import Database
from app.store.jobs import State
from app.store.store import Store
from app.store.tables import Table
from tests.log_rows import START, add_jobs

STEP = """
from alembic import op
revision = "9999"
down_revision = "0005"
def upgrade():
    op.execute("CREATE TABLE later (id INTEGER)")
    {more}
"""


ROWS_OF_THE_FIRST_STEP = """
INSERT INTO studies (study_uid, state, source, instances, version, first_received_at,
  last_received_at) VALUES ('1.2', 'routed', 'CT1@10.0.0.5', 1, 1,
  '2026-01-02 03:04:05.000000', '2026-01-02 03:04:05.000000');
INSERT INTO jobs (id, identity, study_uid, route, model, digest, inputs, instances, priority, state,
  stage, attempts, orphanings, fence, due_at, reason, created_at, updated_at) VALUES ('kept', 'k',
  '1.2', 'r', 'm', 'd', '{}', '{}', 10, 'done', 'deliver', 1, 0, 1, '2026-01-02 03:04:05.000000',
  '', '2026-01-02 03:04:05.000000', '2026-01-02 03:04:05.000000');
"""


def _with_a_later_step(folder: Path, more: str = "") -> Path:
    """Return a copy of the migrations that has one step more."""
    scripts = folder / "migrations"
    shutil.copytree(schema.MIGRATIONS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "versions" / "later.py").write_text(STEP.format(more=more))
    return scripts


def _of_the_first_step(folder: Path) -> Path:
    """Return a copy of the migrations as they were at first."""
    scripts = folder / "first"
    shutil.copytree(schema.MIGRATIONS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    for step in (scripts / "versions").glob("v*.py"):
        if step.name != "v0001_first.py":
            step.unlink()
    return scripts


def _filled(path: Path) -> Path:
    """Make a job log with one job in it."""
    with closing(Store.open(path)) as store:
        add_jobs(store, "kept")
    return path


def _tables(path: Path) -> set[str]:
    with closing(dbapi2.connect(str(path))) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def _jobs(path: Path) -> list[str]:
    with closing(dbapi2.connect(str(path))) as connection:
        return [name for (name,) in connection.execute("SELECT id FROM jobs")]


def test_the_migrated_tables_are_those_of_the_mappings(tmp_path: Path) -> None:
    """Alembic's own comparison finds no difference, and does find one that was made."""
    with closing(Store.open(tmp_path / "node.db")) as store:
        with store._database.reading() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, Table.metadata) == []
        with store._database.writing() as connection:
            connection.execute(text("ALTER TABLE jobs ADD COLUMN extra TEXT"))
            context = MigrationContext.configure(connection)
            assert compare_metadata(context, Table.metadata) != []


def test_a_new_log_is_made_from_any_folder_without_a_copy_or_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing lies beside it or is printed, and a percent sign in the path does no harm."""
    monkeypatch.chdir(tmp_path)
    Store.open("some/100%/node.db").close()
    assert [path.name for path in (tmp_path / "some" / "100%").iterdir()] == ["node.db"]
    assert capfd.readouterr() == ("", "")


def test_a_url_opens_the_same_file(tmp_path: Path) -> None:
    """A `sqlite:///` URL and its path are the same log."""
    path = _filled(tmp_path / "node.db")
    with closing(Store.open(f"sqlite:///{path}", migrate=False)) as store:
        assert store.job("kept").study_uid == "1.2.0"


@pytest.mark.parametrize("url", ["postgresql://db/node", "sqlite://", "what://"])
def test_other_databases_are_refused(url: str) -> None:
    """What is not SQLite in a file is refused by name."""
    with pytest.raises(StoreError, match="give a path"):
        Store.open(url)


def test_opening_a_current_log_again_changes_nothing(tmp_path: Path) -> None:
    """Not a byte, and no copy is made."""
    path = _filled(tmp_path / "node.db")
    before = path.read_bytes()
    Store.open(path).close()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_older_log_is_copied_and_then_brought_up(tmp_path: Path) -> None:
    """The copy has the old tables, the log the new ones, both have the job."""
    path = _filled(tmp_path / "node.db")
    scripts = _with_a_later_step(tmp_path)
    with closing(Database(path, 1)) as database:
        schema.migrate(database, scripts)
        schema.check(database, scripts)
    copy = tmp_path / "node.db.0005.bak"
    assert "later" in _tables(path)
    assert "later" not in _tables(copy)
    assert _jobs(path) == _jobs(copy) == ["kept"]


def test_a_log_of_the_first_version_is_brought_up(tmp_path: Path) -> None:
    """What it has is kept, and the door's history is there."""
    path = tmp_path / "node.db"
    with closing(Database(path, 1)) as database:
        schema.migrate(database, _of_the_first_step(tmp_path))
    with closing(dbapi2.connect(str(path))) as connection:
        connection.executescript(ROWS_OF_THE_FIRST_STEP)
    assert "door_events" not in _tables(path)
    with closing(Store.open(path)) as store:
        store.door_event("A@127.0.0.1", "refused", "why", START)
        assert len(store.door_events()) == 1
        job = store.job("kept")
        assert (job.state, job.version, job.superseded_by) == (State.DONE, 1, None)
        assert job.turn_at == datetime(2026, 1, 2, 1, 24, 5, tzinfo=UTC), "ten steps of priority"
        assert job.published_at == job.updated_at
        assert (store.study("1.2").expected, store.series_rows("1.2")) == (None, [])
    assert _jobs(path) == _jobs(tmp_path / "node.db.0001.bak") == ["kept"]


def test_the_copy_holds_what_still_stands_in_the_wal(tmp_path: Path) -> None:
    """A log that was not closed is copied with its last commits."""
    path = tmp_path / "node.db"
    scripts = _with_a_later_step(tmp_path)
    with closing(Store.open(path)) as store:
        add_jobs(store, "kept")
        schema.migrate(store._database, scripts)
    assert _jobs(tmp_path / "node.db.0005.bak") == ["kept"]


def test_a_step_that_breaks_off_leaves_the_old_tables(tmp_path: Path) -> None:
    """The tables of the broken step are gone and the job is there."""
    path = _filled(tmp_path / "node.db")
    scripts = _with_a_later_step(tmp_path, more='op.execute("nonsense")')
    with closing(Database(path, 1)) as database, pytest.raises(StoreError, match="nonsense"):
        schema.migrate(database, scripts)
    assert "later" not in _tables(path)
    with closing(Store.open(path, migrate=False)) as store:
        assert [job.id for job in store.jobs()] == ["kept"]


def test_no_step_is_made_when_the_copy_cannot_be(tmp_path: Path) -> None:
    """Here a folder lies where the copy should go."""
    path = _filled(tmp_path / "node.db")
    scripts = _with_a_later_step(tmp_path)
    (tmp_path / "node.db.0005.bak" / "in the way").mkdir(parents=True)
    with (
        closing(Database(path, 1)) as database,
        pytest.raises(StoreError, match="cannot be copied"),
    ):
        schema.migrate(database, scripts)
    assert "later" not in _tables(path)


def test_who_may_not_migrate_is_refused_an_older_log(tmp_path: Path) -> None:
    """The door and the commands leave the change to the node."""
    path = _filled(tmp_path / "node.db")
    scripts = _with_a_later_step(tmp_path)
    with closing(Database(path, 1)) as database, pytest.raises(StoreError, match="older version"):
        schema.check(database, scripts)


@pytest.mark.parametrize("migrate", [True, False])
def test_a_log_from_the_future_is_refused_and_left_alone(tmp_path: Path, migrate: bool) -> None:
    """After a downgrade of the program."""
    path = _filled(tmp_path / "node.db")
    with closing(dbapi2.connect(str(path))) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="newer version of this program"):
        Store.open(path, migrate=migrate)
    assert _jobs(path) == ["kept"]


@pytest.mark.parametrize("migrate", [True, False])
def test_a_damaged_header_is_refused_with_a_remedy(tmp_path: Path, migrate: bool) -> None:
    """The file is not written to."""
    path = _filled(tmp_path / "node.db")
    whole = path.read_bytes()
    path.write_bytes(b"\x00garbage" + whole[8:])
    with pytest.raises(StoreError, match=r"damaged .*restore a copy"):
        Store.open(path, migrate=migrate)
    assert path.read_bytes()[8:] == whole[8:]


def test_damaged_pages_are_refused_with_a_remedy(tmp_path: Path) -> None:
    """The header is whole, all behind it is not."""
    path = _filled(tmp_path / "node.db")
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(StoreError, match=r"damaged .*restore a copy"):
        Store.open(path)


@pytest.mark.parametrize("migrate", [True, False])
def test_a_foreign_database_is_refused_and_left_alone(tmp_path: Path, migrate: bool) -> None:
    """No table of ours is put into somebody else's file."""
    path = tmp_path / "node.db"
    with closing(dbapi2.connect(str(path))) as connection, connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(StoreError, match="no job log"):
        Store.open(path, migrate=migrate)
    assert _tables(path) == {"recipes"}


def test_a_missing_log_is_not_made_by_who_may_not_migrate(tmp_path: Path) -> None:
    """A deleted log is not silently replaced by an empty one."""
    with pytest.raises(StoreError, match="there is no job log"):
        Store.open(tmp_path / "node.db", migrate=False)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path) -> None:
    """Here it is a folder."""
    (tmp_path / "node.db").mkdir()
    with pytest.raises(OutOfResources, match="cannot be written"):
        Store.open(tmp_path / "node.db")
