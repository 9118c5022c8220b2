"""The door killed with SIGKILL, started again, and what its senders and its disk say then.

Covered: kills at random moments and at the two places that matter (after the file, after the row);
acknowledged objects are there, nothing partial has a name, sending again doubles nothing. Not
covered: a power cut, which also loses what was written but not synced (needs a disk image).
"""

import random
import threading
from functools import partial
from pathlib import Path

import pytest

from app.faults import VARIABLE
from app.pipeline.receive import read_spooled
from tests.sockets.doors import Door
from tests.sockets.scu import Made, associated, image, images, new_study, send, statuses
from tests.waiting import wait_until

KILLS = 2


def check_promise(door: Door, study: str, acknowledged: set[str]) -> None:
    """Assert what holds whenever the process is gone."""
    rows = {row.sop_uid: row for row in door.rows(study)}
    assert acknowledged <= rows.keys()
    for path in door.spooled():
        if path.suffix == ".dcm":
            read_spooled(door.data, str(path.relative_to(door.data)))  # whole, or it raises
    for row in rows.values():
        assert read_spooled(door.data, row.file).sha256 == row.sha256


def send_until_it_ends(port: int, objects: list[Made], acknowledged: set[str]) -> None:
    """Send over one association; note what is acknowledged."""
    with associated(port, objects) as assoc:
        for each in objects:
            if not assoc.is_established or send(assoc, each)[0] != 0:
                return
            acknowledged.add(each.sop_uid)


def reached(acknowledged: set[str], goal: int) -> bool:
    """Return whether so many objects were acknowledged."""
    return len(acknowledged) >= goal


def test_a_kill_at_any_moment_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Several times in the middle of a study; then the sender repeats all of it."""
    study = new_study()
    objects = images(study, 30)
    acknowledged: set[str] = set()
    chance = random.Random(20261121)  # noqa: S311  # a moment, not a secret
    with Door(tmp_path) as door:
        for _ in range(KILLS):
            door.start()
            goal = len(acknowledged) + chance.randint(1, 10)
            rest = [each for each in objects if each.sop_uid not in acknowledged]
            sender = threading.Thread(
                target=send_until_it_ends, args=(door.port, rest, acknowledged)
            )
            sender.start()
            wait_until(partial(reached, acknowledged, goal))
            door.kill()
            sender.join()
            check_promise(door, study, acknowledged)
        assert len(acknowledged) < len(objects)
        door.start()
        assert statuses(door.port, objects) == [0] * len(objects)
        check_promise(door, study, {each.sop_uid for each in objects})
        assert len(door.rows(study)) == len(door.spooled()) == len(objects)


@pytest.mark.parametrize(("place", "noted"), [("receive.kept", 0), ("receive.noted", 1)])
def test_a_kill_between_file_row_and_answer(tmp_path: Path, place: str, noted: int) -> None:
    """The file without a row is noted at the next start; sending again doubles nothing."""
    marker = tmp_path / "armed"
    marker.touch()
    made = image(new_study())
    with Door(tmp_path) as door:
        door.start(**{VARIABLE: f"{place}:{marker}"})
        assert statuses(door.port, [made]) == [-1]
        door.wait()
        assert len(door.rows(made.study_uid)) == noted
        door.start()
        [row] = door.rows(made.study_uid)
        assert statuses(door.port, [made]) == [0]
        assert [row] == door.rows(made.study_uid)
        assert [path for path in door.spooled() if path.suffix == ".dcm"] == [door.data / row.file]
