"""A backup of a node that works, and the node that goes on from it elsewhere.

Covered: objects keep coming in and jobs keep running while backups are made; the node is then
killed and its data lost; the one restored elsewhere has every object that was acknowledged before
the backup began, brings every study to its end, and sends an archive nothing that it had proved to
hold; a job log of an older version is brought up. Not covered: power cuts, another machine.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.store.jobs import State
from tests.archive import running_archive
from tests.node import SETTINGS, Node, running
from tests.phantoms.dicom import StudyFiles, write_study
from tests.sending import send
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@contextmanager
def load(studies: Sequence[StudyFiles], port: int) -> Iterator[list[StudyFiles]]:
    """Send studies, one association each, one after the other; give those that are acknowledged."""
    acknowledged: list[StudyFiles] = []
    stop = threading.Event()

    def work() -> None:
        for study in studies:
            if stop.is_set():
                return
            assert {*send(study.paths, port)} == {0}
            acknowledged.append(study)

    sender = threading.Thread(target=work)
    sender.start()
    try:
        yield acknowledged
    finally:
        stop.set()
        sender.join(60)


def test_a_node_restored_elsewhere_goes_on_where_the_backup_was_made(tmp_path: Path) -> None:
    """The load is studies that no route takes, so that jobs are as many as are counted here."""
    folder = tmp_path / "backups"
    first, *jobs = (
        write_study(tmp_path / f"job{n}", seed=n, shape=(32, 32), slices=24) for n in range(3)
    )
    many = [
        write_study(tmp_path / f"s{n}", seed=n, shape=(16, 16), slices=8, uid_seed=f"load{n}")
        for n in range(60)
    ]
    with running_archive() as pacs:
        archives = {"pacs": {"kind": "dicomweb", "url": pacs.url, "accepts": ["seg"]}}
        route = SETTINGS["routes"][0] | {"deliver_to": ["pacs"]}
        settings = {"archives": archives | SETTINGS["archives"], "routes": [route]}
        with running(tmp_path / "lost", settings) as node:
            send(first.paths, node.port)
            node.settled(timeout_s=180)
            with load(many, node.port) as acknowledged:
                for study in jobs:
                    send(study.paths, node.port)
                node.command("backup", str(folder))
                wait_until(lambda: len(acknowledged) >= 3, 60, "some load")
                before, sent = [*acknowledged], len(pacs.posts)
                made = json.loads(
                    node.command("backup", str(folder), "--keep", "1", "--json").stdout
                )
                during = len(acknowledged) - len(before)
            assert during > 0, "nothing came in while the backup was made"
            node.kill()
        node.data.rename(tmp_path / "gone")  # its door may still be closing there
        assert (made["missing"], len(made["removed"])) == ([], 1)
        assert made["linked"] > 0

        other = Node(tmp_path / "other", settings)
        other.command("restore", str(folder))
        assert other.start().process is not None
        try:
            settled = other.settled(3, timeout_s=180)
            with other.store() as store:
                for study in (first, *jobs, *before):
                    held = {each.sop_uid for each in store.instances(study.study_uid)}
                    assert held == {*study.sop_uids}
            assert {job.state for job in settled} == {State.DONE}
            assert len(settled) == len(pacs.held) == 3
            assert send(many[-1].paths, other.port) == [0] * 8
        finally:
            other.end()
        assert len(pacs.posts) - sent <= 2, "what was proved before the backup was sent again"
