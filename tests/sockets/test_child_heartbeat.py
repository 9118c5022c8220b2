"""A door as the node's child: it speaks every second, and one that hangs for long is replaced.

Covered with a real door: its words, what it counts, silence, the kill, another start. Not covered:
a port that hangs while the process is well, which cannot be made on purpose.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import children
from app.children import Child
from app.store.store import Store
from tests.sockets.doors import NODE
from tests.sockets.scu import image, new_study, statuses
from tests.waiting import wait_until


class Told:
    """What a child said when it was ready, each time."""

    def __init__(self) -> None:
        self.starts: list[tuple[int, dict[str, Any]]] = []

    def __call__(self, pid: int, told: dict[str, Any]) -> None:
        """Take it."""
        self.starts.append((pid, told))


@pytest.fixture
def told() -> Told:
    """Give who is told."""
    return Told()


@pytest.fixture
def door(tmp_path: Path, told: Told) -> Iterator[Child]:
    """Give a door that is open."""
    config = tmp_path / "app.yaml"
    settings = NODE | {"door": {"port": 0, "open": True, "limits": {"free_gb": 0}}}
    config.write_text(yaml.safe_dump({"node": settings}))
    Store.open(tmp_path / "node.db").close()
    child = Child("door", "app.door", config_path=config, data=tmp_path, on_ready=told)
    child.open()
    yield child
    child.close()


def test_a_door_says_every_second_how_it_is(door: Child, told: Told) -> None:
    """Its port turns, and what came is counted."""
    (pid, ready), *_ = told.starts
    made = image(new_study())
    assert statuses(ready["listening"], [made, made]) == [0, 0]
    counts = wait_until(lambda: c if (c := door.vitals.counts).get("held") else None)
    assert (counts["kept"], counts["held"], counts["associations"]) == (1, 1, 1)
    assert counts["bytes"] > 0
    assert door.vitals.ages["listening"] < children.HUNG_S
    before = door.vitals.heard_at
    wait_until(lambda: door.vitals.heard_at > before, 10, "another word")
    assert (door.vitals.alive, door.vitals.starts) == (True, 1)
    assert pid


def test_a_door_that_hangs_for_long_is_killed_and_started_again(
    door: Child, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to notice it; what hung is dead before another one listens."""
    monkeypatch.setattr(children, "HUNG_S", 2.0)
    before = door.vitals.heard_at
    wait_until(lambda: door.vitals.heard_at > before, 10, "a word since then")
    first = told.starts[0][0]
    os.kill(first, signal.SIGSTOP)
    wait_until(lambda: len(told.starts) == 2, 40, "another door")
    assert not Path(f"/proc/{first}/exe").exists()
    assert (door.vitals.alive, door.vitals.starts) == (True, 2)
    assert door.vitals.ended == "was ended by SIGKILL"
    assert statuses(told.starts[1][1]["listening"], [image(new_study())]) == [0]
