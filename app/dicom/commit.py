"""Storage commitment as its user (PS3.4 Annex J): an archive's own word that it holds objects.

Its report comes on the association that asked for it, or later on one of its own to our door.
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from app.dicom import command as dimse
from app.dicom.association import Association, Proposal
from app.dicom.calling import Line, expect
from app.dicom.command import Command
from app.dicom.encoded import Identifiers
from app.dicom.messages import joined
from app.dicom.query import PLAIN
from app.dicom.references import (
    COMMITMENT,
    WELL_KNOWN_INSTANCE,
    Reference,
    read_report,
    write_request,
)
from app.dicom.wire import ConnectionLost, PeerFault
from app.errors import NodeError, UnreadableDicom

REASONS = {
    0x0110: "processing failure",
    0x0112: "no such object",
    0x0119: "it has it as an object of another class",
    0x0122: "it does not support the SOP class",
    0x0131: "the transaction is known already",
    0x0213: "resource limitation",
}
"""FailureReason (PS3.3 C.14.1.1)."""

EVENT_TYPES = {1, 2}
"""All are held, or some failed (PS3.4 J.3.3); the lists say which."""
NO_SUCH_INSTANCE, NO_SUCH_EVENT, INVALID_ARGUMENT = 0x0112, 0x0113, 0x0115
MESSAGE_ID = 1
MOST_BEFORE_ANSWER = 16
"""Messages of which one must be the answer; the others are reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an archive commits itself to."""

    held: frozenset[str]
    """SOP Instance UIDs."""
    failed: Mapping[str, int]
    """Reasons by SOP Instance UID."""

    @property
    def words(self) -> str:
        """Why it does not commit itself, in one line."""
        told = [f"{uid}: {REASONS.get(why, f'{why:04X}H')}" for uid, why in self.failed.items()]
        return "; ".join(sorted(told)) or "its report does not name all objects"

    def of(self, uids: Collection[str]) -> "Report":
        """Return what it says of these objects."""
        failed = {uid: reason for uid, reason in self.failed.items() if uid in uids}
        return Report(held=self.held.intersection(uids), failed=failed)


class NotTaken(NodeError):
    """A report is not taken; `status` is our answer to it (PS3.7 Annex C)."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


def understand(command: Command, dataset: bytes, *, explicit: bool) -> tuple[str, Report]:
    """Return the transaction of an N-EVENT-REPORT, and the report; NotTaken when it is none.

    An object that is named both as held and as failed is failed.
    """
    if command.sop_uid != WELL_KNOWN_INSTANCE:
        raise NotTaken(NO_SUCH_INSTANCE, "reports on an unknown SOP instance")
    if command.event_type not in EVENT_TYPES:
        raise NotTaken(NO_SUCH_EVENT, "reports an event of an unknown type")
    try:
        transaction_uid, held, failed = read_report(dataset, explicit=explicit)
    except UnreadableDicom as error:
        raise NotTaken(INVALID_ARGUMENT, f"sends a report that is none: {error}") from error
    reasons = {sop_uid: reason for (_, sop_uid), reason in failed}
    report = Report(held=frozenset(uid for _, uid in held) - reasons.keys(), failed=reasons)
    return transaction_uid, report


def ask(
    line: Line, transaction_uid: str, uids: Sequence[Identifiers], wait_s: float
) -> Report | None:
    """Ask the peer to commit itself; return its report if it comes within `wait_s`.

    None says that it may yet come to our door: the peer has taken the request.
    """
    with line.association([Proposal(abstract=COMMITMENT, syntaxes=PLAIN)]) as association:
        context = association.context(COMMITMENT)
        if context is None:
            raise line.unsupported("storage commitment, by which `proof: commitment` is had,")
        transaction = _Transaction(association, context, transaction_uid)
        status = transaction.ask([(each.sop_class_uid, each.sop_uid) for each in uids])
        if status:
            raise line.refusal("storage commitment", status)
        report = transaction.await_report(wait_s)
        return None if report is None else report.of({each.sop_uid for each in uids})


class _Transaction:
    """One request on its association, and the report on it, whenever that comes."""

    def __init__(self, association: Association, context: int, uid: str) -> None:
        self._association, self._context, self._uid = association, context, uid
        self._explicit = association.contexts[context][1] == PLAIN[0]
        self._report: Report | None = None

    def ask(self, wanted: Sequence[Reference]) -> int:
        """Send the request and return the status of the answer; the report may overtake it."""
        request: dict[int, int | str] = {
            dimse.REQUESTED_CLASS: COMMITMENT,
            dimse.FIELD: dimse.N_ACTION_RQ,
            dimse.MESSAGE_ID: MESSAGE_ID,
            dimse.DATASET_TYPE: dimse.A_DATASET,
            dimse.REQUESTED_UID: WELL_KNOWN_INSTANCE,
            dimse.ACTION_TYPE: 1,
        }
        dataset = write_request(self._uid, wanted, explicit=self._explicit)
        self._association.send(self._context, dimse.encode(request), dataset)
        for _ in range(MOST_BEFORE_ANSWER):
            said = self._next()
            if said.field != dimse.N_EVENT_REPORT_RQ:
                break
        expect(said, dimse.N_ACTION_RQ, MESSAGE_ID)
        return said.status

    def await_report(self, wait_s: float) -> Report | None:
        """Return the report when it comes on this association, None when it does not."""
        timer = threading.Timer(wait_s, self._association.interrupt)
        timer.daemon = True
        timer.start()
        try:
            while self._report is None:
                self._next()
        except (ConnectionLost, PeerFault):
            # the request was taken, so that whatever ends the wait is no reason to ask anew
            pass
        finally:
            timer.cancel()
        return self._report

    def _next(self) -> Command:
        """Return the next message; a report is answered here, by what it is worth."""
        context, command, content = self._association.receive()
        dataset = joined(content)
        if command.field == dimse.N_EVENT_REPORT_RQ:
            status, words = 0, ""
            try:
                self._take(command, dataset)
            except NotTaken as error:
                status, words = error.status, str(error)
            self._association.send(context, dimse.respond(command, status, words))
        return command

    def _take(self, command: Command, dataset: bytes) -> None:
        uid, report = understand(command, dataset, explicit=self._explicit)
        if uid != self._uid:  # one of ours perhaps: not taken here, it is told again at our door
            raise NotTaken(INVALID_ARGUMENT, "reports on another transaction")
        self._report = report
