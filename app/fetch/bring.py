"""What is wanted of a study → spool: only what is not here yet, and verified when it is here."""

from collections.abc import Iterable

from app.door.parts import Keep
from app.errors import ArchiveRefused
from app.fetch.archive import Remote
from app.fetch.wanted import WantedSeries
from app.store.store import Store


def bring(
    archive: Remote, store: Store, study_uid: str, wanted: Iterable[WantedSeries], keep: Keep
) -> int:
    """Fetch what is missing; return how many objects came. What came before an error stays."""
    held = _held(store, study_uid)
    before = _number(held)
    for each in wanted:
        here = held.get(each.series_uid, frozenset())
        if not each.is_here(here):
            archive.retrieve(study_uid, each.series_uid, keep, _only(each, here))
            held = _held(store, study_uid)
            _check(each, held.get(each.series_uid, frozenset()))
    return _number(held) - before


def _only(wanted: WantedSeries, held: frozenset[str]) -> frozenset[str]:
    """Choose single objects while fewer than half are missing; else the series is one request."""
    missing = wanted.missing(held)
    number = len(wanted.sop_uids or ())
    return missing if 0 < 2 * len(missing) < number else frozenset()


def _check(wanted: WantedSeries, held: frozenset[str]) -> None:
    if wanted.sop_uids is None and wanted.number is None:
        return  # nothing was promised
    if not wanted.is_here(held):
        number = wanted.number if wanted.sop_uids is None else len(wanted.sop_uids)
        short = len(wanted.missing(held)) or (number or 0) - len(held)
        raise ArchiveRefused(
            f"of series …{wanted.series_uid[-12:]} the archive lists {number} objects,"
            f" {short} of them did not come"
        )


def _held(store: Store, study_uid: str) -> dict[str, frozenset[str]]:
    """Return what is here of the study, by series."""
    held: dict[str, set[str]] = {}
    for row in store.instances(study_uid):
        held.setdefault(row.series_uid, set()).add(row.sop_uid)
    return {uid: frozenset(sop_uids) for uid, sop_uids in held.items()}


def _number(held: dict[str, frozenset[str]]) -> int:
    return sum(map(len, held.values()))
