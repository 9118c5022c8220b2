"""The header of a segmentation: all but its pixels.

highdicom makes it from one source image and an empty slice; the references to all images and what
is said of each frame are put into it as bytes.
"""

import logging
import struct
import warnings
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import IO

import highdicom as hd
import jpeg_ls
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, JPEGLSLossless
from pydicom.valuerep import format_number_as_ds

from app.dicom.kind import MANUFACTURER, MODEL_NAME
from app.results.describe import (
    content,
    describe_segment,
    equipment,
    person,
    software,
    stamp,
    versioned,
)
from app.results.forms import Form
from app.results.frames import LABEL_MAP, Frame, functional_groups, references
from app.results.result import Result, values_by_slice

logging.getLogger("highdicom").setLevel(logging.ERROR)  # it quotes names that it finds odd

_OFFSETS = 2**32
"""Bytes of pixels from which the basic offset table is too short (PS3.5 A.4)."""
_OF_SEVERAL_FRAMES = (
    "NumberOfFrames",
    "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of segmentation; those of one job are series of their own."""

    type: hd.seg.SegmentationTypeValues
    form: Form
    """What its UIDs are derived from."""


def header(
    result: Result, frames: Sequence[Frame], kind: Kind, transfer_syntax: str
) -> pydicom.Dataset:
    """Return everything of a segmentation but its pixels."""
    seg = _by_highdicom(result, kind)
    del seg.PixelData
    seg.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    seg.NumberOfFrames = len(frames)
    seg.SegmentsOverlap = "YES" if _overlap(result) else "NO"
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.SpacingBetweenSlices = format_number_as_ds(result.volume.spacing_kji_mm[0])
    if _is_3d(result, frames):
        seg.DimensionOrganizationType = "3D"
    _fix_what_varies(seg, result, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # identity may be in a character set that nobody knows
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


def write_planes(
    file: IO[bytes],
    result: Result,
    frames: Sequence[Frame],
    kind: Kind,
    planes: Callable[[], Iterable[NDArray[np.uint8]]],
) -> None:
    """Write a segmentation of bytes; `planes` gives the frames' pixels, again if asked again.

    In JPEG-LS, unless that would make one of them larger, as it does with noise.
    """
    pixels = _compressed(planes())
    native = pixels is None
    syntax = ExplicitVRLittleEndian if native else JPEGLSLossless
    write_header(file, header(result, frames, kind, syntax))
    if pixels is None:
        pixels = b"".join(plane.tobytes() for plane in planes())
        pixels += bytes(len(pixels) % 2)
    length = len(pixels) if native else 0xFFFFFFFF
    file.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, length))
    file.write(pixels)
    if not native:
        file.write(struct.pack("<HHL", 0xFFFE, 0xE0DD, 0))


def decoder_of(ds: pydicom.Dataset) -> str:
    """Return what reads the pixels of `write_planes`: not the library that wrote them."""
    return "gdcm" if ds.file_meta.TransferSyntaxUID.is_compressed else ""


def _compressed(planes: Iterable[NDArray[np.uint8]]) -> bytes | None:
    """Return the frames in JPEG-LS with the bits that the header states, as some readers insist.

    GDCM's run-length encoder, known to more readers, ends the process on some planes.
    """
    try:
        frames = [
            bytes(jpeg_ls.encode_buffer(each.tobytes(), *each.shape, 1, 8)) for each in planes
        ]
    except RuntimeError:
        return None
    return bytes(encapsulate(frames, has_bot=sum(map(len, frames)) < _OFFSETS))


def _by_highdicom(result: Result, kind: Kind) -> pydicom.Dataset:
    """Return highdicom's segmentation of the first image alone, with nothing in it."""
    card, identity, local = result.card, result.identity, result.local
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values of the source may be odd, see sources.py
        seg: pydicom.Dataset = hd.seg.Segmentation(
            source_images=[_first_image(result)],
            pixel_array=np.zeros((1, *result.labels_kji.shape[1:]), dtype=np.uint8),
            omit_empty_frames=False,
            segmentation_type=kind.type,
            segment_descriptions=[
                describe_segment(number, label, card, identity)
                for number, label in result.segments()
            ],
            series_instance_uid=identity.uid(f"{kind.form}.series"),
            series_number=result.series_number(kind.form),
            series_description=versioned(card.outputs.series_description, result.version),
            sop_instance_uid=identity.uid(f"{kind.form}.instance"),
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
    image = deepcopy(first)
    image.SOPClassUID = CTImageStorage  # has the same modules of patient and study as any other
    for keyword in _OF_SEVERAL_FRAMES:
        image.pop(keyword, None)
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


def _is_3d(result: Result, frames: Sequence[Frame]) -> bool:
    """Return whether the frames are one regular stack (PS3.3 C.7.6.17)."""
    if frames[0].segment != LABEL_MAP and len(result.segments()) > 1:
        return False
    steps = np.diff([frame.k for frame in frames])
    return len(frames) > 1 and bool(np.all(steps == steps[0]))


def _put(seg: pydicom.Dataset, keyword: str, value: bytes) -> None:
    """Let an encoded sequence be part of the header; pydicom writes it as it is."""
    tag = Tag(keyword)
    seg[tag] = RawDataElement(tag, "SQ", len(value), value, 0, False, True)


def _fix_what_varies(seg: pydicom.Dataset, result: Result, kind: Kind) -> None:
    """Replace what highdicom draws at random or takes from the clock."""
    stamp(seg, result.local)
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = result.identity.uid(f"{kind.form}.dimension")
