"""ReceiveOperator: the top of the graph, where due work comes in."""

from collections import deque
from threading import Lock
from typing import Any

from holoscan.conditions import AsynchronousCondition, AsynchronousEventState
from monai.deploy.core import Operator, OperatorSpec

from app.pipeline.work import Work
from operators.ports import send


class Feed:
    """Due work on its way into the graph, handed over from any thread.

    Holoscan's asynchronous condition takes EVENT_DONE only while it waits, so the state is changed
    under one lock by whoever offers and by the operator that takes. Once closed and empty it says
    EVENT_NEVER, which ends the graph when the last work has left it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._due: deque[Work] = deque()
        self._closed = False
        self._condition: Any = None

    def attach(self, condition: Any) -> None:
        """Take the condition that wakes the operator."""
        with self._lock:
            self._condition = condition

    def start(self) -> None:
        """Wait for the first work."""
        with self._lock:
            self._update()

    def offer(self, work: Work) -> None:
        """Hand in one due work."""
        with self._lock:
            self._due.append(work)
            self._update()

    @property
    def closed(self) -> bool:
        """Whether the graph was told to end."""
        return self._closed

    def close(self) -> None:
        """Let the graph end when all that was offered has gone through."""
        with self._lock:
            self._closed = True
            self._update()

    def take(self) -> list[tuple[str, Work]]:
        """Return the next due work, if any, and by which port it leaves."""
        with self._lock:
            taken = [("work", self._due.popleft())] if self._due else []
            self._update()
        return taken

    def _update(self) -> None:
        if self._condition is None:
            return
        if self._due or (
            self._closed and self._condition.event_state == AsynchronousEventState.EVENT_WAITING
        ):
            self._condition.event_state = AsynchronousEventState.EVENT_DONE
        elif self._closed:
            self._condition.event_state = AsynchronousEventState.EVENT_NEVER
        else:
            self._condition.event_state = AsynchronousEventState.EVENT_WAITING


class ReceiveOperator(Operator):
    """Emit due work."""

    def __init__(self, fragment: Any, *args: Any, feed: Feed, **kwargs: Any) -> None:
        self.feed = feed
        condition = AsynchronousCondition(fragment, name="due")
        feed.attach(condition)
        super().__init__(fragment, condition, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports."""
        spec.output("work")

    def start(self) -> None:
        """Wait for the first work."""
        self.feed.start()

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Take due work and emit it."""
        del op_input, context
        send(op_output, self.feed.take())
