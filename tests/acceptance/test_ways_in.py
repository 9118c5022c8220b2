"""Every way into the node ends in the same job.

Covered: C-STORE, STOW-RS, an event of a real Orthanc (its Lua script and its Python plug-in),
polling by DICOMweb, C-GET and C-MOVE, each into a node of its own, and all into one node.
Not covered: what becomes of the job, which is the same from there on.
"""

from pathlib import Path
from typing import Any

import pytest
import requests

from app.store.jobs import Job, RemoteState
from tests.node import SETTINGS, Node, running
from tests.peers import PLUGINS, Orthanc, free_port, require
from tests.phantoms.dicom import StudyFiles, write_study
from tests.sending import send
from tests.sockets.stows import BOUNDARY, TOKEN, related
from tests.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]
WAYS = ("c-store", "stow", "event by lua", "event by python", "polling", "c-get", "c-move")
SLICES = 12


def study(folder: Path) -> StudyFiles:
    """Write the one study that goes all ways."""
    return write_study(folder, seed=31, shape=(48, 48), slices=SLICES, uid_seed="ways in")


class Site:
    """A node with an Orthanc beside it, set up for one way."""

    def __init__(self, folder: Path, way: str) -> None:
        self.way = way
        self.http_port = free_port()
        self.orthanc = Orthanc(folder / "orthanc", self._script(), MARGINALIA_TOKEN=TOKEN)
        self.node = Node(folder / "node", self._settings())

    def _script(self) -> dict[str, object]:
        url = f"http://127.0.0.1:{self.http_port}"
        told = {"Url": url, "Token": "${MARGINALIA_TOKEN}", "Source": "pacs"}
        scripts: dict[str, dict[str, object]] = {
            "event by lua": {"LuaScripts": [str(ROOT / "deploy/orthanc/marginalia.lua")]},
            "event by python": {
                "Plugins": [str(path) for path in PLUGINS.values()],
                "PythonScript": str(ROOT / "deploy/orthanc/marginalia.py"),
            },
        }
        return {"StableAge": 1, "Marginalia": told} | scripts.get(self.way, {})

    def _settings(self) -> dict[str, Any]:
        http = {"port": self.http_port, "token_env": "MARGINALIA_TOKEN"}
        dimse = {"kind": "dimse", "host": "127.0.0.1", "port": self.orthanc.dicom_port}
        web = {"kind": "dicomweb", "url": self.orthanc.dicomweb_url}
        calls = {"c-get": "get", "c-move": "move"}
        pacs = web
        if self.way in calls:
            pacs = dimse | {"ae_title": "ORTHANC", "retrieve": calls[self.way], "timeout_s": 20}
        polled = self.way == "polling" or self.way in calls
        source = {"archive": "pacs", "poll_s": 1 if polled else None, "quiet_s": 0.5}
        asks = polled or self.way.startswith("event")
        return {
            "door": SETTINGS["door"] | {"http": http},
            "archives": SETTINGS["archives"] | {"pacs": pacs},
            "sources": [source] if asks else [],
        }

    def bring(self, files: StudyFiles) -> None:
        """Let the study come in."""
        if self.way == "c-store":
            assert set(send(files.paths, self.node.port)) == {0}
        elif self.way == "stow":
            stow(self.node, files)
        else:
            self.orthanc.introduce("MARGINALIA", self.node.port)
            for path in files.paths:
                self.orthanc.put(path.read_bytes())


def stow(node: Node, files: StudyFiles) -> None:
    """Post the study in one request."""
    answer = requests.post(
        f"http://127.0.0.1:{node.ready['http_port']}/dicom-web/studies",
        data=related(path.read_bytes() for path in files.paths),
        headers={
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}',
        },
        timeout=30,
    )
    assert answer.status_code == 200, answer.text


def made(node: Node) -> list[Job]:
    """Wait for a job and return all that there are."""
    with node.store() as store:
        wait_until(store.jobs, 60, f"a job; see {node.log}")
        return store.jobs()


@pytest.fixture
def files(tmp_path: Path) -> StudyFiles:
    """Write the study once a test."""
    require("Orthanc", "orthanc-dicomweb", "orthanc-python")
    return study(tmp_path / "study")


def test_each_way_ends_in_the_same_job(tmp_path: Path, files: StudyFiles) -> None:
    """The identity of the job, its inputs and the objects that it reads are equal."""
    found = {}
    for way in WAYS:
        site = Site(tmp_path / way.replace(" ", "-"), way)
        try:
            with site.orthanc:
                site.node.start(MARGINALIA_TOKEN=TOKEN)
                site.bring(files)
                found[way] = made(site.node)
                site.node.kill()
        finally:
            site.node.end()
    first, *_ = found["c-store"]
    told = {
        way: [(job.id, job.identity, job.inputs, sorted(job.instances["CT"])) for job in jobs]
        for way, jobs in found.items()
    }
    one = (first.id, first.identity, {"CT": files.series_uid}, sorted(files.sop_uids))
    assert told == {way: [one] for way in WAYS}


def test_a_study_that_comes_all_ways_makes_one_job(tmp_path: Path, files: StudyFiles) -> None:
    """Pushed by two senders, listed, told of and asked for by hand: one job, one copy."""
    site = Site(tmp_path, "polling")
    with site.orthanc, running(site.node.data.parent, site._settings(), MARGINALIA_TOKEN=TOKEN):
        node = site.node
        site.bring(files)
        assert set(send(files.paths, node.port)) == {0}
        stow(node, files)
        node.command("fetch", files.study_uid, "--source", "pacs")
        with node.store() as store:
            wait_until(
                lambda: (
                    [each.state for each in store.remotes(files.study_uid)] == [RemoteState.FETCHED]
                ),
                60,
                "the study being fetched",
            )
            jobs = node.settled()
            assert len(jobs) == 1
            assert len(store.instances(files.study_uid)) == SLICES
        assert node.command("refused").stdout.strip() == "nothing was refused"
