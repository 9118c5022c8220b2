"""Label map → RT Structure Set (PS3.3 A.19.3): contours along the edges of the voxels.

Each region of a slice is one closed contour in its slice's plane; holes are left out by the
keyhole technique, which every planning system reads alike. Filling the contours gives the label
map back: a voxel belongs to a segment if its centre lies inside.
"""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from app.models.card import Label
from app.results.derived import derived, instance_references, slice_references
from app.results.describe import coded, content, plain
from app.results.forms import Form
from app.results.outline import Mask, keyholed
from app.results.result import Result

log = logging.getLogger(__name__)

_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management: retired, and what this reference to a study still asks for."""
_SHORT, _LONG = 16, 64
_CONTOUR_DATA = Tag("ContourData")


def encode_rtstruct(result: Result) -> Dataset:
    """Return the structure set of a label map; every label of the card is an ROI, found or not."""
    ds = derived(
        result,
        Form.RTSTRUCT,
        sop_class=RTStructureSetStorage,
        # A contour of a ragged region needs more than the 64 KiB of an explicit DS (PS3.5 7.1.2).
        transfer_syntax=ImplicitVRLittleEndian,
        modality="RTSTRUCT",
    )
    card = result.card
    ds.StructureSetLabel = card.outputs.content_label.strip()[:_SHORT]
    ds.StructureSetName = plain(card.outputs.series_description)
    ds.StructureSetDescription = content(result.version)
    ds.StructureSetDate, ds.StructureSetTime = ds.ContentDate, ds.ContentTime
    del ds.ContentDate, ds.ContentTime
    ds.OperatorsName = ""
    ds.FrameOfReferenceUID = result.volume.frame_of_reference_uid
    ds.PositionReferenceIndicator = ""
    ds.ReferencedFrameOfReferenceSequence = [_frame_of_reference(result)]
    numbered = [*enumerate(card.labels, 1)]
    ds.StructureSetROISequence = [_roi(number, label, result) for number, label in numbered]
    ds.ROIContourSequence = _contours(result)
    ds.RTROIObservationsSequence = [_observation(number, label) for number, label in numbered]
    ds.ApprovalStatus = "UNAPPROVED"
    result.sources.identify(ds)
    ds.set_original_encoding(True, True, ds._character_set)  # noqa: SLF001  # see `identify`
    return ds


def _frame_of_reference(result: Result) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = result.volume.series_uid
    series.ContourImageSequence = instance_references(result)
    study = Dataset()
    study.ReferencedSOPClassUID = _STUDY_CLASS
    study.ReferencedSOPInstanceUID = result.identity.study_uid
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = result.volume.frame_of_reference_uid
    frame.RTReferencedStudySequence = [study]
    return frame


def _roi(number: int, label: Label, result: Result) -> Dataset:
    item = Dataset()
    item.ROINumber = number
    item.ReferencedFrameOfReferenceUID = result.volume.frame_of_reference_uid
    item.ROIName = plain(label.name)
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    item.ROIGenerationDescription = result.card.identity[:_LONG]
    return item


def _observation(number: int, label: Label) -> Dataset:
    """Return what an ROI is; whether a lesion is a target is for a physician to say."""
    kind = coded(label.type)
    if label.laterality:
        kind.SegmentedPropertyTypeModifierCodeSequence = [coded(label.laterality)]
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = number
    item.RTROIIdentificationCodeSequence = [kind]
    item.RTROIInterpretedType = "" if label.lesion else "ORGAN"
    item.ROIInterpreter = ""
    return item


def _contours(result: Result) -> list[Dataset]:
    images = slice_references(result)
    planes = [plane_of(result, k) for k in range(len(images))]
    items = []
    for number, label in enumerate(result.card.labels, 1):
        contours: list[Dataset] = []
        for k, plane in enumerate(result.labels_kji):
            mask = np.logical_or.reduce([plane == value for value in label.values])
            if mask.any():
                contours += _on_slice(mask, planes[k], images[k])
        item = Dataset()
        item.ROIDisplayColor = list(label.colour)
        if contours:
            item.ContourSequence = contours
        item.ReferencedROINumber = number
        items.append(item)
        log.debug("ROI %d has %d contours", number, len(contours))
    return items


def plane_of(result: Result, k: int) -> NDArray[np.float64]:
    """Return (row, column, 1) → LPS mm of a slice; its own position where it is an image.

    Planning systems look for contours in the very plane of an image, and the volume's affine may
    be off by its tolerance.
    """
    affine = result.volume.affine_lps
    origin = affine[:3] @ (k, 0, 0, 1)
    if result.volume.frames is None:
        origin = np.array(result.sources.headers[k].ImagePositionPatient, dtype=np.float64)
    return np.column_stack([affine[:3, 1], affine[:3, 2], origin])


def _on_slice(mask: Mask, affine: NDArray[np.float64], image: Dataset) -> Iterator[Dataset]:
    """Yield the contours of one label on one slice."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    first = np.array([rows[0], columns[0]])
    for polygon in keyholed(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]):
        at = polygon + first - 0.5  # corners of voxels, whose centres are at whole numbers
        points = np.column_stack([at, np.ones(len(at))]) @ affine.T
        item = Dataset()
        item.ContourImageSequence = [image]
        item.ContourGeometricType = "CLOSED_PLANAR"
        item.NumberOfContourPoints = len(points)
        item[_CONTOUR_DATA] = _decimals(points)
        item.set_original_encoding(True, True, item._character_set)  # noqa: SLF001  # stays raw
        yield item


def _decimals(points: NDArray[np.float64]) -> Any:
    """Return ContourData in µm; made here, as pydicom takes seconds over so many numbers."""
    numbers = (np.round(points, 3) + 0.0).ravel().tolist()  # + 0.0: no -0.000
    text = ("%.3f\\" * len(numbers) % tuple(numbers))[:-1]
    value = text.encode("ascii") + b" " * (len(text) % 2)
    return RawDataElement(_CONTOUR_DATA, "DS", len(value), value, 0, True, True)
