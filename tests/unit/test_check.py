"""The check that stands before the archive: an object that is not its label map does not leave.

Each case spoils a right object in one way that encoders were seen to. Not covered: what dciodvfy
judges (test_encode.py); the check is of content and place, not of form.
"""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from app.errors import ResultRejected
from app.results.check import check_seg
from tests.properties.strategies import FRAME_UID
from tests.unit.encoding import Case, as_bytes, oblique, organs


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


WRONG: list[tuple[Callable[[Dataset], None], str]] = [
    (mirrored, "differs from the label map"),
    (frame_moved, r"lies 0\.50 mm from where"),
    (frames_exchanged, "differs from the label map|mm from where"),
    (spacing_exchanged, "mm from where"),
    (frame_lost, r"segment [12] has \d voxels, the label map \d"),
    (frame_twice, "is there twice"),
    (reference_lost, "the instances it refers to"),
    (segments_exchanged, "differs from the label map"),
    (segment_lost, "its segments are not 1 to 2"),
    (other_frame_of_reference, "its frame of reference"),
    (pixels_lost, "do not match in number"),
]


@pytest.mark.parametrize(("spoiled", "reason"), WRONG)
def test_a_wrong_object_may_not_leave(
    tmp_path: Path, spoiled: Callable[[Dataset], None], reason: str
) -> None:
    """Each fault that encoders were seen to make is found, and the right object is not refused."""
    case = Case(tmp_path, affine=oblique())
    promised = {
        "labels_kji": organs(),
        "affine_lps": case.volume.affine_lps,
        "sop_uids": case.volume.sop_uids,
        "frame_of_reference_uid": FRAME_UID,
        "values": (1, 2),
    }
    encoded = as_bytes(case.encode())
    check_seg(encoded, **promised)
    seg = pydicom.dcmread(BytesIO(encoded))
    spoiled(seg)
    with pytest.raises(ResultRejected, match=reason):
        check_seg(as_bytes(seg), **promised)


def test_an_object_that_fails_its_check_is_not_left_behind(tmp_path: Path) -> None:
    """A volume in another frame of reference than the files is such a case."""
    case = Case(tmp_path)
    case.volume = replace(case.volume, frame_of_reference_uid="2.25.9")
    with pytest.raises(ResultRejected, match="frame of reference"):
        case.write()
    assert list((case.folder / "encode").iterdir()) == []
