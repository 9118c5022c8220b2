"""One association from its first byte to its last, in a thread of its own.

No state machine is needed for an acceptor: it reads one PDU after the other, and what may come next
is decided by where in the program it reads.
"""

import logging
import ssl
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from app.config_door import Door
from app.dicom import command as dimse
from app.dicom.command import Command
from app.dicom.commit import INVALID_ARGUMENT, NotTaken
from app.dicom.dimse import Status, printable
from app.dicom.messages import Messages, Pace, joined
from app.dicom.wire import (
    ASSOCIATE_RQ,
    BY_USER,
    RELEASE_ANSWER,
    ConnectionLost,
    PeerFault,
    Wire,
)
from app.door.commitment import Commitment, Reporter, take_report
from app.door.guard import Complaints, Connection, Guard, Peers
from app.door.intake import Intake, Outcome
from app.door.negotiation import (
    COMMITMENT,
    NO_ROOM,
    STOPPING,
    TOO_MANY,
    VERIFICATION,
    WRONG_CALLED,
    WRONG_CALLING,
    WRONG_VERSION,
    Agreement,
    Rejected,
    Request,
    agree,
    read_request,
)
from app.door.tally import ASSOCIATIONS, REJECTED
from app.errors import NodeError
from app.store.store import Store
from app.tls import fingerprint

log = logging.getLogger(__name__)

MOST_COMMITMENTS = 4
"""Reports to one peer that it has not answered yet."""

# PS3.7 Annex C: unrecognized operation, resource limitation
NOT_SUPPORTED, NO_MORE = 0x0211, 0x0213


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What all associations share."""

    config: Door
    intake: Intake
    store: Store
    guard: Guard
    peers: Peers
    complaints: Complaints
    reporter: Reporter
    stopping: threading.Event


@dataclass(slots=True)
class Visit:
    """What happened during one association."""

    peer: str
    began: float = field(default_factory=time.monotonic)
    answers: Counter[str] = field(default_factory=Counter)
    studies: set[str] = field(default_factory=set)


class Association:
    """One peer's connection; `run` is its thread."""

    def __init__(self, connection: Connection, services: Services) -> None:
        self._connection = connection
        self._services = services
        self._limits = services.config.limits
        self._pace = Pace(
            idle_s=self._limits.idle_s,
            object_s=self._limits.object_s,
            min_rate_kb_s=self._limits.min_rate_kb_s,
            object_gb=self._limits.object_gb,
        )
        self._wire = Wire(connection.socket, header_s=self._limits.header_s)
        self._visit: Visit | None = None
        self._calling = ""
        self._agreement = Agreement(contexts={}, max_pdu=0, answer=b"")
        self._commitments: list[Commitment] = []
        self._reports = 0

    def run(self) -> None:
        """Serve the peer to its end, whatever ends it."""
        end = "lost"
        try:
            self._associate()
            self._serve()
            end = "released"
        except Rejected as error:
            self._services.intake.tally.add(
                f"{REJECTED} {' '.join(map(str, error.rejection.code))}"
            )
            self._say(error.rejection.encode())
            self._complain(f"{printable(self._calling)} rejected: {error}".lstrip())
        except PeerFault as error:
            self._wire.abort(*error.abort)
            end = f"ended ({error})"
            self._complain(str(error))
        except ConnectionLost as error:
            end = str(error)
            if self._services.stopping.is_set():  # it was woken up
                self._wire.abort(*BY_USER)
                end = "ended (the door closes)"
            self._complain(end)
        except Exception as error:  # noqa: BLE001  # whatever it is, the peer must not take it for success
            self._wire.abort(*BY_USER)
            end = "ended by a fault of ours"
            log.error("an association ends by a fault of ours: %s", _where(error))  # noqa: TRY400
        finally:
            self._leave(end)

    def _complain(self, words: str) -> None:
        if self._visit is None:
            self._services.complaints.note(self._connection.address, words)

    def _say(self, content: bytes) -> None:
        with suppress(ConnectionLost):
            self._wire.send(content)

    def _leave(self, end: str) -> None:
        """Note the end, free the place, and only then tell a peer that waits for our answer."""
        connection, guard = self._connection, self._services.guard
        try:
            if self._visit is not None:
                self._say_goodbye(self._visit, end)
            connection.idle.set()
            guard.unseat(connection)
            if end == "released":
                self._say(RELEASE_ANSWER)
            self._wire.farewell()
        finally:
            guard.see_off(connection)
            connection.socket.close()
            connection.done.set()

    def _say_goodbye(self, visit: Visit, end: str) -> None:
        try:
            if visit.studies:
                self._services.store.release(sorted(visit.studies), datetime.now(UTC))
        except NodeError as error:
            # the studies are closed by their quiet time instead
            log.error("the end of an association is not noted: %s", error)  # noqa: TRY400
        for each in self._commitments:
            self._services.reporter.report_later(each)
        log.info(
            "association from %s %s after %.1f s: %s",
            visit.peer,
            end,
            time.monotonic() - visit.began,
            ", ".join(f"{n} {what}" for what, n in sorted(visit.answers.items())) or "no objects",
        )

    # -- getting in --------------------------------------------------------------------------

    def _associate(self) -> None:
        by = self._connection.since + self._limits.associate_s
        self._shake_hands(by)
        left = max(0.0, by - time.monotonic())
        kind, body = self._wire.read(by, left)
        assert kind == ASSOCIATE_RQ  # noqa: S101  # the wire lets nothing else pass
        request = read_request(body)
        self._calling = request.calling
        self._judge(request)
        self._agreement = agree(request)
        if self._services.stopping.is_set():
            raise Rejected(STOPPING)
        if not self._services.intake.has_room():
            raise Rejected(NO_ROOM)
        if not self._services.guard.seat(self._connection):
            raise Rejected(TOO_MANY)
        self._visit = Visit(peer=f"{printable(request.calling)}@{self._connection.address}")
        self._services.intake.tally.add(ASSOCIATIONS)
        self._wire.associated()
        self._wire.send(self._agreement.answer)

    def _shake_hands(self, by: float) -> None:
        connection = self._connection.socket
        if not isinstance(connection, ssl.SSLSocket):
            return
        try:
            connection.settimeout(max(0.01, by - time.monotonic()))
            connection.do_handshake()
        except (OSError, ValueError) as error:
            reason = getattr(error, "verify_message", "") or getattr(error, "reason", "")
            raise ConnectionLost(f"no TLS with it ({reason or type(error).__name__})") from error

    def _judge(self, request: Request) -> None:
        connection = self._connection
        if not request.version & 1:
            raise Rejected(WRONG_VERSION)
        if request.called != self._services.config.ae_title.strip():
            raise Rejected(WRONG_CALLED)
        certificate = fingerprint(connection.socket)
        if not self._services.peers.know(request.calling, connection.address, certificate):
            raise Rejected(WRONG_CALLING)

    # -- messages ----------------------------------------------------------------------------

    def _serve(self) -> None:
        """Answer one message after the other until the peer releases the association."""
        idle, contexts = self._connection.idle, self._agreement.contexts
        messages = Messages(self._wire, self._pace, contexts, idle)
        while (message := messages.next()) is not None:
            self._answer(*message)
            if self._services.stopping.is_set():
                raise PeerFault("the door closes", BY_USER)

    def _answer(self, context_id: int, command: Command, content: Iterator[memoryview]) -> None:
        abstract, _ = self._agreement.contexts[context_id]
        if command.field == dimse.C_STORE_RQ and abstract not in {VERIFICATION, COMMITMENT}:
            self._store(context_id, command, content)
            return
        dataset = joined(content)
        if command.is_response:
            self._commitments = [c for c in self._commitments if not c.is_settled_by(command)]
        elif command.field == dimse.C_ECHO_RQ and abstract == VERIFICATION:
            self._respond(context_id, command, Status.SUCCESS)
        elif command.field == dimse.N_ACTION_RQ and abstract == COMMITMENT:
            self._commit(context_id, command, dataset)
        elif command.field == dimse.N_EVENT_REPORT_RQ and abstract == COMMITMENT:
            self._take_report(context_id, command, dataset)
        elif command.field != dimse.C_CANCEL_RQ:
            self._respond(context_id, command, NOT_SUPPORTED)

    def _respond(self, context_id: int, command: Command, status: int, words: str = "") -> None:
        response = dimse.respond(command, status, words)
        self._wire.send_message(context_id, response, b"", self._agreement.max_pdu)

    def _store(self, context_id: int, command: Command, content: Iterator[memoryview]) -> None:
        abstract, syntax = self._agreement.contexts[context_id]
        visit = self._visit
        assert visit is not None  # noqa: S101  # for the type checker
        if command.sop_class_uid != abstract:
            for _ in content:
                pass
            outcome = Outcome(status=Status.NOT_NEGOTIATED)
            self._services.intake.count(outcome)
        else:
            claimed = (command.sop_class_uid, command.sop_uid)
            with self._services.intake.begin(syntax, claimed=claimed, source=visit.peer) as object_:
                for piece in content:
                    object_.write(piece)
                outcome = object_.finish()
        if outcome.study_uid is not None:
            visit.studies.add(outcome.study_uid)
        visit.answers[_word(outcome)] += 1
        self._respond(context_id, command, outcome.status, outcome.status.words)

    def _commit(self, context_id: int, command: Command, dataset: bytes) -> None:
        """Answer a request for storage commitment, then report on it."""
        _, syntax = self._agreement.contexts[context_id]
        commitment = Commitment.read(command, dataset, syntax, self._calling)
        if commitment is None or len(self._commitments) >= MOST_COMMITMENTS:
            self._respond(context_id, command, INVALID_ARGUMENT if commitment is None else NO_MORE)
            return
        self._respond(context_id, command, Status.SUCCESS)
        commitment.settle(self._services.store, self._services.intake.data)
        self._reports += 1
        request, report = commitment.report(syntax, self._reports)
        self._commitments.append(commitment)
        if self._visit is not None:
            self._visit.answers["commitment reported"] += 1
        self._wire.send_message(context_id, request, report, self._agreement.max_pdu)

    def _take_report(self, context_id: int, command: Command, dataset: bytes) -> None:
        """Keep the report on a commitment that we asked this peer for."""
        _, syntax = self._agreement.contexts[context_id]
        visit = self._visit
        assert visit is not None  # noqa: S101  # for the type checker
        status, words = Status.SUCCESS.value, ""
        try:
            take_report(command, dataset, syntax, self._calling, self._services.store)
        except NotTaken as error:
            status, words = error.status, str(error)
            log.warning("%s %s", visit.peer, words)
            self._services.intake.refusals.note(visit.peer, f"{status:04X}: {words}")
        visit.answers["reports refused" if status else "reports taken"] += 1
        self._respond(context_id, command, status, words)


def _word(outcome: Outcome) -> str:
    if outcome.status is Status.SUCCESS:
        return "kept" if outcome.new else "held before"
    return f"refused with {outcome.status:04X}"


def _where(error: Exception) -> str:
    """Name an error by its kind and place; its text could quote what a peer sent."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {frames[-1].filename}:{frames[-1].lineno}"
