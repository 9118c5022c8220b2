"""What `check` says of routes without any study: contradictions and routes that do the same.

Covered: each kind of contradiction that is found, in both senses, by the study's conditions as
well; what looks like one and is none; pairs of routes that overlap and pairs that do not. Not
covered: that nothing false is ever said of any conditions (properties/test_contradictions.py).
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import DEFAULT_PATH, load_config
from app.config_routes import Route
from app.pipeline.overlaps import never_met, overlapping


def rule(where: Any, name: str = "r", **more: Any) -> Route:
    """Return a route with one role."""
    role = where if isinstance(where, dict) else {"where": where}
    told = {"name": name, "model": "m", "inputs": {"CT": role}, "deliver_to": ["a"]}
    return Route.model_validate(told | more)


def conditions(text: str) -> Any:
    """Return conditions on the image type, written briefly."""
    return [{"tag": "ImageType"} | each for each in yaml.safe_load(text)]


CONTRADICTIONS = [
    "[{op: equals, value: A}, {op: equals, value: B}]",
    "[{op: equals, value: A}, {op: one_of, values: [B, C]}]",
    "[{op: one_of, values: [A, D]}, {op: one_of, values: [B, C]}]",
    "[{op: between, low: 1, high: 2}, {op: between, low: 3}]",
    "[{op: between, low: 1, high: 2}, {op: between, low: 2, high: 3, exclusive: true}]",
    "[{op: between, low: 2, high: 2, exclusive: true}]",
    "[{op: between, low: 1, high: 2}, {op: equals, value: 3}]",
    "[{op: between, low: 1, high: 2}, {op: equals, value: A}]",
    "[{op: contains_all, values: [A, B]}, {op: contains_none, values: [b]}]",
    "[{op: contains_all, values: [A, B]}, {op: equals, value: A}]",
    "[{op: contains_none, values: [A, B]}, {op: one_of, values: [B, A]}]",
    "[{op: present}, {op: present, not: true}]",
    "[{op: equals, value: A}, {op: present, not: true}]",
    "[{op: matches, pattern: x}, {op: present, not: true}]",
    "[{op: equals, value: A}, {op: equals, value: a, not: true}]",
    "[{op: one_of, values: [A, B]}, {op: one_of, values: [B, C, A], not: true}]",
    "[{op: between, low: 2, high: 3}, {op: between, low: 1, high: 4, not: true}]",
    "[{op: matches, pattern: x}, {op: matches, pattern: x, not: true}]",
    "[{op: contains_none, values: [A], not: true}, {op: equals, value: B}]",
    "[{op: contains_all, values: [A, B], not: true}, {op: contains_all, values: [B, A, C]}]",
    "[{op: contains_all, values: [A], not: true}, {op: equals, value: a}]",
    "[{op: one_of, values: [A]}, {op: present}, {op: contains_none, values: [B, A]}]",
    "[{op: one_of, values: [A, B]}, {op: contains_none, values: [A]}, {op: equals, value: a}]",
]

POSSIBLE = [
    "[{op: equals, value: A}, {op: equals, value: ' a '}]",
    "[{op: equals, value: 1}, {op: equals, value: 1.0}]",
    "[{op: contains_all, values: [A]}, {op: contains_all, values: [B]}]",
    "[{op: equals, value: A, not: true}, {op: equals, value: B, not: true}]",
    "[{op: equals, value: A, not: true}, {op: contains_all, values: [A]}]",
    "[{op: between, low: 1, high: 2}, {op: between, low: 2, high: 3}]",
    "[{op: between, low: 1, high: 4}, {op: between, low: 2, high: 3, not: true}]",
    "[{op: matches, pattern: x}, {op: matches, pattern: y}]",
    "[{op: equals, value: CT}, {op: matches, pattern: MR}]",  # not looked into
    "[{op: contains_none, values: [A], not: true}, {op: contains_none, values: [B]}]",
    "[{op: contains_all, values: [A, B], not: true}, {op: contains_all, values: [A]}]",
    "[]",
]


@pytest.mark.parametrize("text", CONTRADICTIONS)
def test_conditions_that_exclude_each_other_are_found(text: str) -> None:
    """In a role, with the conditions in either order, and in the conditions on the study."""
    where = conditions(text)
    (told,) = never_met(rule(where))
    assert told.startswith("routes.r.inputs.CT: the route can never match: nothing meets `")
    assert [*never_met(rule(where[::-1]))] != []
    (of_study,) = (each for each in never_met(rule([], study=where)) if ".study:" in each)
    assert "can never match" in of_study


@pytest.mark.parametrize("text", POSSIBLE)
def test_conditions_that_something_meets_are_left_alone(text: str) -> None:
    """A check that cries wolf is not read."""
    assert [*never_met(rule(conditions(text)))] == []


def test_the_two_conditions_at_fault_are_named_and_no_others() -> None:
    """Among many."""
    where = [
        {"op": "equals", "tag": "Modality", "value": "CT"},
        {"op": "between", "fact": "slices", "low": 50},
        {"op": "present", "tag": "SliceThickness"},
        {"op": "between", "tag": "slices", "high": 20},
    ]
    (told,) = never_met(rule(where))
    assert told.endswith("nothing meets `slices at least 50` and `slices at most 20` together")


def test_a_study_that_excludes_what_a_role_asks_for_is_found() -> None:
    """The values of a series are among those of its study, but need not be all of them."""
    only_ct = [{"op": "equals", "tag": "Modality", "value": "CT"}]
    mr = [{"op": "equals", "tag": "Modality", "value": "MR"}]
    (told,) = never_met(rule(mr, study=only_ct))
    assert "`Modality equals MR` and `Modality equals CT` of the study" in told
    some_ct = [{"op": "contains_all", "tag": "Modality", "values": ["CT"]}]
    assert [*never_met(rule(mr, study=some_ct))] == []


def test_one_list_of_several_is_said_to_be_dead_and_the_route_is_not() -> None:
    """The other list may still be met."""
    dead = conditions(CONTRADICTIONS[0])
    (told,) = never_met(rule([dead, conditions("[{op: equals, value: A}]")]))
    assert "list 1 can never be met" in told
    (told,) = never_met(rule([dead, dead]))
    assert "the route can never match" in told


def test_relations_that_exclude_each_other_are_found() -> None:
    """They are not looked into further."""
    same = {"op": "same_as", "tag": "FrameOfReferenceUID", "role": "CT"}
    inputs = {"CT": [], "PET": [same, same | {"not": True}]}
    (told,) = never_met(rule([], inputs=inputs))
    assert "inputs.PET" in told


CT = {"op": "equals", "tag": "Modality", "value": "CT"}
MANY = {"op": "between", "fact": "slices", "low": 50}
FEWER = {"op": "between", "fact": "slices", "low": 20}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (rule([CT], "a"), rule([CT], "b")),
        (rule([CT, MANY], "a"), rule([MANY, CT], "b", deliver_to=["c"])),
        (rule([CT, MANY], "a"), rule([MANY, CT, FEWER], "b")),
        (rule([[CT], [MANY]], "a"), rule([[MANY], [CT], [CT, FEWER]], "b")),
        (rule([CT], "a", study=[CT]), rule([CT], "b", study=[CT], priority=5)),
    ],
)
def test_two_routes_that_always_do_the_same_are_told(one: Route, other: Route) -> None:
    """However their conditions are written."""
    (told,) = overlapping([one, other])
    assert told == (
        "route b always runs on the same series as route a with the same model (m); leave one out"
    )


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        (rule([CT], "wide"), rule([CT, MANY], "narrow")),
        (rule([CT, FEWER], "wide"), rule([CT, MANY], "narrow")),
        (rule([CT], "wide"), rule([CT], "narrow", study=[CT])),
        (rule([[CT], [MANY]], "wide"), rule([CT], "narrow")),
        (rule([CT], "wide"), rule({"where": [CT], "gates": {"min_slices": 50}}, "narrow")),
        (rule({"where": [CT], "gates": {"tilt": "allow"}}, "wide"), rule([CT], "narrow")),
        (rule([CT], "wide", take="all"), rule([CT, MANY], "narrow")),
    ],
)
def test_a_route_that_covers_another_is_told(wide: Route, narrow: Route) -> None:
    """Whichever stands first; it may take another series, so no more is said."""
    for pair in ([wide, narrow], [narrow, wide]):
        (told,) = overlapping(pair)
        assert told.startswith("route wide fits every series that route narrow fits")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (rule([CT], "a"), rule([CT], "b", model="other")),
        (rule([CT], "a"), rule([CT], "b", mode="off")),
        (rule([CT], "a"), rule([CT], "b", mode="shadow")),
        (rule([CT], "a"), rule([MANY], "b")),
        (rule([CT, {**MANY, "not": True}], "a"), rule([CT, MANY], "b")),
        (rule(conditions(CONTRADICTIONS[0]), "a"), rule([CT], "b")),
        (
            rule({"where": [CT], "gates": {"min_slices": 50}}, "a"),
            rule({"where": [CT], "gates": {"tilt": "allow", "max_slices": 90}}, "b"),
        ),
    ],
)
def test_routes_for_different_things_are_left_alone(one: Route, other: Route) -> None:
    """Another model or mode, other conditions, or a route that takes nothing anyway."""
    assert [*overlapping([one, other])] == []


def test_routes_that_prefer_other_series_are_not_said_to_take_the_same() -> None:
    """They fit the same ones."""
    thin = rule({"where": [CT], "prefer": ["thinnest"]}, "thin")
    (told,) = overlapping([thin, rule([CT], "large")])
    assert "fits every series" in told


def test_three_conditions_of_which_no_two_exclude_each_other_are_found() -> None:
    """All of them are named."""
    text = """
    - {op: one_of, values: [A, B]}
    - {op: contains_none, values: [A]}
    - {op: equals, value: B, not: true}
    """
    (told,) = never_met(rule(conditions(text)))
    assert told.count("ImageType") == 3


@pytest.mark.parametrize(
    "path", [DEFAULT_PATH, *sorted((DEFAULT_PATH.parent / "deploy" / "examples").glob("*.yaml"))]
)
def test_nothing_is_said_of_the_shipped_routes(path: Path) -> None:
    """They can match, and none stands beside another."""
    shipped = load_config(path).routes
    assert [told for each in shipped for told in never_met(each)] == []
    assert [*overlapping(shipped)] == []
