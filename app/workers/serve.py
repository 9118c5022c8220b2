"""The loop a child runs: a request in, a function of a closed table called, an answer out."""

import errno
import faulthandler
import fcntl
import importlib
import json
import os
import resource
import select
import signal
import sys
from collections.abc import Callable, Mapping
from typing import IO, Any

from app.errors import NodeError, OutOfResources
from app.log import about, sentence, set_up, traced

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM}


def serve(functions: Mapping[str, str]) -> None:
    """Answer requests until the parent closes its end.

    The command line is `NAME LIFELINE LIMIT`: a name for `ps`, the descriptor that is open as
    long as the parent lives, and the address space in bytes (0: no limit).
    """
    _, lifeline, limit = sys.argv[1:]
    _die_with(int(lifeline))
    _obey_the_parent_alone()
    if int(limit):
        resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit)))
    requests, answers = _take_pipes()
    set_up(stream=sys.stderr)
    faulthandler.enable()  # a crash in C leaves its Python stack among the logs
    for line in requests:
        answers.write(_answer(functions, json.loads(line)) + b"\n")
        answers.flush()


def _die_with(lifeline: int) -> None:
    """Have the kernel kill this process and its children when the parent's end closes.

    A thread that waits for the end of stdin would not run while a C call holds the interpreter's
    lock, and PR_SET_PDEATHSIG follows the thread that started us, not the process: pipe(7) with
    O_ASYNC (fcntl(2), F_SETSIG) needs nobody's help.
    """
    os.set_inheritable(lifeline, False)
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    poll = select.poll()
    poll.register(lifeline, 0)
    if poll.poll(0):  # it had closed before the kernel was asked to watch
        os._exit(1)


def _obey_the_parent_alone() -> None:
    # systemd and a terminal signal every process of the service; the node decides when its
    # children end, so that a running job may finish.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _take_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Keep the two pipes for the protocol: whatever libraries print goes to standard error."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return requests, answers


def _answer(functions: Mapping[str, str], request: dict[str, Any]) -> bytes:
    with about(request["job"]):
        try:
            result = _find(functions, request["function"])(request["arguments"])
            return json.dumps({"result": result}).encode()
        except Exception as error:  # noqa: BLE001  # the edge of the process: the parent sorts it
            return json.dumps(_as_answer(error)).encode()


def _find(
    functions: Mapping[str, str], name: str
) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    module, _, function = functions[name].partition(":")
    found: Callable[[dict[str, Any]], dict[str, Any] | None]
    found = getattr(importlib.import_module(module), function)
    return found


def _as_answer(error: Exception) -> dict[str, Any]:
    names = [kind.__name__ for kind in type(error).__mro__]
    message = str(error) if isinstance(error, NodeError) else sentence(error)
    if _is_out_of_resources(error, names):
        names = [OutOfResources.__name__]
        message = f"memory or disk ran out ({sentence(error)}); free some, or raise the limit"
    return {"errors": names, "message": message, "traceback": traced(error)}


def _is_out_of_resources(error: Exception, names: list[str]) -> bool:
    # torch and cupy have their own OutOfMemoryError; importing them here to ask costs seconds.
    return (
        isinstance(error, MemoryError)
        or "OutOfMemoryError" in names
        or (isinstance(error, OSError) and error.errno in _NO_ROOM)
    )
