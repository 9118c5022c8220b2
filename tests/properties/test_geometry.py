"""A voxel keeps its millimetre from the scanner's files to the segmentation that is sent.

Covered: DICOM → volume → SEG → bytes, over the 24 frames along the patient's axes and any oblique
one, oblong pixels, any shape and any order of arrival. The way back out of the bytes is DICOM's
own equation (PS3.3 C.7.6.2.1.1), written here again, and highdicom's reader. Not covered: series
that are no regular grid (unit/test_volume.py) and what the model does in between.
"""

from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.dicom.volume import Volume, build_volume
from app.results.result import result_of
from app.results.segmentation import encode_seg
from tests.properties.strategies import (
    axis_frames,
    grids,
    identity,
    sop_uid,
    tiny_card,
    write_series,
)

BRIGHT = {1: 1001, 2: 1002}
"""Label → the value in HU of the voxels that carry it: what a perfect model would find."""


@st.composite
def cases(draw: st.DrawFn) -> tuple[Any, ...]:
    """Draw a grid, a label map with both labels, and an order of arrival."""
    affine, shape = draw(grids())
    size = int(np.prod(shape))
    cells = draw(st.lists(st.integers(0, size - 1), min_size=2, max_size=min(size, 9), unique=True))
    labels = np.zeros(size, np.uint8)
    labels[cells[::2]], labels[cells[1::2]] = 1, 2
    order = draw(st.permutations(range(shape[0])))
    return affine, labels.reshape(shape), order


def through_dicom(
    folder: Path, affine: NDArray[Any], labels: NDArray[np.uint8], order: Any
) -> tuple[Volume, bytes]:
    """Write the series, read its volume, find the labels in it, and encode what was found."""
    voxels = np.zeros(labels.shape, dtype=np.int16)
    for label, value in BRIGHT.items():
        voxels[labels == label] = value
    paths = write_series(folder, affine, voxels, order=order)
    volume = build_volume(paths)
    found = np.zeros(labels.shape, np.uint8)
    for label, value in BRIGHT.items():
        found[volume.voxels_kji == value] = label
    seg = encode_seg(
        result_of(
            found,
            volume,
            paths,
            card=tiny_card(),
            identity=identity(),
            node_version="0.1.0",
            now=datetime(2024, 1, 2, tzinfo=UTC),
        )
    )
    file = BytesIO()
    seg.save_as(file)
    return volume, file.getvalue()


def marked_points(encoded: bytes) -> dict[int, NDArray[Any]]:
    """Return the LPS millimetres of every marked voxel of each segment, sorted."""
    ds = pydicom.dcmread(BytesIO(encoded))
    frames = ds.pixel_array.reshape(ds.NumberOfFrames, ds.Rows, ds.Columns)
    shared = ds.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    between_rows, between_columns = shared.PixelMeasuresSequence[0].PixelSpacing
    points: dict[int, list[Any]] = {1: [], 2: []}
    for frame, group in zip(frames, ds.PerFrameFunctionalGroupsSequence, strict=True):
        segment = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        origin = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        points[segment] += [
            origin + i * between_columns * cosines[:3] + j * between_rows * cosines[3:]
            for j, i in np.argwhere(frame)
        ]
    return {segment: in_order(found) for segment, found in points.items()}


def in_order(points: Any) -> NDArray[Any]:
    """Return points in one order that rounding does not change."""
    points = np.array(points, dtype=float).reshape(-1, 3)
    return np.asarray(points[np.lexsort(np.round(points, 3).T)])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_a_marked_voxel_keeps_its_millimetre(case: tuple[Any, ...]) -> None:
    """The points marked in the SEG's bytes are those that the scanner's files put there."""
    affine, labels, order = case
    with TemporaryDirectory() as folder:
        volume, encoded = through_dicom(Path(folder), affine, labels, order)
    assert volume.sop_uids == tuple(sop_uid(k) for k in range(len(labels)))
    np.testing.assert_allclose(volume.affine_lps, affine, atol=1e-6)
    found = marked_points(encoded)
    for label in BRIGHT:
        index = np.argwhere(labels == label)
        truth = index @ affine[:3, :3].T + affine[:3, 3]
        np.testing.assert_allclose(found[label], in_order(truth), atol=1e-3)


@pytest.mark.parametrize("frame", axis_frames(), ids=lambda frame: str(frame.tolist()))
def test_left_stays_left(tmp_path: Path, frame: NDArray[Any]) -> None:
    """A mark on the patient's left, head and back is there again, however the patient lay."""
    affine = np.eye(4)
    affine[:3, :3] = frame[:, ::-1] * (3, 2, 1)
    shape = np.array((4, 5, 6))
    affine[:3, 3] = -affine[:3, :3] @ (shape - 1) / 2  # the patient's middle is the origin
    index = np.array(list(np.ndindex(*shape)))
    points = index @ affine[:3, :3].T + affine[:3, 3]
    labels = np.zeros(shape, np.uint8)
    labels[tuple(index[np.argmax(points @ (1, 1, 1))])] = 1
    labels[tuple(index[np.argmin(points @ (1, 1, 1))])] = 2
    _, encoded = through_dicom(tmp_path, affine, labels, (2, 0, 3, 1))
    found = marked_points(encoded)
    assert (found[1] > 0).all(), "left, back and head are the positive sides of LPS"
    assert (found[2] < 0).all()


def test_another_reader_sees_the_same_volume(tmp_path: Path) -> None:
    """Highdicom's reader gives back the label map on the source's affine."""
    affine = np.eye(4)
    affine[:3, :3] = axis_frames()[7][:, ::-1] * (3, 2, 1)
    labels = np.random.default_rng(1).integers(0, 3, (4, 5, 6), dtype=np.uint8)
    volume, encoded = through_dicom(tmp_path, affine, labels, (2, 0, 3, 1))
    theirs = hd.seg.segread(BytesIO(encoded)).get_volume(combine_segments=True)
    if theirs.affine[:3, 0] @ affine[:3, 0] < 0:
        theirs = theirs.flip_spatial(0)
    np.testing.assert_array_equal(theirs.array, labels)
    np.testing.assert_allclose(theirs.affine, volume.affine_lps, atol=1e-6)
