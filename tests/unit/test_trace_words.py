"""How a trace reads: the verdict first, one line a series, the reason beside it.

Covered: whole synthetic studies against routes that take them and that do not, as the text a person
sees; conditions in several lists, alarms, modes, traces without names of series. Not covered: what
the verdicts are (test_route*.py).
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from app.config_routes import Route
from app.dicom.headers import read_series
from app.dicom.series import Series
from app.pipeline.rehearse import judged
from app.trace_words import trace
from tests.phantoms import studies
from tests.unit.built import routes, series
from tests.unit.test_examples import example

RULES = routes("""
- name: thin
  inputs:
    CT:
      where: [{op: equals, tag: Modality, value: CT}, {op: equals, fact: orientation, value: axial}]
      prefer: [soft_kernel, thinnest]
- name: mr
  mode: shadow
  inputs: {MR: [{op: equals, tag: Modality, value: MR}]}
- name: lists
  inputs:
    CT:
      where:
        - [{op: equals, tag: Modality, value: MR}]
        - [{op: equals, tag: Modality, value: CT}, {op: between, fact: slices, low: 500}]
- name: resting
  mode: off
  inputs: {CT: []}
""")


def told(folder: Path, plans: Sequence[studies.Plan], *rules: Route) -> list[str]:
    """Write a study, judge it and return the lines that a person reads."""
    studies.write(folder, "told", plans)
    return trace(judged(read_series(folder.rglob("*.dcm")), rules)).splitlines()


def tail(name: str) -> str:
    """Return how a series of the study is named."""
    return f"…{studies.series_uid('told', name)[-8:]}"


def test_a_taken_study_reads_from_the_verdict_to_the_least_important(tmp_path: Path) -> None:
    """The whole text of a routine CT."""
    lines = told(tmp_path, studies.CT_TRUNK, RULES["thin"], RULES["mr"])
    soft, bone = f"{tail('thin soft')} CT “thin soft”", f"{tail('thin bone')} CT “thin bone”"
    assert lines[:4] == [
        "1 of 2 routes take it: thin",
        "",
        "TAKEN: route thin → model m",
        f"  CT: series {tail('thin soft')}, soft kernel, thinnest of 3 that fit (1.25 mm)",
    ]
    assert f"    ● taken {soft} 96 images" in lines
    (fits,) = (line for line in lines if "○ fits" in line)
    assert bone in fits
    assert (
        f"    ✗ {tail('screen save')} CT “screen save” 3 images:"
        " orientation equals axial, found nothing"
    ) in lines
    assert "    ✗ all 6 series: Modality equals MR, found CT" in lines
    report = f"{tail('dose report')} SR “dose report” 1 image"
    assert lines[-2:] == [
        "never an input, whatever the route:",
        f"    – {report}: holds objects that are no images (SR)",
    ]
    order = [line[4] for line in lines[4 : lines.index("", 4)] if line[4] != " "]
    assert order == sorted(order, key="●○✗".index)


def test_a_pair_that_does_not_belong_together_is_told_with_both_values(tmp_path: Path) -> None:
    """Once, and not in the role's line as well."""
    text = "\n".join(told(tmp_path, studies.pet_ct("another"), *example("pet-ct").routes))
    assert text.startswith("0 of 1 routes take it\n")
    assert "PET: no series goes with the other inputs\n" in text
    assert text.count("FrameOfReferenceUID same as CT, found 2.25.") == 1


def test_a_gate_that_stops_a_series_is_told_with_what_to_do(tmp_path: Path) -> None:
    """It meets the conditions, so it stands before those that do not."""
    lines = told(tmp_path, studies.DCE, RULES["mr"])
    assert lines[-2:] == [
        f"    ✗ stopped {tail('dynamic')} MR “dynamic” 80 images:",
        "        several_per_position: 5 points in time at a position; send each as its own series",
    ]


def test_a_brain_says_for_each_role_what_the_others_are(tmp_path: Path) -> None:
    """Four roles, each with the series that is taken first."""
    lines = told(tmp_path, studies.brain_mr(described=False), *example("brain-mr").routes)
    taken = [line for line in lines if "● taken" in line]
    assert len(taken) == 4
    (no_flair,) = (line for line in lines if line.endswith("weighting equals t1, found flair"))
    assert tail("t2 flair") in no_flair


def test_of_several_lists_each_has_its_reasons() -> None:
    """A series that fails in all of them; nothing of this where one list is met."""
    text = trace(judged([series("1", "CT", 100)], [RULES["lists"]]))
    assert "list 1: Modality equals MR, found CT; list 2: slices at least 500, found 100" in text
    met = trace(judged([series("1", "MR", 100)], [RULES["lists"]]))
    assert "list" not in met.replace("route lists", "").replace("it: lists", "")


@pytest.mark.parametrize(
    ("study", "rule", "line"),
    [
        ([series("1", "MR")], "mr", "TAKEN, shadow: route mr → model m"),
        ([series("1")], "resting", "not taken, the route is off: route resting → model m"),
        ([], "thin", "  CT: the study holds no image series"),
        (
            [series("1", patients="a"), series("2", patients="b")],
            "thin",
            "ALARM: the images name 2 different patients, or one whose data were changed midway",
        ),
    ],
)
def test_modes_empty_studies_and_alarms_have_their_line(
    study: Sequence[Series], rule: str, line: str
) -> None:
    """Each as a whole."""
    lines = trace(judged(study, [RULES[rule]])).splitlines()
    assert any(each.startswith(line) for each in lines)


def test_many_series_of_which_the_same_is_said_share_a_line() -> None:
    """Four are named, the rest counted."""
    study = [series(f"2.25.{n}", "CT") for n in range(9)] + [series("2.25.99", "MR")]
    lines = trace(judged(study, [RULES["mr"]])).splitlines()
    (shared,) = (line for line in lines if "and 5 more" in line)
    assert shared.count("…2.25.") == 4


def test_a_trace_without_names_of_series_is_still_a_trace() -> None:
    """Those that were stored have none."""
    judgement = judged([series("2.25.123456789")], [RULES["thin"]])
    assert "    ● taken …23456789" in trace({"routes": judgement["routes"]}).splitlines()
    assert trace(None) == "not routed yet"


def test_a_trace_of_the_first_version_is_still_told() -> None:
    """A log that was brought up to date has them."""
    check = {"condition": "Modality equals CT", "found": "CT", "holds": True}
    other = check | {"found": "MR", "holds": False}
    candidates = [
        {"role": "CT", "series_uid": "2.25.1", "fits": True, "checks": [check]},
        {"role": "CT", "series_uid": "2.25.2", "fits": False, "checks": [other]},
    ]
    old = {"route": "r", "model": "m", "reason": "CT: 2.25.1", "candidates": candidates}
    taken = trace(
        {"signal": "quiet", "routes": [old | {"taken": True, "inputs": {"CT": "2.25.1"}}]}
    )
    assert taken.splitlines() == [
        "1 of 1 routes take it: r",
        "complete: quiet",
        "",
        "TAKEN: route r → model m",
        "  CT: CT: 2.25.1",
        "    ● taken …2.25.1",
        "    ✗ …2.25.2: Modality equals CT, found MR",
    ]
    assert "0 of 1 routes" in trace({"routes": [old | {"taken": False, "inputs": {}}]})
