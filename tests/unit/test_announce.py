"""The line that says what listens where, with which security, and who is let in.

Covered: every kind of port, open and closed doors, credentials, TLS, a web port for all. Not
covered: that a node prints it (tests/acceptance/test_start).
"""

import logging
from pathlib import Path
from typing import Any

import pytest

from app.announce import Announcement
from app.config import Config
from app.files import read_json
from app.installed import install
from tests.node import SETTINGS

TLS = {"key": "k.pem", "certificate": "c.pem", "authorities": "a.pem"}


def line(
    folder: Path, caplog: pytest.LogCaptureFixture, door: dict[str, Any], **settings: Any
) -> str:
    """Return what is said of a node with this door."""
    config = Config.model_validate({**SETTINGS, **settings, "door": door, "data": str(folder)})
    told = Announcement(config, install(config), folder / "ready.json")
    ports = {"listening": 11112} | ({"http": 8080} if "http" in door else {})
    told.door(4711, ports)
    if "web" in settings:
        told.web(8081)
    with caplog.at_level(logging.INFO):
        told.make()
    (record,) = [each for each in caplog.records if each.name == "app.announce"]
    return record.getMessage()


def test_a_door_for_trials_is_said_to_be_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With what a person needs to try it, and nothing of what is not there."""
    said = line(tmp_path, caplog, {"open": True})
    assert said.startswith(
        "ready: DICOM 127.0.0.1:11112 as MARGINALIA, OPEN to every calling AE title, no TLS; data"
    )
    assert "model phantom@" in said
    assert "STOW" not in said
    assert "metrics" not in said
    assert read_json(tmp_path / "ready.json").keys() == {"pid", "door_pid", "dicom_port"}


def test_a_door_for_a_hospital_says_who_is_let_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Peers, TLS, credentials, and that one peer may call from anywhere."""
    peers = [{"ae_title": "CT1", "addresses": ["10.0.0.5"]}, {"ae_title": "PACS"}]
    http = {"host": "10.0.0.9", "token_env": "T", "user": "u", "password_env": "P", "tls": TLS}
    door = {"host": "10.0.0.9", "peers": peers, "tls": TLS, "http": http}
    said = line(tmp_path, caplog, door, web={"host": "0.0.0.0"})  # noqa: S104  # only said
    assert (
        "DICOM 10.0.0.9:11112 as MARGINALIA, 2 peers are let in, 1 of them from any address,"
        " TLS with client certificates; STOW-RS and events https://10.0.0.9:8080 with a password or"
        " a token, TLS with client certificates; health and metrics http://0.0.0.0:8081 to the"
        " whole network, no credentials asked: states and numbers alone; data in"
    ) in said
    assert read_json(tmp_path / "ready.json")["web_port"] == 8081


def test_a_door_that_lets_nobody_in_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The usual reason why nothing comes; the web port of this machine alone is said to be that."""
    plain = {**TLS, "require_client_certificate": False}
    said = line(tmp_path, caplog, {"tls": plain}, web={})
    assert "nobody is let in: door.peers is empty, TLS;" in said
    assert "health and metrics http://127.0.0.1:8081 to this machine, no credentials" in said
