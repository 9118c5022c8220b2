#!/opt/venv/bin/python -IS
"""The container's entry point: `show`, `extract`, else all goes to `python -m app`.

It stays while the program runs, as a container's first process must: from that one the kernel
withholds each signal that it has not asked for. It waits for signals instead of handling them, so
that none is lost between two lines, and hands stop signals on. Its status is the program's, or 128
and the number of the signal that ended it. No shell reads the arguments.

A batch may run HOLOSCAN_TIMEOUT seconds; 0 sets no limit. Then it is told to stop, is killed if it
does not, and the status is 124.
"""

# ruff: noqa: E402  # signals are blocked before other imports take their time

import signal

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}
AWAITED = {*STOP_SIGNALS, signal.SIGCHLD}

if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)

import json
import math
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

INPUT_WRONG, NODE_WRONG, TIMED_OUT = 1, 2, 124
GRACE_S = 40.0  # the program itself gives running work workers.stop_s, 25 s
STACK = 32 << 20  # Holoscan asks for it; threads get it only from a parent that set it

MANIFESTS = {"app": "etc/holoscan/app.json", "pkg": "etc/holoscan/pkg.json"}
EXPORT = "var/run/holoscan/export"
PARTS = {
    "app": ("opt/holoscan/app",),
    "config": ("var/holoscan/app.yaml", *MANIFESTS.values()),
    "models": ("opt/holoscan/models",),
    "docs": ("opt/holoscan/docs",),
}
"""Folder under the export → what is copied there: the contents of a folder, or files."""


def main(argv: Sequence[str], environ: Mapping[str, str], root: Path = Path("/")) -> int:
    """Do what the arguments say; return the exit status."""
    match argv:
        case ["show"]:
            print(json.dumps({name: _manifest(root, name) for name in MANIFESTS}, indent=2))
        case ["show", ("app" | "pkg") as name]:
            print(json.dumps(_manifest(root, name), indent=2))
        case ["extract"]:
            return extract(root)
        case _:
            return run(argv, environ)
    return 0


def _manifest(root: Path, name: str) -> object:
    return json.loads((root / MANIFESTS[name]).read_text(encoding="utf-8"))


def extract(root: Path) -> int:
    """Copy to the folders that are there under the export, or to all where none of them is."""
    export = root / EXPORT
    if not export.is_dir():
        return _fail(INPUT_WRONG, f"{export}: nothing is mounted there to extract to")
    wanted = [name for name in PARTS if (export / name).is_dir()] or [*PARTS]
    try:
        for name in wanted:
            for source in PARTS[name]:
                _copy(root / source, export / name)
    except OSError as error:
        return _fail(INPUT_WRONG, f"{export}: user {os.getuid()} cannot extract there ({error})")
    print(f"extracted {', '.join(wanted)}")
    return 0


def _copy(source: Path, target: Path) -> None:
    """Copy a file, or all that is in a folder; what the mounted folder's owner is stays."""
    import shutil  # noqa: PLC0415  # only here: the program is to start at once

    files = [source] if source.is_file() else [p for p in source.rglob("*") if p.is_file()]
    above = source.parent if source.is_file() else source
    for file in files:
        copy = target / file.relative_to(above)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the program until it ends, or until a batch has had its time."""
    limit = environ.get("HOLOSCAN_TIMEOUT") or "0"
    if not (limit.isascii() and limit.isdigit()):
        return _fail(NODE_WRONG, f"HOLOSCAN_TIMEOUT={limit}: give whole seconds, 0 for no limit")
    is_batch = not argv or argv[0] == "run" or argv[0].startswith("-")
    _allow_stack()
    command = [sys.executable, "-P", "-m", "app", *argv]
    child = os.posix_spawn(command[0], command, environ, setsigmask=[])
    status = _wait(child, int(limit) if is_batch and int(limit) else math.inf)
    if status is not None:
        return status
    _say(f"the batch took longer than HOLOSCAN_TIMEOUT={limit} seconds and is stopped")
    os.kill(child, signal.SIGTERM)
    if _wait(child, GRACE_S) is None:
        os.kill(child, signal.SIGKILL)
        _wait(child, math.inf)
    return TIMED_OUT


def _wait(child: int, limit_s: float) -> int | None:
    """Return the child's status, None when its time is over; hand stop signals on meanwhile."""
    deadline = time.monotonic() + limit_s
    while (left_s := deadline - time.monotonic()) > 0:
        came = signal.sigtimedwait(AWAITED, min(left_s, 3600))
        if came is not None and came.si_signo in STOP_SIGNALS:
            os.kill(child, came.si_signo)
        status = _reap().get(child)
        if status is not None:
            return status
    return None


def _reap() -> dict[int, int]:
    """Return the status of each process that ended; orphans are the first process's to bury."""
    ended = {}
    try:
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            code = os.waitstatus_to_exitcode(found[1])
            ended[found[0]] = code if code >= 0 else 128 - code
    except ChildProcessError:
        pass  # none is left
    return ended


def _allow_stack() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    allowed = STACK if hard == resource.RLIM_INFINITY else min(STACK, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_STACK, (allowed, hard))


def _say(words: str) -> None:
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


def _fail(status: int, words: str) -> int:
    _say(words)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
