"""Today's rules on a study that is known already, and what comes out differently than before.

Nothing is read, sent or written here: a study is its series, what came of it before is its trace.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from app.config_routes import Route
from app.dicom.series import Series
from app.pipeline.conditions import fact, named, shown_values
from app.pipeline.route import route, several_patients

Trace = Mapping[str, Any]
"""What routing said of a study, as it is stored and shown."""


class Change(StrEnum):
    """What a route does with a study that it did not do before."""

    NEWLY_TAKEN = "newly taken"
    NO_LONGER_TAKEN = "no longer taken"
    OTHER_SERIES = "other series"
    OTHER_USE = "other model or mode"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """One route that says something else of one study than it did before."""

    study_uid: str
    route: str
    change: Change
    now: str
    """Why it is so by today's rules."""
    then: str
    """Why it was so before."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What one route does over many studies."""

    taken_now: int = 0
    taken_then: int = 0
    changes: dict[Change, int] = field(default_factory=lambda: dict.fromkeys(Change, 0))


class Rehearsal:
    """Past studies one by one, each by today's rules and as it was decided before."""

    def __init__(self, routes: Iterable[Route], *, gone: bool = True) -> None:
        """Count these routes, and with `gone` those that took a study and are no more."""
        self.routes = tuple(routes)
        self.studies = 0
        self.tallies: dict[str, Tally] = {route.name: Tally() for route in self.routes}
        self.changed: list[Changed] = []
        self.left_out: Counter[str] = Counter()
        """Why studies could not be judged → how many."""
        self._gone = gone

    def add(self, study_uid: str, now: Trace, then: Trace | None) -> None:
        """Count one study; `then` is None when nothing was decided of it."""
        self.studies += 1
        verdicts, before = _by_route(now), _by_route(then)
        if self._gone:
            for name, verdict in before.items():
                if _taken(verdict) and name not in self.tallies:
                    self.tallies[name] = Tally()
        for name, tally in self.tallies.items():
            new, old = verdicts.get(name), before.get(name)
            tally.taken_now += _taken(new)
            tally.taken_then += _taken(old)
            if change := _change(new, old):
                tally.changes[change] += 1
                why = _why(new, now, "there is no such route any more", old)
                was = _why(old, then, "there was no such route", new)
                self.changed.append(
                    Changed(study_uid=study_uid, route=name, change=change, now=why, then=was)
                )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            "studies": self.studies,
            "left_out": dict(self.left_out),
            "routes": {name: asdict(tally) for name, tally in self.tallies.items()},
            "changes": [asdict(each) for each in self.changed],
        }


def judged(study: Sequence[Series], routes: Iterable[Route]) -> dict[str, Any]:
    """Return the trace of a study by these routes, with what names its series to a person."""
    alarm = several_patients(study)
    verdicts = [] if alarm else route(study, routes)
    return {
        "alarm": alarm or "",
        "routes": [each.to_json() for each in verdicts],
        "series": labels(study),
    }


def verdicts_of(trace: Trace | None) -> list[Trace]:
    """Return the verdicts of a trace; those that the first version stored lack some parts."""
    return [_complete(each) for each in (trace or {}).get("routes", ())]


def _complete(verdict: Trace) -> Trace:
    if "picks" in verdict:
        return verdict
    inputs = verdict.get("inputs")
    candidates = [{"guard": "", "gates": (), **each} for each in verdict.get("candidates", ())]
    for each in candidates:
        each["checks"] = [{"alternative": 0, **check} for check in each["checks"]]
    return {
        "mode": "live",
        "study": (),
        "relations": (),
        "roles": {each["role"]: verdict["reason"] for each in candidates},
        "picks": [inputs] if inputs else [],
        **verdict,
        "candidates": candidates,
    }


def labels(study: Iterable[Series]) -> dict[str, str]:
    """Return for each series what a reader of the archive knows it by."""
    return {each.series_uid: " ".join(_label(each)) for each in study}


def _label(series: Series) -> Iterator[str]:
    yield series.modality or "unknown"
    if number := series.tags.get("SeriesNumber"):
        yield f"no. {shown_values(number)}"
    if description := series.tags.get("SeriesDescription"):
        yield f"“{shown_values(description)}”"
    count = shown_values(fact(series, "slices"))
    yield f"{count} image{'' if count == '1' else 's'}"


def _by_route(trace: Trace | None) -> dict[str, Trace]:
    return {each["route"]: each for each in verdicts_of(trace)}


def _taken(verdict: Trace | None) -> bool:
    return bool(verdict and verdict["taken"])


def _change(now: Trace | None, then: Trace | None) -> Change | None:
    if not _taken(now) or not _taken(then):
        if _taken(now):
            return Change.NEWLY_TAKEN
        return Change.NO_LONGER_TAKEN if _taken(then) else None
    if _picks(now) != _picks(then):
        return Change.OTHER_SERIES
    return None if _use(now) == _use(then) else Change.OTHER_USE


def _picks(verdict: Trace | None) -> list[list[tuple[str, str]]]:
    return sorted(sorted(pick.items()) for pick in (verdict or {"picks": ()})["picks"])


def _use(verdict: Trace | None) -> str:
    return f"{verdict['model']}, {verdict['mode']}" if verdict else ""


def _why(verdict: Trace | None, trace: Trace | None, without: str, other: Trace | None) -> str:
    """Return why it is so, for the very series that the `other` verdict takes if there are any."""
    if verdict is None:
        return (trace.get("alarm") or without) if trace else "the study was not routed"
    if verdict["taken"]:
        return f"{verdict['reason']} ({_use(verdict)})"
    inputs = {item for pick in (other or {"picks": ()})["picks"] for item in pick.items()}
    told = [
        f"{each['role']}: {named(each['series_uid'])}: {fault}"
        for each in verdict["candidates"]
        if (each["role"], each["series_uid"]) in inputs and (fault := _fault(each))
    ]
    return "; ".join(told) or str(verdict["reason"])


def _fault(candidate: Trace) -> str:
    """Return what keeps one series out of a role, or nothing when it fits."""
    if candidate["fits"]:
        return ""
    failed = [each for each in candidate["checks"] if not each["holds"]]
    told = [f"{gate['code']}: {gate['reason']}" for gate in candidate["gates"]]
    told = told or [f"{each['condition']}, found {each['found']}" for each in failed]
    return candidate["guard"] or ", ".join(told)
