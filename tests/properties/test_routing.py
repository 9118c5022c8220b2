"""Routing under arbitrary studies and rules: it never raises, always has reasons, knows no order.

Covered: series with any tags and facts, also such as no scanner sends; routes of every operator,
gate, preference, role and mode; orders of series and of routes; that what is picked really meets
what was asked. Not covered: meaning of single operators and gates (test_route*.py).
"""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.config_routes import STUDY_FACTS, AcquiredWithin, Gates, Preference, Route, SameAs
from app.dicom.facts import FACTS
from app.dicom.series import Series
from app.pipeline.conditions import agree, holds, values_of
from app.pipeline.gates import refusals
from app.pipeline.loop_guard import guarded
from app.pipeline.route import Verdict, may_fit, route, several_patients
from app.trace_words import trace

TAGS = ("Modality", "SeriesDescription", "KVP", "ImageType", "FrameOfReferenceUID")
MORE_TAGS = ("PhotometricInterpretation", "NumberOfFrames", "SliceThickness")
WORDS = (
    *("CT", "MR", "SEG", "yes", "no", "original", "localizer", "not_image", "soft", "bone", "t1"),
    *("2.25.1", "2030-01-01T10:00:00", "2030-01-01T10:00:00+01:00", "MONOCHROME2", "RGB", ""),
)
ROLES = ("A", "B", "C")

values = st.one_of(
    st.sampled_from(WORDS),
    st.integers(0, 4),
    st.integers(),
    st.just(10**400),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=4),
)
several = st.lists(values, max_size=3).map(tuple)
all_series = st.builds(
    Series,
    study_uid=st.just("2.25.1"),
    series_uid=st.sampled_from(("1", "2", "3", "4", "5", "6")),
    sop_uids=st.integers(0, 5).map(lambda n: tuple(f"2.25.{k}" for k in range(n))),
    tags=st.dictionaries(st.sampled_from(TAGS + MORE_TAGS), several, max_size=5),
    facts=st.dictionaries(st.sampled_from(sorted(FACTS)), several, max_size=6),
    patients=st.lists(st.sampled_from("ab"), max_size=2).map(tuple),
)
studies = st.lists(all_series, max_size=6, unique_by=lambda series: series.series_uid)
number = st.none() | st.floats(-5, 5)


@st.composite
def conditions(draw: Any, roles: tuple[str, ...] = (), *, of_study: bool = False) -> dict[str, Any]:
    """Draw a condition on a series, on a study, or towards one of `roles`."""
    facts = sorted({*FACTS, *(STUDY_FACTS if of_study else ())})
    asked: dict[str, Any] = draw(
        st.sampled_from([*({"tag": tag} for tag in TAGS), *({"fact": fact} for fact in facts)])
    )
    scalar = st.sampled_from(WORDS) | st.integers(0, 4)
    kinds = ["equals", "one_of", "matches", "between", "contains_all", "contains_none", "present"]
    op = draw(st.sampled_from([*kinds, *(["same_as", "acquired_within"] if roles else [])]))
    told: dict[str, Any] = {"op": op, "not": draw(st.booleans())}
    if op == "acquired_within":
        return told | {"minutes": draw(st.floats(0.1, 90)), "role": draw(st.sampled_from(roles))}
    told |= asked
    match op:
        case "equals":
            told["value"] = draw(scalar)
        case "one_of" | "contains_all" | "contains_none":
            told["values"] = draw(st.lists(scalar, min_size=1, max_size=3))
        case "matches":
            told["pattern"] = draw(st.sampled_from(["ct|mr", "^$", "[0-9]+", "(a*)*b", "."]))
        case "between":
            bounds = sorted(draw(st.tuples(st.floats(-5, 5), st.floats(-5, 5))))
            told |= {"low": bounds[0], "high": bounds[1], "exclusive": draw(st.booleans())}
            del told[draw(st.sampled_from(["low", "high", "exclusive"]))]
        case "same_as":
            told["role"] = draw(st.sampled_from(roles))
    return told


@st.composite
def gates(draw: Any) -> dict[str, Any]:
    """Draw gates; most allow, so that some series pass."""
    kinds = [
        name for name, field in Gates.model_fields.items() if field.default in {"refuse", "allow"}
    ]
    told = {name: draw(st.sampled_from(["allow", "allow", "allow", "refuse"])) for name in kinds}
    return told | {"min_slices": draw(st.integers(1, 3))}


@st.composite
def all_routes(draw: Any, name: str = "r") -> Route:
    """Draw a route of one to three roles."""
    roles = ROLES[: draw(st.integers(1, len(ROLES)))]
    inputs = {}
    for role in roles:
        each = conditions(tuple(other for other in roles if other != role))
        inputs[role] = {
            "where": draw(st.lists(st.lists(each, max_size=2), min_size=1, max_size=2)),
            "prefer": draw(st.lists(st.sampled_from(Preference), max_size=3)),
            "gates": draw(gates()),
        }
    return Route.model_validate(
        {
            "name": name,
            "model": "m",
            "mode": draw(st.sampled_from(["live", "live", "live", "shadow", "off"])),
            "study": draw(st.lists(conditions(of_study=True), max_size=1)),
            "take": draw(st.sampled_from(["one", "all"])),
            "inputs": inputs,
            "deliver_to": ["a"],
        }
    )


def check_told(verdict: Verdict, rule: Route, study: list[Series]) -> None:
    """Assert that the verdict leaves nobody in the dark."""
    assert verdict.reason
    assert [*verdict.roles] == [*rule.inputs]
    assert all(verdict.roles.values())
    assert verdict.taken == bool(verdict.picks)
    assert len(verdict.candidates) == len(study) * len(rule.inputs)
    for candidate in verdict.candidates:
        assert candidate.fits or candidate.guard or candidate.gates or candidate.checks
    assert trace({"routes": [json.loads(json.dumps(verdict.to_json()))]})


@settings(max_examples=300, deadline=None)
@given(studies, st.lists(all_routes(), max_size=3))
def test_route_never_raises_and_always_says_why(study: list[Series], rules: list[Route]) -> None:
    """One verdict a route, a reason a route and role, and a trace that can be stored and shown."""
    verdicts = route(study, rules)
    assert [each.route for each in verdicts] == [each.name for each in rules]
    for verdict, rule in zip(verdicts, rules, strict=True):
        check_told(verdict, rule, study)
    several_patients(study)


@settings(max_examples=200, deadline=None)
@given(st.data(), studies, st.lists(all_routes(), min_size=1, max_size=3))
def test_no_order_changes_a_verdict(data: Any, study: list[Series], rules: list[Route]) -> None:
    """Neither that of the series nor that of the routes."""
    verdicts = [each.to_json() for each in route(study, rules)]
    shuffled = data.draw(st.permutations(study))
    assert repr([each.to_json() for each in route(shuffled, rules)]) == repr(verdicts)
    order = data.draw(st.permutations(range(len(rules))))
    again = route(study, [rules[n] for n in order])
    assert repr([each.to_json() for each in again]) == repr([verdicts[n] for n in order])


@settings(max_examples=300, deadline=None)
@given(studies, all_routes())
def test_what_is_picked_meets_all_that_was_asked(study: list[Series], rule: Route) -> None:
    """Held against the rules once more, without the code that chose."""
    (verdict,) = route(study, [rule])
    by_uid = {series.series_uid: series for series in study}
    for pick in verdict.picks:
        chosen = {role: by_uid[uid] for role, uid in pick.inputs.items()}
        assert [*chosen] == [*rule.inputs]
        assert len({*pick.inputs.values()}) == len(chosen)
        for role, series in chosen.items():
            assert pick.instances[role] == series.sop_uids
            assert not guarded(series)
            assert not refusals(series, rule.inputs[role].gates)
            assert any(
                all(
                    agree(each, series, chosen[each.role])
                    if isinstance(each, SameAs | AcquiredWithin)
                    else holds(each, values_of(series, each))
                    for each in together
                )
                for together in rule.inputs[role].where
            )
    if rule.take == "one":
        assert len(verdict.picks) <= 1


@settings(max_examples=200, deadline=None)
@given(studies, all_routes())
def test_what_is_picked_might_have_been_picked_by_its_metadata(
    study: list[Series], rule: Route
) -> None:
    """A series that fills a role in the end is never left at the archive."""
    (verdict,) = route(study, [rule])
    by_uid = {series.series_uid: series for series in study}
    for pick in verdict.picks:
        for role, uid in pick.inputs.items():
            tags = by_uid[uid].tags
            assert role in may_fit(tags, rule)
            assert role in may_fit({}, rule)
            assert role in may_fit({"Modality": tags.get("Modality", ())}, rule)
