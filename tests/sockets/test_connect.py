"""`check --connect` and `replay --source` against real peers: those that answer, those that do not.

Covered: a real Orthanc by QIDO-RS, by C-ECHO as an archive and as a peer of the door; a door that
does not know us; ports where nobody listens; a web server that is no archive; folders that can and
cannot be written; past studies of Orthanc by its metadata. Not covered: TLS (test_dimse_*).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from app.config import Config
from app.connect import ask_all
from tests.node import SETTINGS, Node
from tests.peers import Orthanc, free_port, require
from tests.phantoms import studies
from tests.sockets.doors import Door

CLOSED = {"ae_title": "US", "addresses": ["127.0.0.1"]}


@pytest.fixture(scope="module")
def orthanc() -> Iterator[Orthanc]:
    """Give a running Orthanc."""
    require("Orthanc", "orthanc-dicomweb")
    with Orthanc() as running:
        yield running


def dicomweb(url: str) -> dict[str, Any]:
    """Return an archive of this kind."""
    return {"kind": "dicomweb", "url": url, "timeout_s": 5}


def dimse(port: int, ae_title: str = "ORTHANC") -> dict[str, Any]:
    """Return an archive of this kind."""
    return {
        "kind": "dimse",
        "host": "127.0.0.1",
        "port": port,
        "ae_title": ae_title,
        "timeout_s": 5,
    }


def settings(data: Path, archives: Mapping[str, Any], **door: Any) -> dict[str, Any]:
    """Return the node's settings with these archives, of which the first gets the results."""
    route = SETTINGS["routes"][0] | {"deliver_to": [next(iter(archives))]}
    return {
        **SETTINGS,
        "data": str(data),
        "archives": dict(archives),
        "routes": [route],
        "door": SETTINGS["door"] | door,
    }


def asked(
    data: Path, archives: Mapping[str, Any], more: Mapping[str, Any] | None = None, **door: Any
) -> dict[str, str]:
    """Ask all and return the answers by name, empty where the peer is fit for use."""
    config = Config.model_validate(settings(data, archives, **door) | dict(more or {}))
    answers = ask_all(config)
    assert all(each.answers == (not each.reason) and each.seconds >= 0 for each in answers)
    return {each.name: each.reason for each in answers}


@pytest.mark.orthanc
def test_peers_that_are_there_answer(tmp_path: Path, orthanc: Orthanc) -> None:
    """By the protocol that each is used with; nothing is stored anywhere."""
    peer = {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dicom_port}
    archives = {
        "web": dicomweb(orthanc.dicomweb_url),
        "dimse": dimse(orthanc.dicom_port),
        "local": {"kind": "folder", "path": "made/later"},
        "plain": {"kind": "files", "path": str(tmp_path)},
    }
    held = orthanc.instances()
    found = asked(tmp_path / "data", archives, open=False, peers=[peer, {"ae_title": "CT1"}])
    assert found == {
        "archive web": "",
        "archive dimse": "",
        "archive local": "",
        "archive plain": "",
        "peer ORTHANC": "",
    }
    assert orthanc.instances() == held
    assert not (tmp_path / "data").exists()
    assert [*tmp_path.iterdir()] == []


def test_peers_that_are_away_are_told_with_what_to_do(tmp_path: Path) -> None:
    """Each by its own sentence, in the order of the file."""
    (tmp_path / "file").write_text("in the way")
    archives = {
        "web": dicomweb(f"http://127.0.0.1:{free_port()}/dicom-web"),
        "dimse": dimse(free_port()),
        "local": {"kind": "folder", "path": str(tmp_path / "file" / "archive")},
    }
    peer = {"ae_title": "PACS", "host": "127.0.0.1", "port": free_port()}
    found = asked(tmp_path / "data", archives, open=False, peers=[peer])
    assert [*found] == ["archive web", "archive dimse", "archive local", "peer PACS"]
    assert found["archive web"].startswith("the connection failed (")
    assert "cannot be reached at 127.0.0.1:" in found["archive dimse"]
    assert "look at the folder's disk and rights" in found["archive local"]
    assert "cannot be reached at 127.0.0.1:" in found["peer PACS"]


@pytest.mark.orthanc
def test_a_source_that_answers_and_lets_nobody_search_is_told(tmp_path: Path) -> None:
    """Orthanc lets everybody echo; studies are listed for those that it knows."""
    require("Orthanc", "orthanc-dicomweb")
    with Orthanc(tmp_path / "orthanc") as stranger:
        archives = {"pacs": dimse(stranger.dicom_port)}
        assert asked(tmp_path, archives) == {"archive pacs": ""}
        source = {"sources": [{"archive": "pacs"}]}
        refused = asked(tmp_path, archives, source)
        assert "whether it knows our AE title MARGINALIA" in refused["archive pacs"]
        stranger.introduce("MARGINALIA", free_port())
        assert asked(tmp_path, archives, source) == {"archive pacs": ""}


@pytest.mark.orthanc
def test_a_server_that_is_no_archive_is_told(tmp_path: Path, orthanc: Orthanc) -> None:
    """A wrong path is the most frequent mistake."""
    found = asked(tmp_path, {"web": dicomweb(f"{orthanc.url}/dicomweb")})
    assert found == {"archive web": "refused a question with HTTP 404; check its url"}


def test_a_peer_that_does_not_know_us_is_told(tmp_path: Path) -> None:
    """A door that lets another AE title in, and one that is called by another name."""
    (tmp_path / "door").mkdir()
    with Door(tmp_path / "door", peers=[CLOSED]) as door:
        door.start()
        found = asked(
            tmp_path / "data",
            {
                "stranger": dimse(door.port, "MARGINALIA") | {"calling_ae_title": "ELSE"},
                "misnamed": dimse(door.port, "PACS") | {"calling_ae_title": "US"},
                "known": dimse(door.port, "MARGINALIA") | {"calling_ae_title": "US"},
            },
        )
    assert "it does not know our AE title ELSE" in found["archive stranger"]
    assert "it is not called PACS" in found["archive misnamed"]
    assert found["archive known"] == ""


@pytest.mark.orthanc
def test_the_command_prints_a_line_for_each_and_fails_when_one_does(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    """Warnings alone are no failure."""
    good = {"web": dicomweb(orthanc.dicomweb_url), "spare": {"kind": "folder", "path": "a"}}
    node = Node(tmp_path / "good", settings(tmp_path / "good" / "data", good))
    text = node.command("check", "--connect").stdout
    assert f"archive web: answers (QIDO-RS at {orthanc.dicomweb_url}, 0." in text
    assert "warning: archives.spare: neither a route nor a source names it" in text
    bad = good | {"dead": dimse(free_port())}
    node = Node(tmp_path / "bad", settings(tmp_path / "bad" / "data", bad))
    refused = node.command("check", "--connect", "--json", check=False)
    assert refused.returncode == 1
    peers = {each["name"]: each["answers"] for each in json.loads(refused.stdout)["peers"]}
    assert peers == {"archive web": True, "archive spare": True, "archive dead": False}
    assert node.command("check").returncode == 0


@pytest.mark.orthanc
def test_rules_are_rehearsed_on_the_studies_of_an_archive(tmp_path: Path, orthanc: Orthanc) -> None:
    """By their metadata, before the node ever ran; nothing comes here and nothing is written."""
    for name, plans in (("trunk", studies.CT_TRUNK), ("pair", studies.pet_ct())):
        for paths in studies.write(tmp_path / name, name, plans).values():
            for path in paths:
                answer = requests.post(
                    f"{orthanc.url}/instances", data=path.read_bytes(), timeout=10
                )
                assert answer.ok, answer.text
    archives = {"web": dicomweb(orthanc.dicomweb_url), "dimse": dimse(orthanc.dicom_port)}
    node = Node(tmp_path / "node", settings(tmp_path / "node" / "data", archives))

    def taken(*arguments: str) -> tuple[int, int]:
        told = json.loads(node.command("replay", "--json", *arguments).stdout)
        route = told["routes"]["phantom-ct"]
        assert route["taken_then"] == 0
        return told["studies"], route["changes"]["newly taken"]

    web = ("--source", "web")
    assert taken("--since", "2024-01-02", *web) == (2, 2)
    assert taken("--since", "2024-01-02", "--until", "2024-01-02", *web, "--limit", "1") == (1, 1)
    assert taken("--since", "2024-01-03", *web) == (0, 0)
    orthanc.introduce("MARGINALIA", free_port())
    assert taken("--since", "2024-01-02", "--source", "dimse")[0] == 2
    assert not node.data.exists()
