"""What the headers of received series say, kept so that no file is read for it twice.

Plain SQL on the driver's cursor where a study of thousands of objects is read at once.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, insert

from app.store.engine import Section
from app.store.jobs import SeriesRow
from app.store.tables import SeriesHeaders

COUNT = "SELECT series_uid, count(*) FROM instances WHERE study_uid = ? GROUP BY series_uid"
FILES = "SELECT series_uid, sop_uid, file FROM instances WHERE study_uid = ? ORDER BY sop_uid"
SUMMARIES = (
    "SELECT series_uid, instances, summary FROM series WHERE study_uid = ? ORDER BY series_uid"
)
HEADERS = "SELECT headers FROM series WHERE study_uid = ? AND series_uid = ?"


class SeriesLog(Section):
    """Rows of series; their JSON is made and read by `app.dicom`."""

    def series_counts(self, study_uid: str) -> dict[str, int]:
        """Return how many objects of each series of the study were received."""
        with self._database.glancing() as cursor:
            cursor.execute(COUNT, (study_uid,))
            return dict(cursor.fetchall())

    def files_of(self, study_uid: str) -> dict[str, dict[str, str]]:
        """Return the files of a study, relative to the data folder: series → object → file."""
        found: dict[str, dict[str, str]] = {}
        with self._database.glancing() as cursor:
            cursor.execute(FILES, (study_uid,))
            for series_uid, sop_uid, file in cursor.fetchall():
                found.setdefault(series_uid, {})[sop_uid] = file
        return found

    def series_rows(self, study_uid: str) -> list[SeriesRow]:
        """Return what routing needs of the series of a study, sorted by their UIDs."""
        with self._database.glancing() as cursor:
            cursor.execute(SUMMARIES, (study_uid,))
            return [
                SeriesRow(
                    study_uid=study_uid,
                    series_uid=series_uid,
                    instances=instances,
                    summary=json.loads(summary),
                )
                for series_uid, instances, summary in cursor.fetchall()
            ]

    def series_headers(self, study_uid: str, series_uid: str) -> Any:
        """Return what was kept of a known series for merging with objects that arrive later."""
        with self._database.glancing() as cursor:
            cursor.execute(HEADERS, (study_uid, series_uid))
            (headers,) = cursor.fetchone()
            return json.loads(headers)

    def keep_series(self, rows: Sequence[SeriesRow], headers: Mapping[str, Any]) -> None:
        """Keep what was read, in place of what was known before; `headers` is by series."""
        with self._database.writing() as connection:
            for row in rows:
                this = (
                    SeriesHeaders.study_uid == row.study_uid,
                    SeriesHeaders.series_uid == row.series_uid,
                )
                connection.execute(delete(SeriesHeaders).where(*this))
                values = {name: getattr(row, name) for name in SeriesRow.__slots__}
                kept = insert(SeriesHeaders).values(values | {"headers": headers[row.series_uid]})
                connection.execute(kept)
