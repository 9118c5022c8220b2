"""Read an RT Structure Set back and fill its contours: what is not the label map does not leave."""

from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from app.errors import ResultRejected
from app.models.card import Label
from app.results.contours import plane_of
from app.results.outline import Mask
from app.results.result import Result

_OFF_PLANE_MM = 0.01
_OFF_EDGE = 0.05
"""How far a corner may lie from a voxel's, in voxels; contours are written to the µm."""

Places = dict[tuple[str, int | None], int]


def check_rtstruct(path: Path, result: Result) -> None:
    """Refuse a file whose ROIs, filled, are not the labels of the card."""
    ds = pydicom.dcmread(path)
    labels = result.card.labels
    numbers = [int(each.ROINumber) for each in ds.StructureSetROISequence]
    if numbers != [*range(1, len(labels) + 1)]:
        raise _fault(f"its ROIs are not 1 to {len(labels)}")
    if [int(each.ReferencedROINumber) for each in ds.ROIContourSequence] != numbers:
        raise _fault("its contours are not those of its ROIs")
    _check_references(ds, result)
    volume = result.volume
    frames = volume.frames or [None] * len(volume.sop_uids)
    places = {(uid, frames[k]): k for k, uid in enumerate(volume.sop_uids)}
    for item, label in zip(ds.ROIContourSequence, labels, strict=True):
        _check_roi(item, label, result, places)


def _check_references(ds: Dataset, result: Result) -> None:
    (frame,) = ds.ReferencedFrameOfReferenceSequence
    if frame.FrameOfReferenceUID != result.volume.frame_of_reference_uid:
        raise _fault("its frame of reference is not that of its source")
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    found = {each.ReferencedSOPInstanceUID for each in series.ContourImageSequence}
    if found != {*result.volume.sop_uids}:
        raise _fault("the instances it refers to are not those it was made from")


def _check_roi(item: Dataset, label: Label, result: Result, places: Places) -> None:
    shape = result.labels_kji.shape[1:]
    found: dict[int, Mask] = {}
    for contour in item.get("ContourSequence", ()):
        (image,) = contour.ContourImageSequence
        place = image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber")
        if (k := places.get(place)) is None:
            raise _fault("a contour lies on no slice of its source")
        _fill(_corners(contour, plane_of(result, k)), found.setdefault(k, np.zeros(shape, bool)))
    for k, plane in enumerate(result.labels_kji):
        made = np.logical_or.reduce([plane == value for value in label.values])
        if not np.array_equal(found[k], made) if k in found else made.any():
            raise _fault(f"ROI {item.ReferencedROINumber} on slice {k + 1} is not the label map")


def _corners(contour: Dataset, plane: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the voxels' corners that a contour passes; its numbers are read from their bytes."""
    raw = contour.get_item("ContourData").value
    points = np.array(raw.split(b"\\")).astype(np.float64).reshape(-1, 3) - plane[:, 2]
    at = points @ np.linalg.pinv(plane[:, :2]).T
    if np.abs(points - at @ plane[:, :2].T).max() > _OFF_PLANE_MM:
        raise _fault("a contour does not lie in the plane of its image")
    corners = np.rint(at + 0.5).astype(np.int64)
    if len(points) != contour.NumberOfContourPoints or np.abs(at + 0.5 - corners).max() > _OFF_EDGE:
        raise _fault("a contour does not run along the edges of voxels")
    return corners


def _fill(corners: NDArray[np.int64], mask: Mask) -> None:
    """Turn over the voxels within a closed line of upright and level edges."""
    following = np.roll(corners, -1, axis=0)
    upright = corners[:, 1] == following[:, 1]
    outside = (corners < 0).any() or (corners > mask.shape).any()
    if outside or not (upright | (corners[:, 0] == following[:, 0])).all():
        raise _fault("a contour does not run along the edges of voxels")
    first, last = corners.min(axis=0), corners.max(axis=0)
    height, width = (last - first + 1).tolist()
    ends = (np.concatenate([corners[upright], following[upright]]) - first) @ (width, 1)
    turns = np.bincount(ends, minlength=height * width).reshape(height, width) % 2 == 1
    # Down a column, an edge begins and ends in turns; along a row, so does what is inside.
    crossed = np.logical_xor.accumulate(turns, axis=0)
    inside = np.logical_xor.accumulate(crossed, axis=1)[:-1, :-1]
    mask[first[0] : last[0], first[1] : last[1]] ^= inside


def _fault(what: str) -> ResultRejected:
    return ResultRejected(f"the contours were not encoded as made: {what}; they are not sent")
