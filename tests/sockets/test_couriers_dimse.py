"""Couriers and DICOM peers: dcmtk's receiver with its faults, and results back to their sender.

Covered: a receiver that refuses the association, breaks off during or after the object, or sleeps;
returning results to the peer that sent the study. Not covered: C-FIND as the proof
(test_dimse_send), storage commitment (test_commitments).
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest

from app.store.delivery import DeliveryState
from app.store.jobs import State
from tests.delivering import PROVED, Site
from tests.peers import echoscu, find, free_port, require
from tests.waiting import wait_until

pytestmark = pytest.mark.dcmtk


def dimse(port: int, **more: Any) -> dict[str, Any]:
    """Return the settings of a receiver that answers no questions."""
    settings = {"kind": "dimse", "host": "127.0.0.1", "port": port, "ae_title": "STORESCP"}
    return settings | {"proof": "status", "timeout_s": 1} | more


@contextmanager
def storescp(port: int, folder: Path, *options: str) -> Iterator[None]:
    """Run dcmtk's receiver until the end of the block."""
    folder.mkdir(exist_ok=True)
    call = [find("storescp") or "storescp", *options, "-od", str(folder), str(port)]
    with subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            refuses = "--refuse" in options
            wait_until(lambda: refuses or echoscu(port).returncode == 0, 20, "storescp")
            yield
        finally:
            process.kill()


def held(folder: Path) -> list[str]:
    """Return the SOP Instance UIDs of what was received whole."""
    return sorted(str(pydicom.dcmread(path).SOPInstanceUID) for path in folder.iterdir())


FAULTS: dict[str, Sequence[str]] = {
    "refuses the association": ["--refuse"],
    "breaks off during the object": ["--abort-during"],
    "breaks off after the object": ["--abort-after"],
    "sleeps during the object": ["--sleep-during", "5"],
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_receiver_that_fails_gets_it_when_it_is_well(tmp_path: Path, name: str) -> None:
    """It is not proved by the bad try; afterwards there is one object, and it is proved."""
    require("storescp")
    port, received = free_port(), tmp_path / "received"
    with Site(tmp_path / "site", {"pacs": dimse(port)}) as site:
        job_id = site.results("pacs", size=1 << 20)
        courier = site.courier()
        with storescp(port, received, *FAULTS[name]):
            courier.work()
        assert site.delivery(job_id).state is DeliveryState.WAITING
        for leftover in received.iterdir():
            leftover.unlink()
        with storescp(port, received):
            site.work(courier, 60)
        assert site.delivery(job_id).state is PROVED
        assert site.store.job(job_id).state is State.DONE
        sent = pydicom.dcmread(site.file(job_id)).SOPInstanceUID
        assert held(received) == [sent]


def test_results_return_to_the_peer_that_sent_the_study(tmp_path: Path) -> None:
    """Where the door's list of peers says that it listens."""
    require("storescp")
    port, received = free_port(), tmp_path / "received"
    archives = {"local": {"kind": "folder", "path": "archive"}}
    peers = [{"ae_title": "CT1", "host": "127.0.0.1", "port": port}, {"ae_title": "CT2"}]
    with Site(tmp_path / "site", archives, door={"peers": peers}) as site:
        job_id = site.results("sender:CT1", "sender:CT2")
        with storescp(port, received):
            site.work(site.courier("sender:CT1"), 10)
        assert site.delivery(job_id, "sender:CT1").state is PROVED
        assert len(held(received)) == 1
        site.courier("sender:CT2").work()
        refused = site.delivery(job_id, "sender:CT2")
        assert refused.state is DeliveryState.REFUSED
        assert "nothing can be returned to CT2: give its host and port" in refused.reason
