"""The container's entry point, without a container.

Covered: `show` and `extract` by the specification's table of special folders, arguments, statuses
and signals that are handed on, the time limit of a batch, orphans. Beside it stands a small
program called `app` that says what it was given. Not covered: being a container's first process,
which tests/map shows with the real image.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from deploy.map import entry
from tests.waiting import wait_until

PROGRAM = """
import json, os, resource, signal, subprocess, sys, time
told = {"argv": sys.argv[1:], "stack": resource.getrlimit(resource.RLIMIT_STACK)[0],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))}
print(json.dumps(told), flush=True)
match sys.argv[-1:]:
    case ["fail"]:
        sys.exit(7)
    case ["crash"]:
        os.kill(os.getpid(), signal.SIGSEGV)
    case ["obey"]:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: sys.exit(40 + number))
    case ["refuse"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    case _:
        sys.exit(0)
print("waiting", flush=True)
while True:
    signal.pause()
"""


_STARTED: list["subprocess.Popen[str]"] = []


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Path]:
    """Give a folder that holds a program called `app`; leave nothing running of it."""
    folder = tmp_path / "program"
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "__main__.py").write_text(PROGRAM)
    yield folder
    while _STARTED:
        process = _STARTED.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def start(
    program: Path, arguments: Sequence[str], code: str = "", **environment: str
) -> "subprocess.Popen[str]":
    """Start the entry point as a container does; `code` changes its module before it runs."""
    changed = (
        f"import signal, os, sys; sys.path.insert(0, {str(Path(entry.__file__).parent)!r});"
        "import entry; signal.pthread_sigmask(signal.SIG_BLOCK, entry.AWAITED);"
        f"{code}; sys.exit(entry.main(sys.argv[1:], os.environ))"
    )
    how = ["-I", "-S", "-c", changed] if code else ["-I", "-S", entry.__file__]
    process = subprocess.Popen(
        [sys.executable, *how, *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(program)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _STARTED.append(process)
    return process


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Wait for its end; return its status and what it said."""
    said, complained = process.communicate(timeout=60)
    return process.returncode, said, complained


def await_program(process: "subprocess.Popen[str]") -> None:
    """Read until the program waits for signals."""
    assert process.stdout is not None
    assert any(line == "waiting\n" for line in process.stdout)


# -- the program ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-i", "a folder", "-o", "$(touch x); `id`", "*"],
        ["serve", "--data", "--"],
        ["show", "58dd2f09c01c"],
        ["show", "app", "more"],
        ["extract", "more"],
    ],
)
def test_arguments_reach_the_program_as_they_are(program: Path, arguments: list[str]) -> None:
    """No shell reads them, and `show JOB` is the program's own."""
    status, said, complained = ended(start(program, arguments))
    assert (status, complained) == (0, "")
    assert json.loads(said)["argv"] == arguments


def test_the_program_gets_its_stack_and_no_blocked_signal(program: Path) -> None:
    """What Holoscan asks for, and a program that can be told to stop."""
    _, said, _ = ended(start(program, []))
    told = json.loads(said)
    assert told["stack"] == -1 or told["stack"] >= 32 << 20
    assert told["blocked"] == []


def test_its_status_is_the_programs(program: Path) -> None:
    """Of a failure, and of a death by a signal as shells say it."""
    assert ended(start(program, ["fail"]))[0] == 7
    assert ended(start(program, ["crash"]))[0] == 128 + signal.SIGSEGV


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_is_handed_on(program: Path, number: int) -> None:
    """The program ends in its own way, and its status counts."""
    process = start(program, ["serve", "obey"])
    await_program(process)
    process.send_signal(number)
    assert ended(process)[0] == 40 + number


def test_a_signal_that_comes_before_the_program_is_not_lost(program: Path) -> None:
    """Sent to itself before anything else is done."""
    early = "os.kill(os.getpid(), signal.SIGTERM)"
    status, _, _ = ended(start(program, ["serve", "obey"], early))
    assert status in {128 + signal.SIGTERM, 40 + signal.SIGTERM}  # it may have come as far


def test_orphans_are_buried(program: Path) -> None:
    """A first process inherits them; none may stay behind as a zombie."""
    orphan = "lambda: os.fork() or os._exit(0)"
    code = f"""
import ctypes
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans come to us
if os.fork() == 0:
    ({orphan})()
    os._exit(0)
"""
    process = start(program, ["serve", "obey"], f"exec({code!r})")
    await_program(process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: len(children.read_text().split()) == 1, 30, "the burial of orphans")
    process.terminate()
    assert ended(process)[0] == 40 + signal.SIGTERM


# -- the time limit ------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["-l", "obey"], ["run", "obey"]])
def test_a_batch_that_takes_too_long_is_stopped(program: Path, arguments: list[str]) -> None:
    """124, and a sentence that says why."""
    status, _, complained = ended(start(program, arguments, HOLOSCAN_TIMEOUT="1"))
    assert status == 124
    assert complained == "the batch took longer than HOLOSCAN_TIMEOUT=1 seconds and is stopped\n"


def test_a_batch_that_does_not_stop_is_killed(program: Path) -> None:
    """After a time of grace, here a short one; status 124 all the same."""
    process = start(program, ["run", "refuse"], "entry.GRACE_S = 0.2", HOLOSCAN_TIMEOUT="2")
    assert ended(process)[0] == 124


def test_what_is_no_batch_has_no_time_limit(program: Path) -> None:
    """The resident node outlives it."""
    process = start(program, ["serve", "obey"], HOLOSCAN_TIMEOUT="1")
    await_program(process)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    process.terminate()
    assert ended(process)[0] == 40 + signal.SIGTERM


def test_a_batch_in_time_keeps_its_status(program: Path) -> None:
    """A limit far away, and none."""
    assert ended(start(program, ["run", "fail"], HOLOSCAN_TIMEOUT="600"))[0] == 7
    assert ended(start(program, ["run", "fail"], HOLOSCAN_TIMEOUT="0"))[0] == 7
    assert ended(start(program, ["run", "fail"], HOLOSCAN_TIMEOUT=""))[0] == 7


@pytest.mark.parametrize("limit", ["-1", "1.5", "ten", "²"])
def test_a_limit_that_is_no_number_is_refused(program: Path, limit: str) -> None:
    """Before anything runs."""
    status, said, complained = ended(start(program, ["run"], HOLOSCAN_TIMEOUT=limit))
    assert (status, said) == (2, "")
    assert f"HOLOSCAN_TIMEOUT={limit}: give whole seconds" in complained


# -- show and extract ----------------------------------------------------------------------------

FILES = {
    "opt/holoscan/app/app.yaml": "program",
    "opt/holoscan/app/app/dicom/volume.py": "code",
    "opt/holoscan/models/phantom/card.yaml": "card",
    "opt/holoscan/docs/README.md": "words",
    "var/holoscan/app.yaml": "site",
    "etc/holoscan/app.json": '{"type": "application"}',
    "etc/holoscan/pkg.json": '{"models": []}',
}

COPIES = {
    "app": {"app/app.yaml": "program", "app/app/dicom/volume.py": "code"},
    "config": {
        "config/app.yaml": "site",
        "config/app.json": FILES["etc/holoscan/app.json"],
        "config/pkg.json": FILES["etc/holoscan/pkg.json"],
    },
    "models": {"models/phantom/card.yaml": "card"},
    "docs": {"docs/README.md": "words"},
}
"""Special folder → what the specification has copied there."""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return a root as the image's, with an empty folder mounted for the export."""
    root = tmp_path / "image"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "var/run/holoscan/export").mkdir(parents=True)
    return root


def exported(image: Path) -> dict[str, str]:
    """Return the files under the export."""
    export = image / "var/run/holoscan/export"
    files = [each for each in export.rglob("*") if each.is_file()]
    return {each.relative_to(export).as_posix(): each.read_text() for each in files}


@pytest.mark.parametrize("there", [*([each] for each in COPIES), ["app", "docs"], ["models", "x"]])
def test_extract_fills_each_special_folder_that_is_there(image: Path, there: list[str]) -> None:
    """And makes no other."""
    for name in there:
        (image / "var/run/holoscan/export" / name).mkdir()
    assert entry.main(["extract"], {}, image) == 0
    wanted = {name: text for each in there for name, text in COPIES.get(each, {}).items()}
    assert exported(image) == wanted


def test_extract_gives_the_whole_where_no_special_folder_is(image: Path) -> None:
    """Twice gives the same again."""
    for _ in range(2):
        assert entry.main(["extract"], {}, image) == 0
        assert exported(image) == {k: v for each in COPIES.values() for k, v in each.items()}


def test_extract_says_that_nothing_is_mounted(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1, one sentence, and nothing is made."""
    export = image / "var/run/holoscan/export"
    export.rmdir()
    assert entry.main(["extract"], {}, image) == 1
    assert "nothing is mounted there" in capsys.readouterr().err
    assert not export.exists()


def test_extract_says_that_it_cannot_write(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Here a file is in the way; a folder of another user's is shown with the real image."""
    (image / "var/run/holoscan/export/models").mkdir()
    (image / "var/run/holoscan/export/models/phantom").write_text("in the way")
    assert entry.main(["extract"], {}, image) == 1
    complained = capsys.readouterr().err
    assert complained.count("\n") == 1
    assert "cannot extract there" in complained


def test_show_prints_the_manifests(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One of them, or both in one object, always as JSON."""
    app, pkg = ({"type": "application"}, {"models": []})
    for arguments, wanted in (
        (["show", "app"], app),
        (["show", "pkg"], pkg),
        (["show"], {"app": app, "pkg": pkg}),
    ):
        assert entry.main(arguments, {}, image) == 0
        assert json.loads(capsys.readouterr().out) == wanted
