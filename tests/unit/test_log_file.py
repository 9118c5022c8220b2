"""The log as a file that rotates, for installations where nobody else rotates it.

Covered: its mode, its sizes, several processes in one file at once, a process that hangs, a full
disk, and settings that cannot be used. Not covered: a disk that comes back after an error.
"""

import fcntl
import json
import logging
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import ConfigError
from app.log import FILE_VARIABLE, KEEP_VARIABLE, MAX_MB_VARIABLE, set_up

ROOT = Path(__file__).resolve().parents[2]
MANY = """
import logging, sys
from app.log import set_up
set_up("INFO", sys.stderr)
for number in range(2000):
    logging.getLogger(sys.argv[1]).info("%04d %s", number, "x" * 1000)
"""

log = logging.getLogger("app.tested")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that logs go to, rotated at 1 MB."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setenv(FILE_VARIABLE, str(path := tmp_path / "node.log"))
    monkeypatch.setenv(MAX_MB_VARIABLE, "1")
    monkeypatch.setenv(KEEP_VARIABLE, "2")
    yield path
    for handler in set(root.handlers) - {*handlers}:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def messages(*paths: Path) -> list[str]:
    """Return what the files' lines say; each must be one JSON object."""
    return [
        f"{line['logger']} {line['message']}"
        for path in paths
        for line in map(json.loads, path.read_text("ascii").splitlines())
    ]


def lines_of_1_kb(number: int) -> None:
    """Log so many lines."""
    for _ in range(number):
        log.info("%s", "x" * 1000)


def test_the_file_is_private_and_takes_the_place_of_the_stream(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Study UIDs and peers' names stand in it."""
    set_up("INFO")
    log.info("here")
    assert messages(file) == ["app.tested here"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert capsys.readouterr() == ("", "")


def test_a_command_that_only_asks_keeps_to_its_stream(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run by another user, it would make a file that the node cannot write."""
    set_up("INFO", sys.stdout, to_file=False)
    log.info("here")
    assert not file.exists()
    assert "here" in capsys.readouterr().out


def test_it_never_grows_beyond_its_size_and_its_number(file: Path) -> None:
    """Five megabytes: one file and two older ones remain, whole and private."""
    set_up("INFO")
    lines_of_1_kb(5000)
    kept = sorted(path for path in file.parent.iterdir() if path.suffix != ".lock")
    assert [path.name for path in kept] == ["node.log", "node.log.1", "node.log.2"]
    assert all(path.stat().st_size <= 1 << 20 for path in kept)
    assert {stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()} == {0o600}
    assert len(messages(*kept)) > 1500


def test_processes_share_the_file_and_lose_no_line(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Node, door and workers rotate it under each other's feet."""
    monkeypatch.setenv(KEEP_VARIABLE, "20")
    names = ["node", "door", "worker"]
    writers = [subprocess.Popen([sys.executable, "-c", MANY, name], cwd=ROOT) for name in names]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    files = [path for path in file.parent.iterdir() if path.suffix != ".lock"]
    assert len(files) > 5
    told = sorted(message.rpartition(" ")[0] for message in messages(*files))
    assert told == sorted(f"{name} {number:04}" for name in names for number in range(2000))


def test_a_hung_process_holds_nobody_up(file: Path) -> None:
    """Killed or stopped while it rotates: the others write on, and rotate when it is gone."""
    set_up("INFO")
    with Path(f"{file}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines_of_1_kb(1500)
        assert len(messages(file)) == 1500
    lines_of_1_kb(1)
    assert len(messages(file)) == 1
    assert len(messages(Path(f"{file}.1"))) == 1500


def test_a_removed_file_is_made_again(file: Path) -> None:
    """As another tool that rotates would leave it."""
    set_up("INFO")
    log.info("before")
    file.unlink()
    log.info("after")
    assert messages(file) == ["app.tested after"]


@pytest.mark.usefixtures("file")
def test_a_full_disk_costs_lines_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """No error, and no traceback with what was to be logged, up to the process's end."""
    monkeypatch.setenv(FILE_VARIABLE, "/dev/full")
    call = [sys.executable, "-c", MANY, "node"]
    ended = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (FILE_VARIABLE, "/nowhere/node.log"),
        (FILE_VARIABLE, "/"),
        *((name, value) for name in (MAX_MB_VARIABLE, KEEP_VARIABLE) for value in ("0", "-1")),
        (MAX_MB_VARIABLE, "1.5"),
        (KEEP_VARIABLE, "1001"),
    ],
)
@pytest.mark.usefixtures("file")
def test_settings_that_cannot_be_used_are_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """With what would be right."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=variable):
        set_up("INFO")
