"""Routing: conditions, roles, reasons and the identity that follows.

Covered: every operator with values that meet it and values that do not, ties, several roles, and
that every refusal names a condition and what was found. Not covered here: gates, preferences and
whole studies (test_gates.py, test_roles.py, test_route_table.py).
"""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from app.config_routes import Condition, Route
from app.dicom.series import Scalar, Series
from app.pipeline.conditions import holds
from app.pipeline.route import route

CONDITION: TypeAdapter[Condition] = TypeAdapter(Condition)


def series(
    uid: str, tags: Mapping[str, tuple[Scalar, ...]], slices: int = 30, study: str = "1.2"
) -> Series:
    """Return a series without files."""
    sop_uids = tuple(f"{uid}.{n}" for n in range(slices))
    return Series(study_uid=study, series_uid=uid, sop_uids=sop_uids, tags=tags)


def ct_route(*conditions: dict[str, object], role: str = "CT") -> Route:
    """Return a route with one role."""
    return Route.model_validate(
        {"name": "r", "model": "m", "inputs": {role: conditions}, "deliver_to": ["a"]}
    )


IS_CT = {"op": "equals", "tag": "Modality", "value": "CT"}


@pytest.mark.parametrize(
    ("condition", "values", "met"),
    [
        ({"op": "equals", "tag": "Modality", "value": "CT"}, ("CT",), True),
        ({"op": "equals", "tag": "Modality", "value": "ct "}, ("CT",), True),
        ({"op": "equals", "tag": "Modality", "value": "CT"}, ("CT", "MR"), False),
        ({"op": "equals", "tag": "Modality", "value": "CT"}, (), False),
        ({"op": "equals", "tag": "KVP", "value": 120}, (120.0,), True),
        ({"op": "one_of", "tag": "Modality", "values": ["CT", "MR"]}, ("MR",), True),
        ({"op": "one_of", "tag": "Modality", "values": ["CT", "MR"]}, ("MR", "PT"), False),
        ({"op": "one_of", "tag": "Modality", "values": ["CT", "MR"]}, (), False),
        ({"op": "between", "tag": "KVP", "low": 80, "high": 140}, (80, 140), True),
        ({"op": "between", "tag": "KVP", "low": 80, "high": 140}, (79.9,), False),
        ({"op": "between", "tag": "KVP", "low": 80, "high": 140}, ("120",), False),
        ({"op": "between", "tag": "KVP", "low": 80, "high": 140}, (), False),
        ({"op": "contains_all", "tag": "ImageType", "values": ["AXIAL"]}, ("AXIAL", "X"), True),
        ({"op": "contains_all", "tag": "ImageType", "values": ["AXIAL", "Y"]}, ("AXIAL",), False),
        ({"op": "contains_none", "tag": "ImageType", "values": ["LOCALIZER"]}, ("AXIAL",), True),
        ({"op": "contains_none", "tag": "ImageType", "values": ["LOCALIZER"]}, (), True),
        (
            {"op": "contains_none", "tag": "ImageType", "values": ["LOCALIZER"]},
            ("ORIGINAL", "LOCALIZER"),
            False,
        ),
        ({"op": "between", "tag": "KVP", "low": 80}, (80, 1000), True),
        ({"op": "between", "tag": "KVP", "low": 80}, (79,), False),
        ({"op": "between", "tag": "KVP", "high": 80}, (-1, 80), True),
        ({"op": "between", "tag": "KVP", "high": 80}, (81,), False),
        ({"op": "between", "tag": "KVP", "high": 80}, (float("nan"),), False),
        ({"op": "between", "tag": "KVP", "low": 1, "high": 2, "exclusive": True}, (1.5,), True),
        ({"op": "between", "tag": "KVP", "low": 1, "high": 2, "exclusive": True}, (1,), False),
        ({"op": "between", "tag": "KVP", "low": 1, "high": 2, "exclusive": True}, (2,), False),
        ({"op": "matches", "tag": "SeriesDescription", "pattern": "t1.*ce"}, ("AX T1 +CE",), True),
        ({"op": "matches", "tag": "SeriesDescription", "pattern": "^t1"}, ("AX T1",), False),
        ({"op": "matches", "tag": "SeriesDescription", "pattern": "(?-i)t1"}, ("T1",), False),
        ({"op": "matches", "tag": "SeriesDescription", "pattern": "a"}, ("b", "a"), True),
        ({"op": "matches", "tag": "SeriesDescription", "pattern": "."}, (), False),
        ({"op": "matches", "tag": "KVP", "pattern": "^12"}, (120,), True),
        ({"op": "equals", "fact": "contrast", "value": True}, ("yes",), True),
        ({"op": "equals", "fact": "contrast", "value": False}, ("no",), True),
        ({"op": "equals", "tag": "Modality", "value": "CT", "not": True}, ("MR",), True),
        ({"op": "equals", "tag": "Modality", "value": "CT", "not": True}, ("CT",), False),
        ({"op": "equals", "tag": "Modality", "value": "CT", "not": True}, (), True),
        ({"op": "present", "tag": "ContrastBolusAgent", "not": True}, (), True),
        ({"op": "present", "tag": "ContrastBolusAgent"}, ("x",), True),
        ({"op": "present", "tag": "ContrastBolusAgent"}, (), False),
    ],
)
def test_each_operator_means_what_it_says(
    condition: dict[str, object], values: tuple[Scalar, ...], met: bool
) -> None:
    """A table of operators, values and verdicts."""
    assert holds(CONDITION.validate_python(condition), values) is met


def test_a_fitting_series_is_taken_with_all_its_instances() -> None:
    """The verdict names the series and the instances that the job will read."""
    (verdict,) = route([series("9", {"Modality": ("CT",)}, slices=3)], [ct_route(IS_CT)])
    assert verdict.taken
    (pick,) = verdict.picks
    assert pick.inputs == {"CT": "9"}
    assert pick.instances == {"CT": ("9.0", "9.1", "9.2")}


def test_a_refusal_names_the_condition_and_what_was_found() -> None:
    """The reason is enough to mend the rule or the scanner's protocol."""
    (verdict,) = route([series("9", {"Modality": ("MR",)})], [ct_route(IS_CT)])
    assert not verdict.taken
    assert "Modality equals CT, found MR" in verdict.reason
    assert not verdict.picks


def test_the_number_of_slices_is_a_fact_of_the_series() -> None:
    """`slices` counts instances."""
    rule = ct_route({"op": "between", "tag": "slices", "low": 20, "high": 40})
    assert route([series("9", {}, slices=20)], [rule])[0].taken
    (verdict,) = route([series("9", {}, slices=19)], [rule])
    assert "slices between 20 and 40, found 19" in verdict.reason


@given(st.permutations([("1", 30), ("2", 40), ("3", 40)]))
def test_the_largest_fitting_series_is_chosen_whatever_the_order(
    order: list[tuple[str, int]],
) -> None:
    """Equal sizes are decided by the UID."""
    study = [series(uid, {"Modality": ("CT",)}, slices=n) for uid, n in order]
    assert route(study, [ct_route(IS_CT)])[0].picks[0].inputs == {"CT": "2"}


def test_one_series_never_fills_two_roles() -> None:
    """A model that needs two series is not run on one."""
    both = Route.model_validate(
        {"name": "r", "model": "m", "inputs": {"A": [], "B": []}, "deliver_to": ["a"]}
    )
    one = series("1", {})
    assert "already fills another input" in route([one], [both])[0].reason
    two = [one, series("2", {})]
    assert set(route(two, [both])[0].picks[0].inputs.values()) == {"1", "2"}


def test_an_empty_study_gets_a_reason_too() -> None:
    """No route is ever silent."""
    (verdict,) = route([], [ct_route(IS_CT)])
    assert verdict.reason == "CT: the study holds no image series"


TAGS = st.dictionaries(
    st.sampled_from(["Modality", "KVP", "ImageType"]),
    st.lists(st.text(max_size=3) | st.integers() | st.floats(allow_nan=True), max_size=3).map(
        tuple
    ),
)


@given(st.lists(TAGS, max_size=4))
def test_route_never_raises_and_gives_a_reason_for_every_rule(
    studies: list[Mapping[str, tuple[Scalar, ...]]],
) -> None:
    """Whatever the headers hold, each route has a verdict, and each series its checks."""
    study = [series(str(n), tags) for n, tags in enumerate(studies)]
    rules = [
        ct_route(IS_CT),
        ct_route({"op": "between", "tag": "KVP", "low": 0, "high": 1}),
        ct_route({"op": "contains_all", "tag": "ImageType", "values": ["a"]}),
    ]
    verdicts = route(study, rules)
    assert len(verdicts) == len(rules)
    for verdict in verdicts:
        assert verdict.reason
        assert len(verdict.candidates) == len(study)
        assert all(each.checks or each.guard for each in verdict.candidates)
        assert verdict.taken == any(candidate.fits for candidate in verdict.candidates)


def test_the_job_is_the_same_for_the_same_instances_and_another_for_others() -> None:
    """Identity depends on study, route, model and instances, on nothing else."""
    study = [series("9", {"Modality": ("CT",)}, slices=3)]
    more = [series("9", {"Modality": ("CT",)}, slices=4)]
    first, again, late = (
        route(each, [ct_route(IS_CT)])[0].picks[0] for each in (study, list(reversed(study)), more)
    )
    assert first.identity("1.2", "r", "m@1+a") == again.identity("1.2", "r", "m@1+a")
    keys = {
        first.identity("1.2", "r", "m@1+a").key,
        first.identity("1.2", "r", "m@2+a").key,
        first.identity("1.2", "s", "m@1+a").key,
        first.identity("1.3", "r", "m@1+a").key,
        late.identity("1.2", "r", "m@1+a").key,
    }
    assert len(keys) == 5
