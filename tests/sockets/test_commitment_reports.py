"""Storage commitment as we ask for it: providers that err, contradict themselves or are early.

Covered: what of a report counts, on the association of the request and at our door; what is
answered to reports that do not; requests that are refused. Not covered: real archives and what a
courier makes of a report (test_commitment_user); our door as the provider (test_commitment).
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import StorageCommitmentPushModel

from app.dicom.association import Peer
from app.dicom.calling import Line
from app.dicom.commit import Report, ask
from app.dicom.encoded import Identifiers
from app.errors import ArchiveRefused, ArchiveUnavailable, NodeError
from tests.sockets import hostile
from tests.sockets.doors import Door
from tests.sockets.faulty import Call, Faulty, running
from tests.sockets.hostile import even, us
from tests.sockets.scu import released
from tests.waiting import wait_until

WELL_KNOWN = "1.2.840.10008.1.20.1.1"
ALL_HELD, SOME_FAILED = 1, 2
NO_SUCH_OBJECT, NO_SUCH_EVENT, INVALID = 0x0112, 0x0113, 0x0115
N_ACTION, N_EVENT_REPORT = 0x0130, 0x0100
COMES_S = 10.0
"""Longer than any report takes that comes."""


def line_to(port: int, called: str = "ARCHIVE", timeout_s: float = 10) -> Line:
    """Return the line to a peer of this machine."""
    return Line(
        Peer(
            name="pacs",
            host="127.0.0.1",
            port=port,
            called=called,
            calling="MARGINALIA",
            timeout_s=timeout_s,
        )
    )


def object_(sop_uid: str) -> Identifiers:
    """Return what names an image."""
    return Identifiers(
        sop_class_uid=CTImageStorage, sop_uid=sop_uid, study_uid="1.2", series_uid="1.3"
    )


def told(
    transaction: str, held: Sequence[str] = (), failed: Sequence[tuple[str, int]] = ()
) -> Dataset:
    """Return the data set of a report."""
    ds = Dataset()
    ds.TransactionUID = transaction
    for keyword, references in (
        ("ReferencedSOPSequence", [(uid, None) for uid in held]),
        ("FailedSOPSequence", failed),
    ):
        items = []
        for uid, reason in references:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, uid
            if reason is not None:
                item.FailureReason = reason
            items.append(item)
        if items:
            setattr(ds, keyword, items)
    return ds


@dataclass
class Provider:
    """A pynetdicom archive that reports, on the association of the request, what it is told to."""

    reports: Callable[[str], Sequence[tuple[int, Dataset]]]
    """Transaction → event type and data set of each report."""
    status: int = 0
    asked: list[Dataset] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """What we answer to its reports."""

    def _on_action(self, event: Event) -> tuple[int, None]:
        self.asked.append(event.action_information)
        reports = self.reports(str(event.action_information.TransactionUID))
        if reports and not self.status:
            threading.Thread(target=self._report, args=(event.assoc, reports), daemon=True).start()
        return self.status, None

    def _report(self, assoc: Association, reports: Sequence[tuple[int, Dataset]]) -> None:
        for event_type, ds in reports:
            answer, _ = assoc.send_n_event_report(
                ds, event_type, StorageCommitmentPushModel, WELL_KNOWN
            )
            self.answers.append(answer.get("Status", -1))

    @contextmanager
    def listening(self) -> Iterator[int]:
        """Wait for calls; yield the port."""
        ae = AE("ARCHIVE")
        ae.add_supported_context(StorageCommitmentPushModel)
        handlers = [(evt.EVT_N_ACTION, self._on_action)]
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """A door that everybody may call."""
    with Door(tmp_path) as one:
        yield one.start()


# -- on the association of the request -----------------------------------------------------------


def test_a_request_names_the_transaction_and_its_objects() -> None:
    """As another library reads it."""
    provider, transaction = Provider(lambda _: ()), generate_uid()
    with provider.listening() as port:
        assert ask(line_to(port), transaction, [object_("1.2.3"), object_("1.2.4")], 0.1) is None
    [ds] = provider.asked
    assert ds.TransactionUID == transaction
    assert [
        (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID)
        for item in ds.ReferencedSOPSequence
    ] == [(CTImageStorage, "1.2.3"), (CTImageStorage, "1.2.4")]


@pytest.mark.parametrize(
    ("event", "held", "failed", "expected"),
    [
        (ALL_HELD, ["1.1", "1.2"], [], Report(held=frozenset({"1.1", "1.2"}), failed={})),
        (
            SOME_FAILED,
            ["1.1"],
            [("1.2", 0x0213)],
            Report(held=frozenset({"1.1"}), failed={"1.2": 0x0213}),
        ),
        (
            SOME_FAILED,
            ["1.1", "1.9"],
            [("1.8", 0x0110)],
            Report(held=frozenset({"1.1"}), failed={}),
        ),
        (
            ALL_HELD,
            ["1.1", "1.2"],
            [("1.2", 0x0110)],
            Report(held=frozenset({"1.1"}), failed={"1.2": 0x0110}),
        ),
    ],
    ids=["all held", "one failed", "never asked for", "held and failed"],
)
def test_only_what_was_asked_for_counts_and_doubt_is_failure(
    event: int, held: list[str], failed: list[tuple[str, int]], expected: Report
) -> None:
    """Two objects are asked for, and the report is answered with success."""
    provider = Provider(lambda uid: [(event, told(uid, held, failed))])
    with provider.listening() as port:
        report = ask(line_to(port), generate_uid(), [object_("1.1"), object_("1.2")], COMES_S)
        wait_until(lambda: provider.answers)
    assert report == expected
    assert provider.answers == [0]


def test_reports_that_are_not_ours_are_refused_and_waited_past() -> None:
    """Another transaction, an unknown event, no transaction; then what was asked for."""
    provider = Provider(
        lambda uid: [
            (ALL_HELD, told("2.25.7", ["1.1"])),
            (3, told(uid, ["1.1"])),
            (ALL_HELD, told("", ["1.1"])),
            (SOME_FAILED, told(uid, [], [("1.1", NO_SUCH_OBJECT)])),
        ]
    )
    with provider.listening() as port:
        report = ask(line_to(port), generate_uid(), [object_("1.1")], COMES_S)
        wait_until(lambda: len(provider.answers) == 4)
    assert report == Report(held=frozenset(), failed={"1.1": NO_SUCH_OBJECT})
    assert provider.answers == [INVALID, NO_SUCH_EVENT, INVALID, 0]


@pytest.mark.parametrize(("wait_s", "timeout_s"), [(0.2, 10), (10, 0.5)])
def test_a_report_that_does_not_come_is_awaited_at_the_door(
    wait_s: float, timeout_s: float
) -> None:
    """Nothing is raised either when the archive's own time limit is the shorter one."""
    with Provider(lambda _: ()).listening() as port:
        line = line_to(port, timeout_s=timeout_s)
        assert ask(line, generate_uid(), [object_("1.1")], wait_s) is None


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (0x0213, ArchiveUnavailable, "out of resources"),
        (0x0110, ArchiveUnavailable, "a fault of its own"),
        (0x0124, ArchiveRefused, "give it the right"),
        (0x0131, ArchiveRefused, "0131H"),
    ],
)
def test_a_refused_request_says_whether_it_passes(
    status: int, kind: type[NodeError], words: str
) -> None:
    """Busy is asked again; for anything else a person must look."""
    with (
        Provider(lambda _: (), status=status).listening() as port,
        pytest.raises(kind, match=words),
    ):
        ask(line_to(port), generate_uid(), [object_("1.1")], COMES_S)


def early(transaction: str, number: int, *, answers: bool = True) -> Faulty:
    """Return an archive that reports before it answers the request, and so often."""
    reference = hostile.element(0x00081150, b"UI", even(CTImageStorage))
    reference += hostile.element(0x00081155, b"UI", even("1.1"))
    item = b"\xfe\xff\x00\xe0" + len(reference).to_bytes(4, "little") + reference
    dataset = hostile.element(0x00081195, b"UI", even(transaction))
    dataset += b"\x08\x00\x99\x11SQ\0\0" + len(item).to_bytes(4, "little") + item
    command = hostile.command(
        {
            0x0002: even("1.2.840.10008.1.20.1"),
            0x0100: us(N_EVENT_REPORT),
            0x0110: us(9),
            0x0800: us(0),
            0x1000: even(WELL_KNOWN),
            0x1002: us(ALL_HELD),
        }
    )

    def serve(call: Call) -> None:
        for _ in range(number):
            call.socket.sendall(hostile.message(1, command, dataset))
            call.command()
        if answers:
            call.say(N_ACTION, 0)

    return Faulty(does={N_ACTION: serve})


def test_a_report_may_overtake_the_answer() -> None:
    """Both sides may speak at any time (PS3.7 D.3.3.3: a window for each)."""
    transaction = generate_uid()
    with running(early(transaction, 1)) as archive:
        report = ask(line_to(archive.port), transaction, [object_("1.1")], COMES_S)
    assert report == Report(held=frozenset({"1.1"}), failed={})


def test_reports_without_an_answer_come_to_an_end() -> None:
    """An archive that only reports has not answered."""
    with running(early(generate_uid(), 16, answers=False)) as archive:
        line = line_to(archive.port)
        with pytest.raises(ArchiveUnavailable, match="answers something else"):
            ask(line, generate_uid(), [object_("1.1")], COMES_S)


# -- at our door ---------------------------------------------------------------------------------


@contextmanager
def calling(port: int, ae_title: str = "ARCHIVE") -> Iterator[Association]:
    """Call the door as the provider of storage commitment (PS3.4 J.3.3)."""
    ae = AE(ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
    ae.add_requested_context(StorageCommitmentPushModel)
    role = build_role(StorageCommitmentPushModel, scp_role=True)
    assoc = ae.associate("127.0.0.1", port, ae_title="MARGINALIA", ext_neg=[role])
    with released(assoc):
        yield assoc


def report_to(assoc: Association, ds: Dataset, event: int = ALL_HELD) -> int:
    """Report to the door; return its answer."""
    answer, _ = assoc.send_n_event_report(ds, event, StorageCommitmentPushModel, WELL_KNOWN)
    return int(answer.Status)


def asked(door: Door, ae_title: str = "ARCHIVE") -> str:
    """Note that a peer was asked; return the transaction."""
    transaction = generate_uid()
    door.store.ask_commitment(transaction, ae_title, datetime.now(UTC))
    return transaction


def test_a_report_on_what_was_asked_is_kept(door: Door) -> None:
    """The peer has its role, and may say it twice."""
    transaction = asked(door)
    ds = told(transaction, ["1.1"], [("1.2", 0x0119)])
    with calling(door.port) as assoc:
        [context] = assoc.accepted_contexts
        assert (context.as_scu, context.as_scp) == (False, True)
        assert door.store.commitment(transaction) is None
        assert report_to(assoc, ds, SOME_FAILED) == 0
        assert report_to(assoc, ds, SOME_FAILED) == 0
    kept = door.store.commitment(transaction)
    assert kept is not None
    assert (kept.held, kept.failed) == (frozenset({"1.1"}), {"1.2": 0x0119})
    door.said("2 reports taken")


def test_a_report_that_nobody_asked_this_peer_for_counts_for_nothing(door: Door) -> None:
    """Another AE title, an unknown transaction, an unknown event: each is told in the log."""
    transaction = asked(door)
    with calling(door.port, "STRANGER") as assoc:
        assert report_to(assoc, told(transaction, ["1.1"])) == INVALID
    with calling(door.port) as assoc:
        assert report_to(assoc, told(generate_uid(), ["1.1"])) == INVALID
        assert report_to(assoc, told(transaction, ["1.1"]), 3) == NO_SUCH_EVENT
        assert report_to(assoc, told("", ["1.1"])) == INVALID
        assert door.store.commitment(transaction) is None
        assert report_to(assoc, told(transaction, ["1.1"])) == 0
    events = [(each.source, each.event, each.detail) for each in door.store.door_events()]
    assert [(source, event) for source, event, _ in events] == [
        ("ARCHIVE@127.0.0.1", "refused"),
        ("ARCHIVE@127.0.0.1", "refused"),
        ("ARCHIVE@127.0.0.1", "refused"),
        ("STRANGER@127.0.0.1", "refused"),
    ]
    assert [detail[:4] for *_, detail in events] == ["0115", "0113", "0115", "0115"]


def test_held_and_failed_is_failed_at_the_door_too(door: Door) -> None:
    """A report that contradicts itself proves nothing."""
    transaction = asked(door)
    with calling(door.port) as assoc:
        assert report_to(assoc, told(transaction, ["1.1", "1.2"], [("1.2", 0x0110)])) == 0
    kept = door.store.commitment(transaction)
    assert kept is not None
    assert kept.held == {"1.1"}
