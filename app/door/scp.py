"""The DICOM side of the door: associations in, statuses out. Nothing is decoded here.

pynetdicom runs two threads an association; handlers run in one of them. What it logs itself is
switched off, since it writes what peers send; each association leaves one line of ours.
"""

import logging
import socket
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import Verification
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from app.config import Door as DoorConfig
from app.dicom.dimse import (
    IMPLEMENTATION_NAME,
    IMPLEMENTATION_UID,
    TRANSFER_SYNTAXES,
    Status,
    answer,
    printable,
)
from app.door.intake import Intake, Outcome
from app.errors import ConfigError, NodeError
from app.store.store import Store

log = logging.getLogger(__name__)

MAX_PDU = 128 * 1024
BACKLOG = 128


@dataclass(slots=True)
class Visit:
    """What happened during one association."""

    peer: str
    began: float
    idle: threading.Event = field(default_factory=threading.Event)
    """Set while no object waits for its answer."""
    answers: Counter[str] = field(default_factory=Counter)
    studies: set[str] = field(default_factory=set)


class Scp:
    """One listening port; objects go to the intake, and the end of an association to the store."""

    def __init__(self, config: DoorConfig, data: Path, store: Store) -> None:
        self._config = config
        self._store = store
        self._intake = Intake(data, store)
        self._stopping = threading.Event()
        self._ae = _entity(config)
        self._server: _Server | None = None

    def open(self) -> int:
        """Take in what an earlier process left, then listen; return the port."""
        adopted = self._intake.adopt_orphans()
        if adopted:
            log.warning("%d objects of an earlier process were noted now", adopted)
        host, port = self._config.host, self._config.port
        try:
            self._server = self._ae.make_server(
                (host, port),
                evt_handlers=[
                    (evt.EVT_C_STORE, self._on_store),
                    (evt.EVT_PDU_SENT, _on_sent),
                ],
                server_class=_Server,
                request_handler=_Request,
            )
        except OSError as error:
            raise ConfigError(
                f"door.host, door.port: cannot listen on {host}:{port} ({error.strerror}); stop "
                "the other program there, or give an address of this machine and a free port"
            ) from error
        self._ae._servers.append(self._server)  # noqa: SLF001  # as AE.start_server does
        self._server.scp = self
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return int(self._server.server_address[1])

    def close(self, grace_s: float) -> None:
        """Let running C-STOREs come to their end, at most `grace_s`, and end all associations."""
        deadline = time.monotonic() + grace_s
        self._stopping.set()
        if self._server is not None:
            self._server.shutdown()
        serving = [assoc for assoc in self._ae.active_associations if assoc.is_established]
        for assoc in serving:
            assoc.visit.idle.wait(max(0.0, deadline - time.monotonic()))
            threading.Thread(target=assoc.abort, daemon=True).start()
        for assoc in serving:
            assoc.join(max(0.0, deadline - time.monotonic()))

    # -- one association ---------------------------------------------------------------------

    def attend(self, assoc: Association, address: str) -> None:
        """Run an association to its end, whatever ends it; called in the association's thread."""
        assoc.visit = visit = Visit(peer=address, began=time.monotonic())
        visit.idle.set()
        try:
            assoc.run_reactor()
        finally:
            visit.idle.set()
            self._say_goodbye(assoc, visit)

    def _say_goodbye(self, assoc: Association, visit: Visit) -> None:
        try:
            if visit.studies:
                self._store.release(sorted(visit.studies), datetime.now(UTC))
        except NodeError as error:
            # the studies are closed by their quiet time instead
            log.error("the end of an association is not noted: %s", error)  # noqa: TRY400
        log.info(
            "association from %s %s after %.1f s: %s",
            f"{printable(assoc.requestor.ae_title)}@{visit.peer}",
            _end(assoc),
            time.monotonic() - visit.began,
            ", ".join(f"{n} {what}" for what, n in sorted(visit.answers.items())) or "no objects",
        )

    def _on_store(self, event: Event) -> Dataset | int:
        visit: Visit = event.assoc.visit
        visit.idle.clear()
        try:
            outcome = self._receive(event, visit)
        except Exception as error:  # noqa: BLE001  # whatever happens, the sender gets its answer
            log.error("an object was not kept by a fault of ours: %s", _where(error))  # noqa: TRY400
            outcome = Outcome(status=Status.OUR_FAULT)
        if outcome.study_uid is not None:
            visit.studies.add(outcome.study_uid)
        visit.answers[_word(outcome)] += 1
        return answer(outcome.status)

    def _receive(self, event: Event, visit: Visit) -> Outcome:
        if self._stopping.is_set():
            return Outcome(status=Status.OUT_OF_RESOURCES)
        request, context = event.request, event.context
        if request.AffectedSOPClassUID != context.abstract_syntax:
            return Outcome(status=Status.NOT_NEGOTIATED)
        return self._intake.take(
            event.encoded_dataset(include_meta=False),
            str(context.transfer_syntax),
            claimed=(str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)),
            source=f"{printable(event.assoc.requestor.ae_title)}@{visit.peer}",
        )


class _Request(RequestHandler):  # type: ignore[misc]  # untyped library
    """Starts an association such that its end is never missed: a lost peer raises no event."""

    def handle(self) -> None:
        assoc = self._create_association()
        scp, address = self.server.scp, str(self.client_address[0])
        assoc.run = lambda: scp.attend(assoc, address)
        assoc.start()


class _Server(ThreadedAssociationServer):  # type: ignore[misc]  # untyped library
    """The listening socket."""

    request_queue_size = BACKLOG
    scp: Scp

    def get_request(self) -> Any:
        connection, address = super().get_request()
        # without it each answer waits for the peer's delayed acknowledgement, 40 ms an object
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # a peer that stops in the middle of a PDU would hold its association for ever
        connection.settimeout(self.ae.network_timeout)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Write one line where the library would print a traceback."""
        del request
        log.warning("a connection from %s could not be served", client_address[0])


def _on_sent(event: Event) -> None:
    if isinstance(event.pdu, P_DATA_TF):
        event.assoc.visit.idle.set()  # data are sent by us only as answers


def _entity(config: DoorConfig) -> AE:
    ae = AE(ae_title=config.ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_UID
    ae.implementation_version_name = IMPLEMENTATION_NAME
    ae.require_called_aet = True
    ae.maximum_associations = config.max_associations
    ae.maximum_pdu_size = MAX_PDU
    ae.network_timeout = config.idle_timeout_s
    ae.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(context.abstract_syntax, list(TRANSFER_SYNTAXES))
    return ae


def _end(assoc: Association) -> str:
    for end in ("rejected", "released", "aborted"):
        if getattr(assoc, f"is_{end}"):
            return end
    return "lost"


def _word(outcome: Outcome) -> str:
    if outcome.status is Status.SUCCESS:
        return "kept" if outcome.new else "held before"
    return f"refused with {outcome.status:04X}"


def _where(error: Exception) -> str:
    """Name an error by its kind and place; its text could quote what a peer sent."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {frames[-1].filename}:{frames[-1].lineno}"
