"""Storage commitment as a proof: archives that answer at once, later, never, wrongly or with no.

Covered: the report on the association that asked and on one to our door, with a real Orthanc, our
own door and pynetdicom as providers; reports that nobody asked for; what a courier makes of each.
Not covered: the provider's side (test_commitment).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import SecondaryCaptureImageStorage, StorageCommitmentPushModel

from app.config_archives import DimseArchive
from app.dicom.commit import Report, ask
from app.errors import ArchiveRefused
from app.pipeline.deliver import identifiers
from app.pipeline.line import line_to
from app.store.delivery import DeliveryState
from tests.delivering import PROVED, Site
from tests.peers import Orthanc, require
from tests.sockets.doors import Door
from tests.sockets.pulls import NODE
from tests.sockets.results import result, uid_of
from tests.waiting import wait_until

WELL_KNOWN = "1.2.840.10008.1.20.1.1"
TRANSACTION = "2.25.4711"
Answer = Callable[[Dataset], Dataset | None]
"""What a provider reports on a request; None: nothing."""


def dimse(port: int, ae_title: str = "ARCHIVE") -> dict[str, Any]:
    """Return the settings of an archive that commits itself."""
    return {
        "kind": "dimse",
        "host": "127.0.0.1",
        "port": port,
        "ae_title": ae_title,
        "calling_ae_title": NODE,
        "proof": "commitment",
        "timeout_s": 5,
    }


def report(request: Dataset, held: int | None = None, transaction: str = "") -> Dataset:
    """Return the report that the first so many objects are held and the others are not."""
    ds = Dataset()
    ds.TransactionUID = transaction or request.TransactionUID
    items = list(request.ReferencedSOPSequence)
    held = len(items) if held is None else held
    ds.ReferencedSOPSequence = items[:held]
    for item in items[held:]:
        item.FailureReason = 0x0112
    if items[held:]:
        ds.FailedSOPSequence = items[held:]
    return ds


def in_turn(*answers: Answer) -> Answer:
    """Answer one request after the other in another way."""
    left = [*answers]

    def answer(request: Dataset) -> Dataset | None:
        return left.pop(0)(request)

    return answer


class Provider:
    """An archive by pynetdicom: stores nothing, takes all, and reports what it is told to."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.stored: list[str] = []
        self.asked: list[str] = []
        self.port = 0
        self._threads: list[threading.Thread] = []

    @contextmanager
    def running(self) -> Iterator["Provider"]:
        """Listen until the end of the block."""
        ae = AE("ARCHIVE")
        ae.add_supported_context(SecondaryCaptureImageStorage)
        ae.add_supported_context(StorageCommitmentPushModel)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._action)]
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = server.server_address[1]
        try:
            yield self
        finally:
            for thread in self._threads:
                thread.join(10)
            server.shutdown()

    def _store(self, event: Event) -> int:
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    def _action(self, event: Event) -> tuple[int, None]:
        request = event.action_information
        self.asked.append(str(request.TransactionUID))
        said = self.answer(request)
        if said is not None:
            kind = 2 if "FailedSOPSequence" in said else 1
            send = event.assoc.send_n_event_report
            arguments = (said, kind, StorageCommitmentPushModel, WELL_KNOWN)
            self._threads.append(threading.Thread(target=send, args=arguments))
            self._threads[-1].start()
        return 0, None


def asked(port: int, paths: list[Path], wait_s: float = 5.0) -> Report | None:
    """Ask an archive to commit itself to files."""
    archive = DimseArchive.model_validate(dimse(port))
    return ask(line_to("pacs", archive), TRANSACTION, identifiers(paths), wait_s)


def test_a_report_on_the_same_association_is_taken(tmp_path: Path) -> None:
    """What is held and what is not, with its reason in words."""
    paths = [result(tmp_path), result(tmp_path)]
    with Provider(lambda request: report(request, held=1)).running() as provider:
        told = asked(provider.port, paths)
    assert told is not None
    assert told.held == {uid_of(paths[0])}
    assert told.failed == {uid_of(paths[1]): 0x0112}
    assert told.words == f"{uid_of(paths[1])}: no such object"


@pytest.mark.parametrize(
    "answer", [lambda _: None, lambda request: report(request, transaction="2.25.1")]
)
def test_no_report_of_ours_is_none(tmp_path: Path, answer: Answer) -> None:
    """Silence, and a report on another transaction."""
    with Provider(answer).running() as provider:
        assert asked(provider.port, [result(tmp_path)], wait_s=0.5) is None


def test_an_archive_without_storage_commitment_refuses(tmp_path: Path) -> None:
    """A person must choose another proof."""
    ae = AE("ARCHIVE")
    ae.add_supported_context(SecondaryCaptureImageStorage)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    try:
        with pytest.raises(ArchiveRefused, match="does not accept storage commitment"):
            asked(server.server_address[1], [result(tmp_path)])
    finally:
        server.shutdown()


def test_our_own_door_commits_itself_truthfully(tmp_path: Path) -> None:
    """It holds nothing of what it is asked for, and says so at once."""
    path = result(tmp_path)
    with Door(tmp_path, limits={"free_gb": 0}).start() as door:
        archive = DimseArchive.model_validate(dimse(door.port, "MARGINALIA"))
        told = ask(line_to("node", archive), TRANSACTION, identifiers([path]), 5.0)
    assert told is not None
    assert told.failed == {uid_of(path): 0x0112}


# -- reports that come to the door ---------------------------------------------------------------


def call_back(door: Door, transaction: str, calling: str, uid: str) -> int:
    """Call the door as a provider does, and report an object as held; return its status."""
    ae = AE(calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
    ae.add_requested_context(StorageCommitmentPushModel)
    role = build_role(StorageCommitmentPushModel, scp_role=True)
    assoc = ae.associate("127.0.0.1", door.port, ae_title="MARGINALIA", ext_neg=[role])
    assert assoc.is_established
    ds, item = Dataset(), Dataset()
    item.ReferencedSOPClassUID = SecondaryCaptureImageStorage
    item.ReferencedSOPInstanceUID = uid
    ds.TransactionUID, ds.ReferencedSOPSequence = transaction, [item]
    status, _ = assoc.send_n_event_report(ds, 1, StorageCommitmentPushModel, WELL_KNOWN)
    assoc.release()
    return int(status.Status)


def test_only_the_peer_that_was_asked_can_report(tmp_path: Path) -> None:
    """A stranger's report, and one on a transaction that is not known, count for nothing."""
    with (
        Door(tmp_path, limits={"free_gb": 0}).start() as door,
        Site(door.data, {"pacs": dimse(9)}) as s,
    ):
        s.store.ask_commitment(TRANSACTION, "ARCHIVE", s.clock())
        assert call_back(door, TRANSACTION, "STRANGER", "2.25.5") == 0x0115
        assert call_back(door, "2.25.99", "ARCHIVE", "2.25.5") == 0x0115
        assert s.store.commitment(TRANSACTION) is None
        assert call_back(door, TRANSACTION, "ARCHIVE", "2.25.5") == 0
        assert call_back(door, TRANSACTION, "ARCHIVE", "2.25.5") == 0
        told = s.store.commitment(TRANSACTION)
        assert told is not None
        assert told.held == {"2.25.5"}
        assert "reports on a commitment that it was not asked for" in door.output()


# -- couriers ------------------------------------------------------------------------------------


def test_a_courier_believes_the_commitment_alone(tmp_path: Path) -> None:
    """The status of C-STORE is no proof: this archive stored nothing and first says so."""
    answers = in_turn(lambda request: report(request, held=0), report)
    with (
        Provider(answers).running() as provider,
        Site(tmp_path, {"pacs": dimse(provider.port)}) as site,
    ):
        job_id = site.results("pacs")
        courier = site.courier()
        courier.work()
        first = site.delivery(job_id)
        assert first.state is DeliveryState.SENT
        assert "does not commit itself" in first.reason
        assert "no such object" in first.reason
        site.work(courier, 120)
        assert site.delivery(job_id).state is PROVED
        assert site.delivery(job_id).proof == "ARCHIVE commits itself to all of it"
        assert len(provider.stored) == 2, "it was sent again, as the same object"
        assert len({*provider.stored}) == 1


def test_what_an_archive_was_not_asked_for_proves_nothing(tmp_path: Path) -> None:
    """It commits itself to another object than the one that it got."""

    def other(request: Dataset) -> Dataset:
        said = report(request)
        said.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "2.25.12345"
        return said

    with (
        Provider(other).running() as provider,
        Site(tmp_path, {"pacs": dimse(provider.port)}) as site,
    ):
        job_id = site.results("pacs")
        site.courier().work()
        assert site.delivery(job_id).state is DeliveryState.SENT
        assert "does not name all objects" in site.delivery(job_id).reason


def test_a_commitment_that_never_comes_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `deliver.commitment_s`, with another transaction and without sending again."""
    monkeypatch.setattr("app.couriers.COMMIT_WAIT_S", 0.3)
    answers = in_turn(lambda _: None, report)
    with (
        Provider(answers).running() as provider,
        Site(tmp_path, {"pacs": dimse(provider.port)}) as site,
    ):
        job_id = site.results("pacs")
        courier = site.courier()
        courier.work()
        waits = site.delivery(job_id)
        assert (waits.state, waits.transaction_uid) == (DeliveryState.SENT, provider.asked[0])
        site.work(courier, 590, step_s=10)
        assert len(provider.asked) == 1
        site.work(courier, 30, step_s=10)
        assert site.delivery(job_id).state is PROVED
        assert len({*provider.asked}) == 2
        assert len(provider.stored) == 1


@pytest.mark.orthanc
def test_orthanc_commits_itself_by_a_call_to_our_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real thing: C-STORE, N-ACTION, and its report on an association of its own."""
    require("Orthanc")
    monkeypatch.setattr("app.couriers.COMMIT_WAIT_S", 0.3)
    with Door(tmp_path, limits={"free_gb": 0}).start() as door, Orthanc() as orthanc:
        orthanc.introduce(NODE, door.port)
        settings = dimse(orthanc.dicom_port, "ORTHANC")
        with Site(door.data, {"pacs": settings}) as site:
            job_id = site.results("pacs")
            courier = site.courier()
            courier.work()
            if site.delivery(job_id).state is not PROVED:
                transaction = site.delivery(job_id).transaction_uid
                assert transaction is not None
                wait_until(lambda: site.store.commitment(transaction), 20, "Orthanc's report")
                site.work(courier, 5)
            assert site.delivery(job_id).state is PROVED
            assert site.delivery(job_id).proof == "ORTHANC commits itself to all of it"
            archive = DimseArchive.model_validate(settings)
            site.store.ask_commitment(TRANSACTION, "ORTHANC", site.clock())
            lost = result(tmp_path)
            ask(line_to("pacs", archive), TRANSACTION, identifiers([lost]), 0.3)
            told = wait_until(lambda: site.store.commitment(TRANSACTION), 20, "the failure")
            assert told.failed == {uid_of(lost): 0x0112}
        orthanc.kill()  # its orderly end takes seconds
