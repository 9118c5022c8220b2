"""Couriers: one thread a destination brings results there until the archive shows that it has them.

An archive that is away holds up nobody but itself, and is not called for each result that waits: it
is tried by one of them, with growing pauses of at most `deliver.longest_pause_s`, and when it
answers again all the others are due at once. Each result also waits by itself, with growing,
jittered delays, so that one that an archive chokes on does not keep the others waiting.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from app.config import Config
from app.config_archives import ArchiveConfig, DimseArchive
from app.destinations import archive_of
from app.dicom.commit import Report, ask
from app.dicom.encoded import Identifiers
from app.errors import (
    ArchiveUnavailable,
    FormRefused,
    Interrupted,
    NodeError,
    NotShownYet,
    OutOfResources,
    TransientError,
)
from app.faults import crash_point
from app.log import about, sentence, traced
from app.pipeline.deliver import deliver, identifiers
from app.pipeline.line import line_to
from app.results.forms import ENCODED, TABLES, Form, file_name, in_place_of
from app.results.identity import new_uid
from app.store.deliveries import DeliveryGone
from app.store.delivery import Delivery, DeliveryEvent, DeliveryState
from app.store.store import Store

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 5.0
LONGEST_WAIT_S = 3600.0
"""The most that an archive's own Retry-After is followed."""
IDLE_S = 0.5
"""How often the job log is asked for something to do."""
COMMIT_WAIT_S = 5.0
"""How long a report of storage commitment is waited for on the association that asked for it."""
JITTER = 0.2


class Courier:
    """Brings to one destination what goes there, one delivery after the other."""

    def __init__(
        self, destination: str, config: Config, store: Store, clock: Callable[[], datetime]
    ) -> None:
        self.destination = destination
        self._config = config
        self._store = store
        self._clock = clock
        self.away = ""
        """Why the archive is held to be away; empty while it is not."""
        self._failures = 0
        self._not_before: datetime | None = None
        self._chance = random.Random(destination)  # noqa: S311  # spreads tries, keeps no secret

    def work(self) -> float:
        """Do the next thing that is due; return in how many seconds to look again."""
        now = self._clock()
        if self._not_before is not None and now < self._not_before:
            return (self._not_before - now).total_seconds()
        probing = self._failures > 0
        delivery = self._store.due_delivery(self.destination, now, probing=probing)
        if delivery is None:
            return IDLE_S
        with about(delivery.job_id):
            self._try(delivery)
        return 0.0

    def _try(self, delivery: Delivery) -> None:
        try:
            begun = self._store.begin_delivery(delivery, self._clock())
        except DeliveryGone:
            return
        try:
            self._bring(begun)
        except DeliveryGone as error:
            log.info("%s: dropped: %s", self.destination, error)
        except Exception as error:  # noqa: BLE001  # the one place where a delivery's errors end
            self._note_failure(begun, error)
        else:
            self._note_answer()

    def _bring(self, delivery: Delivery) -> None:
        archive = archive_of(self._config, self.destination)
        if delivery.state is DeliveryState.SENT and delivery.transaction_uid is not None:
            self._await_report(delivery, archive)
            return
        files, tables = self._files(delivery)
        receipt = deliver(files, self.destination, archive, tables)
        crash_point("deliver.stored")
        if receipt.proved:
            self._prove(delivery, receipt.told)
            return
        self._commit(delivery, archive, identifiers(files))

    def _files(self, delivery: Delivery) -> tuple[list[Path], dict[str, Path]]:
        folder = self._config.data / "jobs" / delivery.job_id / ENCODED
        forms = [Form(form) for form in delivery.forms]
        paths = {form: folder / file_name(form, forms) for form in forms}
        files = [path for form, path in paths.items() if form not in TABLES]
        tables = {
            f"{delivery.job_id}.{path.name}": path for form, path in paths.items() if form in TABLES
        }
        return files, tables

    # -- proofs ------------------------------------------------------------------------------

    def _prove(self, delivery: Delivery, proof: str) -> None:
        now = self._clock()
        self._settle(
            delivery,
            DeliveryEvent.PROVED,
            proof,
            proof=proof,
            reason="",
            proved_at=now,
            sent_at=delivery.sent_at or now,
            transaction_uid=None,
        )
        log.info("%s: proved: %s", self.destination, proof)

    def _commit(self, delivery: Delivery, archive: ArchiveConfig, uids: list[Identifiers]) -> None:
        """Ask the archive to commit itself; its report may come at once or to our door."""
        assert isinstance(archive, DimseArchive)  # noqa: S101  # the only kind that has this proof
        transaction_uid, title = new_uid(), archive.ae_title.strip()
        self._store.ask_commitment(transaction_uid, title, self._clock())
        line = line_to(self.destination, archive)
        report = ask(line, transaction_uid, uids, COMMIT_WAIT_S)
        report = report or self._reported(transaction_uid)
        if report is not None:
            self._judge(delivery, archive, report, uids)
            return
        now = self._clock()
        self._settle(
            delivery,
            DeliveryEvent.SENT,
            f"{title} took it and was asked to commit itself",
            sent_at=delivery.sent_at or now,
            due_at=now + timedelta(seconds=self._config.deliver.commitment_s),
            transaction_uid=transaction_uid,
            reason="no report of storage commitment yet",
        )
        if self._store.commitment(transaction_uid) is not None:  # it came between the two
            self._store.hasten(now, self.destination)

    def _await_report(self, delivery: Delivery, archive: ArchiveConfig) -> None:
        """Read the report that the door took; ask anew when it did not come in time."""
        assert isinstance(archive, DimseArchive)  # noqa: S101  # as above
        files, _ = self._files(delivery)
        uids = identifiers(files)
        report = self._reported(delivery.transaction_uid or "")
        if report is None:
            self._commit(delivery, archive, uids)
        else:
            self._judge(delivery, archive, report, uids)

    def _reported(self, transaction_uid: str) -> Report | None:
        """Return what came to our door."""
        found = self._store.commitment(transaction_uid)
        return Report(held=found.held, failed=found.failed) if found else None

    def _judge(
        self, delivery: Delivery, archive: DimseArchive, report: Report, uids: list[Identifiers]
    ) -> None:
        wanted = {each.sop_uid for each in uids}
        if wanted <= report.held:
            self._prove(delivery, f"{archive.ae_title.strip()} commits itself to all of it")
            return
        told = report.of(wanted).words
        raise NotShownYet(f"{self.destination}: does not commit itself: {told}")

    # -- what comes of a try ---------------------------------------------------------------

    def _note_answer(self) -> None:
        """Note that the archive answers; after an absence all that waits is due."""
        if self._failures > 1:
            number = self._store.hasten(self._clock(), self.destination)
            log.info("%s: answers again, %d deliveries are due", self.destination, number)
        self._failures, self._not_before, self.away = 0, None, ""

    def _note_failure(self, delivery: Delivery, error: Exception) -> None:
        reason = str(error)
        if isinstance(error, Interrupted):
            self._put_off(delivery, 0.0, reason)
        elif isinstance(error, FormRefused) and self._give_another_form(delivery, reason):
            self._note_answer()
        elif isinstance(error, NotShownYet):
            self._ask_again(delivery, reason)
        elif isinstance(error, TransientError):
            self._try_later(delivery, error, reason)
        else:
            if not isinstance(error, NodeError):
                log.error("failed by a fault of ours:\n%s", traced(error))
                reason = f"a fault of ours, see the log: {sentence(error)}"
            self._refuse(delivery, reason)

    def _give_another_form(self, delivery: Delivery, reason: str) -> bool:
        other = in_place_of(Form(form) for form in delivery.forms)
        if other is None:
            return False
        log.warning("%s: gets %s instead: %s", self.destination, ", ".join(other), reason)
        told = f"{reason}; it gets {', '.join(other)} instead"
        now = self._clock()
        self._settle(
            delivery, DeliveryEvent.PUT_OFF, told, due_at=now, reason=told, forms=list(other)
        )
        return True

    def _ask_again(self, delivery: Delivery, reason: str) -> None:
        """Let an archive that took the result have time to show it."""
        if self._gave_up(delivery, reason):
            return
        until = self._clock() + timedelta(seconds=self._delay(delivery.attempts))
        self._settle(
            delivery,
            DeliveryEvent.SENT,
            reason,
            reason=reason,
            due_at=until,
            sent_at=delivery.sent_at or self._clock(),
            transaction_uid=None,
        )
        self._note_answer()

    def _try_later(self, delivery: Delivery, error: TransientError, reason: str) -> None:
        if self._gave_up(delivery, reason):
            return
        self._put_off(delivery, self._delay(delivery.attempts), reason)
        if isinstance(error, OutOfResources):
            return
        longest = self._config.deliver.longest_pause_s
        pause_s = min(longest, FIRST_PAUSE_S * 2.0 ** min(self._failures, 20)) * self._jitter()
        asked_s = error.wait_s if isinstance(error, ArchiveUnavailable) else None
        if asked_s is not None:
            pause_s = min(asked_s, LONGEST_WAIT_S)
        self._failures += 1
        self.away = reason
        self._not_before = self._clock() + timedelta(seconds=min(pause_s, LONGEST_WAIT_S))

    def _put_off(self, delivery: Delivery, delay_s: float, reason: str) -> None:
        level = logging.WARNING if self._failures == 0 else logging.DEBUG
        log.log(level, "%s: waits: %s", self.destination, reason)
        until = self._clock() + timedelta(seconds=delay_s)
        self._settle(delivery, DeliveryEvent.PUT_OFF, reason, due_at=until, reason=reason)

    def _refuse(self, delivery: Delivery, reason: str) -> None:
        log.error("%s: refused: %s", self.destination, reason)
        self._settle(delivery, DeliveryEvent.REFUSED, reason, reason=reason)

    def _settle(
        self, delivery: Delivery, event: DeliveryEvent, detail: str, **changes: Any
    ) -> Delivery:
        now = self._clock()
        return self._store.settle_delivery(delivery, event, now, detail=detail, **changes)

    def _gave_up(self, delivery: Delivery, reason: str) -> bool:
        """Leave a delivery that was tried for long enough to a person."""
        give_up_h = self._config.deliver.give_up_h
        is_late = self._clock() - delivery.began_at >= timedelta(hours=give_up_h)
        if is_late:
            self._refuse(delivery, f"{reason}; gave up after {give_up_h:g} h")
        return is_late

    def _delay(self, attempts: int) -> float:
        delays = self._config.deliver.retry_delays_s
        return delays[min(attempts, len(delays)) - 1] * self._jitter()

    def _jitter(self) -> float:
        return self._chance.uniform(1 - JITTER, 1 + JITTER)


class Couriers:
    """Keeps a thread for each destination that has something under way."""

    def __init__(self, config: Config, store: Store, clock: Callable[[], datetime]) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._threads: dict[str, threading.Thread] = {}
        self._couriers: dict[str, Courier] = {}
        self._draining = threading.Event()
        self._stopping = threading.Event()

    def look(self) -> None:
        """Start couriers for destinations that have none, or whose thread a fault has ended."""
        for destination in self._store.destinations_under_way():
            thread = self._threads.get(destination)
            works = thread is not None and thread.is_alive()
            if not works and not self._draining.is_set():
                thread = threading.Thread(
                    target=self._run, args=(destination,), name=f"to {destination}", daemon=True
                )
                self._threads[destination] = thread
                thread.start()

    def away(self) -> dict[str, str]:
        """Return the destinations that are held to be away, with the reason."""
        return {name: each.away for name, each in [*self._couriers.items()] if each.away}

    def drain(self, timeout_s: float) -> None:
        """Bring what is due now and end; what takes longer is tried again at the next start."""
        self.look()
        self._draining.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        self._stopping.set()

    def _run(self, destination: str) -> None:
        courier = Courier(destination, self._config, self._store, self._clock)
        self._couriers[destination] = courier
        wait_s = 0.0
        while not self._stopping.wait(min(wait_s, IDLE_S)):
            try:
                wait_s = courier.work()
            except NodeError as error:  # the job log is busy or its disk is full
                log.warning("%s: tried again in a moment: %s", destination, error)
                wait_s = IDLE_S
            if self._draining.is_set() and wait_s > 0:
                return
