"""Storage commitment with pynetdicom as the peer that asks.

Covered: reports on the association of the request and on one of ours, what counts as held, and
requests that are none. Not covered: a door that ends before a peer could be called; it asks again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import MRImageStorage, StorageCommitmentPushModel

from tests.sockets.doors import Door
from tests.sockets.scu import Made, images, new_study, released, statuses
from tests.waiting import wait_until

WELL_KNOWN = "1.2.840.10008.1.20.1.1"
NO_SUCH_OBJECT, CLASS_CONFLICT = 0x0112, 0x0119
ALL_HELD, SOME_FAILED = 1, 2


@dataclass
class Archive:
    """A peer that wants to know before it deletes; `reports` are event type and data set."""

    status: int = 0
    reports: list[tuple[int, Dataset]] = field(default_factory=list)

    def on_report(self, event: Event) -> tuple[int, None]:
        """Take a report."""
        self.reports.append((event.event_type, event.event_information))
        return self.status, None

    @contextmanager
    def associated(self, door: Door) -> Iterator[Association]:
        """Call the door."""
        ae = AE("ARCHIVE")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
        ae.add_requested_context(StorageCommitmentPushModel)
        handlers = [(evt.EVT_N_EVENT_REPORT, self.on_report)]
        assoc = ae.associate("127.0.0.1", door.port, ae_title="MARGINALIA", evt_handlers=handlers)
        with released(assoc):
            yield assoc

    @contextmanager
    def listening(self) -> Iterator[int]:
        """Wait for calls; yield the port."""
        ae = AE("ARCHIVE")
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self.on_report)]
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def request(wanted: Sequence[tuple[str, str]], transaction: str) -> Dataset:
    """Return what an N-ACTION asks for."""
    ds = Dataset()
    ds.TransactionUID = transaction
    ds.ReferencedSOPSequence = []
    for sop_class, sop_uid in wanted:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_uid
        ds.ReferencedSOPSequence.append(item)
    return ds


def ask(assoc: Association, ds: Dataset, action: int = 1) -> int:
    """Send the request; return what is answered at once."""
    answer, _ = assoc.send_n_action(ds, action, StorageCommitmentPushModel, WELL_KNOWN)
    return int(answer.Status)


def references(objects: Sequence[Made]) -> list[tuple[str, str]]:
    """Return classes and UIDs."""
    return [(each.sop_class, each.sop_uid) for each in objects]


def listed(ds: Dataset, sequence: str) -> list[str]:
    """Return the UIDs of a sequence of the report."""
    return [item.ReferencedSOPInstanceUID for item in ds.get(sequence, [])]


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """A door that everybody may ask."""
    with Door(tmp_path) as one:
        yield one.start()


def test_what_is_held_is_confirmed_on_the_same_association(door: Door) -> None:
    """Event type 1, the transaction's UID and every object."""
    objects, archive, transaction = images(new_study(), 3), Archive(), generate_uid()
    assert statuses(door.port, objects) == [0, 0, 0]
    with archive.associated(door) as assoc:
        assert ask(assoc, request(references(objects), transaction)) == 0
        wait_until(lambda: archive.reports)
        [(event, report)] = archive.reports
        assert event == ALL_HELD
        assert report.TransactionUID == transaction
        assert listed(report, "ReferencedSOPSequence") == [each.sop_uid for each in objects]
        assert "FailedSOPSequence" not in report


def test_what_is_not_held_is_named_with_its_reason(door: Door) -> None:
    """Never sent, of another class, and a row whose file is gone: event type 2."""
    held, conflicting, lost = objects = images(new_study(), 3)
    assert statuses(door.port, objects) == [0, 0, 0]
    row = door.store.find_instance(lost.sop_uid)
    assert row is not None
    (door.data / row.file).unlink()
    archive, unknown = Archive(), generate_uid()
    wanted = [
        (held.sop_class, held.sop_uid),
        (MRImageStorage, conflicting.sop_uid),
        (lost.sop_class, lost.sop_uid),
        (held.sop_class, unknown),
    ]
    with archive.associated(door) as assoc:
        assert ask(assoc, request(wanted, generate_uid())) == 0
        wait_until(lambda: archive.reports)
    [(event, report)] = archive.reports
    assert event == SOME_FAILED
    assert listed(report, "ReferencedSOPSequence") == [held.sop_uid]
    failed = {
        item.ReferencedSOPInstanceUID: item.FailureReason for item in report.FailedSOPSequence
    }
    assert failed == {
        conflicting.sop_uid: CLASS_CONFLICT,
        lost.sop_uid: NO_SUCH_OBJECT,
        unknown: NO_SUCH_OBJECT,
    }


def test_a_peer_that_did_not_take_the_report_is_called(tmp_path: Path) -> None:
    """On a new association, once, when it has released its own."""
    objects, listener = images(new_study(), 2), Archive()
    with listener.listening() as port:
        peers = [{"ae_title": "PEER"}, {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}]
        with Door(tmp_path, peers=peers) as door:
            door.start()
            assert statuses(door.port, objects) == [0, 0]
            refusing = Archive(status=0x0110)
            with refusing.associated(door) as assoc:
                assert ask(assoc, request(references(objects), generate_uid())) == 0
                wait_until(lambda: refusing.reports)
            wait_until(lambda: listener.reports)
            [(event, report)] = listener.reports
            assert event == ALL_HELD
            assert listed(report, "ReferencedSOPSequence") == [each.sop_uid for each in objects]
            door.said("commitment report for ARCHIVE: 2 held, 0 failed, told")


def test_a_peer_whose_address_is_unknown_is_not_called(door: Door) -> None:
    """One line says what to add; the association ends as usual."""
    with Archive(status=0x0110).associated(door) as assoc:
        assert ask(assoc, request([(MRImageStorage, generate_uid())], generate_uid())) == 0
    door.said("give host and port of this peer")
    door.said("association from ARCHIVE@127.0.0.1 released")


def test_what_is_no_request_is_refused(door: Door) -> None:
    """0115, and the association lives on."""
    good = request([(MRImageStorage, generate_uid())], generate_uid())
    lacking = Dataset()
    lacking.TransactionUID = generate_uid()
    archive = Archive()
    with archive.associated(door) as assoc:
        assert ask(assoc, lacking) == 0x0115
        assert ask(assoc, request([], generate_uid())) == 0x0115
        assert ask(assoc, request([("", "1.2")], generate_uid())) == 0x0115
        assert ask(assoc, good, action=2) == 0x0115
        assert not archive.reports
        assert ask(assoc, good) == 0
        wait_until(lambda: archive.reports)
