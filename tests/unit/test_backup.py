"""Backups of a data folder, on real files and a real job log.

Covered: what is in a backup and what is not, with which modes; a backup while rows are written,
objects removed and a job's results thrown away; links between backups; which are kept; folders
that are in use. Not covered: putting one back, see test_restore; a node that works meanwhile, see
tests/faults/test_backup; power cuts.
"""

import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from pysqlite3 import dbapi2  # type: ignore[import-untyped]  # ships no types

from app import backup as backups
from app.backup import back_up
from app.backup_folder import STILL, SUMS
from app.errors import ConfigError, NodeError, OutOfResources
from app.files import locked
from app.restore import restore
from app.store.store import Store
from tests.backing import back, begun, files, into
from tests.keeping import DAY_S, FOLDER, Kept
from tests.log_rows import LEASE_S, START
from tests.waiting import wait_until


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Kept]:
    """A site with a study whose job is under way."""
    with Kept(tmp_path / "data", FOLDER, retain={"studies_days": 30, "results_days": 90}) as made:
        yield begun(made)


def test_all_that_a_node_needs_comes_back_for_its_owner_alone(site: Kept, tmp_path: Path) -> None:
    """Objects, results, archive, lists; nothing of the process, and no half file."""
    data, here = site.config.data, site.store.study("1.2.1")
    (data / "archive" / "studies").mkdir(parents=True)
    (data / "archive" / "studies" / "one").write_bytes(b"delivered")
    (data / "archive" / ".dicom-file-client.db").write_bytes(b"index")
    (data / "removing").mkdir()
    (data / "removing" / "1.9.json").write_text("[]")
    (data / "node.db.0003.bak").write_bytes(b"copy")
    for left_out in ("ready.json", "lock", "spool/a.dcm.part", "x.removing"):
        (data / left_out).write_bytes(b"no")
    made = back(site, tmp_path / "backups")
    told = restore(into(site.config, tmp_path / "new"), tmp_path / "backups")
    found = files(tmp_path / "new")
    assert found.keys() == {
        *("archive/studies/one", "removing/1.9.json", "node.db", "node.db.0003.bak"),
        *("spool/1.2.1.1.1.dcm", "spool/1.2.1.1.2.dcm"),
        *("jobs/j1a/encode/seg.dcm", "jobs/j1a/infer/CT.npy", "lock"),
    }
    assert found["archive/studies/one"] == b"delivered"
    assert (told["files"], made.missing, told["missing"]) == (len(found) - 1, [], [])
    assert told["moment"] == site.clock().isoformat()
    with closing(Store.open(tmp_path / "new" / "node.db", migrate=False)) as store:
        assert store.study("1.2.1") == here
        assert store.job("j1a") == site.store.job("j1a")
    for root in (tmp_path / "new", made.path):
        modes = {stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*") if path.is_file()}
        assert modes == {0o600}
        folders = {stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*") if path.is_dir()}
        assert folders == {0o700}
    assert not (data / STILL).exists()


def test_the_list_is_read_by_coreutils(site: Kept, tmp_path: Path) -> None:
    """A backup can be proved without this program; names that need it are escaped."""
    (site.config.data / "odd\\name\n").write_bytes(b"odd")
    made = back(site, tmp_path / "backups")
    check = subprocess.run(["sha256sum", "--quiet", "--check", SUMS], cwd=made.path, check=False)
    assert check.returncode == 0
    restore(into(site.config, tmp_path / "new"), made.path)
    assert (tmp_path / "new" / "odd\\name\n").read_bytes() == b"odd"


def test_the_log_and_the_results_are_of_one_moment(
    site: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens after it, while files are copied, is not in it; nothing is missing for that."""
    data = site.config.data
    (claimed,) = site.store.claim("a", site.clock(), LEASE_S)

    def go_on(point: str) -> None:
        if point == "backup.log":
            site.store.finish(claimed, 1.0, "", site.clock())
            shutil.rmtree(data / "jobs" / "j1a" / "infer")
            site.folder("half").joinpath("half.npy").write_bytes(b"of a job that the copy lacks")
            site.study(2)

    monkeypatch.setattr(backups, "crash_point", go_on)
    made = back(site, tmp_path / "backups")
    assert made.missing == []
    restore(into(site.config, tmp_path / "new"), made.path)
    assert (tmp_path / "new" / "jobs" / "j1a" / "infer" / "CT.npy").read_bytes() == b"volume"
    assert not (tmp_path / "new" / "jobs" / "half").exists()
    with closing(Store.open(tmp_path / "new" / "node.db", migrate=False)) as store:
        assert store.job("j1a") == claimed
        assert [study.study_uid for study in store.studies()] == ["1.2.1"]


def test_nothing_is_removed_under_a_backup(
    site: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cleaning waits for its end, then does its work."""
    (claimed,) = site.store.claim("a", site.clock(), LEASE_S)
    site.store.finish(claimed, 1.0, "", site.clock())
    site.clock.advance(31 * DAY_S)
    cleaned: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    cleaner = threading.Thread(target=lambda: cleaned.append(site.clean()))

    def clean(point: str) -> None:
        if point == "backup.log":
            cleaner.start()
            wait_until(lambda: _waits(cleaner), 10, "the cleaner's wait")

    monkeypatch.setattr(backups, "crash_point", clean)
    made = back(site, tmp_path / "backups")
    cleaner.join(10)
    assert made.missing == []
    assert (made.path / "data" / "spool" / "1.2.1.1.1.dcm").exists()
    assert cleaned == [(("1.2.1",), ())]
    assert site.files("1.2.1") == []


def _waits(thread: threading.Thread) -> bool:
    """Return whether a thread stands in a file's lock, by the kernel's own word."""
    where = Path(f"/proc/self/task/{thread.native_id}/wchan")
    return "lock" in where.read_text() if thread.native_id else False


def test_an_object_that_somebody_removed_is_told(site: Kept, tmp_path: Path) -> None:
    """The backup is made all the same, and says so, also when it is put back."""
    site.files("1.2.1")[0].unlink()
    made = back(site, tmp_path / "backups")
    assert made.missing == ["spool/1.2.1.1.1.dcm"]
    assert "1 objects have lost their file" in made.words
    assert restore(into(site.config, tmp_path / "new"), made.path)["missing"] == made.missing


def test_what_did_not_change_is_linked_from_the_backup_before(site: Kept, tmp_path: Path) -> None:
    """What changed by so much as its time is copied, with `full` all is; both can be put back."""
    first = back(site, tmp_path / "backups")
    site.study(2)
    (site.folder("j1a") / "encode" / "seg.dcm").write_bytes(b"resulT")
    second = back(site, tmp_path / "backups")
    assert (first.linked, second.linked) == (0, 3)
    name = "data/spool/1.2.1.1.1.dcm"
    assert (first.path / name).samefile(second.path / name)
    assert (second.path / "data/jobs/j1a/encode/seg.dcm").read_bytes() == b"resulT"
    assert (first.path / "data/jobs/j1a/encode/seg.dcm").read_bytes() == b"result"
    third = back(site, tmp_path / "backups", full=True)
    assert third.linked == 0
    assert not (first.path / name).samefile(third.path / name)
    for number, made in enumerate((first, second, third)):
        restore(into(site.config, tmp_path / f"new{number}"), made.path)


def test_only_the_newest_are_kept_and_nothing_else_is_removed(site: Kept, tmp_path: Path) -> None:
    """Foreign files stay; what an earlier backup left unfinished goes."""
    folder = tmp_path / "backups"
    (folder / "20300101T000000.000Z.partial" / "data").mkdir(parents=True)
    (folder / "notes").mkdir()
    names = [back(site, folder, keep=2).path.name for _ in range(4)]
    assert {each.name for each in folder.iterdir()} == {"notes", ".lock", *names[-2:]}
    assert restore(into(site.config, tmp_path / "new"), folder)["backup"].endswith(names[-1])


def test_a_broken_backup_before_is_not_built_upon(site: Kept, tmp_path: Path) -> None:
    """The next one copies everything."""
    first = back(site, tmp_path / "backups")
    os.truncate(first.path / SUMS, 100)
    second = back(site, tmp_path / "backups")
    assert second.linked == 0
    restore(into(site.config, tmp_path / "new"), second.path)


@pytest.mark.parametrize("where", ["data/backups", "."])
def test_a_backup_lies_apart_from_the_data(site: Kept, tmp_path: Path, where: str) -> None:
    """Else each one would hold the one before."""
    with pytest.raises(ConfigError, match="give another folder"):
        back(site, tmp_path / where)


def test_two_at_once_and_two_nodes_in_one_folder_are_refused(site: Kept, tmp_path: Path) -> None:
    """`--keep` of one would remove the other's."""
    made = back(site, tmp_path / "backups")
    with (
        locked(tmp_path / "backups" / ".lock"),
        pytest.raises(ConfigError, match="another backup is being made"),
    ):
        back(site, tmp_path / "backups")
    restore(into(site.config, tmp_path / "new"), made.path)
    with (
        closing(Store.open(tmp_path / "new" / "node.db")) as store,
        pytest.raises(ConfigError, match="has backups of"),
    ):
        back_up(
            *(into(site.config, tmp_path / "new"), tmp_path / "app.yaml", store),
            tmp_path / "backups",
            now=START,
        )


def test_a_damaged_log_makes_no_backup(site: Kept, tmp_path: Path) -> None:
    """It is said at night, not on the day when the backup is needed."""
    path = site.config.data / "node.db"
    with closing(dbapi2.connect(str(path))) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET rootpage = 3 WHERE name = 'ix_jobs_created_at_id'"
        )
        connection.commit()
    with pytest.raises(NodeError, match=r"damaged|malformed"):
        back(site, tmp_path / "backups")
    assert [each.name for each in (tmp_path / "backups").iterdir()] == [".lock"]


def test_a_spool_on_another_disk_is_part_of_it(site: Kept, tmp_path: Path) -> None:
    """A folder that is a link in the data folder is followed; deeper ones are not."""
    (site.config.data / "spool").rename(tmp_path / "disk")
    (site.config.data / "spool").symlink_to(tmp_path / "disk")
    (site.config.data / "jobs" / "loop").symlink_to(site.config.data)
    made = back(site, tmp_path / "backups")
    assert made.missing == []
    assert not (made.path / "data" / "jobs" / "loop").exists()


def test_an_archive_elsewhere_is_named(site: Kept, tmp_path: Path) -> None:
    """It is not this program's to copy."""
    archive = site.config.archives["local"].model_copy(update={"path": tmp_path / "out"})
    site.config = site.config.model_copy(update={"archives": {"out": archive}})
    assert "warning: archives.out: lies elsewhere" in back(site, tmp_path / "backups").words


def test_the_clock_may_stand_still(site: Kept, tmp_path: Path) -> None:
    """Two backups of one moment are one name: the second is refused and the first stays."""
    made = back(site, tmp_path / "backups")
    site.clock.advance(-timedelta(seconds=1).total_seconds())
    with pytest.raises(OutOfResources):
        back(site, tmp_path / "backups")
    restore(into(site.config, tmp_path / "new"), made.path)
