"""Crash points: one crash where a test asks for it, none anywhere else.

Covered: the helper alone. Not covered: the places that use it, where the fault tests crash the
node.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.faults import VARIABLE, crash_point

PROGRAM = "from app.faults import crash_point; crash_point('encode.after'); print('passed')"


def run(asked: str | None) -> subprocess.CompletedProcess[str]:
    """Run a process through the crash point `encode.after`."""
    environment = {**os.environ} | ({VARIABLE: asked} if asked else {})
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_first_to_arrive_is_killed_and_the_second_passes(tmp_path: Path) -> None:
    """SIGKILL takes effect once; the marker is gone, so a restarted process goes on."""
    marker = tmp_path / "marker:1"
    marker.touch()
    asked = f"encode.after:{marker}"
    assert run(asked).returncode == -signal.SIGKILL
    assert not marker.exists()
    assert run(asked).stdout == "passed\n"


def test_another_point_is_passed(tmp_path: Path) -> None:
    """Names are compared whole, and the marker stays for the one that is meant."""
    marker = tmp_path / "marker"
    marker.touch()
    assert run(f"encode:{marker}").stdout == "passed\n"
    assert marker.exists()


def test_nothing_happens_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset, empty and nonsense all mean: go on."""
    crash_point("encode.after")
    for value in ("", ":", "encode.after"):
        monkeypatch.setenv(VARIABLE, value)
        crash_point("encode.after")
    assert run(None).stdout == "passed\n"
