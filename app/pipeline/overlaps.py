"""What can be said of routes without any study: that one never matches, that two do the same."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from app.config_routes import Condition, Gates, Role, Route
from app.pipeline.contradictions import follows, impossible
from app.pipeline.gates import LIMITS


def never_met(route: Route) -> Iterator[str]:
    """Yield each part of a route that no study can meet, with the conditions that exclude it."""
    place = f"routes.{route.name}"
    if told := impossible(route.study):
        yield f"{place}.study: the route can never match: {told}"
    for name, role in route.inputs.items():
        found = [impossible(together, route.study) for together in role.where]
        for number, told in enumerate(found, 1):
            if told and all(found):
                yield f"{place}.inputs.{name}: the route can never match: {told}"
                break
            if told:
                yield f"{place}.inputs.{name}: list {number} can never be met: {told}"


def overlapping(routes: Sequence[Route]) -> Iterator[str]:
    """Yield each pair of routes of which one adds nothing to the other, or little."""
    able = [each for each in routes if each.mode != "off" and not any(never_met(each))]
    for one, other in combinations(able, 2):
        if one.model != other.model or set(one.inputs) != set(other.inputs):
            continue
        if one.mode != other.mode:
            continue  # a shadow beside its live twin is how a rule is tried
        there, back = _covers(one, other), _covers(other, one)
        if there and back and _choose_alike(one, other):
            yield (
                f"route {other.name} always runs on the same series as route {one.name} with the"
                f" same model ({one.model}); leave one out"
            )
        elif there or back:
            wide, narrow = (other, one) if there else (one, other)
            yield (
                f"route {wide.name} fits every series that route {narrow.name} fits, with the same"
                f" model ({one.model}), so both may run on one series; make the conditions of"
                f" {wide.name} narrower, or leave {narrow.name} out"
            )


def _covers(narrow: Route, wide: Route) -> bool:
    """Say whether whatever fits the first route fits the second one, study and series."""
    return all(follows(each, narrow.study) for each in wide.study) and all(
        _role_covers(role, wide.inputs[name]) for name, role in narrow.inputs.items()
    )


def _role_covers(narrow: Role, wide: Role) -> bool:
    return (
        narrow.split == wide.split
        and _gates_cover(narrow.gates, wide.gates)
        and all(
            any(_all_follow(other, together) for other in wide.where) for together in narrow.where
        )
    )


def _all_follow(wanted: Sequence[Condition], given: Sequence[Condition]) -> bool:
    return all(follows(each, given) for each in wanted)


def _gates_cover(narrow: Gates, wide: Gates) -> bool:
    """Say whether the second gates let pass all that the first ones do."""
    for code in Gates.model_fields:
        strict, loose = getattr(narrow, code), getattr(wide, code)
        if strict == loose or loose is None:
            continue
        if code not in LIMITS:
            if loose == "refuse":
                return False
        elif strict is None or (loose > strict if code.startswith("min_") else loose < strict):
            return False
    return True


def _choose_alike(one: Route, other: Route) -> bool:
    """Say whether of several series that fit both routes both take the same ones."""
    return (
        one.take == other.take
        and [*one.inputs] == [*other.inputs]
        and all(
            role.prefer == other.inputs[name].prefer and role.gates == other.inputs[name].gates
            for name, role in one.inputs.items()
        )
    )
