"""The whole way, with real peers: a study in by C-STORE, a SEG back, every step in the job log.

Covered: dcmtk sends, Orthanc and the folder archive receive, dciodvfy judges, the log tells; a
study sent twice, two studies at once, the batch beside the node; what is refused and why; that no
log holds a name or an id. Not covered: kills (tests/faults), an archive that lies (tests/sockets).
"""

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dicomweb_client import DICOMfileClient, DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation

from app.store.delivery import DeliveryState
from app.store.jobs import Event, State
from tests.node import SETTINGS, Node, python_m_app, running
from tests.peers import Orthanc, require, storescu
from tests.phantoms.dicom import StudyFiles, write_study
from tests.sending import send
from tests.waiting import wait_until

CANARY = "ZZPHI^CANARY"
CANARY_ID = "ZZID-4711"

STEPS = [
    *(Event.CREATED, Event.CLAIMED, Event.PASSED, Event.PASSED),
    *(Event.HANDED_OVER, Event.FINISHED),
]


def phantom(folder: Path, seed: int, **changes: Any) -> StudyFiles:
    """Write a study small enough to be segmented in a moment."""
    return write_study(folder, **({"seed": seed, "shape": (48, 48), "slices": 24} | changes))


def folder_archive(node: Node) -> DICOMfileClient:
    """Open the node's embedded archive as its reader would."""
    return DICOMfileClient(f"file://{node.data / 'archive'}", update_db=True, in_memory=True)


@pytest.mark.orthanc
@pytest.mark.dcmtk
@pytest.mark.dciodvfy
def test_dcmtk_sends_and_orthanc_holds_one_valid_segmentation(tmp_path: Path) -> None:
    """The first promise: found by QIDO, of the series that was sent, without an error."""
    require("storescu")
    require("Orthanc")
    require("dciodvfy")
    study = phantom(tmp_path / "study", 11, shape=(64, 64), slices=40)
    with Orthanc(tmp_path / "orthanc") as orthanc:
        archives = {"local": {"kind": "dicomweb", "url": orthanc.dicomweb_url}}
        with running(tmp_path / "node", {"archives": archives}) as node:
            assert storescu(node.port, study.paths).returncode == 0
            (job,) = node.settled()
            assert job.state is State.DONE, job.reason
            client = DICOMwebClient(orthanc.dicomweb_url)
            (found,) = client.search_for_instances(search_filters={"Modality": "SEG"})
            uids = Dataset.from_json(found)
            seg = client.retrieve_instance(
                study.study_uid, uids.SeriesInstanceUID, uids.SOPInstanceUID
            )
            told = node.command("show", job.id).stdout
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == study.series_uid
    assert {each.ReferencedSOPInstanceUID for each in referenced.ReferencedInstanceSequence} == set(
        study.sop_uids
    )
    seg.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    assert errors_of(tmp_path / "seg.dcm") == []
    for word in (
        "received_first",
        "routed",
        "TAKEN",
        "created",
        "claimed",
        "infer",
        "encode",
        "deliver",
        "finished",
    ):
        assert word in told


def errors_of(path: Path) -> list[str]:
    """Return what dciodvfy holds against the object."""
    verdict = subprocess.run(
        ["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False
    )
    return [line for line in verdict.stderr.splitlines() if line.startswith("Error")]


def test_a_study_sent_twice_is_one_job_and_two_at_once_load_weights_once(tmp_path: Path) -> None:
    """Identity makes the second sending void; the worker keeps its model warm."""
    first, second = phantom(tmp_path / "1", 21), phantom(tmp_path / "2", 22)
    with running(tmp_path / "node") as node:
        send([*first.paths, *second.paths], node.port)
        jobs = node.settled(2)
        assert [job.state for job in jobs] == [State.DONE, State.DONE]
        assert {job.study_uid for job in jobs} == {first.study_uid, second.study_uid}
        assert set(send(first.paths, node.port)) == {0}
        third = phantom(tmp_path / "3", 23)
        send(third.paths, node.port)
        jobs = node.settled(3)  # by now the second sending of the first has had its time
        assert [job.study_uid for job in jobs].count(first.study_uid) == 1
        with node.store() as store:
            for job in jobs:
                assert [event.event for event in store.events(job.id)] == STEPS
        archive = folder_archive(node)
        for study in (first, second, third):
            assert len(archive.search_for_instances(study.study_uid)) == 1
        assert node.log.read_text().count("loaded weights of") == 1


@pytest.mark.dcmtk
def test_twenty_senders_of_one_study_make_one_job(tmp_path: Path) -> None:
    """All of its 300 slices over 20 associations at once: 300 objects, one job, one result."""
    require("storescu")
    study = phantom(tmp_path / "study", 24, shape=(32, 32), slices=300)
    limits = {"free_gb": 0, "associations": 20, "per_address": 20}
    door = {"port": 0, "open": True, "limits": limits}
    with running(tmp_path / "node", {"door": door}) as node:
        with ThreadPoolExecutor(20) as pool:
            sent = [*pool.map(lambda _: storescu(node.port, study.paths), range(20))]
        assert {each.returncode for each in sent} == {0}
        (job,) = node.settled()
        assert job.state is State.DONE, job.reason
        with node.store() as store:
            assert len(store.instances(study.study_uid)) == 300
        assert len(folder_archive(node).search_for_instances(study.study_uid)) == 1


def test_the_batch_makes_the_same_object_as_the_node(tmp_path: Path) -> None:
    """Same UIDs and the same pixels, so that either may be repeated by the other."""
    study = phantom(tmp_path / "study", 31)
    with running(tmp_path / "node") as node:
        send(study.paths, node.port)
        (job,) = node.settled()
        ours = dcmread(node.data / "jobs" / job.id / "encode" / "seg.dcm")
        output = tmp_path / "output"
        arguments = ["-i", str(tmp_path / "study"), "-o", str(output)]
        answer = node.command("run", *arguments)
    assert answer.returncode == 0
    made = {str(ds.Modality): ds for ds in map(dcmread, output.iterdir())}
    assert {*made} == {"SEG", "SR"}
    theirs = made["SEG"]
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PixelData"):
        assert ours[keyword].value == theirs[keyword].value


def test_the_batch_is_called_as_a_map_is(tmp_path: Path) -> None:
    """By options without a command, and by the environment; 1 for input that cannot be used."""
    study = phantom(tmp_path / "input", 32)
    (tmp_path / "input" / "notes.txt").write_text("not DICOM")
    node = Node(tmp_path / "site")
    by_options = python_m_app(
        "-i", str(tmp_path / "input"), "-o", str(tmp_path / "a"), HOLOSCAN_CONFIG_PATH=node.config
    )
    assert by_options.returncode == 0, by_options.stdout
    by_environment = python_m_app(
        HOLOSCAN_INPUT_PATH=tmp_path / "input",
        HOLOSCAN_OUTPUT_PATH=tmp_path / "b",
        HOLOSCAN_CONFIG_PATH=node.config,
    )
    assert by_environment.returncode == 0, by_environment.stdout
    names = [[path.name for path in (tmp_path / out).iterdir()] for out in "ab"]
    assert names[0] == names[1]
    assert len(names[0]) == 2, "a segmentation and its measurements"
    (tmp_path / "empty").mkdir()
    empty = python_m_app(
        "-i", str(tmp_path / "empty"), "-o", str(tmp_path / "c"), HOLOSCAN_CONFIG_PATH=node.config
    )
    assert empty.returncode == 1
    assert "holds no DICOM object" in empty.stdout
    gapped = tmp_path / "gapped"
    gapped.mkdir()
    for path in study.paths[:10] + study.paths[12:]:
        shutil.copy(path, gapped)
    refused = python_m_app(
        "-i", str(gapped), "-o", str(tmp_path / "d"), HOLOSCAN_CONFIG_PATH=node.config
    )
    assert refused.returncode == 1
    assert "missing_slice: 2 slice(s) missing; send the whole series" in refused.stdout
    missing = python_m_app(
        "-i", str(tmp_path / "none"), "-o", str(tmp_path / "e"), HOLOSCAN_CONFIG_PATH=node.config
    )
    assert missing.returncode == 2


def lenient(**gates: str) -> dict[str, Any]:
    """Return settings whose route lets a series pass that the volume then refuses."""
    (route,) = SETTINGS["routes"]
    role = {"where": route["inputs"]["CT"], "gates": gates}
    return {"routes": [{**route, "inputs": {"CT": role}}]}


def test_what_cannot_be_used_gets_a_reason_and_nothing_is_lost(tmp_path: Path) -> None:
    """A gapped series fails its job with a sentence; what no route takes is explained."""
    gapped, short = phantom(tmp_path / "1", 41), phantom(tmp_path / "2", 42, slices=6)
    with running(tmp_path / "node", lenient(missing_slice="allow")) as node:
        send(gapped.paths[:10] + gapped.paths[12:], node.port)
        (job,) = node.settled()
        assert job.state is State.FAILED
        assert job.reason.startswith("IncompleteSeries: ")
        send(short.paths, node.port)
        with node.store() as store:
            trace = wait_until(lambda: store.trace(short.study_uid), 20, "the verdict")
            assert len(store.instances(short.study_uid)) == 6
        assert "slices between 10 and 2000, found 6" in trace["routes"][0]["reason"]
        assert "found 6" in node.command("explain", short.study_uid).stdout
        send(gapped.paths[10:12], node.port)
        late = node.settled(2)[-1]
        assert late.state is State.DONE, "the late slices make a new job"


def test_an_archive_that_is_away_delays_the_delivery_and_nothing_else(tmp_path: Path) -> None:
    """The result waits in the job's folder; when the archive is there it arrives by itself."""
    require("Orthanc")
    study = phantom(tmp_path / "study", 51)
    orthanc = Orthanc(tmp_path / "orthanc")
    with orthanc:
        url = orthanc.dicomweb_url
        orthanc.kill()
        settings = {
            "archives": {"local": {"kind": "dicomweb", "url": url}},
            "deliver": {"retry_delays_s": [3600]},
        }
        with running(tmp_path / "node", settings) as node:
            send(study.paths, node.port)
            with node.store() as store:
                wait_until(lambda: store.deliveries(states=[DeliveryState.WAITING]), 60, "the wait")
                (job,) = store.jobs()
                assert job.state is State.DELIVERING
                assert "the connection failed" in store.deliveries([job.id])[0].reason
                listed = node.command("deliveries").stdout
                assert job.id in listed
                assert "waiting" in listed
                assert "1 waiting deliveries" in node.command("deliver", "--pending").stdout
                orthanc.restart()
                (job,) = node.settled()
                assert job.state is State.DONE, job.reason
                inferred = [
                    event
                    for event in store.events(job.id)
                    if event.event is Event.PASSED and event.stage == "infer"
                ]
                assert len(inferred) == 1, "a retried delivery never infers again"


def test_a_person_can_look_retry_and_cancel(tmp_path: Path) -> None:
    """The commands tell what the log holds, in words and as JSON."""
    study = phantom(tmp_path / "study", 61)
    away = {"local": {"kind": "dicomweb", "url": "http://127.0.0.1:9/dicom-web"}}
    with running(tmp_path / "node", {"archives": away, "deliver": {"give_up_h": 0}}) as node:
        send(study.paths, node.port)
        (job,) = node.settled()
        assert job.state is State.FAILED
        listed = json.loads(node.command("jobs", "--state", "failed", "--json").stdout)
        assert [each["id"] for each in listed] == [job.id]
        node.command("retry", job.id[:6])
        (job,) = node.settled()
        events = json.loads(node.command("show", job.id, "--json").stdout)["jobs"][0]["events"]
        assert [event["event"] for event in events].count("retried") == 1
        assert node.command("retry", "nothing", check=False).returncode == 1
    node.command("retry", job.id)
    assert "cancelled" in node.command("cancel", job.id).stdout
    assert "cancelled" in node.command("jobs").stdout


def test_no_log_holds_a_name_or_an_id(tmp_path: Path) -> None:
    """Neither on the good way nor where things go wrong."""
    names: dict[str, Any] = {"patient_name": CANARY, "patient_id": CANARY_ID}
    good, bad = phantom(tmp_path / "1", 71, **names), phantom(tmp_path / "2", 72, **names)
    broken = dcmread(bad.paths[5])
    with disable_value_validation():
        broken.ImagePositionPatient = ["0", "0", "nan"]
    broken.save_as(bad.paths[5])
    twisted = dcmread(good.paths[0])
    twisted.PixelData = bytes(len(twisted.PixelData))
    twisted.save_as(tmp_path / "other-content.dcm")
    settings = lenient(placed="allow", missing_slice="allow")
    web = {"web": {"port": 0, "probe_s": 0.5}}
    with running(tmp_path / "node", settings | web, MARGINALIA_LOG_LEVEL="DEBUG") as node:
        send([*good.paths, *bad.paths, tmp_path / "other-content.dcm"], node.port)
        states = {job.state for job in node.settled(2)}
        assert states == {State.DONE, State.FAILED}
        told = node.command("show", good.study_uid).stdout + node.command("jobs").stdout
        web_told = [node.ask(path).text for path in ("/readyz", "/healthz", "/metrics", "/other")]
        web_told.append(node.command("health").stdout)
    seg = dcmread(next((tmp_path / "node").rglob("encode/seg.dcm")))
    assert str(seg.PatientName) == CANARY, "the canary went the whole way"
    for text in (node.log.read_text(errors="replace"), told, *web_told):
        assert text
        assert CANARY.partition("^")[0] not in text
        assert CANARY_ID not in text
    for text in web_told:  # that port is open to all: no study is named there either
        for uid in (good.study_uid, bad.study_uid, *good.sop_uids):
            assert uid not in text
