"""A child with functions that misbehave, for the tests of the workers."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

import app.errors
from app.log import current_job
from app.workers.serve import serve

calls = 0


def echo(arguments: dict[str, Any]) -> dict[str, Any]:
    """Answer with what came, and what this child has seen."""
    global calls  # noqa: PLW0603  # what a child keeps between calls is the point
    calls += 1
    return {"got": arguments, "pid": os.getpid(), "calls": calls, "job": current_job()}


def be_noisy(arguments: dict[str, Any]) -> dict[str, Any]:
    """Print in every way that a library can, and try to read the protocol's pipe."""
    print('{"result": "a print"}')  # noqa: T201  # the point
    os.write(1, b'{"result": "a C library"}\n')
    subprocess.run(["echo", '{"result": "a grandchild"}'], check=True)
    return {"stdin": sys.stdin.read()}


def fail(arguments: dict[str, Any]) -> dict[str, Any]:
    """Raise the error of app.errors that is asked for."""
    raise getattr(app.errors, arguments["name"])("said by the child")


def fail_otherwise(arguments: dict[str, Any]) -> dict[str, Any]:
    """Raise what nobody foresaw, quoting a value as pydicom would."""
    raise ValueError("a value PHANTOM^SECRET is wrong")


def return_what_is_not_json(arguments: dict[str, Any]) -> dict[str, Any]:
    """Answer with what no line can carry."""
    return {"array": np.zeros(1)}


def take_memory(arguments: dict[str, Any]) -> dict[str, Any]:
    """Touch as many bytes as asked."""
    return {"sum": float(np.ones(arguments["bytes"], np.uint8).sum())}


def fill_the_disk(arguments: dict[str, Any]) -> dict[str, Any]:
    """Write to a disk that is always full."""
    Path("/dev/full").write_bytes(b"x")
    return {}


def crash_in_c(arguments: dict[str, Any]) -> dict[str, Any]:
    """Read from address zero."""
    ctypes.string_at(0)
    return {}


def leave(arguments: dict[str, Any]) -> dict[str, Any]:
    """End the process as some libraries do when they are displeased."""
    sys.exit(7)


def end_by_terminate(arguments: dict[str, Any]) -> dict[str, Any]:
    """Send this process what systemd and a terminal send to all."""
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    return {"pid": os.getpid()}


def hang(arguments: dict[str, Any]) -> dict[str, Any]:
    """Start a grandchild, note both process ids and hang as told: waiting, or in C."""
    grandchild = subprocess.Popen(["sleep", "600"])
    note = Path(arguments["note"])
    note.with_suffix(".new").write_text(f"{os.getpid()} {grandchild.pid}", encoding="ascii")
    note.with_suffix(".new").rename(note)
    if arguments.get("in_c"):
        re.match(r"(a+)+b", "a" * 80)  # holds the interpreter's lock for centuries
    threading.Event().wait()
    return {}


FUNCTIONS = {
    function.__name__: f"{__spec__.name if __spec__ else __name__}:{function.__name__}"
    for function in (
        echo,
        be_noisy,
        fail,
        fail_otherwise,
        return_what_is_not_json,
        take_memory,
        fill_the_disk,
        crash_in_c,
        leave,
        end_by_terminate,
        hang,
    )
} | {"missing": "app.pipeline.not_there:nothing"}

if __name__ == "__main__":
    serve(FUNCTIONS)
