"""Enhanced multi-frame objects become volumes like stacks of single images.

Covered: CT and MR, frames in any order, functional groups shared or per frame, the transfer
syntaxes in use, the refusals that single images have too, and headers that lie. The millimetre of a
voxel is checked over any grid. Not covered: PET (it differs in no group that is read), what routes
see of them and what encoders get (test_enhanced_headers.py), and multi-frame objects without
functional groups, which stay refused (test_odd_series.py).
"""

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from app.config_routes import Gates
from app.dicom.headers import read_headers
from app.dicom.volume import build_volume, load, save
from app.errors import IncompleteSeries, StudyError, UnreadableDicom, UnsupportedGeometry
from app.pipeline.gates import refusals
from tests.peers import require
from tests.properties.enhanced import (
    FRAMES,
    ORDER,
    Edit,
    enhanced,
    frame,
    moved,
    object_uid,
    on_frame,
    setting,
    without,
    write_enhanced,
)
from tests.properties.strategies import axial, grids, write_series

UNSEEN = {
    "no groups of all",
    "slope of zero",
    "65535 rows and columns",
    "no pixels",
    "short pixels",
}
"""What is refused for what no gate asks: what values mean, and the pixels."""


@pytest.mark.dciodvfy
@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("shared", [True, False])
def test_the_objects_of_these_tests_are_valid(tmp_path: Path, modality: str, shared: bool) -> None:
    """Dciodvfy, which knows nothing of this program, finds no error in them."""
    require("dciodvfy")
    paths = write_enhanced(tmp_path, *axial(), ORDER, modality=modality, shared=shared)
    found = subprocess.run(["dciodvfy", str(paths[0])], capture_output=True, text=True, check=False)
    assert f"Enhanced{modality}Image" in found.stderr
    assert "Error" not in found.stderr


# -- volumes --------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(grids(), st.data())
def test_a_marked_voxel_keeps_its_millimetre(
    grid: tuple[NDArray[Any], tuple[int, int, int]], data: st.DataObject
) -> None:
    """The points marked in the volume are those that the scanner's object put there."""
    affine, shape = grid
    order = data.draw(st.permutations(range(shape[0])))
    how = {
        "modality": data.draw(st.sampled_from(["CT", "MR"])),
        "shared": data.draw(st.booleans()),
    }
    cell = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    voxels = np.zeros(shape, np.int16)
    voxels[cell] = 1001
    with TemporaryDirectory() as folder:
        volume = build_volume(write_enhanced(Path(folder), affine, voxels, order, **how))
    found = np.argwhere(volume.voxels_kji == 1001)
    np.testing.assert_allclose(
        found @ volume.affine_lps[:3, :3].T + volume.affine_lps[:3, 3],
        [affine[:3, :3] @ cell + affine[:3, 3]],
        atol=1e-3,
    )
    assert volume.frames is not None
    assert [order[number - 1] for number in volume.frames] == list(range(shape[0]))


def test_slices_name_their_object_and_frame(tmp_path: Path) -> None:
    """The instance repeats; the frames are counted from 1 in the order of the object."""
    affine, voxels = axial()
    volume = build_volume(write_enhanced(tmp_path, affine, voxels, ORDER))
    assert volume.sop_uids == (object_uid(),) * 4
    assert volume.frames == FRAMES
    np.testing.assert_array_equal(volume.voxels_kji, voxels)
    save(volume, tmp_path, "CT")
    assert load(tmp_path, "CT").frames == FRAMES


def test_a_series_may_be_of_several_objects(tmp_path: Path) -> None:
    """Every slice names its own; the order of arrival does not matter."""
    affine, voxels = axial()
    paths = [
        *write_enhanced(tmp_path, affine, voxels, (3, 1), number=0),
        *write_enhanced(tmp_path, affine, voxels, (2, 0), number=1),
    ]
    volume = build_volume(paths)
    np.testing.assert_array_equal(volume.voxels_kji, voxels)
    assert volume.sop_uids == tuple(object_uid(n) for n in (1, 0, 1, 0))
    assert volume.frames == (2, 2, 1, 1)
    assert build_volume(reversed(paths)).frames == volume.frames


def test_each_frame_has_its_own_slope(tmp_path: Path) -> None:
    """PET and some MR scale every slice by itself."""
    affine, voxels = axial()

    def edit(ds: Dataset) -> None:
        for number in range(1, 5):
            on_frame(
                number,
                "PixelValueTransformationSequence",
                RescaleSlope=number,
                RescaleIntercept=0,
                RescaleType="US",
            )(ds)

    volume = build_volume(
        write_enhanced(tmp_path, affine, voxels, ORDER, edit, modality="MR", shared=False)
    )
    expected = [(voxels[k] + 600) * FRAMES[k] for k in range(4)]
    np.testing.assert_array_equal(volume.voxels_kji, expected)


def test_mr_needs_no_slope(tmp_path: Path) -> None:
    """Its values have no unit; CT without one is refused."""
    affine, voxels = axial()

    def edit(ds: Dataset) -> None:
        del ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence

    mr = build_volume(write_enhanced(tmp_path, affine, voxels, edit=edit, modality="MR"))
    np.testing.assert_array_equal(mr.voxels_kji, voxels + 600)
    with pytest.raises(StudyError, match=r"frame 1: RescaleSlope .* is missing"):
        build_volume(write_enhanced(tmp_path, affine, voxels, edit=edit))


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
    ids=lambda syntax: syntax.keyword,
)
def test_frames_are_decoded_from_every_transfer_syntax(tmp_path: Path, syntax: UID) -> None:
    """Compressed ones frame by frame; an offset table is not needed."""
    affine, voxels = axial((4, 64, 64))
    voxels = voxels % 3000

    def edit(ds: Dataset) -> None:
        ds.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()

    compressed = syntax.is_encapsulated
    paths = write_enhanced(
        tmp_path,
        affine,
        voxels,
        ORDER,
        None if compressed else edit,
        compress=syntax if compressed else None,
    )
    np.testing.assert_array_equal(build_volume(paths).voxels_kji, voxels)


def test_copies_of_a_frame_are_dropped(tmp_path: Path) -> None:
    """Of two frames with the same pixels at one place one is a slice; routes are told."""
    affine, voxels = axial()
    voxels[2] = voxels[1]
    paths = write_enhanced(
        tmp_path, affine, voxels, ORDER, moved(lambda k: (-10, -20, (30, 32, 32, 34)[k]))
    )
    assert build_volume(paths).frames == (2, 1, 3)
    (headers,) = read_headers(paths)
    assert headers.series().facts["duplicates"] == (1,)
    assert headers.series().facts["duplicates_differ"] == ("no",)


REFUSED: dict[str, tuple[Edit, type[StudyError], str]] = {
    # what single images are refused for
    "gap": (
        moved(lambda k: (-10, -20, (30, 32, 36, 38)[k])),
        IncompleteSeries,
        r"gap after slice 2 of 4, .* 1 slice\(s\) missing",
    ),
    "uneven": (
        moved(lambda k: (-10, -20, (30, 32, 35, 37)[k])),
        UnsupportedGeometry,
        "unevenly spaced",
    ),
    "tilt": (
        moved(lambda k: (-10, -20 + k, 30 + 2 * k)),
        UnsupportedGeometry,
        "gantry tilt",
    ),
    "two stacks": (
        moved(lambda k: (-10 + 50 * (k % 2), -20, 30 + k // 2)),
        UnsupportedGeometry,
        "side by side",
    ),
    "points in time": (
        moved(lambda k: (-10, -20, 30 + k // 2)),
        UnsupportedGeometry,
        "every position holds 2 different slices",
    ),
    "other pixels": (
        moved(lambda k: (-10, -20, (30, 32, 32, 34)[k])),
        UnsupportedGeometry,
        "slice 2 of 3: 2 different slices lie at one position",
    ),
    "several orientations": (
        on_frame(3, "PlaneOrientationSequence", ImageOrientationPatient=[0, 1, 0, 0, 0, -1]),
        UnsupportedGeometry,
        "frame 3: the slices have several orientations",
    ),
    "several spacings": (
        on_frame(3, "PixelMeasuresSequence", PixelSpacing=[2, 2]),
        UnsupportedGeometry,
        "frame 3: the slices differ in PixelSpacing",
    ),
    "localizer": (
        on_frame(3, "CTImageFrameTypeSequence", FrameType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        UnsupportedGeometry,
        "frame 3: is a localizer",
    ),
    "no frame of reference": (
        without("FrameOfReferenceUID"),
        UnsupportedGeometry,
        "no FrameOfReferenceUID",
    ),
    "colour": (setting(PhotometricInterpretation="RGB"), StudyError, "RGB, not MONOCHROME2"),
    "slope of zero": (
        on_frame(2, "PixelValueTransformationSequence", RescaleSlope=0, RescaleIntercept=0),
        StudyError,
        "frame 2: RescaleSlope .* not a usable number",
    ),
    # what only frames can be refused for
    "frames without groups": (
        without("PerFrameFunctionalGroupsSequence"),
        UnsupportedGeometry,
        "does not describe its frames",
    ),
    "no groups of all": (
        without("SharedFunctionalGroupsSequence"),
        StudyError,
        "RescaleSlope .* is missing",
    ),
    "a frame without a position": (
        lambda ds: delattr(frame(ds, 3), "PlanePositionSequence"),
        UnsupportedGeometry,
        "frame 3: ImagePositionPatient is missing",
    ),
    "an empty position": (
        lambda ds: setattr(frame(ds, 3), "PlanePositionSequence", []),
        UnsupportedGeometry,
        "frame 3: ImagePositionPatient is missing",
    ),
    "fewer groups than frames": (
        lambda ds: ds.PerFrameFunctionalGroupsSequence.pop(),
        UnreadableDicom,
        "describes 3 of 4 frames",
    ),
    "more frames than pixels": (
        setting(NumberOfFrames=2**31 - 1),
        UnreadableDicom,
        "describes 4 of 2147483647 frames",
    ),
    "no number of frames": (
        without("NumberOfFrames"),
        UnreadableDicom,
        "describes 4 of an unknown number of frames",
    ),
    "65535 rows and columns": (
        setting(Rows=65535, Columns=65535),
        UnsupportedGeometry,
        r"need 64\.0 GiB; the limit is 4 GiB",
    ),
    "no pixels": (without("PixelData"), UnreadableDicom, "has no pixel data"),
    "short pixels": (
        setting(PixelData=b"\0" * 200),
        UnreadableDicom,
        "has 200 of 240 bytes of pixels",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_odd_object_is_refused_by_name(tmp_path: Path, name: str) -> None:
    """What is wrong, where, and what to do; never is the first frame taken for the whole."""
    edit, error, reason = REFUSED[name]
    paths = write_enhanced(tmp_path, *axial(), ORDER, edit)
    with pytest.raises(error, match=reason) as caught:
        build_volume(paths)
    assert type(caught.value) is error
    assert ";" in str(caught.value), "the sentence says what to do"
    assert "PHANTOM" not in str(caught.value), "and names nobody"


@pytest.mark.parametrize("name", sorted(REFUSED.keys() - UNSEEN))
def test_gates_stop_what_is_refused(tmp_path: Path, name: str) -> None:
    """Before anything is decoded; the study goes on without it."""
    (headers,) = read_headers(write_enhanced(tmp_path, *axial(), ORDER, REFUSED[name][0]))
    assert refusals(headers.series(), Gates())


def test_a_file_cut_off_in_its_pixels_is_refused(tmp_path: Path) -> None:
    """Its header is whole and says how many bytes there were."""
    affine, voxels = axial((4, 256, 256))
    (path,) = write_enhanced(tmp_path, affine, voxels % 3000)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UnreadableDicom, match=r"has 523288 of 524288 bytes of pixels"):
        build_volume([path])


def test_missing_compressed_frames_are_refused(tmp_path: Path) -> None:
    """Three encoded frames for four that are described."""

    def edit(ds: Dataset) -> None:
        three = enhanced(*axial(), (0, 1, 2))
        three.compress(RLELossless, generate_instance_uid=False)
        ds.PixelData, ds["PixelData"].VR = three.PixelData, "OB"
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = RLELossless

    with pytest.raises(UnreadableDicom, match="send it again"):
        build_volume(write_enhanced(tmp_path, *axial(), edit=edit))


def test_frames_and_single_images_make_no_volume(tmp_path: Path) -> None:
    """One result could not refer to both; the gate says it before."""
    affine, voxels = axial()
    paths = write_series(tmp_path, affine, voxels, (0, 1))
    paths += write_enhanced(tmp_path, affine, voxels, (2, 3))
    with pytest.raises(UnsupportedGeometry, match="single images and frames"):
        build_volume(paths)
    (headers,) = read_headers(paths)
    assert [each.code for each in refusals(headers.series(), Gates())] == ["multi_frame"]
