"""The README's ten minutes, each block run as it stands there, in a copy of the checkout.

Covered: every line for the three readers, with the ports that the README names: each runs in a
network namespace of its own, where nothing else listens. Not covered: the minutes of `deploy/setup`
from nothing, which CI's clean checkout takes; here it finds its environment.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest

from tests.node import ROOT
from tests.peers import require
from tests.waiting import wait_until

LIMIT_S = 400
ALONE = ("unshare", "--net", "bash", "-c", 'ip link set lo up && exec "$@"', "alone")
"""Runs a command with a loopback address of its own and no other network."""


def commands(title: str) -> str:
    """Return the block of commands under a heading."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^### {re.escape(title)}.*?\n(.*?)^##", text, re.DOTALL | re.MULTILINE)
    assert found, f"no heading {title!r}"
    lines = [line[4:] for line in found[1].splitlines() if line.startswith("    ")]
    assert len(lines) >= 5, lines
    return "\n".join(lines)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Give a copy of what is under version control, with the environment that is here."""
    require("unshare", "ip")
    if os.geteuid() != 0:
        pytest.skip("a network namespace needs root")
    copy = tmp_path / "checkout"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    (copy / "build").mkdir()
    return copy


@contextmanager
def ran(title: str, checkout: Path) -> Iterator[str]:
    """Run a reader's block to its end; what it left running ends afterwards."""
    output = checkout / "output.txt"
    script = f"set -euo pipefail\n{commands(title)}\n"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*ALONE, "bash", "-c", script],
            cwd=checkout,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        code = process.wait(LIMIT_S)
        told = output.read_text(encoding="utf-8")
        assert code == 0, told[-3000:]
        yield told
    finally:
        wait_until(lambda: not _ends(process.pid), 60, "the end of what the block started")


def _ends(group: int) -> bool:
    """Tell the processes of a group to end; whether there was one."""
    try:
        os.killpg(group, signal.SIGTERM)
    except ProcessLookupError:
        return False
    return True


def made(folder: Path) -> dict[str, int]:
    """Return how many objects of each modality lie in a folder."""
    counts: dict[str, int] = {}
    for path in folder.rglob("*"):
        if path.is_file() and pydicom.misc.is_dicom(path):
            modality = str(pydicom.dcmread(path, stop_before_pixels=True).Modality)
            counts[modality] = counts.get(modality, 0) + 1
    return counts


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 60)
def test_the_administrators_ten_minutes(checkout: Path) -> None:
    """A study in over DICOM, a result in the archive, and the story of it."""
    with ran("For an administrator", checkout) as told:
        assert "phantom-ct" in told
        assert "proved" in told
    assert made(checkout / "data" / "archive") == {"SEG": 1, "SR": 1}


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 60)
def test_the_researchers_ten_minutes(checkout: Path) -> None:
    """One study is taken and one is not, with the reason."""
    with ran("For a researcher", checkout) as told:
        assert "found 15" in told
    assert made(checkout / "build" / "results") == {"SEG": 1, "SR": 1}
    assert len([*(checkout / "build" / "results").rglob("*.csv")]) == 1


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 60)
def test_the_model_authors_ten_minutes(checkout: Path) -> None:
    """A model of one's own makes results that name it."""
    with ran("For a model author", checkout):
        results = checkout / "build" / "mine" / "results"
        assert made(results) == {"SEG": 1, "SR": 1}
    (segmentation,) = (
        ds
        for path in results.rglob("*.dcm")
        if (ds := pydicom.dcmread(path, stop_before_pixels=True)).Modality == "SEG"
    )
    models = [each.ManufacturerModelName for each in segmentation.ContributingEquipmentSequence]
    assert "mine" in models
