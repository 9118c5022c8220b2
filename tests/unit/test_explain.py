"""What `explain` says, of files and of studies in the log.

Covered: whole synthetic studies as files, alone, mixed and with what is no DICOM; a received study
by the rules then and now, with objects that came since; studies that nothing took, that were never
routed, that lie in an archive; JSON. Not covered: how it is laid out (test_trace_words.py), the
verdicts themselves (test_route*.py).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from app import explain
from app.dicom.headers import read_series
from app.dicom.series import Series
from app.errors import StoreError, StudyError
from app.pipeline.rehearse import judged
from app.store.jobs import RemoteState
from app.store.store import Store
from tests.log_rows import START, at, instance
from tests.node import Node
from tests.past import keep
from tests.phantoms import studies
from tests.unit.built import routes

THEN = [
    *routes("""
- name: thin
  inputs:
    CT:
      where: [{op: equals, tag: Modality, value: CT}, {op: equals, fact: orientation, value: axial}]
      prefer: [soft_kernel, thinnest]
""").values()
]
NOW = [
    *routes("""
- name: thin
  inputs: {CT: [{op: equals, tag: Modality, value: CT}, {op: between, fact: slices, low: 200}]}
""").values()
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give an empty job log where the command line looks for it."""
    store = Store.open(tmp_path / "data" / "node.db")
    yield store
    store.close()


def trunk(folder: Path) -> list[Series]:
    """Write the CT of the trunk and return its series."""
    studies.write(folder, "trunk", studies.CT_TRUNK)
    return read_series(folder.rglob("*.dcm"))


def test_each_study_among_the_files_has_its_own_trace(tmp_path: Path) -> None:
    """Whatever the folders; the series are told by what a reader knows them by."""
    studies.write(tmp_path, "one", studies.CT_TRUNK)
    studies.write(tmp_path / "deeper", "two", studies.DCE)
    told = explain.of_files(tmp_path, THEN)
    taken = {each["study"]: each["routes"][0]["taken"] for each in told}
    assert sorted(taken.values()) == [False, True]
    (ct,) = (each for each in told if taken[each["study"]])
    (pick,) = ct["routes"][0]["picks"]
    assert ct["series"][pick["CT"]] == "CT “thin soft” 96 images"


def test_one_file_is_enough(tmp_path: Path) -> None:
    """And says what speaks against so little."""
    files = studies.write(tmp_path, "one", studies.CT_TRUNK)
    (told,) = explain.of_files(files["thin soft"][0], THEN)
    assert "min_slices: 1 slice position(s), fewer than 2" in told["routes"][0]["reason"]


def test_files_that_are_no_dicom_are_left_out_and_named(tmp_path: Path) -> None:
    """An exported CD is full of them."""
    studies.write(tmp_path, "one", studies.DCE)
    for name in ("AUTORUN.INF", "README.TXT", "VIEWER.EXE", "ZZ.DAT"):
        (tmp_path / name).write_text("no DICOM")
    (told,) = explain.of_files(tmp_path, THEN)
    assert told["note"] == ("4 files are no DICOM objects: AUTORUN.INF, README.TXT, VIEWER.EXE, …")


def test_a_folder_without_dicom_is_an_error(tmp_path: Path) -> None:
    """With its number of files."""
    (tmp_path / "a.txt").write_text("no DICOM")
    with pytest.raises(StudyError, match=r"holds no DICOM object that can be read \(1 files\)"):
        explain.of_files(tmp_path, THEN)


def test_two_patients_in_one_study_are_told_as_the_node_would(tmp_path: Path) -> None:
    """No route is asked."""
    *others, one = sorted(trunk(tmp_path), key=lambda each: len(each.sop_uids))
    told = judged([replace(one, patients=("another",)), *others], THEN)
    assert "different patients" in told["alarm"]
    assert told["routes"] == []


def test_a_received_study_is_explained_by_the_rules_of_then_and_of_now(
    tmp_path: Path, store: Store
) -> None:
    """The stored trace stays what it was; today's rules are tried on the rows alone."""
    study = trunk(tmp_path / "files")
    uid = keep(store, study, {"signal": "quiet", "routes": judged(study, THEN)["routes"]})
    then = explain.of_study(store, uid)
    assert then["routes"][0]["taken"]
    assert then["signal"] == "quiet"
    assert len(then["series"]) == len(studies.CT_TRUNK)
    now = explain.of_study_now(store, uid, NOW)
    assert "slices at least 200, found 96" in now["routes"][0]["reason"]
    assert explain.of_study(store, uid) == then


def test_objects_that_came_since_are_told(tmp_path: Path, store: Store) -> None:
    """They are not in the rows, so the verdict may be another one."""
    uid = keep(store, trunk(tmp_path / "files"), None)
    assert explain.of_study_now(store, uid, NOW)["note"] == "by the rules as they are now"
    series_uid = store.series_rows(uid)[0].series_uid
    store.add_instance(replace(instance("2.25.7", uid), series_uid=series_uid), at(1))
    assert "; 1 of its 283 objects came later" in explain.of_study_now(store, uid, NOW)["note"]


def test_a_study_that_was_not_routed_is_told_with_the_last_that_happened(store: Store) -> None:
    """And one that nobody knows as such."""
    store.add_instance(instance("2.25.1", "2.25.2"), START)
    store.fail_study("2.25.2", 1, "its headers cannot be read", at(1))
    with pytest.raises(StudyError, match="is failed: its headers cannot be read"):
        explain.of_study(store, "2.25.2")
    with pytest.raises(StudyError, match="the log keeps no headers of it"):
        explain.of_study_now(store, "2.25.2", NOW)
    for ask in (explain.of_study, lambda s, uid: explain.of_study_now(s, uid, NOW)):
        with pytest.raises((StudyError, StoreError), match=r"study|2\.25\.3"):
            ask(store, "2.25.3")


def test_a_study_that_was_left_in_its_archive_is_explained_by_what_was_seen_there(
    tmp_path: Path, store: Store
) -> None:
    """Nothing of it is here, and the reason is."""
    store.ask_for("pacs", "2.25.9", "", START)
    with pytest.raises(StudyError, match="is asked in archive pacs and was not looked at yet"):
        explain.of_study(store, "2.25.9")
    trace = judged(trunk(tmp_path / "files"), NOW)
    (remote,) = store.remotes("2.25.9")
    assert store.settle_remote(remote, RemoteState.UNWANTED, trace=trace)
    told = explain.of_study(store, "2.25.9")
    assert told["note"] == "nothing of it is here; it is unwanted in archive pacs"
    assert not told["routes"][0]["taken"]


def test_the_command_prints_words_or_json_of_files_and_of_studies(
    tmp_path: Path, store: Store
) -> None:
    """Four questions to a log that holds one study."""
    node = Node(tmp_path)
    study: Sequence[Series] = trunk(tmp_path / "files")
    uid = keep(store, study, {"routes": judged(study, THEN)["routes"]})
    assert f"study {uid}: 1 of 1 routes take it: thin" in node.command("explain", uid).stdout
    now = node.command("explain", uid, "--now").stdout
    assert f"study {uid}: 1 of 1 routes take it: phantom-ct" in now
    files = json.loads(node.command("explain", str(tmp_path / "files"), "--json").stdout)
    assert [each["study"] for each in files] == [uid]
    assert json.loads(node.command("explain", uid, "--json").stdout)["routes"][0]["taken"]
    wrong = node.command("explain", "2.25.404", check=False)
    assert wrong.returncode == 1
    assert "neither a file, nor a folder, nor a study" in wrong.stderr
