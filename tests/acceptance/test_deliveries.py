"""Results on their way out of a real node: several archives, a review, and what a person can do.

Covered: a route to three destinations of which one is held and one is away; reception meanwhile;
the commands; segmentation and measurements in each; a node killed while a delivery waits; a card's
promise that is broken. Not covered: archives that lie
(sockets/test_couriers), the objects themselves (test_seg_matrix).
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from dicomweb_client import DICOMfileClient
from pydicom.dataset import Dataset

from app.installed import ZOO
from app.store.delivery import DeliveryState
from app.store.jobs import State
from tests.archive import running_archive
from tests.node import SETTINGS, Node, running
from tests.phantoms.dicom import StudyFiles, write_study
from tests.sending import send
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


def phantom(folder: Path, seed: int) -> StudyFiles:
    """Write a study small enough to be segmented in a moment."""
    return write_study(folder, seed=seed, shape=(32, 32), slices=24)


def delivering(to: list[Any], archives: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return settings of a node whose one route delivers there."""
    route = SETTINGS["routes"][0] | {"deliver_to": to}
    return {"routes": [route], "archives": archives} | more


def held_in(folder: Path, study_uid: str) -> dict[str, Dataset]:
    """Return what a folder archive lists of a study, by modality."""
    client = DICOMfileClient(f"file://{folder}", update_db=True, in_memory=True)
    listed = [Dataset.from_json(each) for each in client.search_for_instances(study_uid)]
    files = {path.name: path for path in folder.glob("studies/*/series/*/instances/*")}
    return {str(each.Modality): pydicom.dcmread(files[each.SOPInstanceUID]) for each in listed}


def state_of(node: Node, job_id: str, destination: str) -> str:
    """Return the state of a delivery."""
    with node.store() as store:
        found = {each.destination: each for each in store.deliveries([job_id])}
    return str(found[destination].state)


def at_pacs(node: Node) -> int:
    """Return how many jobs' results are proved to be in the archive."""
    with node.store() as store:
        proved = store.deliveries(states=[DeliveryState.PROVED])
    return sum(each.destination == "pacs" for each in proved)


def test_each_destination_goes_its_own_way(tmp_path: Path) -> None:
    """One has it, one waits for a person, one is away; studies come in all the while."""
    first, second = phantom(tmp_path / "1", 91), phantom(tmp_path / "2", 92)
    every = ["seg", "sr", "rtstruct", "overview"]
    with running_archive() as pacs:
        archives = {
            "research": {"kind": "folder", "path": "research", "accepts": every},
            "clinic": {"kind": "folder", "path": "clinic"},
            "pacs": {"kind": "dicomweb", "url": pacs.url, "timeout_s": 5},
        }
        to = ["research", {"archive": "clinic", "hold": True}, "pacs"]
        deliver = {"retry_delays_s": [0.5], "longest_pause_s": 1}
        with running(tmp_path / "node", delivering(to, archives, deliver=deliver)) as node:
            pacs.down = True
            assert {*send(first.paths, node.port)} == {0}
            with node.store() as store:
                wait_until(lambda: store.deliveries(states=[DeliveryState.WAITING]), 60, "the wait")
                (job,) = store.jobs()
                assert job.state is State.DELIVERING
                wait_until(lambda: state_of(node, job.id, "research") == "proved", 20)
            research = held_in(node.data / "research", first.study_uid)
            assert {*research} == {"SEG", "SR", "RTSTRUCT", "OT"}
            evidence = research["SR"].CurrentRequestedProcedureEvidenceSequence[0]
            referred = {
                str(sop.ReferencedSOPInstanceUID)
                for series in evidence.ReferencedSeriesSequence
                for sop in series.ReferencedSOPSequence
            }
            assert research["SEG"].SOPInstanceUID in referred
            assert not (node.data / "clinic").exists()
            assert {*send(second.paths, node.port)} == {0}, "reception knows nothing of archives"
            listed = json.loads(node.command("deliveries", "--state", "held", "--json").stdout)
            assert job.id in {each["job_id"] for each in listed}
            pacs.down = False
            wait_until(lambda: state_of(node, job.id, "pacs") == "proved", 30, "the archive")
            assert "is released to clinic" in node.command("release", job.id).stdout
            wait_until(lambda: state_of(node, job.id, "clinic") == "proved", 20, "the release")
            assert {*held_in(node.data / "clinic", first.study_uid)} == {"SEG", "SR"}
            with node.store() as store:
                assert store.job(job.id).state is State.DONE
            told = node.command("show", job.id).stdout
            assert "to clinic (seg, sr): proved" in told
            assert "to pacs (seg, sr): proved" in told
            assert "HTTP 503" in told
            wait_until(lambda: at_pacs(node) == 2, 60, "the second study's results")
            posts = len(pacs.posts)
            node.command("resend", job.id, "--to", "pacs")
            wait_until(lambda: state_of(node, job.id, "pacs") == "proved", 20, "the second time")
            assert len(pacs.posts) == posts, "what it lists is not sent again"
            assert node.command("release", job.id, check=False).returncode == 1


def test_a_node_killed_while_a_delivery_waits_delivers_after_its_restart(tmp_path: Path) -> None:
    """Nothing is inferred or encoded again; the archive gets each object once."""
    study = phantom(tmp_path / "study", 93)
    with running_archive() as pacs:
        archives = {"pacs": {"kind": "dicomweb", "url": pacs.url, "timeout_s": 5}}
        deliver = {"longest_pause_s": 1}
        node = Node(tmp_path / "node", delivering(["pacs"], archives, deliver=deliver))
        try:
            pacs.down = True
            node.start()
            send(study.paths, node.port)
            with node.store() as store:
                wait_until(lambda: store.deliveries(states=[DeliveryState.WAITING]), 60, "the wait")
            node.kill()
            made = {path: path.stat().st_mtime_ns for path in node.data.glob("jobs/*/encode/*.dcm")}
            assert len(made) == 2
            pacs.down = False
            node.start()
            (job,) = node.settled()
            assert job.state is State.DONE, job.reason
            assert {path: path.stat().st_mtime_ns for path in made} == made
            assert sorted(pacs.held.values()) == sorted(path.read_bytes() for path in made)
            assert len(pacs.posts) == 2
        finally:
            node.end()


def test_a_result_that_its_card_does_not_allow_stays_here(tmp_path: Path) -> None:
    """A liver of a tenth of a litre: the job fails with the reason, the archive stays empty."""
    study = phantom(tmp_path / "study", 94)
    model = tmp_path / "model"
    shutil.copytree(ZOO / "phantom", model)
    card = yaml.safe_load((model / "card.yaml").read_text(encoding="utf-8"))
    card["labels"][2]["volume_ml"] = [0, 1]
    (model / "card.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    settings = {"models": [{"name": "phantom", "folder": str(model)}]}
    with running(tmp_path / "node", settings) as node:
        send(study.paths, node.port)
        (job,) = node.settled()
        assert job.state is State.FAILED
        assert job.reason.startswith("ResultRejected: phantom: Liver has ")
        assert "its card allows 0 to 1 ml; it is not sent" in job.reason
        assert not (node.data / "archive").exists()
        assert job.reason in node.command("show", job.id).stdout
