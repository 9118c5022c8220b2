"""What a supervisor is told: real datagrams to a real socket, as systemd listens.

Covered: ready, alive at a quarter of the time that is asked for, stopping; addresses in the file
system and abstract ones; nobody who listens; what processes started later inherit; the node itself,
from its start to its end. Not covered: what systemd makes of it, see acceptance/test_service.
"""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from app.notify import Notifier
from tests.node import Node
from tests.waiting import wait_until


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A supervisor's socket and its address."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(path)
        supervisor.settimeout(60)
        yield supervisor, path


def told(supervisor: socket.socket) -> str:
    """Return what came next."""
    return supervisor.recv(4096).decode()


def test_each_word_is_one_datagram(listening: tuple[socket.socket, str]) -> None:
    """In the order in which a node's life has them."""
    supervisor, path = listening
    environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000", "HOME": "/"}
    notifier = Notifier.take(environment)
    notifier.ready("data in x")
    notifier.alive()
    notifier.alive()  # too early to say it again
    notifier.stopping()
    words = [told(supervisor) for _ in range(3)]
    assert words == ["READY=1\nSTATUS=data in x", "WATCHDOG=1", "STOPPING=1"]
    assert environment == {"HOME": "/"}, "whatever is started later would speak for the node"


def test_a_watchdog_is_fed_four_times_in_its_time(listening: tuple[socket.socket, str]) -> None:
    """So that two may be late."""
    supervisor, path = listening
    notifier = Notifier(path, watchdog_s=0.2)
    supervisor.settimeout(0)

    def words() -> list[str]:
        notifier.alive()
        with suppress(BlockingIOError):
            heard.append(told(supervisor))
        return heard if len(heard) == 3 else []

    heard: list[str] = []
    assert wait_until(words, 20) == ["WATCHDOG=1"] * 3


def test_a_watchdog_for_another_process_is_not_ours(listening: tuple[socket.socket, str]) -> None:
    """sd_watchdog_enabled(3)."""
    supervisor, path = listening
    other = str(os.getpid() + 1)
    environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": other}
    notifier = Notifier.take(environment)
    notifier.alive()
    notifier.stopping()
    assert told(supervisor) == "STOPPING=1"


def test_an_abstract_address_is_understood() -> None:
    """Written with an at sign."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        name = f"marginalia-{os.getpid()}"
        supervisor.bind(f"\0{name}")
        supervisor.settimeout(20)
        Notifier(f"@{name}").stopping()
        assert told(supervisor) == "STOPPING=1"


def test_who_has_no_supervisor_or_a_deaf_one_goes_on(tmp_path: Path) -> None:
    """The node's work does not depend on it."""
    Notifier.take({}).ready("nobody")
    Notifier.take({"WATCHDOG_USEC": "nonsense"}).alive()
    Notifier(str(tmp_path / "nobody"), watchdog_s=1).alive()


@pytest.mark.slow
def test_the_node_tells_its_supervisor_how_it_is(
    listening: tuple[socket.socket, str], tmp_path: Path
) -> None:
    """Ready when its ports are open; alive until its loop hangs; and that it ends."""
    supervisor, path = listening
    node = Node(tmp_path / "node")
    try:
        node.start(NOTIFY_SOCKET=path, WATCHDOG_USEC="400000")
        assert told(supervisor) == f"READY=1\nSTATUS=data in {node.data}"
        assert [told(supervisor) for _ in range(3)] == ["WATCHDOG=1"] * 3
        assert node.process is not None
        node.process.send_signal(signal.SIGSTOP)
        supervisor.settimeout(2)
        with pytest.raises(TimeoutError):
            [told(supervisor) for _ in range(1000)]
        node.process.send_signal(signal.SIGCONT)
        supervisor.settimeout(60)
        node.process.terminate()
        wait_until(lambda: told(supervisor) == "STOPPING=1", 60, "its last word")
        assert node.process.wait(60) == 0
    finally:
        node.end()
