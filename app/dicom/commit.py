"""Storage commitment as its user (PS3.4 Annex J): an archive's own word that it holds objects.

Its report comes on the association that asked for it, or later on one of its own to our door.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.dicom import command as dimse
from app.dicom.association import Association, Proposal
from app.dicom.calling import Line, expect
from app.dicom.encoded import Identifiers
from app.dicom.messages import joined
from app.dicom.query import PLAIN
from app.dicom.references import (
    COMMITMENT,
    WELL_KNOWN_INSTANCE,
    read_report,
    write_request,
)
from app.dicom.wire import ConnectionLost
from app.errors import UnreadableDicom

REASONS = {
    0x0110: "processing failure",
    0x0112: "no such object",
    0x0119: "it has it as an object of another class",
    0x0122: "it does not support the SOP class",
    0x0131: "the transaction is known already",
    0x0213: "resource limitation",
}
"""PS3.3 C.14.1.1."""


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


def ask(
    line: Line, transaction_uid: str, uids: Sequence[Identifiers], wait_s: float
) -> Report | None:
    """Ask the peer to commit itself; return its report if it comes within `wait_s`."""
    with line.association([Proposal(abstract=COMMITMENT, syntaxes=PLAIN)]) as association:
        context = association.context(COMMITMENT)
        if context is None:
            raise line.unsupported("storage commitment, by which `proof: commitment` is had,")
        explicit = association.contexts[context][1] == PLAIN[0]
        wanted = [(each.sop_class_uid, each.sop_uid) for each in uids]
        request: dict[int, int | str] = {
            dimse.REQUESTED_CLASS: COMMITMENT,
            dimse.FIELD: dimse.N_ACTION_RQ,
            dimse.MESSAGE_ID: 1,
            dimse.DATASET_TYPE: dimse.A_DATASET,
            dimse.REQUESTED_UID: WELL_KNOWN_INSTANCE,
            dimse.ACTION_TYPE: 1,
        }
        dataset = write_request(transaction_uid, wanted, explicit=explicit)
        association.send(context, dimse.encode(request), dataset)
        return _await(line, association, transaction_uid, explicit=explicit, wait_s=wait_s)


def _await(
    line: Line, association: Association, transaction_uid: str, *, explicit: bool, wait_s: float
) -> Report | None:
    """Return the report, which may come before the answer to the request, or within `wait_s`."""
    timer = threading.Timer(wait_s, association.interrupt)
    found, answered = None, False
    try:
        while found is None or not answered:
            context, command, content = association.receive()
            dataset = joined(content)
            if command.field == dimse.N_EVENT_REPORT_RQ:
                association.send(context, dimse.respond(command, 0))
                found = _report(dataset, transaction_uid, explicit=explicit) or found
                continue
            expect(command, dimse.N_ACTION_RQ, 1)
            if command.status:
                raise line.refusal("storage commitment", command.status)
            answered = True
            timer.start()
    except (ConnectionLost, UnreadableDicom):
        if not answered:
            raise
    finally:
        timer.cancel()
    return found


def _report(dataset: bytes, transaction_uid: str, *, explicit: bool) -> Report | None:
    transaction, held, failed = read_report(dataset, explicit=explicit)
    if transaction != transaction_uid:
        return None
    reasons = {sop_uid: reason for (_, sop_uid), reason in failed}
    return Report(held=frozenset(sop_uid for _, sop_uid in held), failed=reasons)
