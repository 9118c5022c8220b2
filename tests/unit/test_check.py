"""The check that stands before the archive: an object that is not its label map does not leave.

Each case spoils a right object in one way that encoders were seen to. Not covered: what dciodvfy
judges (test_encode.py); the check is of content and place, not of form.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from app.errors import ResultRejected
from app.results.check import check_seg
from tests.unit.encoding import Case, as_bytes, oblique


def mirrored(seg: Dataset) -> None:
    """Reverse the pixels of each frame, as a viewer's convention would."""
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    frames = bits[: 3 * 30].reshape(3, 5, 6)[:, :, ::-1]
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
    seg.PixelData = packed + b"\0" * (len(packed) % 2)


def frame_moved(seg: Dataset) -> None:
    """Put a frame a quarter of a slice away."""
    place = seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    place.ImagePositionPatient[2] += 0.5


def frames_exchanged(seg: Dataset) -> None:
    """Exchange the slices that two frames say they are."""
    groups = seg.PerFrameFunctionalGroupsSequence
    one, other = (groups[at].DerivationImageSequence for at in (0, 2))
    groups[0].DerivationImageSequence, groups[2].DerivationImageSequence = other, one


def spacing_exchanged(seg: Dataset) -> None:
    """Exchange row and column spacing, as MONAI's loader does."""
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = measures.PixelSpacing[::-1]


def frame_lost(seg: Dataset) -> None:
    """Drop the last frame."""
    seg.PerFrameFunctionalGroupsSequence = seg.PerFrameFunctionalGroupsSequence[:-1]
    seg.NumberOfFrames = 2


def frame_twice(seg: Dataset) -> None:
    """Have the last frame be the first one again."""
    groups = seg.PerFrameFunctionalGroupsSequence
    seg.PerFrameFunctionalGroupsSequence = [groups[0], groups[0], groups[2]]
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    bits[30:60] = bits[:30]
    seg.PixelData = np.packbits(bits, bitorder="little").tobytes()


def reference_lost(seg: Dataset) -> None:
    """Forget one of the source images."""
    (series,) = seg.ReferencedSeriesSequence
    series.ReferencedInstanceSequence = series.ReferencedInstanceSequence[1:]


def segments_exchanged(seg: Dataset) -> None:
    """Say that the one organ is the other."""
    for group in seg.PerFrameFunctionalGroupsSequence:
        item = group.SegmentIdentificationSequence[0]
        item.ReferencedSegmentNumber = 3 - item.ReferencedSegmentNumber


def segment_lost(seg: Dataset) -> None:
    """Describe one segment only."""
    seg.SegmentSequence = seg.SegmentSequence[:1]


def other_frame_of_reference(seg: Dataset) -> None:
    """Place the object in another frame of reference."""
    seg.FrameOfReferenceUID = "2.25.9"


def pixels_lost(seg: Dataset) -> None:
    """Keep only the first bytes of the pixels."""
    seg.PixelData = seg.PixelData[:4]


def code_exchanged(seg: Dataset) -> None:
    """Call the second organ what the first is."""
    first, second = seg.SegmentSequence
    second.SegmentedPropertyTypeCodeSequence = first.SegmentedPropertyTypeCodeSequence


def side_lost(seg: Dataset) -> None:
    """Forget that it is the left one."""
    kind = seg.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0]
    del kind.SegmentedPropertyTypeModifierCodeSequence


def region_lost(seg: Dataset) -> None:
    """Forget where it is."""
    del seg.SegmentSequence[1].AnatomicRegionSequence


def category_changed(seg: Dataset) -> None:
    """Call an organ something else than anatomy."""
    seg.SegmentSequence[0].SegmentedPropertyCategoryCodeSequence[0].CodeValue = "49755003"


def tracked_twice(seg: Dataset) -> None:
    """Give two segments one tracking UID."""
    first, second = seg.SegmentSequence
    second.TrackingUID = first.TrackingUID


def other_study(seg: Dataset) -> None:
    """Put it into another study."""
    seg.StudyInstanceUID = "2.25.9"


def other_instance(seg: Dataset) -> None:
    """Give it a UID that another attempt would not give it."""
    seg.SOPInstanceUID = seg.file_meta.MediaStorageSOPInstanceUID = "2.25.9"


def no_references(seg: Dataset) -> None:
    """Refer to no series at all."""
    del seg.ReferencedSeriesSequence


def unknown_source(seg: Dataset) -> None:
    """Have a frame come from an image that is not of the series."""
    group = seg.PerFrameFunctionalGroupsSequence[0]
    source = group.DerivationImageSequence[0].SourceImageSequence[0]
    source.ReferencedSOPInstanceUID = "2.25.9"


def no_source(seg: Dataset) -> None:
    """Have a frame come from nowhere."""
    del seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence


def unknown_segment(seg: Dataset) -> None:
    """Have a frame belong to a segment that is not described."""
    group = seg.PerFrameFunctionalGroupsSequence[0]
    group.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 3


def other_size(seg: Dataset) -> None:
    """Exchange rows and columns."""
    seg.Rows, seg.Columns = seg.Columns, seg.Rows


WRONG: list[tuple[Callable[[Dataset], None], str]] = [
    (mirrored, "segment 1 on slice 3 differs from the label map"),
    (frame_moved, r"segment 1 on slice 3 lies 0\.50 mm from where"),
    (frames_exchanged, "mm from where"),
    (spacing_exchanged, "mm from where"),
    (frame_lost, r"slice [1-4] has 0 marked voxels, the label map [14]"),
    (frame_twice, "is there twice"),
    (reference_lost, "the instances it refers to"),
    (no_references, "ReferencedSeriesSequence is missing"),
    (segments_exchanged, "differs from the label map"),
    (segment_lost, "its segments are not 1 to 2"),
    (other_frame_of_reference, "its frame of reference"),
    (pixels_lost, "do not match in number"),
    (code_exchanged, "segment 2 has not the type that the card"),
    (side_lost, "segment 2 has not the laterality that the card"),
    (region_lost, "segment 2 has not the region that the card"),
    (category_changed, "segment 1 has not the category that the card"),
    (tracked_twice, "two of its segments have one tracking UID"),
    (other_study, "it is of another study"),
    (other_instance, "its UIDs are not those of the job"),
    (unknown_source, "a frame belongs to no source image"),
    (no_source, "it cannot be read back"),
    (unknown_segment, "a frame belongs to no segment"),
    (other_size, "not as large as the slices"),
]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Return an oblique case with oblong pixels."""
    return Case(tmp_path_factory.mktemp("case"), affine=oblique())


@pytest.mark.parametrize(("spoiled", "reason"), WRONG)
def test_a_wrong_object_may_not_leave(
    case: Case, tmp_path: Path, spoiled: Callable[[Dataset], None], reason: str
) -> None:
    """Each fault that encoders were seen to make is found, and the right object is not refused."""
    result = case.result()
    path = tmp_path / "seg.dcm"
    seg = case.encode()
    path.write_bytes(as_bytes(seg))
    check_seg(path, result)
    spoiled(seg)
    path.write_bytes(as_bytes(seg))
    with pytest.raises(ResultRejected, match=reason):
        check_seg(path, result)


@pytest.mark.parametrize("lost", [1, 200, 2000])
def test_a_file_that_was_cut_short_may_not_leave(case: Case, tmp_path: Path, lost: int) -> None:
    """Whether it lacks a byte of its pixels or all of its frames."""
    path = tmp_path / "seg.dcm"
    whole = as_bytes(case.encode())
    path.write_bytes(whole[:-lost])
    with pytest.raises(ResultRejected):
        check_seg(path, case.result())


def test_a_volume_of_another_frame_of_reference_is_found(tmp_path: Path) -> None:
    """The file takes it from the sources, the check from the volume."""
    case = Case(tmp_path)
    case.volume = replace(case.volume, frame_of_reference_uid="2.25.9")
    with pytest.raises(ResultRejected, match="frame of reference"):
        case.write()
