"""Storage commitment (PS3.4 Annex J, push model): say truthfully whether objects are held.

The report goes out on the association of the request. A peer that releases that one first hears of
it on a new association, if the configuration says where it listens.
"""

import io
import logging
import queue
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role
from pynetdicom.dsutils import decode

from app.config_door import Door, Peer
from app.dicom import command as dimse
from app.dicom.command import Command
from app.dicom.commit import INVALID_ARGUMENT, NotTaken, understand
from app.dicom.dimse import IMPLEMENTATION_NAME, IMPLEMENTATION_UID, printable
from app.dicom.references import (
    COMMITMENT,
    WELL_KNOWN_INSTANCE,
    Reference,
    read_request,
    write_report,
)
from app.door.negotiation import PLAIN
from app.errors import NodeError, UnreadableDicom
from app.store.store import Store
from app.tls import client_context

log = logging.getLogger(__name__)

ALL_HELD, SOME_FAILED = 1, 2
NO_SUCH_OBJECT, CLASS_CONFLICT, CANNOT_SAY = 0x0112, 0x0119, 0x0110
MOST_WAITING = 20
ANSWER_S = 30.0
TRIES_AFTER_S = (0.0, 5.0, 60.0)


@dataclass(slots=True, kw_only=True)
class Commitment:
    """What a peer wants to be sure of, and what we can say."""

    calling: str
    transaction_uid: str
    wanted: tuple[Reference, ...]
    held: list[Reference] = field(default_factory=list)
    failed: list[tuple[Reference, int]] = field(default_factory=list)
    message_id: int = 0

    @classmethod
    def read(
        cls, command: Command, dataset: bytes, syntax: str, calling: str
    ) -> "Commitment | None":
        """Read a request; None when it is not one."""
        if command.action_type != 1 or command.sop_uid != WELL_KNOWN_INSTANCE:
            return None
        try:
            transaction, wanted = read_request(dataset, explicit=syntax == PLAIN[0])
        except UnreadableDicom:
            return None
        return cls(calling=calling, transaction_uid=transaction, wanted=wanted)

    def settle(self, store: Store, data: Path) -> None:
        """Look for each object: held means that its row and its whole file are there."""
        for reference in self.wanted:
            reason = _missing(reference, store, data)
            if reason is None:
                self.held.append(reference)
            else:
                self.failed.append((reference, reason))

    @property
    def event_type(self) -> int:
        """What kind of report it is."""
        return SOME_FAILED if self.failed else ALL_HELD

    def dataset(self, syntax: str) -> bytes:
        """Return the report's data set (PS3.4 table J.3-2)."""
        explicit = syntax == PLAIN[0]
        return write_report(self.transaction_uid, self.held, self.failed, explicit=explicit)

    def report(self, syntax: str, message_id: int) -> tuple[bytes, bytes]:
        """Return command and data set of the N-EVENT-REPORT; its answer names `message_id`."""
        self.message_id = message_id
        elements: dict[int, int | str] = {
            dimse.AFFECTED_CLASS: COMMITMENT,
            dimse.FIELD: dimse.N_EVENT_REPORT_RQ,
            dimse.MESSAGE_ID: message_id,
            dimse.DATASET_TYPE: dimse.A_DATASET,
            dimse.AFFECTED_UID: WELL_KNOWN_INSTANCE,
            dimse.EVENT_TYPE: self.event_type,
        }
        return dimse.encode(elements), self.dataset(syntax)

    def is_settled_by(self, answer: Command) -> bool:
        """Return whether the peer says that it has this report."""
        is_report = answer.field == dimse.N_EVENT_REPORT_RQ | dimse.RESPONSE
        return is_report and answer.message_id == self.message_id and answer.status == 0


def take_report(command: Command, dataset: bytes, syntax: str, calling: str, store: Store) -> None:
    """Note what a peer commits itself to because we asked it; NotTaken when we did not."""
    transaction_uid, report = understand(command, dataset, explicit=syntax == PLAIN[0])
    try:
        asked = store.note_commitment(
            transaction_uid, calling, sorted(report.held), report.failed, datetime.now(UTC)
        )
    except NodeError as error:
        log.error("a report of storage commitment is not kept: %s", error)  # noqa: TRY400  # a sentence will do
        raise NotTaken(CANNOT_SAY, "reports while nothing can be kept, later it can") from error
    if not asked:
        raise NotTaken(INVALID_ARGUMENT, "reports on a commitment that it was not asked for")


class Reporter:
    """Calls peers that released their association before they had their report."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._waiting: queue.Queue[Commitment] = queue.Queue(MOST_WAITING)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def report_later(self, commitment: Commitment) -> None:
        """Call the peer in the background, if we know where it listens and few others wait."""
        peer = self._where(commitment)
        words = f"the commitment report for {printable(commitment.calling)}"
        if peer is None:
            log.warning("%s is dropped: give host and port of this peer", words)
            return
        try:
            self._waiting.put_nowait(commitment)
        except queue.Full:
            log.warning("%s is dropped: %d others wait", words, MOST_WAITING)
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="reporter", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Call nobody any more."""
        self._closing.set()

    def _where(self, commitment: Commitment) -> Peer | None:
        for peer in self._door.peers:
            if peer.ae_title.strip() == commitment.calling and peer.host and peer.port:
                return peer
        return None

    def _work(self) -> None:
        while not self._closing.is_set():
            commitment = self._waiting.get()
            peer = self._where(commitment)
            told = peer is not None and any(
                not self._closing.wait(after) and self._call(peer, commitment)
                for after in TRIES_AFTER_S
            )
            log.log(
                logging.INFO if told else logging.WARNING,
                "commitment report for %s: %d held, %d failed, %s",
                printable(commitment.calling),
                len(commitment.held),
                len(commitment.failed),
                "told" if told else "not told",
            )

    def _call(self, peer: Peer, commitment: Commitment) -> bool:
        """Send the report on an association of ours; return whether the peer took it."""
        ae = AE(self._door.ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_UID
        ae.implementation_version_name = IMPLEMENTATION_NAME
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = ANSWER_S
        ae.add_requested_context(COMMITMENT, PLAIN)
        # PS3.4 J.3.3: the provider calls, so it must say that it is the provider
        role = build_role(COMMITMENT, scp_role=True)
        try:
            assoc = ae.associate(
                peer.host,
                peer.port,
                ae_title=peer.ae_title.strip(),
                ext_neg=[role],
                tls_args=(client_context(self._door.tls), None) if self._door.tls else None,
            )
            if not assoc.is_established:
                return False
            answer, _ = assoc.send_n_event_report(
                _decoded(commitment), commitment.event_type, COMMITMENT, WELL_KNOWN_INSTANCE
            )
            assoc.release()
        except (OSError, RuntimeError, ValueError, NodeError) as error:
            log.warning("a commitment report could not be sent: %s", type(error).__name__)
            return False
        return "Status" in answer and answer.Status == 0


def _missing(reference: Reference, store: Store, data: Path) -> int | None:
    """Return why we cannot answer for an object, as a FailureReason; None when we can."""
    sop_class_uid, sop_uid = reference
    try:
        row = store.find_instance(sop_uid)
        if row is None or (data / row.file).stat().st_size < row.size:
            return NO_SUCH_OBJECT
    except FileNotFoundError:
        return NO_SUCH_OBJECT
    except (OSError, NodeError):
        return CANNOT_SAY
    return None if row.sop_class_uid == sop_class_uid else CLASS_CONFLICT


def _decoded(commitment: Commitment) -> Dataset:
    """Return the report as the library wants it."""
    encoded = io.BytesIO(commitment.dataset(PLAIN[1]))
    ds: Dataset = decode(encoded, True, True)  # implicit VR, little endian
    return ds
