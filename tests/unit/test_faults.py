"""Crash points: one crash where a test asks for it, none anywhere else.

Covered: the helper alone, crash and hang. Not covered: the places that use it, where the fault
tests crash the node.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.faults import HANG_VARIABLE, VARIABLE, crash_point
from tests.waiting import wait_until

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


def test_a_process_can_be_made_to_hang_instead(tmp_path: Path) -> None:
    """It is stopped where it stands, and only SIGKILL or SIGCONT changes that."""
    marker = tmp_path / "marker"
    marker.touch()
    environment = {**os.environ, HANG_VARIABLE: f"encode.after:{marker}"}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment) as process:
        status = Path(f"/proc/{process.pid}/stat")
        wait_until(lambda: ") T " in status.read_text(encoding="ascii"), what="the stop")
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not marker.exists()


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
