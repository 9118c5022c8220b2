"""Putting a backup back: all of it or nothing.

Covered: broken, cut short and newer backups; no space; folders that are not empty, in which a node
works, or in which a restore was cut short. Not covered: the node that goes on from there, see
tests/faults/test_backup; power cuts.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.backup_folder import RESTORING, SUMS
from app.errors import ConfigError, OutOfResources, StoreError
from app.faults import VARIABLE
from app.files import read_json
from app.restore import restore
from app.serve import only_node_in
from app.store.schema import known_steps
from tests.backing import back, begun, into
from tests.keeping import FOLDER, Kept
from tests.node import python_m_app


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Kept]:
    """A site with a study whose job is under way."""
    with Kept(tmp_path / "data", FOLDER, retain={"studies_days": 30, "results_days": 90}) as made:
        yield begun(made)


def test_a_backup_that_is_cut_short_never_looks_whole(tmp_path: Path, site: Kept) -> None:
    """Killed before its last step by a real SIGKILL; the next one is made in its place."""
    folder, marker = tmp_path / "backups", tmp_path / "crash"
    config = tmp_path / "site.yaml"
    config.write_text(
        "node: {archives: {a: {kind: folder, path: a}}, models: [{name: phantom, folder: phantom}],"
        " routes: [{name: r, model: phantom, inputs: {CT: []}, deliver_to: [a]}]}"
    )
    call = ["backup", str(folder), "--config", str(config), "--data", str(site.config.data)]
    for point in ("backup.log", "backup.written"):
        marker.touch()
        killed = python_m_app(*call, **{VARIABLE: f"{point}:{marker}"})
        assert killed.returncode < 0
        (left,) = (each for each in folder.iterdir() if each.name != ".lock")
        assert left.name.endswith(".partial")
        for refused in (folder, left):
            with pytest.raises(ConfigError, match="no whole backup"):
                restore(into(site.config, tmp_path / "new"), refused)
    made = python_m_app(*call, "--json")
    assert made.returncode == 0, made.stderr
    back_again = python_m_app(
        *("restore", str(folder), "--config", str(config), "--data", str(tmp_path / "new"))
    )
    assert (back_again.returncode, "must be sent again" in back_again.stdout) == (0, True)


def _flip(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def _forget(path: Path) -> None:
    """Take a file and its line away."""
    (path / "data/spool/1.2.1.1.1.dcm").unlink()
    lines = (path / SUMS).read_text().splitlines(keepends=True)
    (path / SUMS).write_text("".join(line for line in lines if "1.2.1.1.1" not in line))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda at: _flip(at / "data/spool/1.2.1.1.1.dcm"), "1.2.1.1.1.dcm is not what it was"),
        (lambda at: _flip(at / "data/node.db", 5000), "node.db is not what it was"),
        (lambda at: _flip(at / "backup.json"), "backup.json is not what it was"),
        (lambda at: _flip(at / SUMS, 3), "is not what it was|line 1 of"),
        (lambda at: os.truncate(at / "data/node.db", 4096), "node.db is not what it was"),
        (lambda at: os.truncate(at / SUMS, 100), "ends early"),
        (lambda at: (at / "data/jobs/j1a/encode/seg.dcm").unlink(), "seg.dcm is missing"),
        (lambda at: (at / "data/more").write_bytes(b""), "more is not in its"),
        (_forget, "lacks files"),
    ],
)
def test_a_broken_backup_is_refused_and_leaves_nothing(
    site: Kept, tmp_path: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    """With a sentence that names the file; the data folder is as empty as it was."""
    made = back(site, tmp_path / "backups")
    spoil(made.path)
    with pytest.raises(StoreError, match=sentence):
        restore(into(site.config, tmp_path / "new"), made.path)
    left = {each.name for each in (tmp_path / "new").glob("*")}
    assert left <= {"lock"}


def test_without_space_nothing_is_begun(
    site: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a backup nor a restore; the sentence says how much is needed."""
    made = back(site, tmp_path / "backups")
    monkeypatch.setattr("app.backup_folder.SPARE", 1 << 60)
    for module in ("app.backup", "app.restore"):
        monkeypatch.setattr(f"{module}.SPARE", 1 << 60)
    with pytest.raises(OutOfResources, match=r"GB are needed and .* are free"):
        back(site, tmp_path / "backups")
    with pytest.raises(OutOfResources, match="GB are needed"):
        restore(into(site.config, tmp_path / "new"), made.path)
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["lock"]
    assert {each.name for each in (tmp_path / "backups").iterdir()} == {made.path.name, ".lock"}


def test_only_an_empty_folder_without_a_node_is_restored_into(site: Kept, tmp_path: Path) -> None:
    """What is there may be all that is left of something."""
    made = back(site, tmp_path / "backups")
    with pytest.raises(ConfigError, match=r"is not empty \(archive|is not empty \("):
        restore(site.config, made.path)
    (tmp_path / "new").mkdir()
    with (
        only_node_in(tmp_path / "new"),
        pytest.raises(ConfigError, match="a node works in this folder"),
    ):
        restore(into(site.config, tmp_path / "new"), made.path)
    restore(into(site.config, tmp_path / "new"), made.path)


def test_no_node_starts_where_a_restore_was_cut_short(
    site: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the objects without the log would be taken for new arrivals."""
    made = back(site, tmp_path / "backups")
    monkeypatch.setattr("app.restore._empty", lambda _: None)  # as a power cut leaves it
    _flip(made.path / "data/spool/1.2.1.1.2.dcm")
    with pytest.raises(StoreError):
        restore(into(site.config, tmp_path / "new"), made.path)
    assert (tmp_path / "new" / RESTORING).exists()
    with pytest.raises(ConfigError, match="was cut short"), only_node_in(tmp_path / "new"):
        pass
    with pytest.raises(ConfigError, match="is not empty"):
        restore(into(site.config, tmp_path / "new"), made.path)


def test_a_log_of_a_newer_version_is_not_put_back(
    site: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node would refuse it; an older one is brought up when the node starts."""
    made = back(site, tmp_path / "backups")
    newest = max(known_steps())
    assert read_json(made.path / "backup.json")["log_step"] == newest
    monkeypatch.setattr("app.store.copies.known_steps", lambda: {"0001"})
    with pytest.raises(StoreError, match="newer version"):
        restore(into(site.config, tmp_path / "new"), made.path)
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["lock"]
    monkeypatch.setattr("app.store.copies.known_steps", lambda: {newest, "9999"})
    restore(into(site.config, tmp_path / "new"), made.path)
