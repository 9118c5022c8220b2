"""A series of several points in time, split by a role that asks for it.

Covered: which images make up a point in time, however its times are told; which point a role takes;
several roles and several jobs of one series; what the log and the trace call a point; and that the
volume of a point can be built where that of the series cannot. Not covered: how points in time are
recognised among echoes and b-values (test_facts.py and its neighbours).
"""

from pathlib import Path
from typing import Any

import pytest

from app.dicom.headers import headers_of, read_headers
from app.dicom.series import Series
from app.dicom.volume import build_volume
from app.errors import UnsupportedGeometry
from app.pipeline.route import Verdict, route
from app.trace_words import trace
from tests.phantoms import studies
from tests.unit.built import routes
from tests.unit.metadata import headers

POINTS, SLICES = 5, 16
RULES = routes("""
- name: earliest
  inputs: {MR: {where: [{op: present, tag: Modality}], split: time, prefer: [earliest]}}
- name: latest
  inputs: {MR: {where: [{op: present, tag: Modality}], split: time, prefer: [latest]}}
- name: third
  inputs: {MR: {where: [{op: equals, fact: time_point, value: 3}], split: time}}
- name: both
  inputs:
    PRE: {where: [{op: equals, fact: time_point, value: 1}], split: time}
    POST: {where: [{op: present, tag: Modality}], split: time, prefer: [latest]}
- name: every
  take: all
  inputs: {MR: {where: [{op: present, tag: Modality}], split: time, prefer: [earliest]}}
- name: whole
  inputs: {MR: [{op: present, tag: Modality}]}
""")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write the dynamic series once."""
    return studies.write(tmp_path_factory.mktemp("dce"), "split", studies.DCE)["dynamic"]


@pytest.fixture(scope="module")
def dynamic(files: list[Path]) -> Series:
    """Read it as the node does, through JSON."""
    (read,) = read_headers(files)
    return Series.from_json(read.series().to_json())


def verdict(series: Series, rule: str) -> Verdict:
    """Route the series by one rule."""
    (only,) = route([series], [RULES[rule]])
    return only


def numbers(series: Series, sop_uids: tuple[str, ...]) -> set[int]:
    """Return which points in time objects belong to."""
    return {part.part for part in series.parts for uid in sop_uids if uid in part.sop_uids}


def test_each_point_in_time_has_every_position_once(dynamic: Series) -> None:
    """Together they are the series, and each is clean where the series is not."""
    assert [part.part for part in dynamic.parts] == [1, 2, 3, 4, 5]
    assert sorted(uid for part in dynamic.parts for uid in part.sop_uids) == [*dynamic.sop_uids]
    assert dynamic.facts["per_position"] == (POINTS,)
    for part in dynamic.parts:
        assert part.facts["per_position"] == part.facts["time_points"] == (1,)
        assert part.facts["positions"] == part.facts["slices"] == (SLICES,)
        assert part.facts["time_point"] == (part.part,)
        assert part.tags["TemporalPositionIdentifier"] == (part.part,)
    times = [part.facts["acquired_at"] for part in dynamic.parts]
    assert times == sorted(set(times))


@pytest.mark.parametrize(("rule", "point"), [("earliest", 1), ("latest", 5), ("third", 3)])
def test_a_role_takes_one_point_in_time(dynamic: Series, rule: str, point: int) -> None:
    """By its preference or by the fact; the job reads its images and no others."""
    taken = verdict(dynamic, rule)
    (pick,) = taken.picks
    assert pick.inputs == {"MR": dynamic.series_uid}
    assert pick.instances == {"MR": dynamic.parts[point - 1].sop_uids}
    assert pick.keys == {"MR": f"{dynamic.series_uid}#{point:03}"}
    assert f"…{dynamic.series_uid[-8:]} time {point}" in trace({"routes": [taken.to_json()]})


def test_two_roles_take_two_points_of_one_series(dynamic: Series) -> None:
    """A model that compares before and after."""
    (pick,) = verdict(dynamic, "both").picks
    assert numbers(dynamic, pick.instances["PRE"]) == {1}
    assert numbers(dynamic, pick.instances["POST"]) == {5}


def test_every_point_can_have_a_job_of_its_own(dynamic: Series) -> None:
    """Their keys differ, so that none is taken for a newer version of another."""
    picks = verdict(dynamic, "every").picks
    assert [numbers(dynamic, pick.instances["MR"]) for pick in picks] == [{n} for n in range(1, 6)]
    assert len({pick.keys["MR"] for pick in picks}) == POINTS
    identities = {pick.identity("1.2", "every", "m").key for pick in picks}
    assert len(identities) == POINTS


def test_without_split_the_series_is_refused(dynamic: Series) -> None:
    """The gate says what is wrong with it."""
    refused = verdict(dynamic, "whole")
    assert not refused.taken
    assert "5 points in time at a position" in refused.reason


def test_the_volume_of_a_point_can_be_built(files: list[Path], dynamic: Series) -> None:
    """That of the whole series cannot."""
    with pytest.raises(UnsupportedGeometry, match="5 different slices"):
        build_volume(files)
    (read,) = read_headers(files)
    by_uid = {uid: path for path in files for each in read_headers([path]) for uid in each.images}
    assert {*by_uid} == {*read.images}
    volume = build_volume([by_uid[uid] for uid in dynamic.parts[1].sop_uids])
    assert volume.voxels_kji.shape[0] == SLICES


def moved(**values: Any) -> tuple[Series, ...]:
    """Return the points in time of three slices by two, with attributes by (slice, point)."""
    made = headers(6, Modality="MR")
    for n, ds in enumerate(made):
        k, point = n % 3, n // 3
        ds.ImagePositionPatient = [0, 0, 2 * k]
        for keyword, value in values.items():
            setattr(ds, keyword, value(k, point))
    (read,) = headers_of(made)
    return read.series().parts


def test_times_may_differ_from_slice_to_slice() -> None:
    """One slice is acquired after the other: what counts is the order at each position."""
    parts = moved(AcquisitionTime=lambda k, point: f"10150{k + 3 * point}")
    assert [part.sop_uids for part in parts] == [
        ("2.25.3.1", "2.25.3.2", "2.25.3.3"),
        ("2.25.3.4", "2.25.3.5", "2.25.3.6"),
    ]


def test_what_has_no_points_in_time_is_not_split() -> None:
    """Echoes, or a position that lacks one of the times."""
    assert moved(EchoTime=lambda _k, point: 10 + 20 * point) == ()
    assert moved(TemporalPositionIdentifier=lambda k, point: 1 + point * (k > 0)) == ()
    (read,) = headers_of(headers(4))
    assert read.series().parts == ()
