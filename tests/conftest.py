"""What holds for every test: a clean environment, steady senders, the peers' versions on top."""

import os
import re
import resource
import shutil
import subprocess

from tests.steady import mend_pynetdicom

_STACK = 32 << 20  # Holoscan warns below this, and warnings are errors

PEERS = {
    "Orthanc": ("Orthanc", "--version"),
    "dcmtk": ("storescu", "--version"),
    "dicom3tools": ("dciodvfy", "-version"),
}


def pytest_configure() -> None:
    """Take away what the developer's shell would tell the node, before anything is imported."""
    for name in [*os.environ]:
        if name.startswith(("MARGINALIA_", "HOLOSCAN_")):
            del os.environ[name]
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if soft != resource.RLIM_INFINITY and soft < _STACK:
        within = _STACK if hard == resource.RLIM_INFINITY else min(_STACK, hard)
        resource.setrlimit(resource.RLIMIT_STACK, (within, hard))
    mend_pynetdicom()


def pytest_report_header() -> str:
    """Name the real peers that the tests will meet."""
    return "peers: " + ", ".join(f"{name} {version_of(*call)}" for name, call in PEERS.items())


def version_of(program: str, argument: str) -> str:
    """Return the program's version as it states it, or that it is missing."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not found:
        return "missing (its tests are skipped)"
    said = subprocess.run([found, argument], capture_output=True, text=True, check=False)
    version = re.search(r"\d+\.\d+\S*", said.stdout + said.stderr)
    return version.group() if version else "of unknown version"
