"""Hold each series of a study against one role: loop guard, conditions, gates, in this order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from app.config_routes import AcquiredWithin, Relation, Role, SameAs
from app.dicom.series import Series
from app.pipeline.conditions import Check, checked, named, values_of
from app.pipeline.gates import Refusal, refusals
from app.pipeline.ranking import ranked
from app.pipeline.roles import Option

_TOLD = 6
"""How many series are named in a reason because of a condition; the trace has them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One series held against one role."""

    role: str
    series_uid: str
    """The UID, with the number of the point in time where the role splits series."""
    fits: bool
    guard: str = ""
    """Why the series is never an input; then nothing else is asked of it."""
    checks: tuple[Check, ...] = ()
    """The role's conditions on the series itself, in all its lists."""
    gates: tuple[Refusal, ...] = ()
    """The gates that it does not pass; they are asked only where the conditions hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A series and what the loop guard says of it."""

    series: Series
    guard: str | None


def hold_against(
    name: str, role: Role, study: Sequence[Known]
) -> tuple[list[Candidate], list[Option]]:
    """Return every series as a candidate, and those that fit from the best to the worst."""
    candidates, fitting = [], {}
    for known in study if role.split is None else _split(study):
        candidate, relations = _candidate(name, role, known)
        candidates.append(candidate)
        if candidate.fits:
            fitting[known.series.key] = Option(series=known.series, relations=relations)
    best_first = ranked([option.series for option in fitting.values()], role.prefer)
    return candidates, [fitting[series.key] for series in best_first]


def _split(study: Sequence[Known]) -> Iterator[Known]:
    """Yield each point in time of a series that has several, and the other series as they are."""
    for known in study:
        for series in known.series.parts or (known.series,):
            yield replace(known, series=series)


def why_nothing_fits(candidates: Sequence[Candidate]) -> str:
    """Say of a role that no series fits it: the gates first, they were closest."""
    if not candidates:
        return "the study holds no image series"
    stopped = [_stopped(each) for each in candidates if each.gates]
    failed = [_failed(each) for each in candidates if each.checks and not each.gates]
    kept_out = [f"{_short(each)}: {each.guard}" for each in candidates if each.guard]
    told = [*stopped, *(failed + kept_out)[:_TOLD]]
    if len(told) < len(candidates):
        told.append(f"and {len(candidates) - len(told)} more")
    return f"no series fits ({'; '.join(told)})"


def _candidate(
    name: str, role: Role, known: Known
) -> tuple[Candidate, tuple[tuple[Relation, ...], ...]]:
    series = known.series
    if known.guard:
        return Candidate(role=name, series_uid=series.key, fits=False, guard=known.guard), ()
    checks: list[Check] = []
    relations: list[tuple[Relation, ...]] = []
    for n, together in enumerate(role.where):
        own = [
            checked(each, values_of(series, each), n)
            for each in together
            if not isinstance(each, SameAs | AcquiredWithin)
        ]
        checks += own
        if all(check.holds for check in own):
            between = (each for each in together if isinstance(each, SameAs | AcquiredWithin))
            relations.append(tuple(between))
    gates = refusals(series, role.gates) if relations else ()
    candidate = Candidate(
        role=name,
        series_uid=series.key,
        fits=bool(relations) and not gates,
        checks=tuple(checks),
        gates=gates,
    )
    return candidate, tuple(relations)


def _stopped(candidate: Candidate) -> str:
    told = ", ".join(f"{each.code}: {each.reason}" for each in candidate.gates)
    return f"{_short(candidate)} meets the conditions but {told}"


def _failed(candidate: Candidate) -> str:
    """Name the first condition that failed in the list that came closest."""
    failed: dict[int, list[Check]] = {}
    for check in candidate.checks:
        if not check.holds:
            failed.setdefault(check.alternative, []).append(check)
    first, *_ = min(failed.values(), key=len)
    return f"{_short(candidate)}: {first.condition}, found {first.found}"


def _short(candidate: Candidate) -> str:
    return named(candidate.series_uid)
