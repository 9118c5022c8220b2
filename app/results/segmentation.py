"""Label map → DICOM SEG: binary, on the grid of its source, checked before it may leave."""

import logging
import warnings
from datetime import datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian

from app.dicom.kind import MANUFACTURER, MODEL_NAME
from app.files import durable, make_folder
from app.results.check import check_seg
from app.results.describe import (
    content,
    describe_segment,
    equipment,
    person,
    software,
    versioned,
)
from app.results.identity import Identity
from app.results.result import Labels, Result

log = logging.getLogger(__name__)
logging.getLogger("highdicom").setLevel(logging.ERROR)  # it quotes names that it finds odd

SEG = "encode/seg.dcm"
"""Where a job's segmentation is, inside the job's folder."""

_MAX_NUMBER = 2**31 - 1


def write_seg(folder: Path, result: Result) -> Path:
    """Encode the label map, check what was written, and put it into the job's folder."""
    seg = encode_seg(result)
    path = folder / SEG
    make_folder(path.parent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # identity is written as it came
        with durable(path) as file:
            seg.save_as(file, enforce_file_format=True)
            file.flush()
            check_seg(
                Path(file.name),
                labels_kji=result.labels_kji,
                affine_lps=result.volume.affine_lps,
                sop_uids=result.volume.sop_uids,
                frame_of_reference_uid=result.volume.frame_of_reference_uid,
                values=[label.value for label in result.card.labels],
            )
    log.info("encoded %d segments in %s frames", len(result.card.labels), seg.NumberOfFrames)
    return path


def encode_seg(result: Result) -> pydicom.Dataset:
    """Return the SEG of a label map; every label of the card is a segment, found or not."""
    card, identity, local = result.card, result.identity, result.local
    first = result.sources.headers[0]
    segments = _segment_numbers(result)
    planes = None
    if not segments.any():  # one empty frame for each segment says that all were looked for
        segments = segments[:1]
        planes = [hd.PlanePositionSequence("PATIENT", first.ImagePositionPatient)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values of the source may be odd, see sources.py
        seg: pydicom.Dataset = hd.seg.Segmentation(
            source_images=result.sources.headers,
            pixel_array=segments,
            plane_positions=planes,
            omit_empty_frames=planes is None,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[
                describe_segment(number, label, card, identity)
                for number, label in enumerate(card.labels, 1)
            ],
            series_instance_uid=identity.uid("seg.series"),
            series_number=min(first.SeriesNumber + card.outputs.series_number_offset, _MAX_NUMBER),
            series_description=versioned(card.outputs.series_description, result.version),
            sop_instance_uid=identity.uid("seg.instance"),
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
        result.sources.identify(seg)
    _fix_what_varies(seg, identity, local)
    return seg


def _segment_numbers(result: Result) -> Labels:
    """Return the label map with segment numbers, which count from 1, in place of its values."""
    number_of = np.zeros(256, dtype=np.uint8)
    for number, label in enumerate(result.card.labels, 1):
        number_of[label.value] = number
    return number_of[result.labels_kji]


def _fix_what_varies(seg: pydicom.Dataset, identity: Identity, local: datetime) -> None:
    """Replace what highdicom draws at random or takes from the clock."""
    seg.InstanceCreationDate = local.strftime("%Y%m%d")
    seg.InstanceCreationTime = local.strftime("%H%M%S.%f")
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = identity.uid("seg.dimension")
    for item in seg.ContributingEquipmentSequence:
        if item.get("ManufacturerModelName") == "highdicom":
            item.ContributionDateTime = local.strftime("%Y%m%d%H%M%S.%f")
