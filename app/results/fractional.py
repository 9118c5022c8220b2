"""Probabilities → DICOM SEG of type FRACTIONAL (PS3.3 C.8.20.2), in 255ths, and its check.

highdicom makes the object of where the probabilities are not 0; then each frame is given its own
values. Its own way from fractions takes gigabytes of floating point numbers. Frames are
run-length encoded: nearly all of their pixels are 0 or 255, so they shrink about fiftyfold.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, SegmentationStorage

from app.dicom.kind import MANUFACTURER, MODEL_NAME
from app.dicom.stack import TOLERANCE, TOLERANCE_MM
from app.errors import ModelError, ResultRejected
from app.results.derived import derived
from app.results.describe import content, describe_segment, equipment, person, software
from app.results.forms import Form
from app.results.result import Result

Probabilities = NDArray[np.uint8]
"""[label of the card, k, j, i]: 255 for 1."""

_FULL = 255
_OFFSETS = 2**32
"""Bytes of pixels from which the basic offset table is too short (PS3.5 A.4)."""


def write_fractional(file: IO[bytes], result: Result, probabilities: Probabilities) -> None:
    """Encode the probabilities into an open file."""
    seg = encode_fractional(result, probabilities)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # identity is written as it came
        seg.save_as(file, enforce_file_format=True)


def encode_fractional(result: Result, probabilities: Probabilities) -> Dataset:
    """Return the SEG of the probabilities; every label of the card is a segment."""
    wanted = (len(result.card.labels), *result.labels_kji.shape)
    if probabilities.shape != wanted or probabilities.dtype != np.uint8:
        raise ModelError(
            f"{result.card.name}: the probabilities are {probabilities.dtype}"
            f" {probabilities.shape}, not uint8 {wanted}; run the model again"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values of the source may be odd, see sources.py
        seg = _template(result, probabilities)
        header = derived(
            result,
            Form.FRACTIONAL,
            sop_class=SegmentationStorage,
            transfer_syntax=RLELossless,
            modality="SEG",
        )
        del header.ContributingEquipmentSequence  # highdicom has added itself to it
        seg.update(header)
        seg.file_meta = header.file_meta
        _fix_what_varies(seg, result)
        _fill(seg, result, probabilities)
        result.sources.identify(seg)
    return seg


def check_fractional(path: Path, result: Result, probabilities: Probabilities) -> None:
    """Refuse a file that does not give these probabilities back, frame by frame, where they lie."""
    ds = pydicom.dcmread(path)
    kind = (ds.SegmentationType, ds.get("SegmentationFractionalType"), ds.MaximumFractionalValue)
    if kind != ("FRACTIONAL", "PROBABILITY", _FULL):
        raise _fault(f"its type is {kind}")
    spacing_mm = result.volume.spacing_kji_mm[0]
    allowed_mm = max(TOLERANCE * spacing_mm, TOLERANCE_MM) + 0.01
    missing = np.stack([share.any(axis=(1, 2)) for share in probabilities])
    for (number, k, off_mm), pixels in zip(_places(ds, result), iter_pixels(path), strict=True):
        if not 1 <= number <= len(probabilities) or not 0 <= k < len(probabilities[0]):
            raise _fault("a frame belongs to no segment or to no slice")
        where = f"segment {number} on slice {k + 1}"
        if not np.array_equal(pixels, probabilities[number - 1, k]):
            raise _fault(f"{where} differs from what the model made")
        if off_mm > allowed_mm:
            raise _fault(f"{where} lies {off_mm:.2f} mm from where it was found")
        missing[number - 1, k] = False
    if missing.any():
        raise _fault(f"{np.count_nonzero(missing)} of its frames are missing")


def _template(result: Result, probabilities: Probabilities) -> Dataset:
    """Return a SEG with one frame for each slice on which a label is not quite impossible."""
    card, first, local = result.card, result.sources.headers[0], result.local
    there = np.zeros((*result.labels_kji.shape, len(card.labels)), dtype=np.uint8)
    for index, share in enumerate(probabilities):
        np.not_equal(share, 0, out=there[..., index], casting="unsafe")
    planes = None
    if not there.any():  # one empty frame for each segment says that all were looked for
        there = there[:1]
        planes = [hd.PlanePositionSequence("PATIENT", first.ImagePositionPatient)]
    seg: Dataset = hd.seg.Segmentation(
        source_images=result.sources.headers,
        pixel_array=there,
        plane_positions=planes,
        omit_empty_frames=planes is None,
        segmentation_type=hd.seg.SegmentationTypeValues.FRACTIONAL,
        fractional_type=hd.seg.SegmentationFractionalTypeValues.PROBABILITY,
        max_fractional_value=_FULL,
        segment_descriptions=[
            describe_segment(number, label, card, result.identity)
            for number, label in enumerate(card.labels, 1)
        ],
        series_instance_uid=result.identity.uid("fractional.series"),
        series_number=1,
        sop_instance_uid=result.identity.uid("fractional.instance"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=software(card, result.node_version),
        device_serial_number=card.weights_sha256,
        content_label=card.outputs.content_label.strip(),
        content_description=content(result.version),
        content_creator_name=person(card.outputs.content_creator),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        contributing_equipment=equipment(card, result.node_version, local),
        specific_character_set=None,
    )
    return seg


def _fix_what_varies(seg: Dataset, result: Result) -> None:
    """Replace what highdicom draws at random or takes from the clock."""
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = result.identity.uid("fractional.dimension")
    for item in seg.ContributingEquipmentSequence:
        if item.get("ManufacturerModelName") == "highdicom":
            item.ContributionDateTime = result.local.strftime("%Y%m%d%H%M%S.%f")


def _fill(seg: Dataset, result: Result, probabilities: Probabilities) -> None:
    """Give each frame the probabilities of its segment on its slice."""
    del seg.PixelData
    frames = [_encoded(probabilities[number - 1, k]) for number, k, _ in _places(seg, result)]
    if sum(map(len, frames)) < _OFFSETS:
        seg.PixelData = encapsulate(frames)
    else:
        pixels, seg.ExtendedOffsetTable, seg.ExtendedOffsetTableLengths = encapsulate_extended(
            frames
        )
        seg.PixelData = pixels
    seg["PixelData"].VR = "OB"
    seg["PixelData"].is_undefined_length = True


def _encoded(plane: NDArray[np.uint8]) -> bytes:
    encoded: bytes = RLELosslessEncoder.encode(
        np.ascontiguousarray(plane),
        encoding_plugin="gdcm",  # 15 times faster than pydicom's own
        rows=plane.shape[0],
        columns=plane.shape[1],
        number_of_frames=1,
        samples_per_pixel=1,
        bits_allocated=8,
        bits_stored=8,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
    )
    return encoded


def _places(seg: Dataset, result: Result) -> Iterator[tuple[int, int, float]]:
    """Yield each frame's segment and slice, and how far its last pixel lies from that slice's."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    orientation = np.array(
        shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=np.float64
    )
    height, width = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    last = np.array([int(seg.Rows) - 1, int(seg.Columns) - 1])
    across = orientation[3:] * height * last[0] + orientation[:3] * width * last[1]
    affine = result.volume.affine_lps
    to_index = np.linalg.inv(affine)
    for group in seg.PerFrameFunctionalGroupsSequence:
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=np.float64)
        k = int(np.rint(to_index[0] @ [*position, 1]))
        off_mm = np.linalg.norm(position + across - affine[:3] @ [k, *last, 1])
        own = group if "SegmentIdentificationSequence" in group else shared
        number = own.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        yield int(number), k, float(off_mm)


def _fault(what: str) -> ResultRejected:
    return ResultRejected(f"the probabilities were not encoded as made: {what}; they are not sent")
