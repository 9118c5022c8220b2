"""Gates: what each asks of what is known, that all are told, and the tolerances of the volume.

Covered: every gate closed and open, from facts and, where they are not known, from attributes; the
defaults. Not covered: facts from real headers, and the volume's own judgement (test_volume.py).
"""

from typing import Any

import pytest

from app.config_routes import Gates
from app.dicom.series import Series
from app.dicom.stack import TOLERANCE, TOLERANCE_MM
from app.pipeline.gates import KINDS, LIMITS, refusals
from tests.unit.built import series

NONE_KNOWN = Series(study_uid="1", series_uid="2", sop_uids=("a", "b"))


def codes(found: Series, **gates: Any) -> list[str]:
    """Return the gates that a series does not pass."""
    return [each.code for each in refusals(found, Gates(**gates))]


CLOSED: list[tuple[str, dict[str, Any]]] = [
    ("min_slices", {"slices": 1}),
    ("missing_slice", {"missing_slices": 1}),
    ("duplicate", {"duplicates": 1, "duplicates_differ": "yes"}),
    ("duplicate", {"duplicates": 1}),
    ("spacing", {"spacing_deviation": 0.5}),
    ("spacing", {"spacing_deviation": 0.5, "spacing_mm": None}),
    ("orientation", {"orientations": 2}),
    ("orientation", {"orientation": ["axial", "oblique"], "orientations": None}),
    ("tilt", {"tilt_deg": 0.2}),
    ("several_per_position", {"time_points": 2}),
    ("several_per_position", {"time_points": [1, 2]}),
    ("several_per_position", {"b_values": [0, 800]}),
    ("several_per_position", {"per_position": [1, 2]}),
    ("several_per_position", {"per_position": 2, "duplicates": None}),
    ("localizer", {"kind": ["localizer", "original"]}),
    ("localizer", {"kind": None, "tags": {"ImageType": ["AXIAL", "LOCALIZER"]}}),
    ("derived", {"kind": "derived"}),
    ("derived", {"kind": "reformatted"}),
    ("derived", {"kind": ["original", "projection"]}),
    ("derived", {"kind": "secondary"}),
    ("placed", {"placed": "no"}),
    ("sizes", {"sizes": 2}),
    ("frame_of_reference", {"frames_of_reference": 0}),
    ("frame_of_reference", {"frames_of_reference": 2}),
    (
        "frame_of_reference",
        {"frames_of_reference": None, "tags": {"FrameOfReferenceUID": ["1", "2"]}},
    ),
    ("multi_frame", {"multi_frame": "yes"}),
    ("multi_frame", {"multi_frame": ["enhanced", "no"]}),
    ("multi_frame", {"multi_frame": ["enhanced", "yes"], "tags": {"NumberOfFrames": 12}}),
    ("multi_frame", {"multi_frame": None, "tags": {"NumberOfFrames": 12}}),
    ("multi_frame", {"multi_frame": None, "tags": {"ImageType": ["ORIGINAL", "MOSAIC"]}}),
    ("colour", {"tags": {"PhotometricInterpretation": "RGB"}}),
    ("colour", {"tags": {"PhotometricInterpretation": ["MONOCHROME2", "PALETTE COLOR"]}}),
    ("monochrome1", {"tags": {"PhotometricInterpretation": "MONOCHROME1"}}),
]


@pytest.mark.parametrize(("code", "change"), CLOSED)
def test_a_gate_stops_what_the_volume_would_refuse_and_nothing_else_does(
    code: str, change: dict[str, Any]
) -> None:
    """One change to a clean series, one gate, one sentence that says what to do."""
    (refusal,) = refusals(series("s", **change), Gates())
    assert refusal.code == code
    assert "; send " in refusal.reason


@pytest.mark.parametrize(("code", "change"), CLOSED)
def test_a_gate_that_allows_stops_nothing(code: str, change: dict[str, Any]) -> None:
    """The volume judges again."""
    assert codes(series("s", **change), **{code: 1 if code in LIMITS else "allow"}) == []


def test_every_kind_of_gate_is_closed_once_above() -> None:
    """But for loss, which passes unless a route says otherwise."""
    assert {code for code, _ in CLOSED} >= {*KINDS} - {"lossy"}
    lossy = series("s", lossy="yes")
    assert codes(lossy) == []
    assert codes(lossy, lossy="refuse") == ["lossy"]


def test_what_is_not_known_passes_but_the_number_of_slices_is_known() -> None:
    """An archive's answer has no geometry."""
    assert codes(NONE_KNOWN, lossy="refuse", min_extent_mm=1, max_extent_mm=2) == []
    assert codes(NONE_KNOWN, min_slices=3) == ["min_slices"]


def test_frames_that_are_described_pass() -> None:
    """They are judged like the slices of a stack."""
    assert codes(series("s", multi_frame="enhanced", tags={"NumberOfFrames": 300})) == []


def test_copies_with_the_same_pixels_pass() -> None:
    """The volume drops them."""
    copies = series("s", duplicates=3, duplicates_differ="no", per_position=[1, 2])
    assert codes(copies) == []


@pytest.mark.parametrize("spacing_mm", [0.5, 1.5, 10.0])
def test_spacing_is_held_to_the_tolerance_of_the_volume(spacing_mm: float) -> None:
    """A part of the spacing, or the rounding of positions where that is more."""
    allowed = max(TOLERANCE, TOLERANCE_MM / spacing_mm)
    for factor, stopped in ((0.99, []), (1.01, ["spacing"])):
        deviating = series("s", spacing_mm=spacing_mm, spacing_deviation=factor * allowed)
        assert codes(deviating) == stopped


@pytest.mark.parametrize(
    ("gates", "stopped"),
    [
        ({"min_slices": 100, "max_slices": 100}, []),
        ({"min_slices": 101}, ["min_slices"]),
        ({"max_slices": 99}, ["max_slices"]),
        ({"min_extent_mm": 150, "max_extent_mm": 150}, []),
        ({"min_extent_mm": 150.1}, ["min_extent_mm"]),
        ({"max_extent_mm": 149.9}, ["max_extent_mm"]),
    ],
)
def test_limits_include_their_own_value(gates: dict[str, Any], stopped: list[str]) -> None:
    """100 slices of 1.5 mm."""
    assert codes(series("s", slices=100), **gates) == stopped


def test_slices_are_counted_as_positions_where_these_are_known() -> None:
    """Six points in time make no longer stack."""
    dce = series("s", slices=600, positions=100, time_points=6)
    assert codes(dce, several_per_position="allow", max_slices=100) == []
    assert codes(dce, several_per_position="allow", min_slices=101) == ["min_slices"]


def test_all_gates_that_stop_a_series_are_told() -> None:
    """A person mends them in one go."""
    head = series("s", slices=20, tilt_deg=12.5, spacing_deviation=0.3, lossy="yes")
    assert codes(head, min_slices=50, lossy="refuse") == ["min_slices", "spacing", "tilt", "lossy"]


def test_odd_facts_stop_nothing_and_break_nothing() -> None:
    """Numbers that are text, not finite or beyond every measure."""
    for odd in ("much", float("nan"), float("inf"), 10**400):
        facts = dict.fromkeys(("missing_slices", "tilt_deg", "sizes", "extent_mm"), odd)
        assert codes(series("s", **facts), min_extent_mm=1) == []
