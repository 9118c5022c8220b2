"""Rules of routes as they are written: what is accepted, and where and how faults are told.

Covered: each fault with the line that holds it and the path to it, in the short and the long form
of a role; what YAML reads as something else; that rules dump and load to themselves. Not covered:
the rest of the file (test_config.py), and what rules mean.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import load_config
from app.config_routes import MAX_PATTERN, Preference, Route
from app.errors import ConfigError
from tests.unit.built import routes

FILE = """\
node:
  archives: {local: {kind: folder, path: archive}}
  models: [{name: m, folder: phantom}]
  routes:
    - name: r
      model: m
      deliver_to: [local]
      inputs:
        OTHER: []
        CT:
          - {op: equals, tag: Modality, value: CT}
          - HERE
"""
LINE = FILE.splitlines().index("          - HERE") + 1


def told(folder: Path, text: str) -> str:
    """Return what loading this file complains of."""
    path = folder / "app.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return str(caught.value)


BAD = [
    ("{op: equals, tag: Modalty, value: CT}", ".tag: 'Modalty' is no DICOM keyword; did you mean"),
    ("{op: equals, tag: x, value: CT}", ".tag: 'x' is no DICOM keyword; see PS3.6"),
    ("{op: present, tag: PatientName}", ".tag: PatientName may identify a person"),
    ("{op: present, tag: PatientID}", ".tag: PatientID may identify a person"),
    ("{op: present, tag: AccessionNumber}", ".tag: AccessionNumber may identify a person"),
    ("{op: present, tag: ReferringPhysicianName}", "may identify a person"),
    ("{op: present, tag: PixelData}", ".tag: PixelData holds neither text nor numbers"),
    ("{op: present, tag: ReferencedImageSequence}", "holds neither text nor numbers"),
    ("{op: present, fact: kernl}", ".fact: 'kernl' is no fact; there is kernel"),
    ("{op: present, fact: series}", ".fact: series is a fact of the study, not of a series"),
    ("{op: present}", ": give exactly one of tag and fact"),
    ("{op: present, tag: Modality, fact: kind}", ": give exactly one of tag and fact"),
    ("{op: matches, tag: Modality, pattern: '('}", ".pattern: is no RE2 pattern that can be used"),
    ("{op: matches, tag: Modality, pattern: '(?=a)'}", "invalid perl operator"),
    ("{op: matches, tag: Modality, pattern: '(a{99}){99}'}", "is no RE2 pattern"),
    ("{op: matches, tag: Modality, pattern: ''}", ".pattern: String should have at least 1"),
    (
        f"{{op: matches, tag: Modality, pattern: {'a' * (MAX_PATTERN + 1)}}}",
        f".pattern: String should have at most {MAX_PATTERN} characters",
    ),
    ("{op: between, fact: slices}", ": give low, high or both"),
    ("{op: between, fact: slices, low: 2, high: 1}", ": low is above high"),
    ("{op: between, fact: slices, low: .inf}", ".low: Input should be a finite number"),
    ("{op: one_of, tag: Modality, values: []}", ".values: Tuple should have at least 1 item"),
    ("{op: equals, tag: Modality}", ".value: Field required"),
    ("{op: equals, tag: Modality, value: CT, nott: true}", ".nott: Extra inputs are not permitted"),
    ("{op: like, tag: Modality}", "'like' found using 'op' does not match any of the expected"),
    ("{op: same_as, tag: KVP, role: T1}", ".role: T1 is no other role of this route; there is OT"),
    ("{op: same_as, tag: KVP, role: CT}", ".role: CT is no other role of this route"),
    ("{op: acquired_within, minutes: 5, role: T1}", ".role: T1 is no other role"),
    ("{op: acquired_within, minutes: 0, role: OTHER}", ".minutes: Input should be greater than 0"),
    ("{op: acquired_within, minutes: 5, role: OTHER, tag: KVP}", ".tag: Extra inputs"),
]


@pytest.mark.parametrize(("condition", "sentence"), BAD)
def test_a_condition_that_cannot_be_meant_is_refused_where_it_stands(
    tmp_path: Path, condition: str, sentence: str
) -> None:
    """Path, line and what is wrong, in the short form."""
    complaint = told(tmp_path, FILE.replace("HERE", condition))
    assert f"app.yaml:{LINE}: node.routes.0.inputs.CT.1" in complaint
    assert sentence in complaint


ONE_LIST = """
          where:
            - {op: present, tag: KVP}
            - ODD
"""
SEVERAL = """
          where:
            - []
            - - {op: present, tag: KVP}
              - ODD
"""


@pytest.mark.parametrize(("nested", "path"), [(ONE_LIST, "where.1"), (SEVERAL, "where.1.1")])
@pytest.mark.parametrize("odd", ["{op: present, tag: Kvp}", "{op: same_as, tag: KVP, role: T1}"])
def test_the_long_form_is_told_as_it_is_written(
    tmp_path: Path, nested: str, path: str, odd: str
) -> None:
    """One list and several."""
    head = FILE[: FILE.index("          - {op")]
    text = head + nested.strip("\n").replace("ODD", odd) + "\n"
    line = 1 + next(n for n, each in enumerate(text.splitlines()) if odd in each)
    assert f"app.yaml:{line}: node.routes.0.inputs.CT.{path}." in told(tmp_path, text)


@pytest.mark.parametrize(
    ("role", "sentence"),
    [
        ("{where: [], prefer: [best]}", "inputs.CT.prefer.0: Input should be 'thinnest'"),
        ("{where: [], gates: {tilt: never}}", "inputs.CT.gates.tilt: Input should be 'refuse' or"),
        ("{where: [], gates: {tillt: allow}}", "inputs.CT.gates.tillt: Extra inputs"),
        ("{where: [], gates: {min_slices: 9, max_slices: 8}}", "min_slices is above max_slices"),
        ("{where: [], gates: {min_extent_mm: 9, max_extent_mm: 8}}", "min_extent_mm is above"),
        ("{where: [], gates: {min_slices: 0}}", "inputs.CT.gates.min_slices: Input should be"),
        ("{prefer: [thinnest]}", "inputs.CT.where: Field required"),
    ],
)
def test_a_role_that_cannot_be_meant_is_refused(tmp_path: Path, role: str, sentence: str) -> None:
    """Preferences and gates are closed lists too."""
    text = FILE[: FILE.index("        CT:")] + f"        CT: {role}\n"
    assert f"app.yaml:10: node.routes.0.{sentence}" in told(tmp_path, text).replace(
        "inputs.CT.gates: min", "min"
    )


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("mode: test", "mode: Input should be 'live', 'shadow' or 'off'"),
        ("take: some", "take: Input should be 'one' or 'all'"),
        ("study: [{op: same_as, tag: KVP, role: CT}]", "study.0: Input tag 'same_as' found"),
        ("study: [{op: present, tag: PatientID}]", "study.0.tag: PatientID may identify"),
    ],
)
def test_a_route_that_cannot_be_meant_is_refused(tmp_path: Path, key: str, sentence: str) -> None:
    """Its own keys."""
    text = FILE.replace("      model: m", f"      model: m\n      {key}").replace("- HERE", "")
    assert f"app.yaml:7: node.routes.0.{sentence}" in told(tmp_path, text)


def test_every_fault_of_a_route_is_told_at_once(tmp_path: Path) -> None:
    """Relations to roles that are not there, each with its line."""
    two = "{op: same_as, tag: KVP, role: X}\n          - {op: same_as, tag: KVP, role: Y}"
    complaint = told(tmp_path, FILE.replace("HERE", two))
    assert len(complaint.splitlines()) == 2
    assert f":{LINE}: node.routes.0.inputs.CT.1.role: X is no" in complaint
    assert f":{LINE + 1}: node.routes.0.inputs.CT.2.role: Y is no" in complaint


def test_words_that_yaml_reads_as_truth_are_words() -> None:
    """A bare yes, no or off."""
    (made,) = routes(
        "- {name: r, mode: off, inputs: {CT: [{op: one_of, fact: own, values: [yes, no]}]}}"
    ).values()
    assert made.mode == "off"
    assert made.inputs["CT"].where[0][0].values == ("yes", "no")  # type: ignore[union-attr]


def test_the_short_form_is_the_long_one_with_defaults() -> None:
    """And `slices` may be asked for as a tag, as in older files."""
    short, flat, nested = (
        routes(f"- {{name: r, inputs: {{CT: {form}}}}}")["r"]
        for form in (
            "[{op: between, tag: slices, low: 2}]",
            "{where: [{op: between, tag: slices, low: 2}]}",
            "{where: [[{op: between, tag: slices, low: 2}]], prefer: [most_slices]}",
        )
    )
    assert short == flat == nested
    assert short.inputs["CT"].prefer == (Preference.MOST_SLICES,)


def test_rules_dump_and_load_to_themselves() -> None:
    """Every operator, negated and not."""
    conditions: list[dict[str, Any]] = [
        {"op": "equals", "tag": "KVP", "value": 120},
        {"op": "one_of", "fact": "kernel", "values": ["soft", "bone"], "not": True},
        {"op": "matches", "tag": "SeriesDescription", "pattern": "a|b"},
        {"op": "between", "fact": "slices", "low": 1, "exclusive": True},
        {"op": "contains_all", "tag": "ImageType", "values": ["ORIGINAL"]},
        {"op": "contains_none", "tag": "ImageType", "values": ["MIP"]},
        {"op": "present", "tag": "KVP", "not": True},
        {"op": "same_as", "tag": "KVP", "role": "B"},
        {"op": "acquired_within", "minutes": 5, "role": "B", "not": True},
    ]
    inputs = {"A": {"where": [conditions, []], "gates": {"tilt": "allow"}}, "B": conditions[:1]}
    made = Route.model_validate(
        {"name": "r", "model": "m", "inputs": inputs, "deliver_to": ["a"], "study": conditions[:7]}
    )
    again = yaml.safe_load(yaml.safe_dump(made.model_dump(mode="json")))
    assert Route.model_validate(again) == made
