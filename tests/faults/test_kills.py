"""Every process killed with SIGKILL at every stage, and the node stopped while it works.

Covered: after a restart there is exactly one result in the archive, every job is done, nothing is
left running, and the database is whole; a model worker that hangs is killed at its limit; SIGTERM
lets a short job finish and hands a long one back. Not covered: power cuts, full disks, an archive
that lies (see tests/sockets).
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from dicomweb_client import DICOMfileClient

from app.faults import HANG_VARIABLE, VARIABLE
from app.store.jobs import Event, State
from tests.node import Node
from tests.phantoms.dicom import StudyFiles, write_study
from tests.sending import send
from tests.waiting import wait_until

NODE_POINTS = (
    "route.before",
    "infer.before",
    "infer.after",
    "encode.before",
    "encode.after",
    "deliver.before",
    "deliver.stored",
    "deliver.after",
)
WORKER_POINTS = ("read_series", "build", "segment", "encode")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyFiles:
    """A study small enough to be segmented in a moment."""
    return write_study(tmp_path_factory.mktemp("study"), seed=7, shape=(48, 48), slices=24)


@pytest.fixture
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node that is not started yet, and not left running; its settings are the parameter."""
    node = Node(tmp_path, getattr(request, "param", None))
    yield node
    node.end()


def crash_at(point: str, folder: Path, variable: str = VARIABLE) -> tuple[dict[str, str], Path]:
    """Return the environment in which whoever reaches `point` first is killed, and the marker."""
    marker = folder / "crash"
    marker.touch()
    return {variable: f"{point}:{marker}"}, marker


def check_exactly_one_result(node: Node, study: StudyFiles) -> None:
    """One job, done; one SEG, of the series that was sent; nothing running, the log whole."""
    (job,) = node.settled()
    assert job.state is State.DONE, job.reason
    archive = DICOMfileClient(f"file://{node.data / 'archive'}", update_db=True, in_memory=True)
    found = archive.search_for_instances(study.study_uid)
    assert len(found) == 1
    with node.store() as store:
        assert store.counts()[State.RUNNING] == 0
        assert not store.open_studies()
        finished = [event for event in store.events(job.id) if event.event is Event.FINISHED]
    assert len(finished) == 1
    assert len(list(node.data.glob("jobs/*/encode/*.dcm"))) == 1
    assert not list(node.data.rglob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("point", NODE_POINTS)
def test_a_node_killed_at_any_stage_goes_on_after_its_restart(
    point: str, node: Node, study: StudyFiles, tmp_path: Path
) -> None:
    """The folder and the row are all that a restart needs."""
    environment, marker = crash_at(point, tmp_path)
    node.start(**environment)
    send(study.paths, node.port)
    assert node.process is not None
    node.process.wait(60)
    assert node.process.returncode == -signal.SIGKILL
    assert not marker.exists()
    node.start()
    check_exactly_one_result(node, study)


@pytest.mark.slow
@pytest.mark.parametrize("point", WORKER_POINTS)
def test_a_worker_killed_at_its_work_costs_one_try(
    point: str, node: Node, study: StudyFiles, tmp_path: Path
) -> None:
    """The node lives on, starts the worker again and the job is done."""
    environment, marker = crash_at(point, tmp_path)
    node.start(**environment)
    send(study.paths, node.port)
    check_exactly_one_result(node, study)
    assert not marker.exists()
    assert node.process is not None
    assert node.process.poll() is None


@pytest.mark.slow
def test_a_killed_door_is_opened_again_and_loses_nothing(node: Node, study: StudyFiles) -> None:
    """What was acknowledged before is part of the study, what was not is sent again."""
    node.start()
    half = len(study.paths) // 2
    send(study.paths[:half], node.port)
    killed = node.ready["door_pid"]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: node.ready["door_pid"] != killed, 20, "the door's return")
    send(study.paths, node.port)
    jobs = node.settled(1)
    with node.store() as store:
        assert len(store.instances(study.study_uid)) == len(study.paths)
    assert jobs[-1].state is State.DONE


@pytest.mark.slow
@pytest.mark.parametrize("node", [{"workers": {"stage_timeout_s": 4}}], indirect=True)
def test_a_hanging_worker_is_killed_at_its_limit(
    node: Node, study: StudyFiles, tmp_path: Path
) -> None:
    """Stopped in the middle of the work it would otherwise hold the job for ever."""
    environment, marker = crash_at("build", tmp_path, HANG_VARIABLE)
    node.start(**environment)
    send(study.paths, node.port)
    check_exactly_one_result(node, study)
    assert not marker.exists()
    with node.store() as store:
        (job,) = store.jobs()
        reasons = [e.detail for e in store.events(job.id) if e.event is Event.POSTPONED]
    assert len(reasons) == 1
    assert "ran past its limit of 4 s and was killed" in reasons[0]


@pytest.mark.slow
def test_sigterm_lets_a_running_job_finish(node: Node, study: StudyFiles) -> None:
    """The usual stop: what is on its way arrives."""
    node.start()
    send(study.paths, node.port)
    with node.store() as store:
        wait_until(lambda: store.counts()[State.RUNNING], 30, "the job's start")
        assert node.stop() == 0
        (job,) = store.jobs()
        assert job.state is State.DONE, job.reason


@pytest.mark.slow
@pytest.mark.parametrize("node", [{"workers": {"stop_s": 0.5}}], indirect=True)
def test_sigterm_hands_a_long_job_back(node: Node, study: StudyFiles, tmp_path: Path) -> None:
    """After `workers.stop_s` the job is queued again, its try is not counted, and it goes on."""
    environment, marker = crash_at("segment", tmp_path, HANG_VARIABLE)
    node.start(**environment)
    send(study.paths, node.port)
    wait_until(lambda: not marker.exists(), 60, "the model worker's stand-still")
    assert node.stop(30) == 0
    with node.store() as store:
        (job,) = store.jobs()
        assert job.state is State.QUEUED
        assert job.attempts == 0
        assert store.events(job.id)[-1].event is Event.HANDED_BACK
    node.start()
    check_exactly_one_result(node, study)


def test_a_second_node_on_the_same_folder_is_refused(node: Node) -> None:
    """Two nodes on one job log would run every job twice."""
    node.start()
    second = node.command("serve", check=False)
    assert second.returncode == 2
    assert "another node works in this folder" in second.stderr + second.stdout
