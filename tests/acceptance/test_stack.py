"""deploy/compose as it is: a study comes to Orthanc, and its SEG and SR lie beside it.

Covered: events and polling, the way back, what is reachable from outside the shared network, the
check of health, SIGTERM to process 1; six studies while Orthanc is killed twice, with one of them
not stable yet and one half sent, then with half a result. Not covered: images and engine.
"""

import json
import os
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from app.fetch.status import read_status
from app.serve import READY
from tests.peers import NAMESPACES, require, storescu
from tests.phantoms.dicom import StudyFiles, write_study
from tests.stack import ADDRESS, COMPOSE, Stack
from tests.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.slow, pytest.mark.timeout(600)]

URL = "http://127.0.0.1:8042"
READ_S = 240
IN_FLIGHT = 0x1F6A
"""8042, as the kernel's table of connections has it."""


def made_environment(folder: Path) -> dict[str, str]:
    """Run the README's command in a copy of the folder and return what it wrote to .env."""
    lines = (COMPOSE / "README.md").read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("    [ -e .env ]"))
    command = "\n".join(lines[start : lines.index("", start)])
    (folder / "env.example").write_bytes((COMPOSE / "env.example").read_bytes())
    for _ in range(2):  # the second time changes nothing
        subprocess.run(["sh", "-c", command], cwd=folder, check=True)
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600
    written = (folder / ".env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in written if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Give the variables as the README has them made, and a short time to be stable."""
    return made_environment(tmp_path_factory.mktemp("env")) | {"STABLE_AGE_S": "5"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Stack]:
    """Give the running services, the node ready."""
    require(NAMESPACES, "Orthanc", "orthanc-dicomweb", "orthanc-python", "storescu", "ip")
    with Stack(tmp_path_factory.mktemp("stack"), environment) as stack:
        wait_until((stack.volume("node") / READY).exists, 90, "the node's start")
        answers(stack)
        yield stack


class Archive:
    """Orthanc, asked as a viewer would ask it."""

    def __init__(self, stack: Stack, environment: dict[str, str]) -> None:
        self._stack = stack
        self._session = requests.Session()
        self._session.auth = ("orthanc", environment["ORTHANC_PASSWORD"])

    def get(self, path: str) -> Any:
        """Return the JSON at a path."""
        with self._stack.network():
            answer = self._session.get(URL + path, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def modalities(self, study_uid: str) -> Counter[str]:
        """Return how many objects of each modality the study has, by QIDO-RS."""
        found: Counter[str] = Counter()
        for series in self.get(f"/dicom-web/studies/{study_uid}/series"):
            series_uid = series["0020000E"]["Value"][0]
            objects = self.get(f"/dicom-web/studies/{study_uid}/series/{series_uid}/instances")
            assert {each["0020000D"]["Value"][0] for each in objects} == {study_uid}
            found[series["00080060"]["Value"][0]] += len(objects)
        return found


@pytest.fixture
def archive(stack: Stack, environment: dict[str, str]) -> Archive:
    """Give the archive of the stack."""
    return Archive(stack, environment)


def answers(stack: Stack) -> None:
    """Wait until Orthanc answers anything; nobody is let in without a password."""

    def refused() -> bool:
        with stack.network(), suppress(requests.ConnectionError):
            return requests.get(f"{URL}/system", timeout=5).status_code == 401
        return False

    wait_until(refused, 30, f"Orthanc's start (see {stack.log('orthanc')})")


def study(folder: Path, seed: int) -> StudyFiles:
    """Write a study of today, small enough to be segmented in a moment."""
    files = write_study(folder, seed=seed, shape=(48, 48), slices=24)
    for path in files.paths:
        ds = dcmread(path)
        ds.StudyDate = datetime.now(UTC).astimezone().strftime("%Y%m%d")
        ds.save_as(path)
    return files


def send(stack: Stack, *studies: StudyFiles) -> None:
    """Send studies to Orthanc by C-STORE."""
    for each in studies:
        with stack.network():
            sent = storescu(4242, each.paths, called="ORTHANC")
        assert sent.returncode == 0, sent.stderr


def told(stack: Stack, *command: str) -> Any:
    """Return what a command of the node answers, called as a person would."""
    answer = stack.execute("node", "python", "-m", "app", *command, "--json")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def proved(stack: Stack, number: int) -> None:
    """Wait until the node says that it has proved so many deliveries."""
    said(stack, ": proved: ", number)


def said(stack: Stack, words: str, number: int) -> None:
    """Wait for lines of the node's log: to ask Orthanc again and again would keep it from work."""

    def enough() -> bool:
        return stack.log("node").read_text().count(words) >= number

    wait_until(enough, READ_S, f"{words!r} {number} times (see {stack.log('node')})")


def read_once(archive: Archive, *studies: StudyFiles) -> None:
    """Check that each study has all its images, one SEG and one SR."""
    found = {each.study_uid: archive.modalities(each.study_uid) for each in studies}
    assert found == {each.study_uid: Counter(CT=24, SEG=1, SR=1) for each in studies}


def test_a_study_is_read_and_its_results_lie_beside_it(
    stack: Stack, archive: Archive, tmp_path: Path
) -> None:
    """Orthanc tells that it is stable, sooner than its list could."""
    files = study(tmp_path, 71)
    send(stack, files)
    proved(stack, 1)
    read_once(archive, files)
    (job,) = told(stack, "jobs")
    assert job["state"] == "done", job
    event = (
        f"token@127.0.0.1 says that study {files.study_uid} is whole: it is fetched from orthanc"
    )
    assert event in stack.log("node").read_text()


def test_only_orthanc_and_the_health_are_reachable_from_outside(stack: Stack) -> None:
    """Each published port answers on an address that is not loopback, and no other port does."""
    published = {int(port.rpartition(":")[2]) for port in stack.service("pod")["ports"]}
    with stack.network():
        for port in (8042, 4242, 8080, 8081, 11112):
            for address in ("127.0.0.1", ADDRESS):
                with socket.socket() as probe:
                    probe.settimeout(10)
                    refused = probe.connect_ex((address, port))
                assert bool(refused) == (address == ADDRESS and port not in published), port


def test_the_node_says_that_it_is_well(stack: Stack) -> None:
    """By the check that the compose file names, inside its own read-only file system."""
    wait_until(lambda: stack.health("node").returncode == 0, 60, "a node that is well")


def test_nothing_is_lost_or_doubled_while_orthanc_is_killed(
    stack: Stack, archive: Archive, tmp_path: Path
) -> None:
    """Once with a study not stable yet and one half sent, once while it takes in a result."""
    studies = [study(tmp_path / str(seed), seed) for seed in range(81, 87)]
    send(stack, *studies[:2])
    with half_sent(stack, studies[2]):
        restart(stack)
    forgotten = studies[1].study_uid
    send(stack, *studies[2:])
    stop_in_the_midst(stack)
    restart(stack)
    proved(stack, 7)
    assert not was_stable_before_results(archive, forgotten)

    seen = read_status(stack.volume("node"), "orthanc").polls
    listed = lambda: read_status(stack.volume("node"), "orthanc").polls > seen + 1  # noqa: E731
    wait_until(listed, 60, "a list that began after the last result")
    read_once(archive, *studies)
    jobs = told(stack, "jobs")
    assert Counter(job["state"] for job in jobs) == {"done": 7}
    assert told(stack, "deliveries") == []
    assert "Traceback" not in stack.log("node").read_text()


@contextmanager
def half_sent(stack: Stack, files: StudyFiles) -> Iterator[None]:
    """Send the first slices of a study, and stay in the association."""
    entity = AE("SENDER")
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    with stack.network():
        assoc = entity.associate("127.0.0.1", 4242, ae_title="ORTHANC")
        assert assoc.is_established
        assert [assoc.send_c_store(dcmread(path)).Status for path in files.paths[:10]] == [0] * 10
    try:
        yield
    finally:
        assoc.abort()


def restart(stack: Stack) -> None:
    """Kill Orthanc, if it still runs, and start it again."""
    stack.kill("orthanc")
    stack.start("orthanc")
    answers(stack)


def stop_in_the_midst(stack: Stack) -> None:
    """Freeze Orthanc, and return when a result has begun to come in that it has not read.

    A node asks what is there before it sends, so Orthanc must answer, and be frozen again before
    the result comes: it runs on for moments shorter than a node needs for its next request. A
    result may slip through all the same, so there have to be several to come.
    """
    said(stack, "1 of 1 series are needed, 24 objects came", 3)
    process = stack.first_process("orthanc")

    moment = threading.Event()

    def half_received() -> bool:
        os.kill(process, signal.SIGCONT)
        moment.wait(0.002)
        os.kill(process, signal.SIGSTOP)
        with suppress(AssertionError):
            wait_until(lambda: unread(process) > 4096, 0.1, "a result")
            return True
        return False

    wait_until(half_received, READ_S, "a result on its way")


def unread(process: int) -> int:
    """Return how many bytes wait at most in a connection to Orthanc's HTTP port."""
    table = Path(f"/proc/{process}/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    rows = [line.split() for line in table]
    return max(
        (int(row[4].partition(":")[2], 16) for row in rows if row[1].endswith(f":{IN_FLIGHT:04X}")),
        default=0,
    )


def was_stable_before_results(archive: Archive, study_uid: str) -> bool:
    """Say whether Orthanc called the study stable while it had nothing but images."""
    (found,) = (
        each
        for each in archive.get("/studies?expand")
        if each["MainDicomTags"]["StudyInstanceUID"] == study_uid
    )
    results = {
        each["ID"]
        for each in archive.get(f"/studies/{found['ID']}/series")
        if each["MainDicomTags"]["Modality"] != "CT"
    }
    changes = archive.get("/changes?limit=10000")["Changes"]
    stable = [
        c["Seq"] for c in changes if (c["ChangeType"], c["ID"]) == ("StableStudy", found["ID"])
    ]
    first = min(c["Seq"] for c in changes if c["ChangeType"] == "NewSeries" and c["ID"] in results)
    return any(seq < first for seq in stable)


def test_the_node_ends_when_its_engine_says_so(stack: Stack) -> None:
    """It is process 1, to which the kernel gives no signal that is not waited for."""
    assert stack.stop("node") == 0
