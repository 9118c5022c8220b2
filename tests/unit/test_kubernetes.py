"""deploy/kubernetes as files: by Kubernetes' schemas, closed by default, no drift from app.yaml.

Covered: every manifest, strictly, for the oldest and the newest version that we name; what comes of
them by kustomize, where kubectl is installed; rights, probes, ports, paths and times against
app.yaml. Not covered: a cluster.
"""

import json
import shutil
import subprocess
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.config import DEFAULT_PATH, application_version, load_config
from tests.node import python_m_app
from tests.stack import compose

FOLDER = DEFAULT_PATH.parent / "deploy" / "kubernetes"
BASE = FOLDER / "base"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
VERSIONS = ("1.29", "1.37")
DOCUMENTATION = [ip_network(each) for each in ("192.0.2.0/24", "198.51.100.0/24")]
"""Networks that belong to nobody (RFC 5737)."""


def kustomization(folder: Path) -> dict[str, Any]:
    """Return what joins a folder's files."""
    found: dict[str, Any] = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    return found


def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    """Return the manifests of the base by kind and name."""
    files = [BASE / name for name in kustomization(BASE)["resources"]]
    every = [each for file in files for each in yaml.safe_load_all(file.read_text("utf-8"))]
    return {(each["kind"], each["metadata"]["name"]): each for each in every}


MANIFESTS = manifests()
SET = MANIFESTS["StatefulSet", "marginalia"]["spec"]
POD = SET["template"]["spec"]
(CONTAINER,) = POD["containers"]
SETTINGS = yaml.safe_load((BASE / "app.yaml").read_text("utf-8"))["node"]
PORTS = {each["name"]: each["containerPort"] for each in CONTAINER["ports"]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=lambda each: each["kind"])
def test_a_manifest_keeps_the_schema(manifest: dict[str, Any], version: str) -> None:
    """Strictly: a key that Kubernetes does not know is an error."""
    kubernetes_validate.validate(manifest, version, strict=True)
    assert version in README


def test_a_schema_can_be_broken() -> None:
    """By a misspelt key, deep inside."""
    wrong = json.loads(json.dumps(MANIFESTS["StatefulSet", "marginalia"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(wrong, VERSIONS[1], strict=True)


@pytest.mark.parametrize(("folder", "gpus"), [("base", None), ("gpu", "1")])
def test_kustomize_joins_them(folder: str, gpus: str | None) -> None:
    """The pod mounts the generated ConfigMap, has the image's tag and, in gpu/, a GPU."""
    if shutil.which("kubectl") is None:
        pytest.skip("not installed: kubectl, which Debian has too old")
    made = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER / folder)], capture_output=True, text=True, check=True
    )
    assert made.stderr == ""
    every = {each["kind"]: each for each in yaml.safe_load_all(made.stdout)}
    for each in every.values():
        kubernetes_validate.validate(each, VERSIONS[1], strict=True)
        assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == "marginalia"
    pod = every["StatefulSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == f"marginalia:{application_version()}"
    assert container["resources"]["limits"].get("nvidia.com/gpu") == gpus
    assert container["resources"]["limits"]["memory"] == CONTAINER["resources"]["limits"]["memory"]
    names = [each["configMap"]["name"] for each in pod["volumes"] if "configMap" in each]
    assert names == [every["ConfigMap"]["metadata"]["name"]]
    assert yaml.safe_load(every["ConfigMap"]["data"]["app.yaml"])["node"] == SETTINGS


def test_the_overlay_meets_the_container_that_is_there() -> None:
    """A patch of another name would add a container instead."""
    (patch,) = kustomization(FOLDER / "gpu")["patches"]
    gpu = yaml.safe_load((FOLDER / "gpu" / patch["path"]).read_text("utf-8"))
    assert (gpu["kind"], gpu["metadata"]["name"]) in MANIFESTS
    (container,) = gpu["spec"]["template"]["spec"]["containers"]
    assert container["name"] == CONTAINER["name"]
    assert "nvidia.com/gpu" in container["resources"]["limits"]


def test_the_pod_may_do_no_more_than_it_must() -> None:
    """What the `restricted` standard of its namespace asks for, and a read-only file system."""
    labels = MANIFESTS["Namespace", "marginalia"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    secured = POD["securityContext"]
    assert secured["runAsNonRoot"] is True
    user = f"{secured['runAsUser']}:{secured['runAsGroup']}"
    assert user == compose({"ORTHANC_PASSWORD": "a", "NODE_TOKEN": "b"})["services"]["node"]["user"]
    assert secured["fsGroup"] == secured["runAsGroup"]
    assert secured["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    account = MANIFESTS["ServiceAccount", POD["serviceAccountName"]]
    assert account["automountServiceAccountToken"] is POD["automountServiceAccountToken"] is False


def test_there_is_one_node_and_it_gets_time_to_stop() -> None:
    """`workers.stop_s` is how long running work may go on."""
    assert SET["replicas"] == 1
    stop_s = load_config(BASE / "app.yaml").workers.stop_s
    assert POD["terminationGracePeriodSeconds"] >= stop_s + 15


def test_ports_and_probes_are_those_of_the_configuration() -> None:
    """Named once a manifest, and everywhere else by that name."""
    assert {"dicom": SETTINGS["door"]["port"], "health": SETTINGS["web"]["port"]} == PORTS
    probes = {name: each["httpGet"] for name, each in CONTAINER.items() if name.endswith("Probe")}
    assert probes == {
        "startupProbe": {"path": "/healthz", "port": "health"},
        "livenessProbe": {"path": "/healthz", "port": "health"},
        "readinessProbe": {"path": "/readyz", "port": "health"},
    }
    for (kind, _), each in MANIFESTS.items():
        if kind == "Service":
            assert each["spec"]["selector"] == SET["selector"]["matchLabels"]
            for port in each["spec"]["ports"]:
                assert port["port"] == PORTS[port["targetPort"]]
    scraped = MANIFESTS["Service", SET["serviceName"]]["metadata"]["annotations"]
    assert scraped["prometheus.io/port"] == str(PORTS["health"])


def test_paths_are_those_of_the_configuration() -> None:
    """The data folder is on the volume, the file where the program is told to look."""
    mounts = {each["name"]: each for each in CONTAINER["volumeMounts"]}
    (claim,) = SET["volumeClaimTemplates"]
    assert mounts[claim["metadata"]["name"]]["mountPath"] == SETTINGS["data"]
    (path,) = (e["value"] for e in CONTAINER["env"] if e["name"] == "HOLOSCAN_CONFIG_PATH")
    assert mounts["configuration"]["mountPath"] == path
    assert mounts["configuration"]["subPath"] == "app.yaml"
    volumes = {each["name"] for each in POD["volumes"]} | {claim["metadata"]["name"]}
    assert volumes == {*mounts}
    (generated,) = kustomization(BASE)["configMapGenerator"]
    (named,) = (each["configMap"]["name"] for each in POD["volumes"] if "configMap" in each)
    assert (generated["name"], generated["files"]) == (named, ["app.yaml"])


def test_the_network_is_closed_but_for_examples_that_belong_to_nobody() -> None:
    """DICOM and health in; the archive and names out."""
    policy = MANIFESTS["NetworkPolicy", "marginalia"]["spec"]
    assert policy["podSelector"] == {"matchLabels": SET["selector"]["matchLabels"]}
    assert {*policy["policyTypes"]} == {"Ingress", "Egress"}
    assert [rule["ports"][0]["port"] for rule in policy["ingress"]] == ["dicom", "health"]
    rules = [(rule, peer) for rule in policy["ingress"] for peer in rule["from"]]
    rules += [(rule, peer) for rule in policy["egress"] for peer in rule["to"]]
    for rule, peer in rules:
        assert rule["ports"]
        if "ipBlock" in peer:
            network = ip_network(peer["ipBlock"]["cidr"])
            assert any(network.subnet_of(each) for each in DOCUMENTATION)
        else:
            assert peer["namespaceSelector"]["matchLabels"]
    peers = load_config(BASE / "app.yaml").door.peers
    allowed = [peer["ipBlock"]["cidr"] for peer in policy["ingress"][0]["from"]]
    assert [address for peer in peers for address in peer.addresses] == allowed


def test_secrets_are_only_named() -> None:
    """No manifest holds one; the README makes one with all that app.yaml asks for."""
    assert "Secret" not in {kind for kind, _ in MANIFESTS}
    (secret,) = (each["secretRef"]["name"] for each in CONTAINER["envFrom"])
    assert f"create secret generic {secret} " in README
    for archive in load_config(BASE / "app.yaml").archives.values():
        assert f"--from-literal {getattr(archive, 'token_env', None)}=" in README


def test_image_and_resources_are_those_of_the_program() -> None:
    """app.yaml at the root is the one place where version and needs stand."""
    (image,) = kustomization(BASE)["images"]
    assert (image["name"], image["newTag"]) == (CONTAINER["image"], application_version())
    needs = yaml.safe_load(DEFAULT_PATH.read_text("utf-8"))["resources"]
    assert CONTAINER["resources"]["requests"] == {
        "cpu": str(needs["cpu"]),
        "memory": needs["memory"],
    }


def test_the_node_checks_its_file() -> None:
    """As the README says; the model has not run here yet, no more."""
    checked = python_m_app("check", "--config", str(BASE / "app.yaml"), PACS_TOKEN="a-token")  # noqa: S106
    assert checked.returncode == 0, checked.stdout + checked.stderr
    warnings = [line for line in checked.stdout.splitlines() if "warning" in line]
    assert all("untested" in line for line in warnings), checked.stdout
