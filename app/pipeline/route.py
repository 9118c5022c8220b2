"""Match the series of a study to the named inputs of each route; every verdict has its reason."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.config_routes import AcquiredWithin, Condition, Route, SameAs
from app.dicom.series import Scalar, Series
from app.pipeline.candidates import Candidate, Known, hold_against, why_nothing_fits
from app.pipeline.conditions import Check, checked, holds, short, values_of_study
from app.pipeline.loop_guard import guarded, guarded_modality
from app.pipeline.ranking import why_preferred
from app.pipeline.roles import (
    Filled,
    Filling,
    Option,
    Options,
    fill,
    relations_checked,
    why_not_filled,
)
from app.results.identity import Identity, input_digest

_TOLD = 6
"""How many series are named in an alarm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """The series of one job."""

    inputs: Mapping[str, str]
    """Role → the UID of the series that fills it."""
    instances: Mapping[str, tuple[str, ...]]
    """Role → the SOP Instance UIDs of that series, or of its point in time."""
    keys: Mapping[str, str]
    """Role → what tells the series, or its point in time, from all others."""

    def identity(self, study_uid: str, route: str, model_identity: str) -> Identity:
        """Return the identity of the job that this pick asks for."""
        return Identity(
            study_uid=study_uid,
            route=route,
            model=model_identity,
            digest=input_digest(self.instances),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one route says of one study, and why."""

    route: str
    model: str
    mode: str
    taken: bool
    reason: str
    roles: Mapping[str, str]
    """Role → which series fills it and why that one, or why none does."""
    picks: tuple[Pick, ...] = ()
    """One a job."""
    study: tuple[Check, ...] = ()
    """The conditions on the study."""
    relations: tuple[tuple[str, Check], ...] = ()
    """Role and what was asked between it and another one."""
    candidates: tuple[Candidate, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as the trace that is stored and shown."""
        return {
            "route": self.route,
            "model": self.model,
            "mode": self.mode,
            "taken": self.taken,
            "reason": self.reason,
            "roles": dict(self.roles),
            "picks": [dict(pick.keys) for pick in self.picks],
            "study": [asdict(check) for check in self.study],
            "relations": [{"role": role, **asdict(check)} for role, check in self.relations],
            "candidates": [asdict(candidate) for candidate in self.candidates],
        }


def route(study: Sequence[Series], routes: Iterable[Route]) -> list[Verdict]:
    """Return one verdict a route; never raises for a study that was read."""
    ordered = sorted(study, key=lambda series: (series.series_uid, series.sop_uids))
    known = [Known(series=series, guard=guarded(series)) for series in ordered]
    return [_verdict(known, each) for each in routes]


def may_fit(known: Mapping[str, Sequence[Scalar]], route: Route) -> set[str]:
    """Return the roles that a series may fill, given what is known of it by keyword or fact.

    What is not known yet passes: an archive's list of series has only a few attributes.
    """
    if route.mode == "off" or guarded_modality(known):
        return set()
    return {
        name
        for name, role in route.inputs.items()
        if any(all(_may_hold(known, each) for each in together) for together in role.where)
    }


def several_patients(study: Sequence[Series]) -> str | None:
    """Return the sentence of an alarm when the images of one study name several patients."""
    images = [series for series in study if series.patients and not guarded(series)]
    patients = {each for series in images for each in series.patients}
    if len(patients) < 2:  # noqa: PLR2004  # one is as it should be
        return None
    told = ", ".join(sorted(map(short, images))[:_TOLD])
    return (
        f"the images name {len(patients)} different patients, or one whose data were changed midway"
        f" ({told}); mend the study at its source and send it again"
    )


def _may_hold(known: Mapping[str, Sequence[Scalar]], condition: Condition) -> bool:
    if isinstance(condition, SameAs | AcquiredWithin):
        return True
    values = known.get(condition.subject, ())
    return not values or holds(condition, values)


def _verdict(known: Sequence[Known], route: Route) -> Verdict:
    study = [each.series for each in known]
    checks = [checked(each, values_of_study(study, each)) for each in route.study]
    candidates: dict[str, list[Candidate]] = {}
    options: dict[str, list[Option]] = {}
    for name, role in route.inputs.items():
        candidates[name], options[name] = hold_against(name, role, known)
    faults = {name: why_nothing_fits(candidates[name]) for name in options if not options[name]}
    filled = Filled(fillings=()) if faults else fill(options, each_of_first=route.take == "all")
    best = filled.fillings[0] if filled.fillings else None
    relations = relations_checked(options, None if filled.left else best)
    if best is None:
        faults = faults or why_not_filled(options, relations, exhausted=filled.exhausted)
    roles = {name: faults.get(name) or _told(name, route, options, filled) for name in options}
    against = _against(route, checks, faults)
    return Verdict(
        route=route.name,
        model=route.model,
        mode=route.mode,
        taken=not against,
        reason=against or "; ".join(f"{name}: {told}" for name, told in roles.items()),
        roles=roles,
        picks=() if against else tuple(_pick(filling) for filling in filled.fillings),
        study=tuple(checks),
        relations=tuple(relations),
        candidates=tuple(each for several in candidates.values() for each in several),
    )


def _against(route: Route, study: Sequence[Check], faults: Mapping[str, str]) -> str:
    """Return why the route does not take the study, or nothing when it does."""
    if route.mode == "off":
        return "the route is off"
    failed = [f"{check.condition}, found {check.found}" for check in study if not check.holds]
    if failed:
        return f"study: {'; '.join(failed)}"
    roles: dict[str, list[str]] = {}
    for name, fault in faults.items():
        roles.setdefault(fault, []).append(name)
    return "; ".join(f"{', '.join(names)}: {fault}" for fault, names in roles.items())


def _told(name: str, route: Route, options: Options, filled: Filled) -> str:
    """Say which series fill a role and why, or how many would."""
    first, *_ = options
    fitting = [option.series for option in options[name]]
    chosen = list(dict.fromkeys(short(filling[name]) for filling in filled.fillings))
    if not chosen:
        return "1 series fits" if len(fitting) == 1 else f"{len(fitting)} series fit"
    if len(filled.fillings) > 1 or filled.left:
        left = ", ".join(map(short, filled.left))
        alone = f"; nothing fills the other inputs for {left}" if left else ""
        return f"{', '.join(chosen)}" + (f", each that fits{alone}" if name == first else "")
    if chosen[0] != short(fitting[0]):
        return f"{chosen[0]}, the best of {len(fitting)} that goes with the other inputs"
    return f"{chosen[0]}, {why_preferred(fitting, route.inputs[name].prefer)}"


def _pick(filling: Filling) -> Pick:
    return Pick(
        inputs={name: series.series_uid for name, series in filling.items()},
        instances={name: series.sop_uids for name, series in filling.items()},
        keys={name: series.key for name, series in filling.items()},
    )
