"""What routes see of enhanced multi-frame objects, and what encoders get of them.

Covered: facts and tags from files and from an archive's metadata, the gates, headers that are kept
and merged, and headers that highdicom takes as a source. Not covered: volumes (test_enhanced.py).
"""

import json
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import SegmentationStorage

from app.config_routes import Gates
from app.dicom.headers import SeriesHeaders, headers_of, merge, read_headers
from app.dicom.volume import Volume, build_volume
from app.pipeline.gates import refusals
from app.results.result import result_of
from app.results.sources import Sources, read_sources
from tests.properties.enhanced import (
    FRAMES,
    ORDER,
    Edit,
    frame,
    item,
    moved,
    object_uid,
    on_frame,
    setting,
    without,
    write_enhanced,
)
from tests.properties.strategies import axial, identity, tiny_card, write_series
from tests.unit.encoding import NOW


def facts(headers: SeriesHeaders) -> Any:
    """Return the facts of a series."""
    return headers.series().facts


# -- facts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False])
def test_facts_are_those_of_a_stack(tmp_path: Path, shared: bool) -> None:
    """Routes see what they would see of the same slices as single images, and no gate stops it."""
    (tmp_path / "single").mkdir()
    (single,) = read_headers(write_series(tmp_path / "single", *axial()))
    (many,) = read_headers(write_enhanced(tmp_path, *axial(), ORDER, shared=shared))
    told = facts(many)
    assert told["multi_frame"] == ("enhanced",)
    assert told["slices"] == (4,)
    measured = set(facts(single)) - {"multi_frame"}
    assert {name: told[name] for name in measured} == {
        name: facts(single)[name] for name in measured
    }
    assert refusals(many.series(), Gates()) == ()
    assert many.series().tags["ConvolutionKernel"] == ("B30f",)
    assert many.series().tags["KVP"] == (120.0,)


def test_what_differs_between_frames_is_told(tmp_path: Path) -> None:
    """Two echoes at every position, as two single images would be told apart."""

    def edit(ds: Dataset) -> None:
        moved(lambda k: (-10, -20, 30 + 2 * (k // 2)))(ds)
        for k, number in enumerate(FRAMES):
            on_frame(number, "MREchoSequence", EffectiveEchoTime=(10.0, 90.0)[k % 2])(ds)

    (found,) = read_headers(write_enhanced(tmp_path, *axial(), ORDER, edit, modality="MR"))
    assert facts(found)["positions"] == (2,)
    assert facts(found)["per_position"] == (2,)
    assert facts(found)["duplicates"] == (0,)
    assert found.series().tags["EchoTime"] == (10.0, 90.0)
    assert [each.code for each in refusals(found.series(), Gates())] == ["several_per_position"]


@pytest.mark.parametrize("apart", [True, False])
def test_points_in_time_are_split_by_object(tmp_path: Path, apart: bool) -> None:
    """An object that holds several points in time cannot be divided; several objects can."""

    def at(point: int) -> Edit:
        return lambda ds: setattr(
            ds.SharedFunctionalGroupsSequence[0],
            "TemporalPositionSequence",
            [item(TemporalPositionTimeOffset=float(point))],
        )

    def mixed(ds: Dataset) -> None:
        for number in range(1, 9):
            content = frame(ds, number).FrameContentSequence[0]
            content.TemporalPositionIndex = 1 + (number > 4)

    affine, voxels = axial()
    if apart:
        paths = write_enhanced(tmp_path, affine, voxels, edit=at(1), number=0)
        paths += write_enhanced(tmp_path, affine, voxels, edit=at(2), number=1)
    else:
        paths = write_enhanced(tmp_path, affine, voxels, (0, 1, 2, 3, 3, 2, 1, 0), mixed)
    (found,) = read_headers(paths)
    assert facts(found)["time_points"] == (2,)
    parts = [part.sop_uids for part in found.series().parts]
    assert parts == ([(object_uid(0),), (object_uid(1),)] if apart else [])


@pytest.mark.parametrize(
    "edit",
    [
        without("PerFrameFunctionalGroupsSequence"),
        setting(NumberOfFrames=2**31 - 1),
        lambda ds: ds.PerFrameFunctionalGroupsSequence.pop(),
    ],
    ids=["no groups", "more frames", "fewer groups"],
)
def test_an_object_that_lies_is_stopped_by_a_gate(tmp_path: Path, edit: Edit) -> None:
    """Its header can be read, so the study goes on without it."""
    (found,) = read_headers(write_enhanced(tmp_path, *axial(), edit=edit))
    assert facts(found)["multi_frame"] == ("yes",)
    codes_found = {each.code for each in refusals(found.series(), Gates())}
    assert {"multi_frame", "placed"} <= codes_found


def test_frames_of_segmentations_are_not_taken_apart(tmp_path: Path) -> None:
    """There may be thousands in a study, and no route asks where they lie."""
    edit = setting(SOPClassUID=SegmentationStorage, Modality="SEG")
    (found,) = read_headers(write_enhanced(tmp_path, *axial(), edit=edit))
    assert facts(found)["kind"] == ("not_image",)
    assert facts(found)["multi_frame"] == ("yes",)
    assert "positions" not in facts(found)


def test_a_frame_that_is_not_placed_is_stopped_by_a_gate(tmp_path: Path) -> None:
    """As an image without a position is."""

    def edit(ds: Dataset) -> None:
        del frame(ds, 3).PlanePositionSequence

    (found,) = read_headers(write_enhanced(tmp_path, *axial(), edit=edit))
    assert [each.code for each in refusals(found.series(), Gates())] == ["missing_slice", "placed"]


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_metadata_tell_what_files_tell(tmp_path: Path, modality: str) -> None:
    """Routes decide the same before an object is fetched and after."""
    (path,) = write_enhanced(tmp_path, *axial(), ORDER, modality=modality, shared=False)
    (from_files,) = read_headers([path])
    answer = json.loads(pydicom.dcmread(path).to_json())
    del answer["7FE00010"]
    (from_metadata,) = headers_of([Dataset.from_json(answer)])
    assert from_metadata == from_files


def test_headers_are_kept_small_and_whole(tmp_path: Path) -> None:
    """A frame takes no more room than a position; JSON and merging change nothing."""
    affine, voxels = axial((300, 2, 2))
    (found,) = read_headers(write_enhanced(tmp_path, affine, np.zeros_like(voxels)))
    kept = json.dumps(found.to_json())
    assert len(kept) < 300 * 40 + 4000
    again = SeriesHeaders.from_json(json.loads(kept))
    assert again == found
    assert merge([found, again]) == [found]


def test_two_sources_that_disagree_make_no_mess(tmp_path: Path) -> None:
    """An archive's metadata of another number of frames: either order says the same."""
    (four,) = read_headers(write_enhanced(tmp_path, *axial()))
    (three,) = read_headers(write_enhanced(tmp_path, *axial(), (1, 2, 3)))
    assert four.merged(three) == three.merged(four)
    assert facts(four.merged(three))["placed"] == ("no",)


def test_a_file_tells_what_its_archive_leaves_out(tmp_path: Path) -> None:
    """Metadata without the groups of each frame say less, and nothing against the file."""
    (path,) = write_enhanced(tmp_path, *axial(), ORDER)
    (whole,) = read_headers([path])
    ds = pydicom.dcmread(path, stop_before_pixels=True)
    del ds.PerFrameFunctionalGroupsSequence
    (less,) = headers_of([ds])
    assert facts(less)["multi_frame"] == ("yes",)
    assert facts(less.merged(whole)) == facts(whole)


# -- sources --------------------------------------------------------------------------------------


def sources(folder: Path, **how: Any) -> tuple[Volume, Sources]:
    """Return a volume of one object, and its header as the encoders get it."""
    affine, voxels = axial((4, 5, 8))
    paths = write_enhanced(folder, affine, voxels, ORDER, **how)
    volume = build_volume(paths)
    return volume, read_sources(paths, volume.sop_uids, volume.affine_lps)


def test_sources_are_one_header_of_each_object(tmp_path: Path) -> None:
    """In the order in which slices name them; the first tells patient and study."""
    affine, voxels = axial()
    paths = [
        *write_enhanced(tmp_path, affine, voxels, (3, 1), number=0),
        *write_enhanced(tmp_path, affine, voxels, (2, 0), number=1),
    ]
    volume = build_volume(paths)
    result = result_of(
        np.zeros(voxels.shape, np.uint8),
        volume,
        paths,
        card=tiny_card(),
        identity=identity(),
        node_version="0.1.0",
        now=NOW,
    )
    headers = result.sources.headers
    assert [each.SOPInstanceUID for each in headers] == [object_uid(1), object_uid(0)]
    assert [each.NumberOfFrames for each in headers] == [2, 2]
    assert headers[0].PatientID == "PHANTOM-1"
    assert "PatientID" not in headers[1]


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("shared", [True, False])
def test_highdicom_takes_the_header_as_its_source(
    tmp_path: Path, modality: str, shared: bool
) -> None:
    """Its segmentation refers to the frame of every slice, and lies where the slices lie."""
    volume, found = sources(tmp_path, modality=modality, shared=shared)
    mask = np.zeros((4, 5, 8), np.uint8)
    mask[1:, 2, 3] = 1
    in_order_of_frames = np.empty_like(mask)
    for k, number in enumerate(volume.frames or ()):
        in_order_of_frames[number - 1] = mask[k]
    seg = hd.seg.Segmentation(
        source_images=found.headers,
        pixel_array=in_order_of_frames,
        segmentation_type="BINARY",
        segment_descriptions=[
            hd.seg.SegmentDescription(
                segment_number=1,
                segment_label="liver",
                segmented_property_category=codes.SCT.Organ,
                segmented_property_type=codes.SCT.Liver,
                algorithm_type="AUTOMATIC",
                algorithm_identification=hd.AlgorithmIdentificationSequence(
                    "phantom", codes.DCM.ArtificialIntelligence, "1"
                ),
            )
        ],
        series_instance_uid="2.25.7",
        series_number=1,
        sop_instance_uid="2.25.8",
        instance_number=1,
        manufacturer="PHANTOM",
        manufacturer_model_name="PHANTOM",
        software_versions="1",
        device_serial_number="1",
    )
    told = []
    for group in seg.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        z = group.PlanePositionSequence[0].ImagePositionPatient[2]
        told.append((source.ReferencedSOPInstanceUID, source.ReferencedFrameNumber, float(z)))
    expected = [(object_uid(), (volume.frames or ())[k], 30.0 + 2 * k) for k in (1, 2, 3)]
    assert sorted(told) == sorted(expected)
