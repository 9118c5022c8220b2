"""The image under test: built from a base of our own, exported, and loaded into an empty store.

The base is Debian with Python, made by mmdebstrap once and kept in build/: no registry is asked.
The image is built without a network, so that it holds what was staged and nothing else.
"""

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.map.containers import Image, Store
from tests.peers import require

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
BASE = "localhost/marginalia-base:latest"

_told: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give time to whichever test comes first and has the image made."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(1800))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print sizes and times, which a site would like to know."""
    for line in _told:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def version() -> str:
    """Return the version, from the one place where it stands."""
    app_yaml = yaml.safe_load((ROOT / "app.yaml").read_text(encoding="utf-8"))
    return str(app_yaml["application"]["version"])


@pytest.fixture(scope="session")
def archive(version: str) -> Path:
    """Have `make map` make the archive, unless ARCHIVE names one; return its path."""
    if given := os.environ.get("ARCHIVE"):
        return Path(given)
    require("podman", "runc", "mmdebstrap", "make")
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("only root can make the base here")
    base = _base(BUILD / "test-map" / "base.tar")
    with Store(_fresh("build-store")) as store:
        store.well("import", "--quiet", str(base), BASE)
        began = time.monotonic()
        made = subprocess.run(
            ["make", "map"],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name not in _OF_MAKE}
            | store.environment
            | {"BASE": BASE, "ENGINE": "podman", "OPTIONS": "--network none --pull=never"},
            capture_output=True,
            text=True,
            check=False,
            timeout=1500,
        )
        assert made.returncode == 0, (made.stdout + made.stderr)[-4000:]
    _told.extend(line for line in made.stdout.splitlines() if line.startswith("map: "))
    _told.append(f"make map took {time.monotonic() - began:.0f} s")
    archive = BUILD / f"marginalia-{version}.oci.tar"
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    assert archive.with_name(f"{archive.name}.sha256").read_text().split() == [digest, archive.name]
    return archive


@pytest.fixture(scope="session")
def image(archive: Path, version: str) -> Iterator[Image]:
    """Load the archive into an empty store, as a site does that has nothing else of us."""
    with Store(_fresh("store")) as store:
        began = time.monotonic()
        store.well("load", "--quiet", "--input", str(archive))
        _told.append(f"podman load took {time.monotonic() - began:.0f} s")
        yield Image(store, f"localhost/marginalia:{version}")


_OF_MAKE = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "CONFIG", "MODELS"}
"""What the `make` that started us, or a developer's shell, would tell ours."""


def _base(tar: Path) -> Path:
    if not tar.exists():
        tar.parent.mkdir(parents=True, exist_ok=True)
        partial = tar.with_name("partial.tar")
        made = subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--variant=minbase"),
                *("--include=python3.11,python3.11-venv", "bookworm", str(partial)),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert made.returncode == 0, made.stderr[-4000:]
        partial.rename(tar)
    return tar


def _fresh(name: str) -> Path:
    """Return where a store may be made; what a run that was cut off left there goes."""
    folder = BUILD / "test-map" / f"{name}-{os.getpid()}"
    for left in folder.parent.glob(f"{name}-*"):
        if not Path(f"/proc/{left.name.rpartition('-')[2]}").exists():
            with Store(left):
                pass
    return folder
