"""How messages enter and leave an operator."""

from collections.abc import Iterable
from typing import Any

from holoscan.core import IOSpec

CAPACITY = 8
"""Room for every job in flight, so that one slow model never holds back another."""

_REJECT = 2


def queue(spec: Any, name: str) -> None:
    """Declare an input port with room for every job in flight; a full queue is an error."""
    spec.input(name).connector(
        IOSpec.ConnectorType.DOUBLE_BUFFER, capacity=CAPACITY, policy=_REJECT
    )


def send(op_output: Any, messages: Iterable[tuple[str, Any]]) -> None:
    """Emit each message by its port."""
    for port, message in messages:
        op_output.emit(message, port)
