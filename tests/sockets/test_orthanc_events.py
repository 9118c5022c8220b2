"""The scripts of deploy/orthanc inside a real Orthanc, before our real port.

Covered: each script in both its uses, fetched by the node and pushed to it; TLS; our own results
tell nothing; what each does while the node is down and when Orthanc starts again.
Not covered: other versions of Orthanc than the installed one.
"""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import trustme
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from app.config_door import Tls
from app.store.jobs import RemoteState
from tests import peers
from tests.sockets.events import EventPort
from tests.sockets.scu import new_study
from tests.sockets.stows import TOKEN, StowDoor
from tests.waiting import wait_until

SCRIPTS = Path(__file__).resolve().parents[2] / "deploy" / "orthanc"
ASKED = ("pacs", RemoteState.ASKED)
both = pytest.mark.parametrize("script", ["marginalia.lua", "marginalia.py"])


@pytest.fixture(autouse=True)
def _installed() -> None:
    peers.require("Orthanc", "orthanc-dicomweb", "orthanc-python")


@pytest.fixture
def port(tmp_path: Path) -> Iterator[EventPort]:
    """Our HTTP port, with one archive to be asked."""
    with EventPort(tmp_path) as one:
        yield one


@contextmanager
def orthanc(storage: Path, script: str, url: str, **more: object) -> Iterator[peers.Orthanc]:
    """Give an Orthanc that runs the script and finds a study stable after a second."""
    settings: dict[str, object] = {
        "StableAge": 1,
        "Marginalia": {"Url": url, "Token": "${MARGINALIA_TOKEN}", "Source": "pacs"},
    }
    if script.endswith(".lua"):
        settings["LuaScripts"] = [str(SCRIPTS / script)]
    else:
        settings["Plugins"] = [str(path) for path in peers.PLUGINS.values()]
        settings["PythonScript"] = str(SCRIPTS / script)
    with peers.Orthanc(storage, settings | more, MARGINALIA_TOKEN=TOKEN) as one:
        yield one


def upload(archive: peers.Orthanc, study_uid: str, manufacturer: str = "TEST") -> None:
    """Store one more slice; each manufacturer has a series of its own."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
    ds.StudyInstanceUID = study_uid
    ds.SeriesInstanceUID = f"{study_uid}.{len(manufacturer)}"
    ds.PatientID, ds.Modality, ds.Manufacturer = "ZZTEST", "CT", manufacturer
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    written = io.BytesIO()
    ds.save_as(written, enforce_file_format=True)
    answer = requests.post(f"{archive.url}/instances", data=written.getvalue(), timeout=10)
    assert answer.status_code == 200, answer.text


def stable(archive: peers.Orthanc, study_uid: str) -> None:
    """Wait until Orthanc has found the study stable, whoever was told of it."""

    def found() -> bool:
        changes = requests.get(f"{archive.url}/changes?limit=1000", timeout=10).json()["Changes"]
        ids = {each["ID"] for each in changes if each["ChangeType"] == "StableStudy"}
        studies = [requests.get(f"{archive.url}/studies/{each}", timeout=10).json() for each in ids]
        return study_uid in {each["MainDicomTags"]["StudyInstanceUID"] for each in studies}

    wait_until(found, 15, "a stable study")


def asked(port: EventPort, *study_uids: str) -> None:
    """Wait until these studies are asked for; whatever else is noted does not count."""
    wait_until(lambda: all(port.asked().get(uid) == ASKED for uid in study_uids), 20, "an event")


def fetched(port: EventPort, study_uid: str) -> None:
    """Do as if the study was fetched."""
    [remote] = port.store.remotes(study_uid)
    assert port.store.settle_remote(remote, RemoteState.FETCHED)


@both
def test_what_a_study_grows_by_is_told_unless_it_is_our_own_result(
    port: EventPort, tmp_path: Path, script: str
) -> None:
    """A study, then a result of ours, then another study; then a late slice of the first."""
    first, second = new_study(), new_study()
    with orthanc(tmp_path / "orthanc", script, port.url) as archive:
        upload(archive, first)
        asked(port, first)
        fetched(port, first)
        upload(archive, first, "Marginalia")
        upload(archive, second)
        asked(port, second)
        assert port.asked()[first] == ("pacs", RemoteState.FETCHED)
        upload(archive, first)
        asked(port, first)
        assert "ZZTEST" not in archive.log.read_text()


@both
def test_what_orthanc_sends_is_complete_when_it_says_so(tmp_path: Path, script: str) -> None:
    """The real door takes the objects by C-STORE, then the event; our results are not sent."""
    study_uid = new_study()
    with StowDoor(tmp_path) as door:
        door.start()
        url = f"http://127.0.0.1:{door.http_port}"
        more = {
            "Marginalia": {"Url": url, "Token": "${MARGINALIA_TOKEN}", "Modality": "node"},
            "DicomModalities": {"node": ["MARGINALIA", "127.0.0.1", door.port]},
        }
        with orthanc(tmp_path / "orthanc", script, "", **more) as archive:
            for manufacturer in ("TEST", "TEST", "Marginalia"):
                upload(archive, study_uid, manufacturer)
            wait_until(lambda: door.rows(study_uid), 20, "an object")
            wait_until(lambda: door.store.study(study_uid).complete_signal, 20, "an event")
        assert door.store.study(study_uid).complete_signal == "told complete by token@127.0.0.1"
        assert {row.series_uid for row in door.rows(study_uid)} == {f"{study_uid}.4"}
        assert len(door.rows(study_uid)) == 2


@both
def test_the_node_is_told_over_tls(tmp_path: Path, script: str) -> None:
    """With the certificate of an authority that each of them was given in its own way."""
    authority = trustme.CA()
    ours = authority.issue_cert("127.0.0.1")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    trusted = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(trusted)
    tls = Tls(
        key=tmp_path / "key.pem",
        certificate=tmp_path / "certificate.pem",
        require_client_certificate=False,
    )
    with EventPort(tmp_path, tls=tls) as port:
        node = {"Url": port.url, "Token": TOKEN, "Authorities": str(trusted)}
        more = {"Marginalia": node, "HttpsCACertificates": str(trusted)}
        with orthanc(tmp_path / "orthanc", script, "", **more) as archive:
            upload(archive, study_uid := new_study())
            asked(port, study_uid)


def test_the_plugin_tells_what_happened_while_the_node_was_down(
    port: EventPort, tmp_path: Path
) -> None:
    """Also when Orthanc was started again meanwhile; what was told before is not told again."""
    told, missed, later = new_study(), new_study(), new_study()
    with orthanc(tmp_path / "orthanc", "marginalia.py", port.url) as archive:
        upload(archive, told)
        asked(port, told)
        fetched(port, told)
        port.close()
        upload(archive, missed)
        stable(archive, missed)
        archive.restart()
        upload(archive, later)
        stable(archive, later)
        port.open()
        asked(port, missed, later)
        assert port.asked()[told] == ("pacs", RemoteState.FETCHED)


def test_the_script_loses_what_happened_while_the_node_was_down(
    port: EventPort, tmp_path: Path
) -> None:
    """As its README says; the next event comes through."""
    missed, later = new_study(), new_study()
    with orthanc(tmp_path / "orthanc", "marginalia.lua", port.url) as archive:
        port.close()
        upload(archive, missed)
        failed = f"study {missed}: the node could not be told"
        wait_until(lambda: failed in archive.log.read_text(), 15, "a line in the log")
        port.open()
        upload(archive, later)
        asked(port, later)
        assert missed not in port.asked()


def test_the_plugin_tells_nothing_of_what_was_there_before_it(
    port: EventPort, tmp_path: Path
) -> None:
    """An archive of years does not arrive at once when the plug-in is installed."""
    old, new = new_study(), new_study()
    with peers.Orthanc(tmp_path / "orthanc", {"StableAge": 1}) as archive:
        upload(archive, old)
        stable(archive, old)
    with orthanc(tmp_path / "orthanc", "marginalia.py", port.url) as archive:
        upload(archive, new)
        asked(port, new)
        assert old not in port.asked()


def test_a_refusal_for_good_holds_up_no_other_event(tmp_path: Path) -> None:
    """The node has no such source and says so; the plug-in goes on."""
    with (
        EventPort(tmp_path, ("other",)) as port,
        orthanc(tmp_path / "orthanc", "marginalia.py", port.url) as archive,
    ):
        upload(archive, study_uid := new_study())
        refused = f"study {study_uid}: the node answers 400"
        wait_until(lambda: refused in archive.log.read_text(), 15, "a refusal")
        last = requests.get(f"{archive.url}/changes?last", timeout=10).json()["Last"]
        noted = tmp_path / "orthanc" / "db" / "marginalia.json"
        wait_until(lambda: json.loads(noted.read_text())["told"] >= last, 10, "the next one")
