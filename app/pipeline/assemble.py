"""Decide when a study is complete."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from app.config import Assemble
from app.dicom.headers import SeriesHeaders, compared, merge, read_headers
from app.faults import crash_point

FETCH_QUIET_S = 600.0
"""An archive may take so long before the next object of a study that is being fetched."""


class Arrival(Protocol):
    """What is known of a study that is still arriving."""

    @property
    def instances(self) -> int: ...  # noqa: D102  # the names say it
    @property
    def last_received_at(self) -> datetime: ...  # noqa: D102  # same
    @property
    def released_at(self) -> datetime | None: ...  # noqa: D102  # same
    @property
    def complete_signal(self) -> str | None: ...  # noqa: D102  # same
    @property
    def expected(self) -> int | None: ...  # noqa: D102  # same
    @property
    def being_fetched(self) -> bool: ...  # noqa: D102  # same


def rules_for(source: str, rules: Assemble) -> Assemble:
    """Return the rules for what comes from `source`, which is `name@address`."""
    name = source.rpartition("@")[0] or source
    for sender in rules.senders:
        if sender.sender == name:
            own = sender.model_dump(exclude={"sender"}, exclude_unset=True)
            return rules.model_copy(update=own | {"quiet_s": sender.quiet_s or rules.quiet_s})
    return rules


def complete_at(study: Arrival, rules: Assemble) -> tuple[datetime, str]:
    """Return when the study counts as complete if nothing more arrives, and by which signal.

    Never later than the quiet time after the last object, and at once when somebody says so or
    when exactly as many objects are here as the archive lists. More than it lists says only that
    the list is old; fewer say that a release was not the end. What is being fetched is complete
    when the fetcher says so; its silence counts only when it is very long.
    """
    last, listed = study.last_received_at, study.expected
    if study.complete_signal is not None:
        return last, study.complete_signal
    if study.instances == listed:
        return last, f"the archive lists {listed} objects and all are here"
    if study.being_fetched:
        quiet_s = max(rules.quiet_s, FETCH_QUIET_S)
        signal = f"no object for {quiet_s:g} s, though it is being fetched"
        return last + timedelta(seconds=quiet_s), signal
    quiet, signal = last + timedelta(seconds=rules.quiet_s), f"no object for {rules.quiet_s:g} s"
    if listed is not None and study.instances < listed:
        return quiet, f"{signal}; {study.instances} of {listed} that the archive lists"
    if study.released_at is None or rules.settle_s is None:
        return quiet, signal
    settled = max(study.released_at, last) + timedelta(seconds=rules.settle_s)
    return min((settled, f"association released {rules.settle_s:g} s ago"), (quiet, signal))


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
