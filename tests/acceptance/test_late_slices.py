"""Slices that come late, with a real node: which results reach the archive and what tells of them.

Covered: more slices after the result, while the job runs, and none but the same again; senders of
one object an association; a node killed over a half-received study; `complete`; shadow mode; a
second patient in a study. Not covered: each state a job may be in (unit/test_versions.py).
"""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from dicomweb_client import DICOMfileClient
from pydicom import Dataset, dcmread

from app.faults import HANG_VARIABLE
from app.store.delivery import DeliveryState
from app.store.jobs import Job, State, StudyState
from tests.acceptance.test_whole_way import errors_of
from tests.node import SETTINGS, Node, running
from tests.peers import require
from tests.phantoms.dicom import StudyFiles, write_study
from tests.sending import send
from tests.waiting import wait_until

NEVER: dict[str, Any] = {"assemble": {"settle_s": None, "quiet_s": 3600}}
"""A node that takes no release for an end."""


def phantom(folder: Path, seed: int, slices: int = 24, **changes: Any) -> StudyFiles:
    """Write a study small enough to be segmented in a moment."""
    return write_study(folder, **({"seed": seed, "shape": (32, 32), "slices": slices} | changes))


def archived(node: Node, study_uid: str) -> list[Dataset]:
    """Return what the embedded archive holds of the study."""
    client = DICOMfileClient(f"file://{node.data / 'archive'}", update_db=True, in_memory=True)
    return [Dataset.from_json(each) for each in client.search_for_instances(study_uid)]


def done(node: Node, number: int) -> list[Job]:
    """Wait until this many jobs ended, the last one well, and return them, oldest first."""
    jobs = node.settled(number)
    assert len(jobs) == number
    assert jobs[-1].state is State.DONE, jobs[-1].reason
    return jobs


@pytest.mark.slow
@pytest.mark.dciodvfy
def test_fifty_slices_after_the_result_make_a_second_version(tmp_path: Path) -> None:
    """250 of 300 give a result; with all 300 there is a second one that says so, and both tell."""
    require("dciodvfy")
    study = phantom(tmp_path / "study", 81, slices=300)
    with running(tmp_path / "node") as node:
        send(study.paths[:250], node.port)
        (job,) = done(node, 1)
        assert len(job.instances["CT"]) == 250
        send(study.paths[250:], node.port)
        first, second = done(node, 2)
        assert (first.state, first.superseded_by) == (State.SUPERSEDED, second.id)
        assert (second.version, len(second.instances["CT"])) == (2, 300)
        segs = {
            job.id: node.data / "jobs" / job.id / "encode" / "seg.dcm" for job in (first, second)
        }
        uids = {name: dcmread(path).SOPInstanceUID for name, path in segs.items()}
        assert {each.SOPInstanceUID for each in archived(node, study.study_uid)} == {*uids.values()}
        newer = dcmread(segs[second.id])
        assert newer.SeriesDescription.endswith(" version 2")
        assert newer.ContentDescription.startswith("Version 2 ")
        assert "ersion" not in dcmread(segs[first.id]).SeriesDescription
        assert errors_of(segs[second.id]) == []
        told = node.command("show", study.study_uid).stdout
        assert f"replaced by {second.id}; its results stay in the archive" in told
        assert f"version 2, replaces {first.id}" in told
        listed = node.command("jobs").stdout
        assert f"replaced by {second.id}" in listed
        assert f"version 2, replaces {first.id}" in listed
        send(study.paths, node.port)
        send(phantom(tmp_path / "other", 82).paths, node.port)
        assert len(done(node, 3)) == 3, "the whole study again makes no third version"


@pytest.mark.slow
def test_late_slices_while_the_job_runs_leave_one_result(tmp_path: Path) -> None:
    """The worker stands still at its encoding while they come; nothing of the subset is sent."""
    study = phantom(tmp_path / "study", 83, slices=30)
    marker = tmp_path / "hang"
    marker.touch()
    with running(tmp_path / "node", NEVER, **{HANG_VARIABLE: f"encode:{marker}"}) as node:
        send(study.paths[:24], node.port)
        node.command("complete", study.study_uid)
        wait_until(lambda: not marker.exists(), 60, "the worker's stand-still")
        send(study.paths[24:], node.port)
        go_on(node)
        with node.store() as store:
            wait_until(lambda: store.counts()[State.DELIVERING], 30, "the hold")
            (job,) = store.jobs()
            (delivery,) = store.deliveries([job.id])
            assert (delivery.state, delivery.attempts) == (DeliveryState.PENDING, 0)
        node.command("complete", study.study_uid)
        first, second = done(node, 2)
        assert (first.state, first.superseded_by) == (State.SUPERSEDED, second.id)
        assert (first.published_at, second.version) == (None, 2)
        (held,) = archived(node, study.study_uid)
        seg = dcmread(node.data / "jobs" / second.id / "encode" / "seg.dcm")
        assert held.SOPInstanceUID == seg.SOPInstanceUID
        assert "nothing of it was sent" in node.command("show", first.id).stdout
        assert not (node.data / "jobs" / first.id / "infer").exists()


def go_on(node: Node) -> None:
    """Let the node's child that was stopped go on."""
    assert node.process is not None
    for stat in Path("/proc").glob("[0-9]*/stat"):
        state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        if (state, parent) == ("T", str(node.process.pid)):
            os.kill(int(stat.parent.name), signal.SIGCONT)
            return
    raise AssertionError("no child of the node was stopped")


@pytest.mark.slow
def test_a_sender_of_one_object_an_association_makes_one_job(tmp_path: Path) -> None:
    """Its releases say nothing, so that only quiet time counts for it."""
    study = phantom(tmp_path / "study", 84)
    rules = {"sender": "SENDER", "settle_s": None, "quiet_s": 2}
    assemble = {"settle_s": 0, "quiet_s": 3600, "senders": [rules]}
    with running(tmp_path / "node", {"assemble": assemble}) as node:
        for path in study.paths:
            send([path], node.port)
        (job,) = done(node, 1)
        assert (job.version, len(job.instances["CT"])) == (1, 24)
        assert "complete: no object for 2 s" in node.command("explain", study.study_uid).stdout


@pytest.mark.slow
def test_a_half_received_study_survives_the_node(tmp_path: Path) -> None:
    """Killed and started again, the node waits on; one job has all of the study."""
    study = phantom(tmp_path / "study", 85)
    node = Node(tmp_path / "node", {"assemble": {"settle_s": None, "quiet_s": 6}})
    try:
        node.start()
        send(study.paths[:12], node.port)
        node.kill()
        node.start()
        with node.store() as store:
            assert store.study(study.study_uid).state is StudyState.OPEN
        send(study.paths[12:], node.port)
        (job,) = done(node, 1)
        assert len(job.instances["CT"]) == 24
    finally:
        node.end()


@pytest.mark.slow
def test_a_person_says_that_a_study_is_complete(tmp_path: Path) -> None:
    """It is routed at once; said of another, the command says why nothing happens."""
    study = phantom(tmp_path / "study", 86)
    with running(tmp_path / "node", NEVER) as node:
        send(study.paths, node.port)
        answer = node.command("complete", "1.2.3", check=False)
        assert (answer.returncode, answer.stderr) == (1, "there is no study 1.2.3\n")
        node.command("complete", study.study_uid)
        done(node, 1)
        answer = node.command("complete", study.study_uid, check=False)
        assert answer.returncode == 1
        assert f"study {study.study_uid} was routed already" in answer.stderr
        told = node.command("show", study.study_uid).stdout
        assert "complete: said by hand to be complete" in told


@pytest.mark.slow
def test_a_shadow_runs_everything_and_sends_nothing(tmp_path: Path) -> None:
    """The result lies in the job's folder, the archive is empty."""
    study = phantom(tmp_path / "study", 87)
    routes = [SETTINGS["routes"][0] | {"mode": "shadow"}]
    with running(tmp_path / "node", {"routes": routes}) as node:
        send(study.paths, node.port)
        (job,) = done(node, 1)
        seg = node.data / "jobs" / job.id / "encode" / "seg.dcm"
        assert seg.exists()
        assert not (node.data / "archive").exists()
        assert job.published_at is None
        told = node.command("show", job.id).stdout
        assert f"shadow: nothing is sent; the results lie in {seg.parent}" in told


@pytest.mark.slow
def test_a_second_patient_in_a_study_is_an_alarm(tmp_path: Path) -> None:
    """Nothing is routed, and what is said of it identifies nobody."""
    study = phantom(tmp_path / "study", 88)
    for path in study.paths[12:]:
        ds = dcmread(path)
        ds.PatientID = "ZZID-OTHER"
        ds.save_as(path)
    with running(tmp_path / "node") as node:
        send(study.paths, node.port)
        with node.store() as store:
            wait_until(lambda: not store.open_studies(), 30, "the alarm")
            assert store.study(study.study_uid).state is StudyState.FAILED
            assert store.jobs() == []
        told = json.loads(node.command("show", study.study_uid, "--json").stdout)
        (line,) = [each for each in told["study_events"] if each["event"] == "alarm"]
        assert "2 different patients" in line["detail"]
        logged = node.log.read_text()
    assert "ERROR" in logged
    for text in (json.dumps(told), logged):
        assert "ZZID-OTHER" not in text
        assert "PHANTOM-88" not in text
