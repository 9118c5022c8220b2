"""What is said of conditions without any series: never wrong, whatever the conditions.

Covered: random lists of conditions on one thing, a study's beside them, against every set of up to
three values that differ in what conditions can see; and random routes against random studies. Not
covered: that every contradiction is found; tests/unit/test_overlaps.py has those that must be.
"""

from itertools import combinations
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from app.config_routes import Asking, Condition, Route
from app.dicom.series import Scalar, Series
from app.pipeline.conditions import holds
from app.pipeline.contradictions import follows, impossible
from app.pipeline.overlaps import never_met, overlapping
from app.pipeline.route import route
from tests.properties.test_routing import all_routes, studies

CONDITION: TypeAdapter[Asking] = TypeAdapter(Condition)
NAMED = ("CT", "MR", "ct ", 1, 2, 2.0, 3, "1")
UNIVERSE: tuple[Scalar, ...] = (*NAMED, 0, 1.5, 2.5, 9, "other", float("inf"), 10**20)
SETS = [found for size in range(4) for found in combinations(UNIVERSE, size)]


@st.composite
def askings(draw: Any) -> Asking:
    """Draw a condition on one fact, of few values, so that many contradict each other."""
    kinds = ["equals", "one_of", "between", "contains_all", "contains_none", "present", "matches"]
    op = draw(st.sampled_from(kinds))
    told: dict[str, Any] = {"op": op, "fact": "slices", "not": draw(st.booleans())}
    match op:
        case "equals":
            told["value"] = draw(st.sampled_from(NAMED))
        case "one_of" | "contains_all" | "contains_none":
            told["values"] = draw(st.lists(st.sampled_from(NAMED), min_size=1, max_size=3))
        case "matches":
            told["pattern"] = draw(st.sampled_from(["^ct", "[0-9]", "m"]))
        case "between":
            low, high = sorted(draw(st.tuples(st.integers(0, 4), st.integers(0, 4))))
            told |= {"low": low, "high": high, "exclusive": draw(st.booleans())}
            del told[draw(st.sampled_from(["low", "high", "exclusive"]))]
    return CONDITION.validate_python(told)


@settings(max_examples=400, deadline=None)
@given(st.lists(askings(), min_size=1, max_size=4), st.lists(askings(), max_size=2))
def test_what_is_said_to_be_impossible_is_met_by_nothing(own: Any, study: Any) -> None:
    """Each set of values is tried as a series' and, with it alone or with one more, the study's."""
    told = impossible(own, study)
    event("impossible" if told else "possible")
    if told is None:
        return
    for values in SETS:
        if all(holds(each, values) for each in own):
            around = [(*values, more) for more in UNIVERSE] + [values]
            assert not any(all(holds(each, of_study) for each in study) for of_study in around)


@settings(max_examples=400, deadline=None)
@given(askings(), st.lists(askings(), min_size=1, max_size=3))
def test_what_is_said_to_follow_always_does(wanted: Asking, given: Any) -> None:
    """No set of values meets the given conditions and not the wanted one."""
    said = follows(wanted, given)
    event("follows" if said else "does not follow")
    if said:
        for values in SETS:
            assert holds(wanted, values) or not all(holds(each, values) for each in given)


@settings(max_examples=300, deadline=None)
@given(studies, all_routes())
def test_a_route_that_can_never_match_takes_nothing(study: list[Series], rule: Route) -> None:
    """Whole routes with roles, lists and conditions on the study."""
    if any("can never match" in each for each in never_met(rule)):
        event("never")
        assert not route(study, [rule])[0].taken


@settings(max_examples=200, deadline=None)
@given(studies, all_routes("one"), st.data())
def test_routes_that_are_said_to_do_the_same_do_the_same(
    study: list[Series], one: Route, data: Any
) -> None:
    """The second is the first one, or the first one with its lists in another order."""
    inputs = {
        name: role.model_copy(update={"where": tuple(data.draw(st.permutations(role.where)))})
        for name, role in one.inputs.items()
    }
    other = one.model_copy(update={"name": "other", "inputs": inputs})
    if any("always runs on the same series" in each for each in overlapping([one, other])):
        event("overlaps")
        first, second = route(study, [one, other])
        assert first.picks == second.picks
