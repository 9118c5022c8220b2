"""The two manifests of the MAP specification 1.0.0, made of app.yaml.

`application` and `resources` of app.yaml say all that can be chosen; what an image cannot choose,
such as its paths, stands here. A value that the specification does not allow is a ValueError that
names the key.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

API_VERSION = "1.0.0"
COMMAND = "/opt/holoscan/entry"

ENVIRONMENT = {
    "HOLOSCAN_INPUT_PATH": "/var/holoscan/input/",
    "HOLOSCAN_OUTPUT_PATH": "/var/holoscan/output/",
    "HOLOSCAN_WORKDIR": "/var/holoscan/",
    "HOLOSCAN_MODEL_PATH": "/opt/holoscan/models/",
    "HOLOSCAN_CONFIG_PATH": "/var/holoscan/app.yaml",
    # The specification's table says app.config and pkg.config; its text, and everybody, .json.
    "HOLOSCAN_APP_MANIFEST_PATH": "/etc/holoscan/app.json",
    "HOLOSCAN_PKG_MANIFEST_PATH": "/etc/holoscan/pkg.json",
    "HOLOSCAN_DOCS": "/opt/holoscan/docs",
    "HOLOSCAN_LOGS": "/var/holoscan/logs",
}
"""Also set in the Containerfile, so that a bare `docker run` has it."""

APPLICATION_KEYS = {
    *("title", "version", "description", "licences"),
    *("input-formats", "output-formats", "timeout"),
}
NUMBERS = {"cpu", "cpuLimit", "gpu", "gpuLimit"}
SIZES = {"memory", "memoryLimit", "gpuMemory", "gpuMemoryLimit", "sharedMemory"}
DEFAULTS = {"cpu": 1, "gpu": 0, "memory": "1Gi", "sharedMemory": "64Mi"}
LONGEST_NAME = 128  # bytes

_SEMANTIC_VERSION = re.compile(
    r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z.-]+)?"
)
_SIZE = re.compile(r"\d+(\.\d)?(Mi|Gi)")


def app_manifest(app_yaml: Mapping[str, Any], sdk_version: str) -> dict[str, Any]:
    """Return app.json; there are no probes, because a batch has nobody to answer them."""
    application = application_of(app_yaml)
    return {
        "apiVersion": API_VERSION,
        "type": "application",
        "command": COMMAND,
        "environment": ENVIRONMENT,
        "input": {
            "path": "input/",
            "formats": [{"type": "file", "format": each} for each in application["input-formats"]],
        },
        "output": {
            "path": "output/",
            "format": {"type": "file", "formats": application["output-formats"]},
        },
        "sdk": "monai-deploy",
        "sdkVersion": _version("the SDK's version", sdk_version),
        "timeout": application["timeout"],
        "version": application["version"],
        "workingDirectory": "/var/holoscan/",
    }


def pkg_manifest(app_yaml: Mapping[str, Any], models: Iterable[str]) -> dict[str, Any]:
    """Return pkg.json; each of `models` is the name of a folder in the folder of models."""
    return {
        "apiVersion": API_VERSION,
        "applicationRoot": "/opt/holoscan/app/",
        "modelRoot": ENVIRONMENT["HOLOSCAN_MODEL_PATH"],
        "models": [{"name": _model(name), "path": name} for name in models],
        "resources": _resources(app_yaml.get("resources") or {}),
        "version": application_of(app_yaml)["version"],
    }


def application_of(app_yaml: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `application` section, checked, with its defaults."""
    given = app_yaml.get("application") or {}
    _known("application", given, APPLICATION_KEYS)
    whole = {"description": "", "licences": "", "timeout": 0} | given
    for key in ("title", "description", "licences"):
        if not isinstance(whole.get(key), str) or (key == "title" and not whole[key].strip()):
            raise ValueError(f"application.{key}: give a text")
    for key in ("input-formats", "output-formats"):
        formats = whole.get(key)
        if not isinstance(formats, list) or not formats or not all(map(_is_text, formats)):
            raise ValueError(f'application.{key}: give a list such as ["application/dicom"]')
    if not _is_whole(whole["timeout"]):
        raise ValueError("application.timeout: give whole seconds, 0 for no limit")
    _version("application.version", whole.get("version"))
    return whole


def _resources(given: Mapping[str, Any]) -> dict[str, Any]:
    _known("resources", given, NUMBERS | SIZES)
    for key, value in given.items():
        if key in NUMBERS and not _is_number(value):
            raise ValueError(f"resources.{key}: {value!r}: give a number such as 2 or 0.5")
        if key in SIZES and not (isinstance(value, str) and _SIZE.fullmatch(value)):
            raise ValueError(f"resources.{key}: {value!r}: give a size such as 2048Mi or 1.5Gi")
    return DEFAULTS | given


def _known(where: str, given: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted({*given} - known):
        raise ValueError(f"{where}.{unknown[0]}: unknown; known are {', '.join(sorted(known))}")


def _version(where: str, value: object) -> str:
    if not isinstance(value, str) or not _SEMANTIC_VERSION.fullmatch(value):
        raise ValueError(f'{where}: {value!r}: give a semantic version in quotes, such as "1.2.0"')
    return value


def _model(name: str) -> str:
    if not name.isprintable() or " " in name or not 0 < len(name.encode()) <= LONGEST_NAME:
        raise ValueError(f"model {name!r}: its folder's name may have no blank and 128 bytes")
    return name


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    """Say whether it is what the specification calls a decimal: positive, one place at most."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value >= 0 and round(value, 1) == value
