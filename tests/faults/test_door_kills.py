"""The door killed with SIGKILL fifty times while studies come in, and a crowd of equal senders.

Covered: whatever the moment is, nothing acknowledged is lost, nothing partial has a name, and a
sender that comes again makes no second row or file; twenty associations that bring the same study
at once make one study of it. Not covered: what a power cut takes (test_power_cut.py), kills of the
other processes (test_kills.py).
"""

import hashlib
import random
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.pipeline.receive import read_spooled
from tests.quick_scu import ENDED, QuickScu
from tests.sockets.doors import Door
from tests.sockets.scu import Made, images, new_study

KILLS = 50
EACH = 24
"""Objects that each sender has for one life of the door; it seldom comes to the last one."""
MOST_S = 0.05
"""How long after its first acknowledgement a door is killed at most."""
SENDERS = 3
CROWD = 20
LIMITS = {"free_gb": 0, "associations": CROWD + 1, "per_address": CROWD + 1}


def send(port: int, objects: Sequence[Made]) -> list[int]:
    """Send over one association; return what was answered, up to its end."""
    answers = []
    with QuickScu(port, [(objects[0].sop_class, objects[0].syntax)]) as scu:
        for each in objects:
            status = scu.store(each.sop_class, each.sop_uid, each.syntax, each.dataset)
            if status == ENDED:
                break
            answers.append(status)
    return answers


def send_until_it_ends(
    port: int, objects: Sequence[Made], acknowledged: set[str], began: threading.Event
) -> None:
    """Send again and again until nobody answers; note what is acknowledged."""
    first = objects[0]
    try:
        with QuickScu(port, [(first.sop_class, first.syntax)]) as scu:
            for each in objects:
                if scu.store(each.sop_class, each.sop_uid, each.syntax, each.dataset):
                    return
                acknowledged.add(each.sop_uid)
                began.set()
    except ConnectionError:  # killed before the association was there
        return


def check_promise(door: Door, digests: dict[str, str], acknowledged: set[str]) -> None:
    """Assert what holds whenever the process is gone."""
    for path in door.spooled():
        if path.suffix == ".dcm":
            read_spooled(door.data, str(path.relative_to(door.data)))  # whole, or it raises
    for uid in acknowledged:
        row = door.store.find_instance(uid)
        assert row is not None
        assert read_spooled(door.data, row.file).sha256 == row.sha256 == digests[uid]


def sha256s(objects: Sequence[Made]) -> dict[str, str]:
    """Return the digest of each object by its UID."""
    return {each.sop_uid: hashlib.sha256(each.dataset).hexdigest() for each in objects}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_fifty_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """Each at its own moment, with several senders; then all of them repeat all they have."""
    chance = random.Random(20261122)  # noqa: S311  # moments, not secrets
    studies = [images(new_study(), KILLS * EACH) for _ in range(SENDERS)]
    digests = sha256s([made for objects in studies for made in objects])
    acknowledged: set[str] = set()
    rest = list(studies)
    with Door(tmp_path, limits=LIMITS) as door:
        for _ in range(KILLS):
            port = door.start().port
            began = threading.Event()
            rest = [[m for m in part if m.sop_uid not in acknowledged] for part in rest]
            senders = [
                threading.Thread(
                    target=send_until_it_ends, args=(port, part[:EACH], acknowledged, began)
                )
                for part in rest
            ]
            for sender in senders:
                sender.start()
            assert began.wait(30)
            threading.Event().wait(chance.uniform(0, MOST_S))
            door.kill()
            for sender in senders:
                sender.join()
            check_promise(door, digests, acknowledged)
        port = door.start().port
        for objects in studies:
            assert send(port, objects) == [0] * len(objects)
        check_promise(door, digests, {*digests})
        rows = [row for objects in studies for row in door.rows(objects[0].study_uid)]
        assert len(rows) == len(digests)
        assert {door.data / row.file for row in rows} == {*door.spooled()}
        assert door.quarantined() == []


@pytest.mark.slow
def test_twenty_senders_of_one_study_make_one_study(tmp_path: Path) -> None:
    """All are told that it is kept; there is one row and one file for each slice."""
    objects = images(new_study(), 300)
    with Door(tmp_path, limits=LIMITS) as door:
        port = door.start().port
        with ThreadPoolExecutor(CROWD) as pool:
            answers = [*pool.map(lambda _: send(port, objects), range(CROWD))]
        assert Counter(status for each in answers for status in each) == {0: CROWD * 300}
        rows = door.rows(objects[0].study_uid)
        assert len(rows) == len(door.spooled()) == 300
        assert {row.sop_uid for row in rows} == {made.sop_uid for made in objects}
        study = door.store.study(objects[0].study_uid)
        assert study.instances == study.version == 300
        assert door.quarantined() == []
