"""Segments that share voxels, segments that are left out, and sources of several frames.

Covered: what stands in the SEG of a card whose labels include others' values, of one that leaves
out what was not found, and of a volume whose slices are frames of one instance. Not covered: that
the same is read by others (acceptance/test_seg_matrix.py).
"""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage

from app.errors import ResultRejected
from app.models.card import ModelCard
from app.results.check import check_seg
from app.results.result import Result
from app.results.segmentation import encode_seg, write_seg
from tests.properties.strategies import tiny_card
from tests.unit.encoding import Case, as_bytes, organs


def card(includes: tuple[int, ...] = (), **outputs: Any) -> ModelCard:
    """Return a card whose first label includes the given values."""
    plain = tiny_card().model_dump()
    plain["labels"][0]["includes"] = includes
    plain["outputs"] |= outputs
    return ModelCard.model_validate(plain)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Return a plain axial case."""
    return Case(tmp_path)


def voxels_of(seg: Dataset) -> dict[int, int]:
    """Return how many voxels each described segment has."""
    count = {item.SegmentNumber: 0 for item in seg.SegmentSequence}
    frames = seg.pixel_array.reshape(seg.NumberOfFrames, seg.Rows, seg.Columns)
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        (shared,) = seg.SharedFunctionalGroupsSequence
        item = group if "SegmentIdentificationSequence" in group else shared
        (named,) = item.SegmentIdentificationSequence
        count[named.ReferencedSegmentNumber] += int(frame.sum())
    return count


def test_a_voxel_can_belong_to_two_segments(case: Case) -> None:
    """The including segment has the voxels of both; the object says that they overlap."""
    case.write(card=card((2,)))
    seg = case.encode(card=card((2,)))
    assert voxels_of(seg) == {1: 5, 2: 1}
    assert seg.SegmentsOverlap == "YES"


def test_segments_that_could_overlap_and_do_not_say_no(case: Case) -> None:
    """Where the included label was not found no voxel is shared."""
    labels = organs()
    labels[labels == 2] = 0
    assert case.encode(labels, card=card((2,))).SegmentsOverlap == "NO"


def test_an_overlap_that_was_lost_is_found(case: Case, tmp_path: Path) -> None:
    """An object made without the included voxels is not what the card says."""
    seg = case.encode()
    path = tmp_path / "seg.dcm"
    path.write_bytes(as_bytes(seg))
    with pytest.raises(ResultRejected, match="slice 4 has 1 marked voxels, the label map 2"):
        check_seg(path, case.result(card=card((2,))))


def test_an_empty_segment_is_left_out_where_the_card_says_so(case: Case) -> None:
    """Numbers count from 1 without a gap, and the codes are those of the label that was found."""
    labels = organs()
    labels[labels == 1] = 0
    omitting = card(empty_segments="omit")
    case.write(labels, card=omitting)
    seg = case.encode(labels, card=omitting)
    assert [(item.SegmentNumber, item.SegmentLabel) for item in seg.SegmentSequence] == [
        (1, "organ 2")
    ]
    assert voxels_of(seg) == {1: 1}
    assert [label.value for _, label in case.result(labels, card=omitting).segments()] == [2]
    stated = case.encode(labels)
    assert voxels_of(stated) == {1: 0, 2: 1}


def test_a_segment_that_only_includes_what_was_found_is_not_empty(case: Case) -> None:
    """Its own value need not be there."""
    labels = organs()
    labels[labels == 1] = 0
    seg = case.encode(labels, card=card((2,), empty_segments="omit"))
    assert voxels_of(seg) == {1: 1, 2: 1}


def test_where_nothing_was_found_nothing_is_left_out(case: Case) -> None:
    """A SEG without segments is none; each says with one empty frame that it was looked for."""
    nothing = np.zeros((4, 5, 6), np.uint8)
    omitting = card(empty_segments="omit")
    case.write(nothing, card=omitting)
    assert voxels_of(case.encode(nothing, card=omitting)) == {1: 0, 2: 0}
    assert case.encode(nothing, card=omitting).NumberOfFrames == 2


def enhanced(case: Case) -> Result:
    """Return a result whose slices are the frames 3, 2, 1 and 4 of one enhanced CT."""
    result = case.result()
    (first, *_) = result.sources.headers
    header = deepcopy(first)
    header.SOPClassUID, header.NumberOfFrames = EnhancedCTImageStorage, 4
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(header, keyword)
    uid = header.SOPInstanceUID
    return replace(
        result,
        volume=replace(result.volume, sop_uids=(uid,) * 4, frames=(3, 2, 1, 4)),
        sources=replace(result.sources, headers=[header]),
    )


def test_frames_of_a_multi_frame_source_are_referred_to_by_number(
    case: Case, tmp_path: Path
) -> None:
    """The instance stands once in the references, its frames where they were used."""
    result = enhanced(case)
    path = tmp_path / "seg.dcm"
    with path.open("wb") as file:
        write_seg(file, result)
    check_seg(path, result)
    seg = encode_seg(result)
    (series,) = seg.ReferencedSeriesSequence
    assert len(series.ReferencedInstanceSequence) == len(seg.SourceImageSequence) == 1
    sources = [
        group.DerivationImageSequence[0].SourceImageSequence[0]
        for group in seg.PerFrameFunctionalGroupsSequence
    ]
    assert {source.ReferencedSOPClassUID for source in sources} == {EnhancedCTImageStorage}
    assert sorted(source.ReferencedFrameNumber for source in sources) == [1, 2, 4]
    places = [
        float(group.PlanePositionSequence[0].ImagePositionPatient[2])
        for group in seg.PerFrameFunctionalGroupsSequence
    ]
    by_number = {1: 34.0, 2: 32.0, 4: 36.0}
    assert places == [by_number[source.ReferencedFrameNumber] for source in sources]
    plain = case.encode()
    assert seg.SharedFunctionalGroupsSequence == plain.SharedFunctionalGroupsSequence
    assert seg.pixel_array.tobytes() == plain.pixel_array.tobytes()


def test_a_wrong_frame_number_is_found(case: Case, tmp_path: Path) -> None:
    """Only the number tells the slices of such a source apart."""
    result = enhanced(case)
    seg = encode_seg(result)
    group = seg.PerFrameFunctionalGroupsSequence[0]
    source = group.DerivationImageSequence[0].SourceImageSequence[0]
    source.ReferencedFrameNumber = 4
    path = tmp_path / "seg.dcm"
    path.write_bytes(as_bytes(seg))
    with pytest.raises(ResultRejected, match="mm from where it was found"):
        check_seg(path, result)


def test_frames_of_few_pixels_follow_each_other_bit_by_bit(tmp_path: Path) -> None:
    """Frames of 2 × 3 pixels share bytes with up to two others (PS3.5 8.1.1)."""
    case = Case(tmp_path)
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, (4, 5, 6), dtype=np.uint8)
    small = replace(case.result(labels), labels_kji=labels[:, :2, :3])
    for header in small.sources.headers:
        header.Rows, header.Columns = 2, 3
    seg = encode_seg(small)
    for frame, group in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        uid = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        k = case.volume.sop_uids.index(uid)
        assert (frame == (small.labels_kji[k] == number)).all()
    assert len(seg.PixelData) == -(-6 * seg.NumberOfFrames // 16) * 2
