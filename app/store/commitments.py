"""Storage commitments that were asked of archives, and their reports, which come to the door."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, insert, select, update

from app.store.engine import Section
from app.store.tables import Commitments, Deliveries

KEPT = timedelta(days=30)
"""How long what an archive committed itself to can be read in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReport:
    """What an archive said: SOP Instance UIDs that it holds, and why it does not hold others."""

    held: frozenset[str]
    failed: Mapping[str, int]


class CommitmentLog(Section):
    """Who was asked for what, so that a stranger's report counts for nothing."""

    def ask_commitment(self, transaction_uid: str, ae_title: str, now: datetime) -> None:
        """Note a transaction, before it is asked for: its report may come before the answer."""
        with self._database.writing() as connection:
            connection.execute(delete(Commitments).where(Commitments.asked_at < now - KEPT))
            row = {"transaction_uid": transaction_uid, "ae_title": ae_title, "asked_at": now}
            connection.execute(insert(Commitments).values(row))

    def note_commitment(
        self,
        transaction_uid: str,
        ae_title: str,
        held: Sequence[str],
        failed: Mapping[str, int],
        now: datetime,
    ) -> bool:
        """Keep a report and wake the delivery that waits; False if this peer was not asked."""
        told = {"report": {"held": [*held], "failed": {**failed}}, "reported_at": now}
        mine = Commitments.transaction_uid == transaction_uid, Commitments.ae_title == ae_title
        with self._database.writing() as connection:
            asked = connection.execute(update(Commitments).where(*mine).values(told)).rowcount > 0
            if asked:
                waits = Deliveries.transaction_uid == transaction_uid
                connection.execute(update(Deliveries).where(waits).values(due_at=now))
            return asked

    def commitment(self, transaction_uid: str) -> CommitmentReport | None:
        """Return the report of a transaction, None while there is none."""
        query = select(Commitments.report).where(Commitments.transaction_uid == transaction_uid)
        with self._database.reading() as connection:
            found = connection.execute(query).scalar_one_or_none()
        if found is None:
            return None
        return CommitmentReport(held=frozenset(found["held"]), failed=found["failed"])
