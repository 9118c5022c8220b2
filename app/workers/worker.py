"""The parent's side of a worker: start the child, ask it, and end it when it has to end."""

import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import app.errors
from app.errors import Interrupted, NodeError, WorkerLost
from app.log import current_job
from app.workers.process import Process

log = logging.getLogger(__name__)

_ERRORS = {
    name: kind
    for name, kind in vars(app.errors).items()
    if isinstance(kind, type) and issubclass(kind, NodeError)
}
_STOP_S = 2.0
_DYING_S = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _WELL_S = 1.0, 30.0, 60.0
"""Before one that died is started again: twice as long each time, unless it ran for a minute."""


class WorkerFault(Exception):
    """The function failed in a way nobody foresaw: the program is at fault, not the study.

    `class_name` and `traceback` are fit for a log: they hold no values of the study.
    """

    def __init__(self, message: str, *, class_name: str, traceback: str) -> None:
        super().__init__(message)
        self.class_name = class_name
        self.traceback = traceback


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How a worker is at one moment."""

    pid: int | None
    doing: str
    """The function that runs; empty while it waits."""
    began_at: float
    """When that began, by the monotonic clock."""
    limit_s: float
    """How long that may take."""
    starts: int
    losses: int
    """How often the process died or had to be killed."""
    ended: str
    """How and when it was lost the last time; empty while it never was."""


class Worker:
    """A child process that keeps what it has loaded, does one thing at a time and may be lost.

    It starts at the first call. After its end it starts again at the next call, or by itself a
    moment later: whether it can start is known before a job needs it.
    """

    def __init__(
        self,
        name: str,
        *,
        memory_limit_bytes: int | None = None,
        environment: Mapping[str, str] | None = None,
        module: str = "app.workers.child",
    ) -> None:
        self.name = name
        self._memory_limit_bytes = memory_limit_bytes or 0
        self._environment = dict(environment or {})
        self._module = module
        self._turn = threading.Lock()  # held by the caller who talks to the child
        self._fate = threading.Lock()  # guards the fields below, held for moments only
        self._process: Process | None = None
        self._running = False
        self._interrupted = False
        self._stopped = False
        self._doing, self._began_at, self._limit_s = "", 0.0, 0.0
        self._starts, self._losses, self._ended = 0, 0, ""
        self._pause_s = _FIRST_PAUSE_S
        self._over = threading.Event()

    @property
    def condition(self) -> Condition:
        """How it is now; never waits, also while a child is being started or ended."""
        return Condition(
            pid=self.pid,
            doing=self._doing if self._running else "",
            began_at=self._began_at,
            limit_s=self._limit_s,
            starts=self._starts,
            losses=self._losses,
            ended=self._ended,
        )

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is no child."""
        process = self._process
        return process.pid if process else None

    def call(self, function: str, arguments: dict[str, Any], timeout_s: float) -> Any:
        """Return what the child's function returns; callers take turns.

        `timeout_s` runs from one's turn to the answer, the child's start included. Raises what
        the function raised if that stands in app.errors, OutOfResources when memory or disk ran
        out, WorkerLost when the child died or ran too long, Interrupted after `interrupt` or
        `stop`, and WorkerFault for everything else.
        """
        request = {"function": function, "arguments": arguments, "job": current_job()}
        line = json.dumps(request).encode() + b"\n"
        with self._turn:
            process = self._begin(function, timeout_s)
            answer = None
            lost: OSError | EOFError | None = None
            try:
                answer = process.ask(line, timeout_s)
            except (EOFError, TimeoutError) as error:
                lost = error
            finally:
                # A dying child closes its pipes first; its exit code follows at once.
                patience_s = _DYING_S if isinstance(lost, EOFError) else 0.0
                ended = self._finish(process, keep=answer is not None, patience_s=patience_s)
            if self._interrupted:
                raise self._interruption(function)
        if isinstance(lost, TimeoutError):
            raise WorkerLost(
                f"{self.name}: {function} ran past its limit of {timeout_s:g} s and was killed; "
                "raise the limit if such studies may take longer"
            ) from lost
        if answer is None:
            raise WorkerLost(f"{self.name}: the process {ended} during {function}") from lost
        return self._unfold(function, json.loads(answer))

    def interrupt(self) -> None:
        """Kill what runs now, so that its caller gets Interrupted; do nothing if nothing runs."""
        with self._fate:
            if self._running and self._process:
                self._interrupted = True
                self._process.kill()

    def stop(self) -> None:
        """End the child for good: the running call and all later ones raise Interrupted."""
        with self._fate:
            self._stopped = True
        self._over.set()
        self.interrupt()
        with self._turn:
            with self._fate:
                process, self._process = self._process, None
            if process is not None:
                process.end(patience_s=_STOP_S)

    def _begin(self, function: str, timeout_s: float) -> Process:
        with self._fate:
            if self._stopped:
                raise self._interruption(function)
            process = self._process or self._start()
            self._running, self._interrupted = True, False
            self._doing, self._began_at, self._limit_s = function, time.monotonic(), timeout_s
            return process

    def _finish(self, process: Process, *, keep: bool, patience_s: float) -> str:
        with self._fate:  # from here on `interrupt` leaves the process alone
            self._running = False
            if keep and not self._interrupted:
                return "still runs"
            self._process = None
        ended = process.end(patience_s=patience_s)
        if not self._interrupted:
            self._note_loss(f"{ended} during {self._doing}")
        return ended

    # -- a child that dies -------------------------------------------------------------------

    def _start(self) -> Process:
        """Start the child; called while its fate is held."""
        self._process = Process(
            self.name,
            module=self._module,
            memory_limit_bytes=self._memory_limit_bytes,
            environment=self._environment,
        )
        self._starts += 1
        threading.Thread(
            target=self._watch, args=(self._process,), name=f"{self.name} watcher", daemon=True
        ).start()
        return self._process

    def _watch(self, process: Process) -> None:
        """Notice the child's end also while nobody calls it, and start it again."""
        began = time.monotonic()
        process.await_end()
        lived_s = time.monotonic() - began
        pause_s = _FIRST_PAUSE_S if lived_s > _WELL_S else self._pause_s
        self._pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        with self._fate:
            if self._process is process and not self._running:
                self._bury(process)
        while not self._over.wait(pause_s):
            with self._fate:
                if self._process not in {None, process} or self._interrupted:
                    return  # a call was faster, or the node stops
                if self._stopped or (self._process is None and self._started()):
                    return
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _started(self) -> bool:
        try:
            self._start()
        except WorkerLost as error:
            log.error("%s", error)  # noqa: TRY400  # a sentence will do
            return False
        return True

    def _bury(self, process: Process) -> None:
        """Take leave of a child that died while nobody called it; called while its fate is held."""
        self._process = None
        ended = process.end(patience_s=0)
        log.warning("%s: the process %s while it was idle", self.name, ended)
        self._note_loss(f"{ended} while it was idle")

    def _note_loss(self, ended: str) -> None:
        self._losses += 1
        self._ended = f"{ended} at {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"

    def _interruption(self, function: str) -> Interrupted:
        return Interrupted(f"{self.name}: {function} was ended because the node is stopping")

    def _unfold(self, function: str, answer: dict[str, Any]) -> Any:
        if "errors" not in answer:
            return answer["result"]
        for name in answer["errors"]:
            if kind := _ERRORS.get(name):
                raise kind(answer["message"])
        raise WorkerFault(
            f"{self.name}: {function} failed: {answer['message']}",
            class_name=answer["errors"][0],
            traceback=answer["traceback"],
        )
