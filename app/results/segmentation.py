"""Label map → DICOM SEG: binary, on the grid of its source.

highdicom makes the header, from one source image and no pixels; what is said of each frame and
the bits of the frames are written here, which takes a tenth of the time for thousands of frames.
"""

import logging
import struct
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime
from io import BytesIO
from typing import IO

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from app.dicom.kind import MANUFACTURER, MODEL_NAME
from app.errors import ResultRejected
from app.results.check import check_seg
from app.results.describe import (
    content,
    describe_segment,
    equipment,
    person,
    software,
    versioned,
)
from app.results.frames import Frame, frames_of, functional_groups, references
from app.results.identity import Identity
from app.results.result import Labels, Result, values_by_slice

__all__ = ["check_seg", "encode_seg", "write_seg"]

log = logging.getLogger(__name__)
logging.getLogger("highdicom").setLevel(logging.ERROR)  # it quotes names that it finds odd

SEG = "encode/seg.dcm"
"""Where a job's segmentation is, inside the job's folder."""

_MAX_NUMBER = 2**31 - 1
_MAX_BYTES = 2**32 - 2


def write_seg(file: IO[bytes], result: Result) -> None:
    """Encode the label map; every label of the card is a segment, found or not."""
    frames = frames_of(result)
    size = result.labels_kji[0].size
    length = -(-len(frames) * size // 16) * 2
    if length > _MAX_BYTES:
        raise ResultRejected(
            f"the segmentation has {len(frames)} frames, {length / 1e9:.1f} GB of pixels; an object"
            " holds 4.2 GB, let the archive accept the label map form"
        )
    write_header(file, header(result, frames, hd.seg.SegmentationTypeValues.BINARY))
    file.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, length))
    written = 0
    for packed in _packed(result, frames):
        written += file.write(packed.data)
    file.write(bytes(length - written))
    log.info("encoded %d segments in %d frames", len(result.segments()), len(frames))


def encode_seg(result: Result) -> pydicom.Dataset:
    """Return what `write_seg` writes, read by pydicom."""
    file = BytesIO()
    write_seg(file, result)
    return pydicom.dcmread(BytesIO(file.getvalue()))


def header(
    result: Result,
    frames: Sequence[Frame],
    kind: hd.seg.SegmentationTypeValues,
    *,
    name: str = "seg",
    number_offset: int = 0,
    transfer_syntax: str = ExplicitVRLittleEndian,
) -> pydicom.Dataset:
    """Return everything of a segmentation but its pixels."""
    seg = _by_highdicom(
        result, kind, name=name, number_offset=number_offset, transfer_syntax=transfer_syntax
    )
    del seg.PixelData
    seg.file_meta.TransferSyntaxUID = transfer_syntax
    seg.NumberOfFrames = len(frames)
    seg.SegmentsOverlap = "YES" if _overlap(result) else "NO"
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.SpacingBetweenSlices = format_number_as_ds(result.volume.spacing_kji_mm[0])
    if _is_3d(result, frames, kind):
        seg.DimensionOrganizationType = "3D"
    _fix_what_varies(seg, result.identity, result.local, name)
    result.sources.identify(seg)
    images, series = references(result)
    _put(seg, "SourceImageSequence", images)
    _put(seg, "ReferencedSeriesSequence", series)
    _put(seg, "PerFrameFunctionalGroupsSequence", functional_groups(result, frames))
    return seg


def write_header(file: IO[bytes], seg: pydicom.Dataset) -> None:
    """Write the file up to its pixels, which follow last of all elements."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # identity is written as it came
        seg.save_as(file, enforce_file_format=True)


def _by_highdicom(
    result: Result,
    kind: hd.seg.SegmentationTypeValues,
    *,
    name: str,
    number_offset: int,
    transfer_syntax: str,
) -> pydicom.Dataset:
    card, identity, local = result.card, result.identity, result.local
    number = result.sources.headers[0].SeriesNumber + card.outputs.series_number_offset
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values of the source may be odd, see sources.py
        seg: pydicom.Dataset = hd.seg.Segmentation(
            source_images=[_first_image(result)],
            pixel_array=np.zeros((1, *result.labels_kji.shape[1:]), dtype=np.uint8),
            omit_empty_frames=False,
            segmentation_type=kind,
            segment_descriptions=[
                describe_segment(number, label, card, identity)
                for number, label in result.segments()
            ],
            series_instance_uid=identity.uid(f"{name}.series"),
            series_number=min(number + number_offset, _MAX_NUMBER),
            series_description=versioned(card.outputs.series_description, result.version),
            sop_instance_uid=identity.uid(f"{name}.instance"),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL_NAME,
            software_versions=software(card, result.node_version),
            device_serial_number=card.weights_sha256,
            content_label=card.outputs.content_label.strip(),
            content_description=content(result.version),
            content_creator_name=person(card.outputs.content_creator),
            content_date=local.date(),
            content_time=local.time(),
            series_date=local.date(),
            series_time=local.time(),
            transfer_syntax_uid=ExplicitVRLittleEndian,
            contributing_equipment=equipment(card, result.node_version, local),
            specific_character_set=None,
        )
    return seg


def _first_image(result: Result) -> pydicom.Dataset:
    """Return the first source as an image of one frame, which is all that highdicom must know."""
    first = result.sources.headers[0]
    if result.volume.frames is None:
        return first
    image = pydicom.Dataset(first)
    for keyword in (
        "NumberOfFrames",
        "PerFrameFunctionalGroupsSequence",
        "SharedFunctionalGroupsSequence",
    ):
        if keyword in image:
            delattr(image, keyword)
    step_k, step_j, step_i = result.volume.spacing_kji_mm
    affine = result.volume.affine_lps
    directions = [*affine[:3, 2] / step_i, *affine[:3, 1] / step_j]
    image.Rows, image.Columns = result.labels_kji.shape[1:]
    image.ImagePositionPatient = [format_number_as_ds(float(each)) for each in affine[:3, 3]]
    image.ImageOrientationPatient = [format_number_as_ds(float(each)) for each in directions]
    image.PixelSpacing = [format_number_as_ds(step_j), format_number_as_ds(step_i)]
    image.SliceThickness = image.get("SliceThickness") or format_number_as_ds(step_k)
    return image


def _overlap(result: Result) -> bool:
    """Return whether any voxel belongs to two segments."""
    if not result.card.overlaps:
        return False
    owners = np.zeros(256, dtype=np.uint8)
    for _, label in result.segments():
        owners[sorted(label.values)] += 1
    present = values_by_slice(result.labels_kji).any(axis=0)
    return bool(np.any(owners[present] > 1))


def _is_3d(result: Result, frames: Sequence[Frame], kind: hd.seg.SegmentationTypeValues) -> bool:
    """Return whether the frames are one regular stack (PS3.3 C.7.6.17)."""
    one = kind == hd.seg.SegmentationTypeValues.LABELMAP or len(result.segments()) == 1
    if not one or len(frames) == 1:
        return False
    slices = [frame.k for frame in frames]
    steps = np.diff(slices)
    return bool(np.all(steps == steps[0]))


def _put(seg: pydicom.Dataset, keyword: str, value: bytes) -> None:
    """Let an encoded sequence be part of the header; pydicom writes it as it is."""
    tag = Tag(keyword)
    seg[tag] = RawDataElement(tag, "SQ", len(value), value, 0, False, True)


def _fix_what_varies(seg: pydicom.Dataset, identity: Identity, local: datetime, name: str) -> None:
    """Replace what highdicom draws at random or takes from the clock."""
    seg.InstanceCreationDate = local.strftime("%Y%m%d")
    seg.InstanceCreationTime = local.strftime("%H%M%S.%f")
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = identity.uid(f"{name}.dimension")
    for item in seg.ContributingEquipmentSequence:
        if item.get("ManufacturerModelName") == "highdicom":
            item.ContributionDateTime = local.strftime("%Y%m%d%H%M%S.%f")


def _packed(result: Result, frames: Sequence[Frame]) -> Iterator[NDArray[np.uint8]]:
    """Yield the bits of the frames, which follow each other without a gap (PS3.5 8.1.1)."""
    values = {number: sorted(label.values) for number, label in result.segments()}
    rest = np.zeros(0, dtype=np.bool_)
    mask = np.zeros(result.labels_kji.shape[1:], dtype=np.bool_)
    part = np.zeros_like(mask)
    for frame in frames:
        _fill(mask, part, result.labels_kji[frame.k], values[frame.segment])
        bits = np.concatenate((rest, mask.ravel())) if rest.size or mask.size % 8 else mask.ravel()
        whole = bits.size // 8 * 8
        rest = bits[whole:]
        yield np.packbits(bits[:whole], bitorder="little")
    yield np.packbits(rest, bitorder="little")


def _fill(
    mask: NDArray[np.bool_], part: NDArray[np.bool_], plane: Labels, values: Sequence[int]
) -> None:
    """Mark the pixels of some values; new arrays for each frame would cost more than the work."""
    np.equal(plane, values[0], out=mask)
    for value in values[1:]:
        mask |= np.equal(plane, value, out=part)
