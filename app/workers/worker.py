"""The parent's side of a worker: start the child, ask it, and end it when it has to end."""

import json
import threading
from collections.abc import Mapping
from typing import Any

import app.errors
from app.errors import Interrupted, NodeError, WorkerLost
from app.log import current_job
from app.workers.process import Process

_ERRORS = {
    name: kind
    for name, kind in vars(app.errors).items()
    if isinstance(kind, type) and issubclass(kind, NodeError)
}
_STOP_S = 2.0
_DYING_S = 1.0


class WorkerFault(Exception):
    """The function failed in a way nobody foresaw: the program is at fault, not the study.

    `class_name` and `traceback` are fit for a log: they hold no values of the study.
    """

    def __init__(self, message: str, *, class_name: str, traceback: str) -> None:
        super().__init__(message)
        self.class_name = class_name
        self.traceback = traceback


class Worker:
    """A child process that keeps what it has loaded, does one thing at a time and may be lost.

    It starts at the first call, and again at the first call after its end.
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
            process = self._begin(function)
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
        self.interrupt()
        with self._turn:
            if self._process:
                self._process.end(patience_s=_STOP_S)
                self._process = None

    def _begin(self, function: str) -> Process:
        with self._fate:
            if self._stopped:
                raise self._interruption(function)
            process = self._process or Process(
                self.name,
                module=self._module,
                memory_limit_bytes=self._memory_limit_bytes,
                environment=self._environment,
            )
            self._process, self._running, self._interrupted = process, True, False
            return process

    def _finish(self, process: Process, *, keep: bool, patience_s: float) -> str:
        with self._fate:  # from here on `interrupt` leaves the process alone
            self._running = False
            if keep and not self._interrupted:
                return "still runs"
            self._process = None
        return process.end(patience_s=patience_s)

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
