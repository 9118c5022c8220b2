"""What the headers of received series say, kept so that no file is read for it twice."""

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import delete, func, insert, select

from app.store.engine import Section
from app.store.jobs import SeriesRow
from app.store.tables import Instances, SeriesHeaders


class SeriesLog(Section):
    """Rows of series; their JSON is made and read by `app.dicom`."""

    def series_counts(self, study_uid: str) -> dict[str, int]:
        """Return how many objects of each series of the study were received."""
        query = select(Instances.series_uid, func.count().label("instances"))
        grouped = query.where(Instances.study_uid == study_uid).group_by(Instances.series_uid)
        with self._database.reading() as connection:
            return {row.series_uid: row.instances for row in connection.execute(grouped)}

    def series_rows(self, study_uid: str) -> list[SeriesRow]:
        """Return what is known of the series of a study, sorted by their UIDs."""
        columns = SeriesHeaders.__table__.columns
        query = select(*columns).where(SeriesHeaders.study_uid == study_uid)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(SeriesHeaders.series_uid)).mappings()
            return [SeriesRow(**row) for row in rows]

    def keep_series(self, rows: Sequence[SeriesRow]) -> None:
        """Keep what was read, in place of what was known before."""
        with self._database.writing() as connection:
            for row in rows:
                connection.execute(
                    delete(SeriesHeaders).where(
                        SeriesHeaders.study_uid == row.study_uid,
                        SeriesHeaders.series_uid == row.series_uid,
                    )
                )
                connection.execute(insert(SeriesHeaders).values(asdict(row)))
