"""Studies that lie in archives: which were seen there, which are to be fetched, what came of it."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, or_, select, update
from sqlalchemy.dialects.sqlite import insert  # PostgreSQL has the same one

from app.store.engine import Section
from app.store.jobs import RemoteState, RemoteStudy
from app.store.tables import RemoteStudies

COLUMNS = (
    RemoteStudies.source,
    RemoteStudies.study_uid,
    RemoteStudies.state,
    RemoteStudies.instances,
    RemoteStudies.attempts,
    RemoteStudies.changed_at,
    RemoteStudies.due_at,
    RemoteStudies.reason,
)


class Remotes(Section):
    """The rows are the watermark: what an archive lists is compared with what is noted here."""

    def note_listed(self, source: str, counts: Mapping[str, int | None], now: datetime) -> int:
        """Note what the archive lists now, study by study; return how many are new or other."""
        with self._database.writing() as connection:
            held = select(RemoteStudies.study_uid, RemoteStudies.instances)
            known = {
                row.study_uid: row.instances
                for row in connection.execute(held.where(RemoteStudies.source == source))
            }
            changed = {
                uid: count
                for uid, count in counts.items()
                if uid not in known or known[uid] != count
            }
            for uid, count in changed.items():
                _put(connection, source, uid, RemoteState.LISTED, now, instances=count)
            return len(changed)

    def ask_for(self, source: str, study_uid: str, why: str, now: datetime) -> None:
        """Note that the study is whole in the archive and to be fetched now."""
        with self._database.writing() as connection:
            _put(connection, source, study_uid, RemoteState.ASKED, now, reason=why)

    def touch(self, source: str, study_uid: str, now: datetime) -> None:
        """Note that the study grew in the archive: it is to be fetched once it is quiet there."""
        with self._database.writing() as connection:
            _put(connection, source, study_uid, RemoteState.LISTED, now)

    def due_remotes(
        self, source: str, now: datetime, quiet_s: float, limit: int = 10
    ) -> list[RemoteStudy]:
        """Return what is to be fetched: asked for, or listed with one number for `quiet_s`."""
        table = RemoteStudies
        still = and_(
            table.state == RemoteState.LISTED,
            table.changed_at <= now - timedelta(seconds=quiet_s),
        )
        ready = or_(table.due_at.is_(None), table.due_at <= now)
        query = select(*COLUMNS).where(
            table.source == source, or_(table.state == RemoteState.ASKED, still), ready
        )
        with self._database.reading() as connection:
            ordered = query.order_by(table.changed_at).limit(limit)
            return [RemoteStudy(**row) for row in connection.execute(ordered).mappings()]

    def settle_remote(self, remote: RemoteStudy, state: RemoteState, **values: Any) -> bool:
        """Note what came of `remote`; False when it changed in the archive meanwhile."""
        this = (
            RemoteStudies.source == remote.source,
            RemoteStudies.study_uid == remote.study_uid,
            RemoteStudies.changed_at == remote.changed_at,
        )
        with self._database.writing() as connection:
            change = update(RemoteStudies).where(*this).values(state=state, **values)
            return connection.execute(change).rowcount == 1

    def remotes(self, study_uid: str | None = None, limit: int = 100) -> list[RemoteStudy]:
        """Return what is noted, the last changed first, all or of one study."""
        query = select(*COLUMNS).order_by(RemoteStudies.changed_at.desc()).limit(limit)
        if study_uid is not None:
            query = query.where(RemoteStudies.study_uid == study_uid)
        with self._database.reading() as connection:
            return [RemoteStudy(**row) for row in connection.execute(query).mappings()]

    def remote_trace(self, source: str, study_uid: str) -> Any:
        """Return why each route did or did not want the study, or None."""
        this = RemoteStudies.source == source, RemoteStudies.study_uid == study_uid
        with self._database.reading() as connection:
            query = select(RemoteStudies.trace).where(*this)
            return connection.execute(query).scalar_one_or_none()


def _put(
    connection: Any, source: str, study_uid: str, state: RemoteState, now: datetime, **values: Any
) -> None:
    """Make or change the row; tries count anew."""
    fresh = {"state": state, "attempts": 0, "changed_at": now, "due_at": None, "reason": ""}
    row = fresh | values
    new = insert(RemoteStudies).values(source=source, study_uid=study_uid, **row)
    connection.execute(new.on_conflict_do_update(index_elements=["source", "study_uid"], set_=row))
