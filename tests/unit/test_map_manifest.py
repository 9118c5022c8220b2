"""The manifests, held against the tables of the MAP specification 1.0.0.

Covered: every field that the specification requires or asks for, written down here by hand; values
that it forbids; that the Containerfile sets the environment that app.json tells. Not covered: what
a hosting service makes of it.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.map.manifest import app_manifest, application_of, pkg_manifest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = yaml.safe_load((ROOT / "app.yaml").read_text(encoding="utf-8"))
CONTAINERFILE = (ROOT / "deploy/map/Containerfile").read_text(encoding="utf-8")

GOOD: dict[str, Any] = {
    "application": {
        "title": "t",
        "version": "1.2.3-rc.1",
        "input-formats": ["a", "b"],
        "output-formats": ["c"],
    }
}

ENVIRONMENT = {
    "HOLOSCAN_INPUT_PATH": "/var/holoscan/input/",
    "HOLOSCAN_OUTPUT_PATH": "/var/holoscan/output/",
    "HOLOSCAN_WORKDIR": "/var/holoscan/",
    "HOLOSCAN_MODEL_PATH": "/opt/holoscan/models/",
    "HOLOSCAN_CONFIG_PATH": "/var/holoscan/app.yaml",
    "HOLOSCAN_APP_MANIFEST_PATH": "/etc/holoscan/app.json",
    "HOLOSCAN_PKG_MANIFEST_PATH": "/etc/holoscan/pkg.json",
    "HOLOSCAN_DOCS": "/opt/holoscan/docs",
    "HOLOSCAN_LOGS": "/var/holoscan/logs",
}
"""The specification's table, but for the manifests' own names, which its text calls .json."""


def test_app_json_is_what_the_specification_asks_for() -> None:
    """Every field of its table; no probes, which a batch could not answer."""
    assert app_manifest(GOOD, "4.0.0") == {
        "apiVersion": "1.0.0",
        "type": "application",
        "command": "/opt/holoscan/entry",
        "environment": ENVIRONMENT,
        "input": {
            "path": "input/",
            "formats": [{"type": "file", "format": "a"}, {"type": "file", "format": "b"}],
        },
        "output": {"path": "output/", "format": {"type": "file", "formats": ["c"]}},
        "sdk": "monai-deploy",
        "sdkVersion": "4.0.0",
        "timeout": 0,
        "version": "1.2.3-rc.1",
        "workingDirectory": "/var/holoscan/",
    }


def test_pkg_json_is_what_the_specification_asks_for() -> None:
    """Models are an array of objects, and resources have the defaults that it assumes."""
    given = GOOD | {"resources": {"cpu": 2, "gpu": 0.5, "memory": "1.5Gi", "gpuMemory": "2048Mi"}}
    assert pkg_manifest(given, ["a", "b"]) == {
        "apiVersion": "1.0.0",
        "applicationRoot": "/opt/holoscan/app/",
        "modelRoot": "/opt/holoscan/models/",
        "models": [{"name": "a", "path": "a"}, {"name": "b", "path": "b"}],
        "resources": {
            "cpu": 2,
            "gpu": 0.5,
            "memory": "1.5Gi",
            "gpuMemory": "2048Mi",
            "sharedMemory": "64Mi",
        },
        "version": "1.2.3-rc.1",
    }
    assumed = {"cpu": 1, "gpu": 0, "memory": "1Gi", "sharedMemory": "64Mi"}
    assert pkg_manifest(GOOD, [])["resources"] == assumed


def test_the_shipped_file_makes_manifests() -> None:
    """They are JSON, and the version is the one that stands in app.yaml."""
    app, pkg = app_manifest(SHIPPED, "4.0.0"), pkg_manifest(SHIPPED, ["phantom"])
    assert json.loads(json.dumps([app, pkg])) == [app, pkg]
    assert app["version"] == pkg["version"] == SHIPPED["application"]["version"]
    assert pkg["resources"]["memory"] == "8Gi"


def test_the_limit_of_a_batch_is_told() -> None:
    """`application.timeout` of app.yaml."""
    given = {"application": GOOD["application"] | {"timeout": 3600}}
    assert app_manifest(given, "4.0.0")["timeout"] == 3600


def test_the_image_sets_the_environment_that_is_told() -> None:
    """A hosting service must set it; whoever runs the image by hand has it too."""
    said = dict(re.findall(r"(HOLOSCAN_\w+)=(\S+)", CONTAINERFILE))
    assert {name: said.get(name) for name in ENVIRONMENT} == ENVIRONMENT


@pytest.mark.parametrize(
    ("section", "change", "complaint"),
    [
        ("application", {"title": None}, "application.title"),
        ("application", {"title": " "}, "application.title"),
        ("application", {"version": 1.0}, "application.version"),
        ("application", {"version": "1.0"}, "application.version"),
        ("application", {"version": "01.0.0"}, "application.version"),
        ("application", {"version": "1.0.0 "}, "application.version"),
        ("application", {"input-formats": []}, "application.input-formats"),
        ("application", {"output-formats": "application/dicom"}, "application.output-formats"),
        ("application", {"timeout": -1}, "application.timeout"),
        ("application", {"timeout": 1.5}, "application.timeout"),
        ("application", {"timeout": True}, "application.timeout"),
        ("application", {"inputFormats": ["a"]}, "application.inputFormats: unknown"),
        ("resources", {"cpu": -1}, "resources.cpu"),
        ("resources", {"cpu": 3.14}, "resources.cpu"),
        ("resources", {"gpu": "1"}, "resources.gpu"),
        ("resources", {"memory": "8G"}, "resources.memory"),
        ("resources", {"memory": "3.14Gi"}, "resources.memory"),
        ("resources", {"memory": "1,024Mi"}, "resources.memory"),
        ("resources", {"memory": 8}, "resources.memory"),
        ("resources", {"ram": "8Gi"}, "resources.ram: unknown"),
    ],
)
def test_what_the_specification_forbids_is_refused_by_its_key(
    section: str, change: dict[str, Any], complaint: str
) -> None:
    """Numbers have one place at most, sizes a unit, versions three parts."""
    given = GOOD | {section: GOOD.get(section, {}) | change}
    with pytest.raises(ValueError, match=complaint):
        pkg_manifest(given, [])


@pytest.mark.parametrize("name", ["", "a b", "a\tb", "a\u00a0b", "a\u2003b", "ä" * 65])
def test_a_model_name_that_the_specification_forbids_is_refused(name: str) -> None:
    """No blanks or control characters, 128 bytes."""
    with pytest.raises(ValueError, match="folder's name"):
        pkg_manifest(GOOD, [name])


def test_a_version_may_have_all_that_semantic_versions_have() -> None:
    """Of the examples at semver.org."""
    for version in ("1.0.0-alpha.1", "1.0.0-0.3.7", "1.0.0+20130313144700", "10.20.30"):
        changed = {"application": GOOD["application"] | {"version": version}}
        assert application_of(changed)["version"] == version
