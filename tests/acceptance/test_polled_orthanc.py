"""A real Orthanc that a real node asks: its studies come here, their results go back, and it ends.

Covered: polling end to end with results delivered to the polled archive; an Orthanc that is
restarted in the midst; a study that comes by C-STORE and by polling; a study that grows later; a
study that no route takes, and how it is explained. Not covered: archives that lie and thousands of
studies (tests/sockets/test_fetch*), the integrations that trigger by events.
"""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from app.store.jobs import RemoteState, RemoteStudy, State
from tests.node import SETTINGS, Node, running
from tests.peers import Orthanc, require
from tests.phantoms.dicom import StudyFiles, write_study
from tests.sending import send
from tests.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.slow]


def phantom(folder: Path, seed: int, **changes: Any) -> StudyFiles:
    """Write a study small enough to be segmented in a moment."""
    return write_study(folder, **({"seed": seed, "shape": (48, 48), "slices": 24} | changes))


def put(orthanc: Orthanc, paths: Any) -> None:
    """Give files to Orthanc by its own interface."""
    for path in paths:
        answer = requests.post(f"{orthanc.url}/instances", data=path.read_bytes(), timeout=10)
        assert answer.ok, answer.text


def settings(orthanc: Orthanc, **source: Any) -> dict[str, Any]:
    """Return a node that asks Orthanc twice a second and delivers to it."""
    pacs = {"kind": "dicomweb", "url": orthanc.dicomweb_url, "timeout_s": 20, "accepts": ["seg"]}
    return {
        "archives": {"local": pacs},
        "sources": [{"archive": "local", "poll_s": 1, "quiet_s": 0.5} | source],
        "assemble": {"settle_s": 0.2, "quiet_s": 600},
    }


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """Give a running Orthanc."""
    require("Orthanc", "orthanc-dicomweb")
    with ExitStack() as stack:
        yield stack.enter_context(Orthanc(tmp_path / "orthanc"))


def remote(node: Node, study_uid: str) -> RemoteStudy | None:
    """Return what the node knows of a study in the archive."""
    with node.store() as store:
        found = store.remotes(study_uid)
    return found[0] if found else None


def settled(node: Node, study_uid: str, state: RemoteState, number: int | None) -> RemoteStudy:
    """Wait until the study, with so many objects in the archive, has come to a state."""

    def reached() -> RemoteStudy | None:
        found = remote(node, study_uid)
        return found if found and (found.state, found.instances) == (state, number) else None

    found = wait_until(reached, 90, f"{state} of {number} objects; see {node.log}")
    assert found is not None
    return found


def test_a_study_in_the_archive_is_read_once_and_its_result_starts_nothing(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    """The result lies in the polled archive and is listed with its study: no second job."""
    study = phantom(tmp_path / "study", 21)
    put(orthanc, study.paths)
    with running(tmp_path / "node", settings(orthanc)) as node:
        (job,) = node.settled()
        assert job.state is State.DONE, job.reason
        found = settled(node, study.study_uid, RemoteState.FETCHED, 25)
        assert found.attempts == 0
        with node.store() as store:
            assert {row.sop_uid for row in store.instances(study.study_uid)} == set(study.sop_uids)
            assert {row.source for row in store.instances(study.study_uid)} == {"archive local"}
        told = node.command("show", job.id).stdout
        assert "fetched from local: 1 of 1 series are needed, 24 objects came" in told
        assert "in an archive: " in told
        listed = json.loads(node.command("sources", "--json").stdout)
        assert listed["sources"][0]["studies"] == {"fetched": 1}
        assert listed["sources"][0]["error"] == ""
        assert [job.id] == [each.id for each in node.settled()]
    log = node.log.read_text()
    assert log.count("1 of 2 series are needed, 0 objects came") == 1
    assert "Traceback" not in log


def test_a_study_that_comes_on_two_ways_makes_one_job(tmp_path: Path, orthanc: Orthanc) -> None:
    """By C-STORE while the archive lists it too; nothing is put aside, nothing fetched twice."""
    study = phantom(tmp_path / "study", 22)
    put(orthanc, study.paths)
    with running(tmp_path / "node", settings(orthanc)) as node:
        assert send(study.paths, node.port) == [0] * 24
        settled(node, study.study_uid, RemoteState.FETCHED, 25)
        (job,) = node.settled()
        assert job.state is State.DONE, job.reason
        assert node.command("refused").stdout.strip() == "nothing was refused"


def test_an_archive_that_is_restarted_is_asked_again_by_itself(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    """While it is away the source says so; what came meanwhile is found."""
    first, second = phantom(tmp_path / "a", 23), phantom(tmp_path / "b", 24)
    put(orthanc, first.paths)
    with running(tmp_path / "node", settings(orthanc)) as node:
        settled(node, first.study_uid, RemoteState.FETCHED, 25)
        orthanc.stop()
        wait_until(lambda: "connection failed" in node.command("sources").stdout, 30)
        orthanc.start()
        put(orthanc, second.paths)
        settled(node, second.study_uid, RemoteState.FETCHED, 25)
        assert {job.state for job in node.settled(2)} == {State.DONE}
        wait_until(lambda: "connection failed" not in node.command("sources").stdout, 30)


def test_an_event_has_a_study_fetched_from_an_archive_that_is_not_polled(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    """At once; a fetcher that was killed is back by itself and does it."""
    study = phantom(tmp_path / "study", 27)
    put(orthanc, study.paths)
    quiet = settings(orthanc, poll_s=None, quiet_s=3600)
    quiet["door"] = SETTINGS["door"] | {"http": {"port": 0, "token_env": "EVENTS"}}
    with running(tmp_path / "node", quiet, EVENTS="t") as node:
        os.kill(node.ready["fetch_pid"], signal.SIGKILL)
        answer = requests.post(
            f"http://127.0.0.1:{node.ready['http_port']}/api/studies/{study.study_uid}",
            params={"source": "local"},
            headers={"Authorization": "Bearer t"},
            timeout=10,
        )
        assert answer.ok, answer.text
        settled(node, study.study_uid, RemoteState.FETCHED, None)
        (job,) = node.settled()
        assert job.state is State.DONE, job.reason
    assert "the fetcher was ended by SIGKILL and is started again" in node.log.read_text()


def test_a_study_that_no_route_takes_stays_there_and_says_why(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    """Nothing of it is here, and it is explained all the same."""
    study = phantom(tmp_path / "study", 25, slices=5)
    put(orthanc, study.paths)
    with running(tmp_path / "node", settings(orthanc)) as node:
        settled(node, study.study_uid, RemoteState.UNWANTED, 5)
        for command in ("explain", "show"):
            told = node.command(command, study.study_uid).stdout
            assert "unwanted" in told
            assert "slices between 10 and 2000, found 5" in told
        with node.store() as store:
            assert store.studies() == []


def test_a_study_that_grows_in_the_archive_is_completed(tmp_path: Path, orthanc: Orthanc) -> None:
    """The slices that came late are the only ones that are fetched then; a new job reads all."""
    study = phantom(tmp_path / "study", 26)
    put(orthanc, study.paths[:20])
    with running(tmp_path / "node", settings(orthanc)) as node:
        settled(node, study.study_uid, RemoteState.FETCHED, 21)
        put(orthanc, study.paths[20:])
        jobs = wait_until(lambda: found if len(found := node.settled()) > 1 else [], 90)
        assert [len(job.instances["CT"]) for job in jobs] == [20, 24]
    assert "4 objects came" in node.log.read_text()
