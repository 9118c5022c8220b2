"""Studies in a job log as the node leaves them once they are routed."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from app.dicom.series import Series
from app.store.jobs import SeriesRow
from app.store.store import Store
from tests.log_rows import START, instance


def keep(store: Store, study: Sequence[Series], trace: Any, *, received: datetime = START) -> str:
    """Note the objects and headers of a study and what routing said of it; return its UID."""
    uid = study[0].study_uid
    for each in study:
        for sop_uid in each.sop_uids:
            row = replace(instance(sop_uid, uid), series_uid=each.series_uid, received_at=received)
            store.add_instance(row, received)
    rows = [
        SeriesRow(
            study_uid=uid,
            series_uid=each.series_uid,
            instances=len(each.sop_uids),
            summary=each.to_json(),
        )
        for each in study
    ]
    store.keep_series(rows, {row.series_uid: {} for row in rows})
    if trace is not None:
        store.route_study(uid, store.study(uid).version, trace, [], received)
    return uid
