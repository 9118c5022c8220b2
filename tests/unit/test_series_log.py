"""What the headers of a study say is read once, by a real stage worker, and kept in the job log.

Covered: rows of series, routing a study again without its files, late objects merged with what was
read before, and a restart. Not covered: what the headers mean (test_facts.py) and how long it takes
(bench_log.py).
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from app.config import load_config
from app.dicom.headers import read_series
from app.dicom.series import Series
from app.errors import UnreadableDicom
from app.installed import Crew, install, start_crew
from app.pipeline.work import StudyWork
from app.runner import StageRunner
from app.stages import JobStages
from app.store.jobs import SeriesRow, State
from app.store.store import Store
from tests.log_rows import START, instance
from tests.node import SETTINGS, Node
from tests.phantoms.dicom import StudyFiles, write_study

CT = {"op": "equals", "tag": "Modality", "value": "CT"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return an empty job log."""
    with closing(Store.open(tmp_path / "node.db")) as opened:
        yield opened


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """Return worker processes; only the stage worker is ever called here."""
    config = load_config(Node(tmp_path_factory.mktemp("crew")).config)
    crew = start_crew(config)
    yield crew
    crew.stop()


@pytest.fixture
def stages(tmp_path: Path, store: Store, crew: Crew) -> JobStages:
    """Return the stages of a node whose data folder is the test's."""
    config = load_config(Node(tmp_path / "site").config).at(tmp_path)
    return JobStages(config, store, {}, crew)


def study(folder: Path, seed: int = 1, **changes: str) -> StudyFiles:
    """Write a small study."""
    return write_study(folder, seed=seed, shape=(8, 8), slices=6, **changes)


def arrive(store: Store, folder: Path, files: StudyFiles, *numbers: int) -> None:
    """Note some of the files as received."""
    for number in numbers:
        row = replace(
            instance(files.sop_uids[number], files.study_uid),
            series_uid=files.series_uid,
            file=str(files.paths[number].relative_to(folder)),
        )
        assert store.add_instance(row, START)


def take_away(*paths: Path) -> None:
    """Remove the files, so that nobody can read them."""
    for path in paths:
        path.unlink()


def test_rows_of_series_come_back_as_they_were_kept(store: Store) -> None:
    """What is read for routing leaves the headers where they are; newer rows replace older."""
    rows = [
        SeriesRow(study_uid="1.2", series_uid=uid, instances=n, summary={"of": uid})
        for uid, n in (("1.2.2", 5), ("1.2.1", 4))
    ]
    store.keep_series(rows, {"1.2.1": {"long": [1]}, "1.2.2": None})
    assert store.series_rows("1.2") == rows[::-1]
    assert store.series_headers("1.2", "1.2.1") == {"long": [1]}
    newer = replace(rows[0], instances=6)
    store.keep_series([newer], {"1.2.2": "more"})
    assert store.series_rows("1.2") == [rows[1], newer]
    assert store.series_headers("1.2", "1.2.2") == "more"
    assert store.series_rows("6.6") == []


def test_objects_are_counted_and_their_files_listed_by_series(store: Store) -> None:
    """Of one study only."""
    store.add_instances([instance("1.2.1.1"), instance("1.2.1.2"), instance("3.4.1", "3.4")], START)
    assert store.series_counts("1.2") == {"1.2.1": 2}
    assert store.files_of("1.2") == {
        "1.2.1": {uid: f"spool/{uid}.dcm" for uid in ("1.2.1.1", "1.2.1.2")}
    }
    assert (store.series_counts("6.6"), store.files_of("6.6")) == ({}, {})


def test_a_study_is_routed_again_without_its_files(
    tmp_path: Path, store: Store, stages: JobStages
) -> None:
    """They are read once; after that they might as well be gone."""
    files = study(tmp_path / "in")
    arrive(store, tmp_path, files, *range(6))
    expected = read_series(files.paths)
    assert stages.series(files.study_uid) == expected
    take_away(*files.paths)
    assert stages.series(files.study_uid) == expected


def test_a_late_object_is_read_and_the_others_are_not(
    tmp_path: Path, store: Store, stages: JobStages, crew: Crew
) -> None:
    """What it says is merged with what was read before, also after a restart."""
    files = study(tmp_path / "in")
    whole = read_series(files.paths)
    arrive(store, tmp_path, files, 0, 1, 2)
    assert stages.series(files.study_uid) == read_series(files.paths[:3]) != whole
    take_away(*files.paths[:3])
    arrive(store, tmp_path, files, 3, 5)
    with closing(Store.open(tmp_path / "node.db", migrate=False)) as again:
        restarted = JobStages(stages._config, again, {}, crew)
        assert _facts(restarted.series(files.study_uid)) == {"slices": (5,), "missing_slices": (1,)}
    take_away(files.paths[3], files.paths[5])
    arrive(store, tmp_path, files, 4)
    assert stages.series(files.study_uid) == whole
    take_away(files.paths[4])
    assert stages.series(files.study_uid) == whole


def _facts(study: list[Series]) -> dict[str, object]:
    (series,) = study
    return {name: series.facts[name] for name in ("slices", "missing_slices")}


def test_only_the_series_that_grew_is_read(tmp_path: Path, store: Store, stages: JobStages) -> None:
    """The files of the other one may be gone."""
    one = study(tmp_path / "one")
    other = study(tmp_path / "other", seed=2, study_uid=one.study_uid, patient_id="PHANTOM-1")
    arrive(store, tmp_path, one, *range(6))
    arrive(store, tmp_path, other, 0, 1, 2)
    stages.series(one.study_uid)
    whole = read_series([*one.paths, *other.paths])
    take_away(*one.paths, *other.paths[:3])
    arrive(store, tmp_path, other, 3, 4, 5)
    assert stages.series(one.study_uid) == whole


def test_a_file_that_cannot_be_read_keeps_nothing(
    tmp_path: Path, store: Store, stages: JobStages
) -> None:
    """The error says which one, and the next try reads all that was not read."""
    files = study(tmp_path / "in")
    arrive(store, tmp_path, files, *range(6))
    whole, saved = read_series(files.paths), files.paths[3].read_bytes()
    files.paths[3].write_bytes(saved[:200])
    with pytest.raises(UnreadableDicom, match=files.paths[3].name):
        stages.series(files.study_uid)
    assert store.series_rows(files.study_uid) == []
    files.paths[3].write_bytes(saved)
    assert stages.series(files.study_uid) == whole


def test_a_route_that_takes_all_asks_one_question_a_series(
    tmp_path: Path, store: Store, crew: Crew
) -> None:
    """A late object of one series makes a new version of its job and leaves the other alone."""
    route = SETTINGS["routes"][0] | {"take": "all", "inputs": {"CT": [CT]}}
    config = load_config(Node(tmp_path / "all", {"routes": [route]}).config).at(tmp_path)
    runner = StageRunner(config, store, models=install(config), crew=crew, left=lambda _: None)
    one = study(tmp_path / "one")
    other = study(tmp_path / "other", seed=2, study_uid=one.study_uid, patient_id="PHANTOM-1")
    for files, numbers in ((one, range(6)), (other, range(5)), (other, [5])):
        arrive(store, tmp_path, files, *numbers)
        version = store.study(one.study_uid).version
        runner.route(StudyWork(study_uid=one.study_uid, version=version, signal="test"))
    made = [(job.series_uid, job.version, job.state) for job in store.jobs()]
    assert sorted(made) == sorted(
        [
            (one.series_uid, 1, State.QUEUED),
            (other.series_uid, 1, State.SUPERSEDED),
            (other.series_uid, 2, State.QUEUED),
        ]
    )


def test_a_second_patient_in_a_late_object_is_seen(
    tmp_path: Path, store: Store, stages: JobStages
) -> None:
    """Although the objects of the first one are not read again."""
    files = study(tmp_path / "in")
    ds = dcmread(files.paths[5])
    ds.PatientID = "PHANTOM-OTHER"
    ds.save_as(files.paths[5])
    arrive(store, tmp_path, files, 0, 1)
    (series,) = stages.series(files.study_uid)
    assert len(series.patients) == 1
    take_away(*files.paths[:2])
    arrive(store, tmp_path, files, 5)
    (series,) = stages.series(files.study_uid)
    assert len(series.patients) == 2
