"""Route before fetch: which series of a study in an archive are needed here, and why no others.

The archive's list of series comes first; a series that no role can take by what stands there is
left. The headers of the rest are asked for, the study is routed as if it were here, and what the
routes that take it need is wanted. An archive that tells no headers (DIMSE) gives every series
that may be needed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.config_routes import Route
from app.dicom.encoded import is_uid
from app.dicom.series import Series
from app.errors import ArchiveRefused, StudyError
from app.fetch.archive import Attributes, Remote
from app.pipeline.route import Verdict, may_fit, route, several_patients

SERIES_UID, SERIES_COUNT = "SeriesInstanceUID", "NumberOfSeriesRelatedInstances"


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedSeries:
    """A series that is to be here."""

    series_uid: str
    sop_uids: frozenset[str] | None
    """Its objects; None when the archive does not tell them before they are fetched."""
    number: int | None
    """How many objects the archive lists."""

    def missing(self, held: frozenset[str]) -> frozenset[str]:
        """Return which of its objects are not here; empty when that is not known one by one."""
        return (self.sop_uids or frozenset()) - held

    def is_here(self, held: frozenset[str]) -> bool:
        """Say whether all that the archive lists is among what is held of the series."""
        if self.sop_uids is not None:
            return self.sop_uids <= held
        return self.number is not None and len(held) >= self.number


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be fetched of one study, and the trace that says why."""

    series: tuple[WantedSeries, ...]
    listed: int
    """How many series the archive lists."""
    trace: Mapping[str, Any]


def look(archive: Remote, study_uid: str, routes: Sequence[Route]) -> Wanted:
    """Ask the archive what is in a study and decide what of it is needed."""
    listed = {str(each[SERIES_UID][0]): each for each in archive.series(study_uid) if _named(each)}
    if not listed:
        raise ArchiveRefused("the archive lists no series of the study (any more)")
    possible = [uid for uid, each in listed.items() if any(may_fit(each, r) for r in routes)]
    asked = [*listed] if _need_the_study(routes) else possible
    known, untold = _headers(archive, study_uid, asked)
    study = [*known.values(), *(_as_listed(study_uid, listed[u]) for u in listed if u not in known)]
    if told := several_patients(study):
        raise StudyError(told)
    verdicts = route(study, routes)
    if untold:
        wanted = _may_be_needed(listed, routes)
    else:
        wanted = _needed(study, verdicts, routes, ([*possible], [*listed]))
    return Wanted(
        series=tuple(_wanted(uid, listed[uid], known.get(uid)) for uid in sorted(wanted)),
        listed=len(listed),
        trace=_trace(verdicts, untold),
    )


def _named(attributes: Attributes) -> bool:
    return is_uid(str(next(iter(attributes.get(SERIES_UID, ())), "")))


def _need_the_study(routes: Iterable[Route]) -> bool:
    """Say whether a route asks something of the whole study: then no series may be left out."""
    return any(each.study and each.mode != "off" for each in routes)


def _headers(
    archive: Remote, study_uid: str, series_uids: Iterable[str]
) -> tuple[dict[str, Series], list[str]]:
    """Return the series as their headers tell, and those of which the archive tells none."""
    known, untold = {}, []
    for uid in series_uids:
        headers = archive.headers(study_uid, uid)
        if headers:
            known[uid] = headers[0].series()
        else:
            untold.append(uid)
    return known, untold


def _as_listed(study_uid: str, attributes: Attributes) -> Series:
    """Return a series of which only the archive's list is known, for the trace."""
    tags = {k: v for k, v in attributes.items() if k not in {SERIES_UID, SERIES_COUNT}}
    facts = {"slices": tuple(attributes.get(SERIES_COUNT, ()))}
    uid = str(attributes[SERIES_UID][0])
    return Series(study_uid=study_uid, series_uid=uid, sop_uids=(), tags=tags, facts=facts)


def _needed(
    study: Sequence[Series],
    verdicts: Sequence[Verdict],
    routes: Sequence[Route],
    more: Iterable[Iterable[str]],
) -> set[str]:
    """Return the fewest series with which the node will decide as the archive's list does.

    The node routes what it has. Should that come out differently without the series that are left
    in the archive, because a route asks of the whole study, more of them are needed.
    """
    needed = {uid for each in verdicts for pick in each.picks for uid in pick.inputs.values()}
    for larger in more:
        here = [series for series in study if series.series_uid in needed]
        if not needed or _outcome(route(here, routes)) == _outcome(verdicts):
            break
        needed |= set(larger)
    return needed


def _outcome(verdicts: Iterable[Verdict]) -> list[tuple[str, tuple[Any, ...]]]:
    return [(each.route, each.picks) for each in verdicts]


def _may_be_needed(listed: Mapping[str, Attributes], routes: Iterable[Route]) -> set[str]:
    """Return every series that may fill a role of a route all of whose roles may be filled."""
    needed: set[str] = set()
    for each in routes:
        fits = {uid: may_fit(attributes, each) for uid, attributes in listed.items()}
        if set(each.inputs) == {role for roles in fits.values() for role in roles}:
            needed |= set(listed) if each.study else {uid for uid, roles in fits.items() if roles}
    return needed


def _wanted(uid: str, attributes: Attributes, known: Series | None) -> WantedSeries:
    number = next(iter(attributes.get(SERIES_COUNT, ())), None)
    return WantedSeries(
        series_uid=uid,
        sop_uids=frozenset(known.sop_uids) if known else None,
        number=number if isinstance(number, int) else None,
    )


def _trace(verdicts: Iterable[Verdict], untold: Sequence[str]) -> dict[str, Any]:
    signal = "as the archive describes it, before anything was fetched"
    if untold:
        signal += f"; of {len(untold)} series it tells no headers, so these verdicts are a guess"
    return {"signal": signal, "routes": [each.to_json() for each in verdicts]}
