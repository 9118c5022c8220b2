"""Studies that lie in archives: which were seen there, which are to be fetched, what came of it."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, func, or_, select, update
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
        """Note what the archive lists now, study by study; return how many are new or other.

        A count of None says nothing about a study that is known. A study that somebody asked for
        stays asked for, whatever is listed of it.
        """
        columns = RemoteStudies.study_uid, RemoteStudies.instances, RemoteStudies.state
        held = select(*columns).where(
            RemoteStudies.source == source, RemoteStudies.study_uid.in_(list(counts))
        )
        with self._database.reading() as connection:  # mostly nothing has changed
            known = {row.study_uid: row for row in connection.execute(held)}
        changed = {
            uid: count
            for uid, count in counts.items()
            if uid not in known or count not in {None, known[uid].instances}
        }
        if not changed:
            return 0
        with self._database.writing() as connection:
            for uid, count in changed.items():
                asked = uid in known and known[uid].state == RemoteState.ASKED
                state = RemoteState.ASKED if asked else RemoteState.LISTED
                _put(connection, source, uid, state, now, instances=count)
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
        self,
        source: str,
        now: datetime,
        quiet_s: float,
        limit: int = 10,
        *,
        newest_first: bool = False,
    ) -> list[RemoteStudy]:
        """Return what is to be fetched: asked for, or listed with one number for `quiet_s`.

        What somebody asked for comes first, and is not kept waiting by what is only listed.
        """
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
            age = table.changed_at.desc() if newest_first else table.changed_at
            ordered = query.order_by(table.state != RemoteState.ASKED, age).limit(limit)
            return [RemoteStudy(**row) for row in connection.execute(ordered).mappings()]

    def resume_fetching(self, source: str) -> None:
        """Ask again for what was on its way when the fetcher ended."""
        this = RemoteStudies.source == source, RemoteStudies.state == RemoteState.FETCHING
        with self._database.writing() as connection:
            connection.execute(update(RemoteStudies).where(*this).values(state=RemoteState.ASKED))

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

    def remote_counts(self) -> dict[str, dict[RemoteState, int]]:
        """Return how many studies of each source are in which state."""
        table, found = RemoteStudies, dict[str, dict[RemoteState, int]]()
        query = select(table.source, table.state, func.count().label("number"))
        with self._database.reading() as connection:
            for row in connection.execute(query.group_by(table.source, table.state)):
                found.setdefault(row.source, {})[row.state] = row.number
        return found

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
