"""Label map → DICOM SEG: binary, on the grid of its source, checked before it may leave.

Nothing in it is random. The same job makes the same object; only the time, which is an argument,
tells two encodings of it apart. `labels_kji` is indexed [k, j, i] in the order of `sop_uids`.
"""

import logging
import warnings
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian

from app.dicom.kind import MANUFACTURER, MODEL_NAME
from app.dicom.volume import Volume
from app.errors import ModelError, NodeError
from app.files import durable, make_folder
from app.models.card import ModelCard
from app.pipeline.check import check_seg
from app.pipeline.describe import (
    content,
    describe_segment,
    equipment,
    person,
    software,
    versioned,
)
from app.pipeline.identity import Identity
from app.pipeline.sources import read_sources

log = logging.getLogger(__name__)
logging.getLogger("highdicom").setLevel(logging.ERROR)  # it quotes names that it finds odd

SEG = "encode/seg.dcm"
"""Where a job's segmentation is, inside the job's folder."""

_MAX_NUMBER = 2**31 - 1

Labels = NDArray[np.uint8]


def write_seg(  # noqa: PLR0917  # what was found, where, in what, by what, for what
    folder: Path,
    labels_kji: Labels,
    volume: Volume,
    source_paths: Iterable[str | Path],
    card: ModelCard,
    identity: Identity,
    *,
    version: int = 1,
    node_version: str,
    now: datetime,
) -> Path:
    """Encode the label map, check what was written, and put it into the job's folder."""
    seg = encode_seg(
        labels_kji,
        volume.affine_lps,
        volume.sop_uids,
        source_paths,
        card,
        identity,
        version=version,
        node_version=node_version,
        now=now,
    )
    path = folder / SEG
    make_folder(path.parent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # identity is written as it came
        with durable(path) as file:
            seg.save_as(file, enforce_file_format=True)
            file.flush()
            check_seg(
                Path(file.name),
                labels_kji=labels_kji,
                affine_lps=volume.affine_lps,
                sop_uids=volume.sop_uids,
                frame_of_reference_uid=volume.frame_of_reference_uid,
                values=[label.value for label in card.labels],
            )
    log.info("encoded %d segments in %s frames", len(card.labels), seg.NumberOfFrames)
    return path


def encode_seg(  # noqa: PLR0917  # what was found, where, in what, by what, for what
    labels_kji: Labels,
    volume_affine: NDArray[np.float64],
    sop_uids: Sequence[str],
    source_paths: Iterable[str | Path],
    card: ModelCard,
    identity: Identity,
    *,
    version: int = 1,
    node_version: str,
    now: datetime,
) -> pydicom.Dataset:
    """Return the SEG of a label map; every label of the card is a segment, found or not."""
    segments = _segment_numbers(labels_kji, sop_uids, card)
    sources = read_sources(source_paths, sop_uids, volume_affine)
    first = sources.headers[0]
    if first.StudyInstanceUID != identity.study_uid:
        raise NodeError(
            f"the sources are of study {first.StudyInstanceUID}, the job is of study"
            f" {identity.study_uid}; nothing was encoded"
        )
    if segments.shape[1:] != (first.Rows, first.Columns):
        rows, columns = segments.shape[1:]
        raise ModelError(
            f"{card.name}: the label map has slices of {rows}×{columns}, its source of"
            f" {first.Rows}×{first.Columns}; bring it back onto the source's grid"
        )
    local = now.astimezone()  # DICOM times are the site's, like those of its scanners
    planes = None
    if not segments.any():  # one empty frame for each segment says that all were looked for
        segments = segments[:1]
        planes = [hd.PlanePositionSequence("PATIENT", first.ImagePositionPatient)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values of the source may be odd, see sources.py
        seg: pydicom.Dataset = hd.seg.Segmentation(
            source_images=sources.headers,
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
            series_description=versioned(card.outputs.series_description, version),
            sop_instance_uid=identity.uid("seg.instance"),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL_NAME,
            software_versions=software(card, node_version),
            device_serial_number=card.weights_sha256,
            content_label=card.outputs.content_label.strip(),
            content_description=content(version),
            content_creator_name=person(card.outputs.content_creator),
            content_date=local.date(),
            content_time=local.time(),
            series_date=local.date(),
            series_time=local.time(),
            transfer_syntax_uid=ExplicitVRLittleEndian,
            contributing_equipment=equipment(card, node_version, local),
            specific_character_set=None,
        )
        sources.identify(seg)
    _fix_what_varies(seg, identity, local)
    return seg


def _segment_numbers(labels_kji: Labels, sop_uids: Sequence[str], card: ModelCard) -> Labels:
    """Return the label map with segment numbers, which count from 1, in place of its values."""
    if labels_kji.ndim != 3 or len(labels_kji) != len(sop_uids) or labels_kji.dtype != np.uint8:  # noqa: PLR2004  # k, j, i
        raise ModelError(
            f"{card.name}: the label map is {labels_kji.dtype} {labels_kji.shape}, not uint8 with"
            f" {len(sop_uids)} slices; bring it back onto the source's grid"
        )
    number_of = np.zeros(256, dtype=np.uint8)
    described = np.zeros(256, dtype=np.bool_)
    described[0] = True
    for number, label in enumerate(card.labels, 1):
        number_of[label.value] = number
        described[label.value] = True
    present = np.zeros(256, dtype=np.bool_)
    for plane in labels_kji:
        present |= np.bincount(plane.ravel(), minlength=256).astype(np.bool_)
    if unknown := np.flatnonzero(present & ~described).tolist():
        raise ModelError(
            f"{card.name}: the label map has the values {unknown}, which the card does not"
            " describe; add them to its labels"
        )
    return number_of[labels_kji]


def _fix_what_varies(seg: pydicom.Dataset, identity: Identity, local: datetime) -> None:
    """Replace what highdicom draws at random or takes from the clock."""
    seg.InstanceCreationDate = local.strftime("%Y%m%d")
    seg.InstanceCreationTime = local.strftime("%H%M%S.%f")
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = identity.uid("seg.dimension")
    for item in seg.ContributingEquipmentSequence:
        if item.get("ManufacturerModelName") == "highdicom":
            item.ContributionDateTime = local.strftime("%Y%m%d%H%M%S.%f")
