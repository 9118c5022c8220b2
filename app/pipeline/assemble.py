"""Decide when a study is complete."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from app.config import Assemble
from app.dicom.headers import SeriesHeaders, compared, merge, read_headers
from app.faults import crash_point


class Arrival(Protocol):
    """What is known of a study that is still arriving."""

    @property
    def last_received_at(self) -> datetime: ...  # noqa: D102  # the names say it
    @property
    def released_at(self) -> datetime | None: ...  # noqa: D102  # same


def complete_at(study: Arrival, rules: Assemble) -> tuple[datetime, str]:
    """Return when the study counts as complete if nothing more arrives, and by which signal.

    A release of the association that brought the last object counts after the settle time;
    without one, because the sender vanished or keeps its association open, quiet time counts.
    """
    quiet = study.last_received_at + timedelta(seconds=rules.quiet_s)
    by_quiet = (quiet, f"no object for {rules.quiet_s:g} s")
    if study.released_at is None:
        return by_quiet
    settled = max(study.released_at, study.last_received_at) + timedelta(seconds=rules.settle_s)
    return min((settled, f"association released {rules.settle_s:g} s ago"), by_quiet)


def read_series(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Read the headers of a study's new files; runs in the stage worker, the bytes are hostile.

    `files` maps the SOP Instance UIDs of the series concerned to their files, `new` names those to
    read, `before` holds what was read of these series earlier.
    """
    crash_point("read_series")
    files = arguments["files"]
    before = [SeriesHeaders.from_json(each) for each in arguments["before"]]
    read = read_headers([files[uid] for uid in arguments["new"]])
    merged = [compared(each, files) for each in merge([*before, *read])]
    return {
        "headers": [each.to_json() for each in merged],
        "series": [each.series().to_json() for each in merged],
    }
