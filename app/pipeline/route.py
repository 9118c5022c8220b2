"""Match the series of a study to the named inputs of each route; every verdict has its reason."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from app.config import (
    Between,
    Condition,
    ContainsAll,
    ContainsNone,
    Equals,
    OneOf,
    Present,
    Route,
)
from app.dicom.series import Scalar, Series
from app.pipeline.identity import Identity, input_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One condition held against one series."""

    condition: str
    found: str
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One series held against the conditions of one role."""

    role: str
    series_uid: str
    fits: bool
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one route says of one study, and why."""

    route: str
    model: str
    taken: bool
    reason: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Role → the UID of the series that fills it."""
    instances: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Role → the SOP Instance UIDs of that series."""
    candidates: tuple[Candidate, ...] = ()

    def identity(self, study_uid: str, model_identity: str) -> Identity:
        """Return the identity of the job that this verdict asks for."""
        return Identity(
            study_uid=study_uid,
            route=self.route,
            model=model_identity,
            digest=input_digest(self.instances),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as the trace that is stored and shown."""
        trace = asdict(self)
        trace.pop("instances")
        return trace


def route(study: Sequence[Series], routes: Iterable[Route]) -> list[Verdict]:
    """Return one verdict a route; never raises for a study that was read."""
    return [_verdict(study, each) for each in routes]


def several_patients(study: Sequence[Series]) -> str | None:
    """Return the sentence of an alarm when the images of one study name several patients."""
    patients = {each for series in study for each in series.patients}
    if len(patients) < 2:  # noqa: PLR2004  # one is as it should be
        return None
    return f"the images name {len(patients)} different patients; mend the study at its source"


def _verdict(study: Sequence[Series], route: Route) -> Verdict:
    candidates = tuple(
        _candidate(role, series, conditions)
        for role, conditions in route.inputs.items()
        for series in study
    )
    inputs: dict[str, str] = {}
    faults: list[str] = []
    for role in route.inputs:
        fitting = [c.series_uid for c in candidates if c.role == role and c.fits]
        free = [uid for uid in fitting if uid not in inputs.values()]
        if free:
            inputs[role] = _preferred(study, free)
        else:
            faults.append(_why_nothing_fits(role, study, candidates, fitting))
    instances = {
        role: next(s.sop_uids for s in study if s.series_uid == uid) for role, uid in inputs.items()
    }
    return Verdict(
        route=route.name,
        model=route.model,
        taken=not faults,
        reason="; ".join(faults) or "every input has its series",
        inputs={} if faults else inputs,
        instances={} if faults else instances,
        candidates=candidates,
    )


def _preferred(study: Sequence[Series], series_uids: Sequence[str]) -> str:
    """Return the series with most slices; the UID decides between equals, so order never does."""
    sizes = {s.series_uid: len(s.sop_uids) for s in study}
    return min(series_uids, key=lambda uid: (-sizes[uid], uid))


def _why_nothing_fits(
    role: str, study: Sequence[Series], candidates: Sequence[Candidate], fitting: Sequence[str]
) -> str:
    if not study:
        return f"{role}: the study holds no image series"
    if fitting:
        return f"{role}: its only series already fills another input"
    reasons = [
        f"series …{c.series_uid[-8:]}: {failed.condition}, found {failed.found}"
        for c in candidates
        if c.role == role
        for failed in [next(check for check in c.checks if not check.holds)]
    ]
    return f"{role}: no series fits ({'; '.join(reasons)})"


def _candidate(role: str, series: Series, conditions: Sequence[Condition]) -> Candidate:
    checks = tuple(_check(series, condition) for condition in conditions)
    return Candidate(
        role=role,
        series_uid=series.series_uid,
        fits=all(check.holds for check in checks),
        checks=checks,
    )


def _check(series: Series, condition: Condition) -> Check:
    values = values_of(series, condition.tag)
    shown = ", ".join(str(value) for value in values[:4])
    return Check(
        condition=_words(condition),
        found=(shown + (", …" if len(values) > len(values[:4]) else "")) or "nothing",
        holds=holds(condition, values),
    )


def values_of(series: Series, tag: str) -> tuple[Scalar, ...]:
    """Return the distinct values of an attribute, or of a fact such as `slices`."""
    if tag == "slices":
        return (len(series.sop_uids),)
    return series.tags.get(tag, ())


def holds(condition: Condition, values: Sequence[Scalar]) -> bool:
    """Say whether the distinct values of an attribute meet the condition."""
    match condition:
        case Equals():
            return bool(values) and all(_same(value, condition.value) for value in values)
        case OneOf():
            return bool(values) and all(_among(value, condition.values) for value in values)
        case Between():
            return bool(values) and all(
                isinstance(value, int | float) and condition.low <= value <= condition.high
                for value in values
            )
        case ContainsAll():
            return all(_among(wanted, values) for wanted in condition.values)
        case ContainsNone():
            return not any(_among(unwanted, values) for unwanted in condition.values)
        case Present():
            return bool(values)


def _same(value: Scalar, wanted: Scalar) -> bool:
    """Compare as DICOM means it: text without regard to case and padding, numbers as numbers."""
    if isinstance(value, str) and isinstance(wanted, str):
        return value.strip().casefold() == wanted.strip().casefold()
    return value == wanted


def _among(value: Scalar, several: Iterable[Scalar]) -> bool:
    return any(_same(value, each) for each in several)


def _words(condition: Condition) -> str:
    match condition:
        case Equals():
            return f"{condition.tag} equals {condition.value}"
        case Between():
            return f"{condition.tag} between {condition.low:g} and {condition.high:g}"
        case Present():
            return f"{condition.tag} present"
        case _:
            op = condition.op.replace("_", " ")
            return f"{condition.tag} {op} {', '.join(map(str, condition.values))}"
