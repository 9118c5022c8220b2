"""One child process: its own session, two pipes that carry lines, and the lifeline.

Linux only: poll on a pidfd tells of the child's end without reaping it, and as long as it is not
reaped its number cannot become another's, so that its group can be killed safely.
"""

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from app.errors import WorkerLost

log = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parents[2]
_KILLED_S = 5.0
_LONGEST_WAIT_S = 3600.0  # poll(2) counts in milliseconds of 32 bits


class Process:
    """A running child; `end` must be called once, and nothing afterwards."""

    def __init__(
        self, name: str, *, module: str, memory_limit_bytes: int, environment: Mapping[str, str]
    ) -> None:
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        lifeline, self._lifeline = os.pipe()
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        try:
            self._popen = subprocess.Popen(  # noqa: S603  # our interpreter, our module
                # -P: what lies in the working folder is not imported
                [sys.executable, "-P", "-m", module, name, str(lifeline), str(memory_limit_bytes)],
                stdin=requests,
                stdout=answers,
                pass_fds=[lifeline],
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path, **environment},
            )
        except OSError as error:
            self._close(self._requests, self._answers, self._lifeline)
            raise WorkerLost(f"{name}: the process cannot be started ({error})") from error
        finally:
            self._close(requests, answers, lifeline)
        self._pidfd = os.pidfd_open(self._popen.pid)
        self._watched = os.dup(self._pidfd)  # for who waits for the end while others cause it
        os.set_blocking(self._requests, False)
        os.set_blocking(self._answers, False)
        log.debug("%s started as process %d", name, self.pid)

    @property
    def pid(self) -> int:
        """The process id, and the id of its group and session."""
        return self._popen.pid

    def ask(self, line: bytes, timeout_s: float) -> bytes:
        """Send one line and return the one that answers it.

        Raises EOFError when the child is gone and TimeoutError when there is no answer in time;
        after either there is nothing left to do but to end it.
        """
        deadline = time.monotonic() + timeout_s
        unsent, answer = memoryview(line), bytearray()
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.register(self._answers, select.POLLIN)
        poll.register(self._requests, select.POLLOUT)
        while not answer.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            ready = {fd for fd, _ in poll.poll(min(left, _LONGEST_WAIT_S) * 1000)}
            if self._requests in ready:
                unsent = unsent[self._write(unsent) :]
                if not unsent:
                    poll.unregister(self._requests)
            if self._answers in ready:
                answer += self._read()
            elif self._pidfd in ready:
                raise EOFError
        return bytes(answer)

    def await_end(self) -> None:
        """Wait for the child's end, in a thread of its own; must be called once."""
        poll = select.poll()
        poll.register(self._watched, select.POLLIN)
        poll.poll()
        os.close(self._watched)

    def kill(self) -> None:
        """Kill the child and every process that it started in its group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def end(self, *, patience_s: float) -> str:
        """Let the child finish by itself for `patience_s`, kill its group, say how it ended."""
        self._close(self._requests)
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.poll(patience_s * 1000)
        self.kill()
        self._close(self._answers, self._lifeline, self._pidfd)
        try:
            code = self._popen.wait(_KILLED_S)
        except subprocess.TimeoutExpired:
            # A driver can hold a process beyond SIGKILL; waiting on would stall the node.
            log.exception("process %d was killed but stays; its device may need a reset", self.pid)
            return "was killed but stays"
        hint = " (by a person, or because memory ran out)" if code == -signal.SIGKILL else ""
        return f"{in_words(code)}{hint}"

    def _write(self, unsent: memoryview) -> int:
        try:
            return os.write(self._requests, unsent)
        except BrokenPipeError as error:
            raise EOFError from error

    def _read(self) -> bytes:
        chunk = os.read(self._answers, 65536)
        if not chunk:
            raise EOFError
        return chunk

    @staticmethod
    def _close(*descriptors: int) -> None:
        for descriptor in descriptors:
            os.close(descriptor)


def in_words(code: int) -> str:
    """Say how a process ended, from what `Popen.wait` returned."""
    if code >= 0:
        return f"ended with status {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
