"""deploy/compose as files: by the Compose specification, closed by default, one version, no drift.

Covered: its schema, what is published, what services may do, mounts, secrets, the node's own check
of app.yaml, the names that app.yaml, orthanc.json and compose.yaml share. That it runs is for
tests/acceptance/test_stack.py.
"""

import json
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from app.config import DEFAULT_PATH, application_version, load_config
from app.config_archives import DicomwebArchive
from tests.node import python_m_app
from tests.stack import COMPOSE, compose

ENVIRONMENT = {"ORTHANC_PASSWORD": "a-password", "NODE_TOKEN": "a-token"}
SERVICES = compose(ENVIRONMENT)["services"]
OURS = ("pod", "node")


def orthanc() -> dict[str, Any]:
    """Return Orthanc's configuration as it fills in the variables itself."""
    text = (COMPOSE / "orthanc.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(
        re.sub(r"\$\{(\w+)(?::-(\w+))?\}", lambda m: ENVIRONMENT.get(m[1], m[2]), text)
    )
    return found


def test_the_files_keep_the_compose_specification() -> None:
    """Judged by its JSON schema."""
    files = [str(COMPOSE / name) for name in ("compose.yaml", "compose.gpu.yaml")]
    call = ["check_jsonschema", "--builtin-schema", "vendor.compose-spec", *files]
    judged = subprocess.run(
        [sys.executable, "-m", *call], capture_output=True, text=True, check=False
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_images_are_pinned_and_ours_has_the_version_of_the_program() -> None:
    """app.yaml at the root is the one place where it stands."""
    assert {SERVICES[name]["image"] for name in OURS} == {f"marginalia:{application_version()}"}
    assert re.fullmatch(r"orthancteam/orthanc:\d+\.\d+\.\d+", SERVICES["orthanc"]["image"])


def test_nothing_is_published_to_other_machines() -> None:
    """And only the service that holds the network publishes at all."""
    assert [name for name, each in SERVICES.items() if "ports" in each] == ["pod"]
    for port in SERVICES["pod"]["ports"]:
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)
    for name in ("orthanc", "node"):
        assert SERVICES[name]["network_mode"] == "service:pod"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_no_more_than_it_must(name: str) -> None:
    """No capability, no root, an end to its log, its processes and its memory."""
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"cap_add", "privileged", "devices", "pid", "ipc"} & service.keys()
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["mem_limit"]
    assert service["pids_limit"]
    if name in OURS:
        assert service["read_only"] is True
        assert service["user"] == "1000:1000"


def test_what_is_mounted_exists_and_is_not_written() -> None:
    """Volumes are the two that hold data."""
    mounts = [mount for each in SERVICES.values() for mount in each.get("volumes", [])]
    for mount in mounts:
        if mount["type"] == "bind":
            assert (COMPOSE / mount["source"]).is_file(), mount
            assert mount["read_only"] is True
            assert mount["bind"] == {"create_host_path": False}
    volumes = {each["source"]: each["target"] for each in mounts if each["type"] == "volume"}
    assert volumes["node"] == str(load_config(COMPOSE / "app.yaml").data)
    assert orthanc()["StorageDirectory"].startswith(f"{volumes['orthanc']}/")
    assert {*volumes} == {*compose(ENVIRONMENT)["volumes"]}


@pytest.mark.parametrize("lacking", ENVIRONMENT)
def test_without_its_secrets_nothing_starts(lacking: str) -> None:
    """No file holds one, nor a default for it."""
    with pytest.raises(AssertionError, match=r"make \.env first"):
        compose({name: value for name, value in ENVIRONMENT.items() if name != lacking})
    for path in COMPOSE.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(rf"{lacking}\W*[=:]\W*[\w$]*:-", text)
        assert not re.search(rf"^{lacking}=", text, re.MULTILINE)
    assert "/deploy/compose/.env\n" in (DEFAULT_PATH.parent / ".gitignore").read_text()


def test_node_and_orthanc_mean_each_other() -> None:
    """Address, port, user, secrets and names stand in three files."""
    node, archive = load_config(COMPOSE / "app.yaml"), orthanc()
    (source,) = node.sources
    assert archive["Marginalia"]["Source"] == source.archive
    assert node.door.http is not None
    told = f"http://{node.door.http.host}:{node.door.http.port}"
    assert archive["Marginalia"]["Url"] == told
    assert archive["Marginalia"]["Token"] == ENVIRONMENT[node.door.http.token_env or ""]
    asked = node.archives[source.archive]
    assert isinstance(asked, DicomwebArchive)
    root = archive["DicomWeb"]["Root"].rstrip("/")
    assert asked.url == f"http://127.0.0.1:{archive['HttpPort']}{root}"
    password = ENVIRONMENT[asked.password_env or ""]
    assert archive["RegisteredUsers"] == {asked.user: password}
    assert {each.archive for route in node.routes for each in route.deliver_to} == {source.archive}


def test_orthanc_lets_nobody_in_without_a_password() -> None:
    """HTTP comes from outside its network namespace, through the engine, so it is not loopback."""
    archive = orthanc()
    assert archive["AuthenticationEnabled"] is True
    assert archive["RemoteAccessAllowed"] is True
    assert archive["DicomCheckCalledAet"] is True
    mounted = {mount["target"] for mount in SERVICES["orthanc"]["volumes"]}
    assert archive["PythonScript"] in mounted
    assert {archive["HttpPort"], archive["DicomPort"]} <= published()


def published() -> set[int]:
    """Return the ports inside the shared network that are published."""
    return {int(port.rpartition(":")[2]) for port in SERVICES["pod"]["ports"]}


def test_the_port_of_health_is_the_only_one_of_the_node_that_is_published() -> None:
    """It has no credentials and changes nothing."""
    node = yaml.safe_load((COMPOSE / "app.yaml").read_text(encoding="utf-8"))["node"]
    assert published() - {orthanc()["HttpPort"], orthanc()["DicomPort"]} == {node["web"]["port"]}


def test_the_node_has_the_memory_that_the_program_asks_for_and_time_to_stop() -> None:
    """app.yaml at the root says how much; `workers.stop_s` how long running work may go on."""
    resources = yaml.safe_load(DEFAULT_PATH.read_text(encoding="utf-8"))["resources"]
    assert SERVICES["node"]["mem_limit"] == resources["memory"].replace("Gi", "g")
    grace_s = float(SERVICES["node"]["stop_grace_period"].removesuffix("s"))
    assert grace_s >= load_config(COMPOSE / "app.yaml").workers.stop_s + 15


def test_the_node_checks_its_file() -> None:
    """With the file's own path for the configuration; the model has not run here yet, no more."""
    checked = python_m_app("check", "--config", str(COMPOSE / "app.yaml"), **ENVIRONMENT)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    warnings = [line for line in checked.stdout.splitlines() if "warning" in line]
    assert all("untested" in line for line in warnings), checked.stdout
