"""Whole studies, written as DICOM files and read again, against routes: what is picked and why.

Covered: a CT with all that comes along, PET/CT of one and of two frames of reference, a brain MR
with and without descriptions that help, a dynamic series; and that gates and volumes agree on each
of their series. Not covered: the variety of routes (test_route_table.py) and of headers
(test_facts.py and its neighbours).
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from app.config import load_config
from app.config_routes import Gates, Route
from app.dicom.headers import read_series
from app.dicom.volume import build_volume
from app.errors import StudyError
from app.pipeline.gates import refusals
from app.pipeline.loop_guard import guarded
from app.pipeline.route import Verdict, route, several_patients
from tests.phantoms import studies
from tests.unit.built import routes
from tests.unit.test_examples import EXAMPLES

RULES = routes("""
- name: thin-soft
  inputs:
    CT:
      where: [{op: equals, tag: Modality, value: CT}, {op: equals, fact: orientation, value: axial}]
      prefer: [soft_kernel, thinnest]
- name: plain
  inputs: {CT: [{op: equals, tag: Modality, value: CT}]}
- name: mr
  inputs: {MR: [{op: equals, tag: Modality, value: MR}]}
- name: dynamic
  inputs:
    MR:
      where: [{op: equals, tag: Modality, value: MR}, {op: between, fact: time_points, low: 3}]
      gates: {several_per_position: allow}
""")


def example(name: str) -> Route:
    """Return the route of a shipped example."""
    (only,) = load_config(EXAMPLES / f"{name}.yaml").routes
    return only


def verdict(folder: Path, plans: Sequence[studies.Plan], rule: Route) -> Verdict:
    """Write the study, read its headers and route it."""
    files = studies.write(folder, "routed", plans)
    study = read_series([path for paths in files.values() for path in paths])
    assert several_patients(study) is None
    (only,) = route(study, [rule])
    return only


def picked(found: Verdict, plans: Sequence[studies.Plan]) -> dict[str, str]:
    """Return the picked series by the names that the study gives them."""
    names = {studies.series_uid("routed", plan.name): plan.name for plan in plans}
    (pick,) = found.picks
    return {role: names[uid] for role, uid in pick.inputs.items()}


def test_of_a_ct_with_all_that_comes_along_the_thin_soft_axial_series_is_picked(
    tmp_path: Path,
) -> None:
    """Every other series is in the trace with what speaks against it."""
    found = verdict(tmp_path, studies.CT_TRUNK, RULES["thin-soft"])
    assert picked(found, studies.CT_TRUNK) == {"CT": "thin soft"}
    assert found.reason.endswith("soft kernel, thinnest of 3 that fit (1.25 mm)")
    uids = {studies.series_uid("routed", plan.name): plan.name for plan in studies.CT_TRUNK}
    candidates = {uids[each.series_uid]: each for each in found.candidates}
    assert [*filter(None, (each.guard for each in candidates.values()))] == [
        "holds objects that are no images (SR)"
    ]
    fitting = {name for name, each in candidates.items() if each.fits}
    assert fitting == {"thick soft", "thin soft", "thin bone"}


def test_gates_alone_keep_out_what_is_no_original_stack(tmp_path: Path) -> None:
    """A rule that asks for CT and no more is not given a localizer, a reformat or a screen."""
    found = verdict(tmp_path, studies.CT_TRUNK, RULES["plain"])
    uids = {studies.series_uid("routed", plan.name): plan.name for plan in studies.CT_TRUNK}
    stopped = {
        uids[each.series_uid]: {gate.code for gate in each.gates}
        for each in found.candidates
        if each.gates
    }
    assert "localizer" in stopped.pop("scout")
    assert {"derived", "placed"} <= stopped.pop("screen save")
    assert stopped == {"coronal reformat": {"derived"}}


def test_the_corrected_pet_is_paired_with_its_ct(tmp_path: Path) -> None:
    """The uncorrected one fits by everything else."""
    plans = studies.pet_ct()
    found = verdict(tmp_path, plans, example("pet-ct"))
    assert picked(found, plans) == {"CT": "CT", "PET": "PET AC"}


def test_a_ct_of_another_frame_of_reference_is_no_pair(tmp_path: Path) -> None:
    """With both frames in the reason."""
    plans = studies.pet_ct(ct_frame="another")
    found = verdict(tmp_path, plans, example("pet-ct"))
    assert not found.taken
    frames = {uid for _, check in found.relations for uid in check.found.split() if "2.25." in uid}
    assert "FrameOfReferenceUID same as CT, found" in found.reason
    assert len(frames) == 2


@pytest.mark.parametrize("described", [True, False])
def test_a_brain_fills_its_four_roles(tmp_path: Path, described: bool) -> None:
    """By the timing of its sequences and by the contrast agent, whatever they are called."""
    plans = studies.brain_mr(described=described)
    found = verdict(tmp_path, plans, example("brain-mr"))
    assert picked(found, plans) == {
        "T1": "t1 se",
        "T1CE": "t1 se gd",
        "T2": "t2 tse",
        "FLAIR": "t2 flair",
    }


def test_several_points_in_time_are_taken_only_where_a_route_asks_for_them(tmp_path: Path) -> None:
    """A plain rule is refused with their number."""
    taken = verdict(tmp_path / "a", studies.DCE, RULES["dynamic"])
    assert picked(taken, studies.DCE) == {"MR": "dynamic"}
    refused = verdict(tmp_path / "b", studies.DCE, RULES["mr"])
    assert "several_per_position: 5 points in time at a position" in refused.reason


@pytest.mark.parametrize(
    "plans",
    [studies.CT_TRUNK, studies.pet_ct(), studies.brain_mr(described=True), studies.DCE],
    ids=["ct", "pet-ct", "brain", "dynamic"],
)
def test_what_passes_the_gates_can_be_built_and_nothing_else(
    tmp_path: Path, plans: Sequence[studies.Plan]
) -> None:
    """Gates and volumes judge alike; derived images are good volumes, so that gate is left open."""
    for paths in studies.write(tmp_path, "built", plans).values():
        (series,) = read_series(paths)
        stopped = guarded(series) or refusals(series, Gates(derived="allow"))
        if stopped:
            with pytest.raises(StudyError):
                build_volume(paths)
        else:
            assert build_volume(paths).sop_uids
