"""The shape of a segment, beside pyradiomics, beside mathematics and beside itself.

Covered: all features against values that the real pyradiomics 3.0.1 gave (tests/record_shapes.py)
for every way in which eight voxels can lie, noise, sheets, lines, organs of a phantom; balls and
boxes against formulas; that a segment keeps its shape wherever it lies and in whatever order the
axes are; the axes of a lesion against formulas and a search through all pairs of points. Not
covered: speed (tests/bench_shape.py).
"""

import json
import math
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from app.results.diameters import axes_in_plane
from app.results.shape import shape_features
from tests.masks import CUBE, OBLONG, digest, ellipsoid, every_cube, masks

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "shapes.json").read_bytes())
OF_LESIONS = "Maximum2DDiameterSlice"
NAMES = [name for name in RECORDED["features"] if name != OF_LESIONS]
REFERENCE = {row["mask"]: row for row in RECORDED["masks"]}
ALL = {name: (mask, spacing) for name, mask, spacing in (*every_cube(), *masks())}
NAMED = [name for name in ALL if not name.startswith("cube")]

INSIDE_OUT = "cube 104"

ALIKE = 1e-7
"""Both are exact but for rounding; what differs more counts something else."""
NOTHING_MM = 1e-6
"""The thickness of a flat segment, which is zero but for rounding."""

spots = arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=6))
spacings = st.tuples(*[st.floats(0.3, 6)] * 3)


def recorded(name: str) -> dict[str, float]:
    """Return what pyradiomics measured, without what was no number."""
    values = zip(RECORDED["features"], REFERENCE[name]["values"], strict=True)
    return {feature: value for feature, value in values if value is not None}


def alike(value: float, other: float) -> Any:
    """Whether two values are the same but for rounding."""
    return value == pytest.approx(other, rel=ALIKE, abs=NOTHING_MM)


def same(features: dict[str, float], others: dict[str, float]) -> None:
    """Assert that all features are the same but for rounding."""
    assert features.keys() == others.keys()
    for name, value in features.items():
        assert alike(value, others[name]), name


def test_the_masks_are_those_that_were_recorded() -> None:
    """Else the values below would be of something else."""
    assert len(ALL) == 255 + len(NAMED)
    assert {name: digest(mask) for name, (mask, _) in ALL.items()} == {
        name: row["is"] for name, row in REFERENCE.items()
    }


@pytest.mark.parametrize("name", NAMED)
def test_a_segment_has_the_features_that_pyradiomics_gives(name: str) -> None:
    """All fourteen, of segments of many sorts and spacings."""
    expected = recorded(name)
    del expected[OF_LESIONS]
    same(shape_features(*ALL[name]), expected)


def test_every_kind_of_cube_has_the_surface_that_pyradiomics_gives() -> None:
    """The surface is a choice where corners lie diagonally; it is the same choice."""
    for name, (mask, spacing) in ALL.items():
        if name.startswith("cube") and name != INSIDE_OUT:
            expected = recorded(name)
            del expected[OF_LESIONS]
            same(shape_features(mask, spacing), expected)


def test_a_volume_below_zero_is_not_said() -> None:
    """Of three voxels that touch at edges pyradiomics' surface is not closed, its volume -0.28."""
    assert recorded(INSIDE_OUT)["MeshVolume"] < 0
    features = shape_features(*ALL[INSIDE_OUT])
    left = "Elongation Flatness LeastAxisLength MajorAxisLength Maximum3DDiameter MinorAxisLength"
    assert {*features} == {*left.split(), "SurfaceArea", "VoxelVolume"}
    same(features, {name: recorded(INSIDE_OUT)[name] for name in features})


def test_what_cannot_be_said_of_one_voxel_is_left_out() -> None:
    """It has no longest direction, so no elongation; pyradiomics answers NaN."""
    features = shape_features(np.ones((1, 1, 1), np.bool_), OBLONG)
    assert {*NAMES} - {*features} == {"Elongation", "Flatness"}


def test_nothing_has_no_shape() -> None:
    """An empty mask has no features, not features of zero."""
    assert shape_features(np.zeros((3, 4, 5), np.bool_), OBLONG) == {}


def test_a_ball_measures_what_mathematics_says() -> None:
    """Volume and diameters come from the radius; a mesh has 9 % more surface than the ball."""
    radius, step = 12.0, 0.4
    ball = ellipsoid((radius / step,) * 3, off=0.3)
    features = shape_features(ball, (step, step, step))
    volume = 4 / 3 * math.pi * radius**3
    assert features["VoxelVolume"] == pytest.approx(volume, rel=0.003)
    assert features["MeshVolume"] == pytest.approx(volume, rel=0.003)
    assert features["Maximum3DDiameter"] == pytest.approx(2 * radius, abs=step)
    # The variance of a ball along any axis is a fifth of its radius squared.
    for axis in ("MajorAxisLength", "MinorAxisLength", "LeastAxisLength"):
        assert features[axis] == pytest.approx(4 * radius / math.sqrt(5), rel=0.003)
    assert features["Elongation"] == pytest.approx(1, abs=0.003)
    assert features["SurfaceArea"] == pytest.approx(1.09 * 4 * math.pi * radius**2, rel=0.02)


def test_a_box_measures_what_mathematics_says() -> None:
    """Its variances are those of evenly spaced points: (n² - 1) / 12 steps squared."""
    features = shape_features(np.ones((3, 5, 8), np.bool_), (4.0, 1.5, 2.0))
    lengths = [4 * step * math.sqrt((n * n - 1) / 12) for n, step in ((8, 2), (3, 4), (5, 1.5))]
    names = ("MajorAxisLength", "MinorAxisLength", "LeastAxisLength")
    assert [features[name] for name in names] == pytest.approx(lengths)
    assert features["VoxelVolume"] == pytest.approx(3 * 5 * 8 * 4 * 1.5 * 2)


@settings(max_examples=60, deadline=None)
@given(mask=spots, spacing=spacings, before=st.tuples(*[st.integers(0, 3)] * 3))
def test_a_segment_keeps_its_shape_wherever_it_lies(
    mask: NDArray[np.bool_], spacing: tuple[float, float, float], before: tuple[int, int, int]
) -> None:
    """Empty planes around it change nothing."""
    moved = np.pad(mask, [(n, 3 - n) for n in before])
    same(shape_features(moved, spacing), shape_features(mask, spacing))


@settings(max_examples=60, deadline=None)
@given(spacing=spacings, seed=st.integers(0, 99), order=st.permutations(range(3)))
def test_a_segment_keeps_its_shape_in_whatever_order_its_axes_are(
    spacing: tuple[float, float, float], seed: int, order: list[int]
) -> None:
    """The spacing goes with the axes. The egg is smooth: it has no cubes with a choice."""
    semi = np.random.default_rng(seed).uniform(2, 6, 3)
    egg = ellipsoid((semi[0], semi[1], semi[2]), off=seed / 200)
    turned = (spacing[order[0]], spacing[order[1]], spacing[order[2]])
    same(shape_features(egg.transpose(order), turned), shape_features(egg, spacing))


def test_the_moments_are_those_of_the_list_of_voxels() -> None:
    """The oracle is numpy's own covariance of all positions, for every order of the axes."""
    mask = ALL["clouds 1"][0]
    for order in permutations(range(3)):
        turned = mask.transpose(order)
        points = np.argwhere(turned) * OBLONG
        lengths = 4 * np.sqrt(np.linalg.eigvalsh(np.cov(points.T, bias=True)))
        features = shape_features(turned, OBLONG)
        names = ("LeastAxisLength", "MinorAxisLength", "MajorAxisLength")
        assert [features[name] for name in names] == pytest.approx(lengths.tolist())


@settings(max_examples=100, deadline=None)
@given(mask=spots, spacing=spacings)
def test_the_diameter_is_that_of_the_farthest_points(
    mask: NDArray[np.bool_], spacing: tuple[float, float, float]
) -> None:
    """Every pair of points halfway between an inner and an outer voxel is tried."""
    features = shape_features(mask, spacing)
    points = midpoints(np.pad(mask, 1)) * spacing
    tried = max((math.dist(p, q) for p, q in combinations(points, 2)), default=None)
    assert features.get("Maximum3DDiameter") == (tried and pytest.approx(tried))


def midpoints(padded: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the points between each two neighbours of which one is inside."""
    found = []
    for axis in range(padded.ndim):
        after = np.argwhere(np.diff(padded, axis=axis)) + 0.5 * np.eye(padded.ndim)[axis]
        found.append(after)
    return np.concatenate(found)


# -- lesions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ball", "egg", "box", "phantom's spleen", "one voxel"])
def test_the_long_axis_is_the_largest_diameter_of_all_slices(name: str) -> None:
    """It is what pyradiomics calls Maximum2DDiameterSlice, where all is connected."""
    mask, spacing = ALL[name]
    assert alike(axes_in_plane(mask, spacing).long_mm, recorded(name)[OF_LESIONS])


@pytest.mark.parametrize("angle", [0.0, 0.3, 0.8, 1.3, 2.5])
def test_an_ellipse_has_its_own_axes_however_it_lies(angle: float) -> None:
    """Half axes of 20 and 9 mm, turned in the plane; pixels of 0.5 and 0.4 mm."""
    y, x = np.mgrid[-25:25:0.5, -25:25:0.4]
    u = x * math.cos(angle) + y * math.sin(angle)
    v = y * math.cos(angle) - x * math.sin(angle)
    ellipse = (u / 20) ** 2 + (v / 9) ** 2 <= 1
    long, short = axes_in_plane(ellipse[None], (3.0, 0.5, 0.4))
    assert long == pytest.approx(40, abs=0.6)
    assert short == pytest.approx(18, abs=0.6)


def test_the_axes_are_of_the_slice_with_the_longest_diameter() -> None:
    """A thin long section counts, not the one with the largest area."""
    mask = np.zeros((2, 30, 30), np.bool_)
    mask[0, 5:15, 5:15] = True
    mask[1, 3, 2:28] = True
    assert axes_in_plane(mask, CUBE) == pytest.approx((26.0, 1.0))


def test_a_line_from_one_lesion_to_another_is_no_diameter() -> None:
    """Parts that do not touch are measured by themselves; parts that touch at corners are one."""
    mask = np.zeros((1, 30, 30), np.bool_)
    mask[0, 2:6, 2:5] = mask[0, 25:28, 25:28] = True
    apart = axes_in_plane(mask, CUBE)
    assert apart.long_mm < 6
    mask[0, 6:25, 5:25] = np.eye(19, 20, dtype=np.bool_)
    mask[0, 24, 24] = True
    assert axes_in_plane(mask, CUBE).long_mm > 30


@settings(max_examples=100, deadline=None)
@given(plane=arrays(np.bool_, (4, 5)).filter(np.any), step=st.floats(0.4, 2.5))
def test_the_short_axis_is_the_longest_at_right_angles(
    plane: NDArray[np.bool_], step: float
) -> None:
    """It is no longer than the long one, and never longer than the part is wide."""
    spacing = (1.0, step, 1.3)
    long, short = axes_in_plane(plane[None], spacing)
    assert 0 < short <= long + 1e-9


@pytest.mark.parametrize(("height", "width"), [(4, 9), (9, 4), (1, 5), (7, 7)])
def test_the_short_axis_of_a_box_is_measured_across_its_diagonal(height: int, width: int) -> None:
    """The longest chord at right angles to the long axis, found by walking along it in steps."""
    long, short = axes_in_plane(np.ones((1, height, width), np.bool_), CUBE)
    points = midpoints(np.pad(np.ones((height, width), np.bool_), 1))
    pairs = [(p, q) for p, q in combinations(points, 2) if math.isclose(math.dist(p, q), long)]
    assert any(short == pytest.approx(widest(points, q - p), abs=0.02) for p, q in pairs)


def widest(points: NDArray[Any], along: NDArray[Any]) -> float:
    """Return the longest chord of the convex hull at right angles to `along`, cut at 399 places.

    Where a line cuts the hull, the ends of the cut lie between two of the points.
    """
    along = along / np.linalg.norm(along)
    u, v = points @ along, points @ np.array([-along[1], along[0]])
    best = 0.0
    for at in np.linspace(u.min(), u.max(), 401)[1:-1]:
        left, right = np.flatnonzero(u <= at), np.flatnonzero(u > at)
        part = (at - u[left][:, None]) / (u[right] - u[left][:, None])
        cuts = v[left][:, None] + part * (v[right] - v[left][:, None])
        best = max(best, float(cuts.max() - cuts.min()))
    return best
