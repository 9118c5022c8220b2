"""Label map → label map segmentation: what is written, and that nothing wrong may leave.

Covered: pixels are segment numbers, in JPEG-LS that states the bits the header states; UIDs and
series of its own; what the check finds. Not covered: every element
(properties/test_frames.py), validity and other readers (acceptance/test_seg_matrix.py).
"""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEGLSLossless

from app.dicom.volume import build_volume
from app.errors import ResultRejected
from app.results.labelmap import check_labelmap, encode_labelmap, write_labelmap
from tests.properties.strategies import axial, identity, tiny_card, write_series
from tests.unit.encoding import Case, as_bytes


class Large(Case):
    """A series whose slices are large enough for JPEG-LS."""

    shape = (4, 40, 48)

    def __init__(self, folder: Path) -> None:
        affine, voxels = axial(self.shape)
        self.folder = folder
        self.paths = write_series(folder, affine, voxels)
        self.volume = build_volume(self.paths)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Large:
    """Return one such series."""
    return Large(tmp_path_factory.mktemp("large"))


def blocks() -> NDArray[np.uint8]:
    """Return a label map of it: one label on two slices, both on a third, none on the first."""
    labels = np.zeros(Large.shape, np.uint8)
    labels[1:4, 5:20, 5:20] = 7
    labels[3, 15:30, 10:40] = 200
    return labels


CARD = tiny_card((200, 7))


def test_pixels_are_segment_numbers(large: Large) -> None:
    """Numbers count from 1 in the order of the card; slices in which nothing is have no frame."""
    seg = encode_labelmap(large.result(blocks(), card=CARD))
    assert (seg.SegmentationType, seg.BitsStored, seg.NumberOfFrames) == ("LABELMAP", 8, 3)
    assert [item.SegmentNumber for item in seg.SegmentSequence] == [0, 1, 2]
    sources = [
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for group in seg.PerFrameFunctionalGroupsSequence
    ]
    for uid, frame in zip(sources, seg.pixel_array, strict=True):
        plane = blocks()[large.volume.sop_uids.index(uid)]
        assert ((frame == 1) == (plane == 200)).all()
        assert ((frame == 2) == (plane == 7)).all()


def test_each_frame_states_the_bits_that_the_header_states(large: Large) -> None:
    """GDCM refuses frames that state fewer, which an encoder that looks at the values writes."""
    seg = encode_labelmap(large.result(blocks(), card=CARD))
    assert seg.file_meta.TransferSyntaxUID == JPEGLSLossless
    for frame in generate_frames(seg.PixelData, number_of_frames=3):
        start = frame.index(b"\xff\xf7")  # SOF55 of ISO 14495-1: length, then bits
        assert frame[start + 4] == 8


def test_it_is_an_object_and_a_series_of_its_own(large: Large) -> None:
    """An archive may hold it beside the binary one of the same job."""
    seg = encode_labelmap(large.result(blocks(), card=CARD))
    assert seg.SOPInstanceUID == identity().uid("labelmap.instance")
    assert seg.SeriesInstanceUID == identity().uid("labelmap.series")
    assert seg.SeriesNumber == 304
    binary = large.encode(blocks(), card=CARD)
    assert binary.SeriesNumber == 302
    assert binary.SegmentSequence[1].TrackingUID == seg.SegmentSequence[2].TrackingUID


def test_where_nothing_was_found_one_frame_says_so(large: Large) -> None:
    """It is empty, and all segments are described."""
    seg = encode_labelmap(large.result(np.zeros(Large.shape, np.uint8), card=CARD))
    assert seg.NumberOfFrames == 1
    assert not seg.pixel_array.any()
    assert len(seg.SegmentSequence) == 3


def numbers_exchanged(seg: Dataset) -> None:
    """Exchange the descriptions of the segments, not their numbers."""
    _, first, second = seg.SegmentSequence
    first.SegmentLabel, second.SegmentLabel = second.SegmentLabel, first.SegmentLabel


def background_lost(seg: Dataset) -> None:
    """Describe the segments only."""
    seg.SegmentSequence = seg.SegmentSequence[1:]


def frames_exchanged(seg: Dataset) -> None:
    """Exchange what two frames say of themselves."""
    groups = seg.PerFrameFunctionalGroupsSequence
    seg.PerFrameFunctionalGroupsSequence = [groups[2], groups[1], groups[0]]


def frame_twice(seg: Dataset) -> None:
    """Have two frames be one slice."""
    groups = seg.PerFrameFunctionalGroupsSequence
    seg.PerFrameFunctionalGroupsSequence = [groups[0], groups[1], groups[1]]


def frame_lost(seg: Dataset) -> None:
    """Drop the last frame."""
    seg.PerFrameFunctionalGroupsSequence = seg.PerFrameFunctionalGroupsSequence[:2]
    seg.PixelData = encapsulate([*generate_frames(seg.PixelData, number_of_frames=3)][:2])
    seg.NumberOfFrames = 2


def frame_moved(seg: Dataset) -> None:
    """Put a frame half a millimetre away."""
    place = seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    place.ImagePositionPatient[0] += 0.5


def pixel_changed(seg: Dataset) -> None:
    """Mark one more pixel."""
    frames = seg.pixel_array.copy()
    frames[0, 0, 0] = 1
    seg.compress(JPEGLSLossless, frames, generate_instance_uid=False)


WRONG: list[tuple[Callable[[Dataset], None], str]] = [
    (numbers_exchanged, "segment 1 has not the name"),
    (background_lost, "its first segment is not the background"),
    (frames_exchanged, "slice [24] differs from the label map"),
    (frame_twice, "slice 3 (is there twice|differs)"),
    (frame_lost, "slice [24] is missing"),
    (frame_moved, r"slice [24] lies 0\.50 mm from where"),
    (pixel_changed, "slice [24] differs from the label map"),
]


@pytest.mark.parametrize(("spoiled", "reason"), WRONG)
def test_a_wrong_label_map_may_not_leave(
    large: Large, tmp_path: Path, spoiled: Callable[[Dataset], None], reason: str
) -> None:
    """Each fault is found, and the right object is not refused."""
    result = large.result(blocks(), card=CARD)
    encoded = BytesIO()
    write_labelmap(encoded, result)
    path = tmp_path / "labelmap.dcm"
    path.write_bytes(encoded.getvalue())
    check_labelmap(path, result)
    seg = pydicom.dcmread(path)
    spoiled(seg)
    path.write_bytes(as_bytes(seg))
    with pytest.raises(ResultRejected, match=reason):
        check_labelmap(path, result)
