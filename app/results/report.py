"""Measurements → DICOM SR: TID 1500, a group for each segment that was found (IHE AIR 1.3).

What was looked for and not found is said in the report's qualitative evaluations, so that a
report without a finding is a statement and no gap.
"""

from collections.abc import Iterable, Sequence

import highdicom as hd
import pydicom
from pydicom.sr.codedict import codes
from pydicom.uid import UID, SegmentationStorage

from app.models.card import Label
from app.results.describe import coded, content, equipment, plain, tracking
from app.results.document import COMMENT, document, root_of, section, text
from app.results.forms import Form
from app.results.measure import Measured, Quantity
from app.results.result import Result

SEGMENTATIONS = {
    Form.SEG: SegmentationStorage,
    Form.LABELMAP: UID("1.2.840.10008.5.1.4.1.1.66.7"),  # newer than the dictionary of pydicom
    Form.FRACTIONAL: SegmentationStorage,
}
"""The forms whose segments a report can refer to, and their SOP classes."""

_ABSENT = codes.SCT.Absent
_EVALUATIONS = hd.sr.CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")
_SOURCE = hd.sr.CodedConcept("260753009", "SCT", "Source")
_PROCEDURES = {  # CID 100; what was imaged, not what the model did
    "CT": codes.LN.CTUnspecifiedBodyRegion,
    "MR": codes.LN.MRIUnspecifiedBodyRegion,
    "PT": codes.LN.PETUnspecifiedBodyRegion,
}


def encode_report(
    result: Result, measured: Sequence[Measured], about: Form | None
) -> pydicom.Dataset:
    """Return the report; `about` is the form of segmentation that goes to the same archive.

    Without one, no segment is referred to but the source images alone.
    """
    root = root_of(codes.DCM.ImagingMeasurementReport, "1500", result)
    procedure = _PROCEDURES[result.card.inputs[0].modality]
    items: list[pydicom.Dataset] = [
        hd.sr.CodeContentItem(codes.DCM.ProcedureReported, procedure, "HAS CONCEPT MOD")
    ]
    if about is None:
        items.append(_image_library(result))
    if groups := _groups(result, measured, about):
        items.append(section(codes.DCM.ImagingMeasurements, groups))
    items.append(section(_EVALUATIONS, [*_evaluations(result, measured)]))
    root.ContentSequence.extend(items)
    return document(
        hd.sr.Comprehensive3DSR,
        root,
        result,
        what=f"sr.{about or 'none'}",
        form=Form.SR,
        segmentations=[_segmentation(result, about)] if about else [],
    )


def _segmentation(result: Result, about: Form) -> pydicom.Dataset:
    """Return what a reference must know of the segmentation."""
    reference = pydicom.Dataset()
    reference.SOPClassUID = SEGMENTATIONS[about]
    reference.SOPInstanceUID = result.identity.uid(f"{about}.instance")
    reference.SeriesInstanceUID = result.identity.uid(f"{about}.series")
    reference.StudyInstanceUID = result.identity.study_uid
    return reference


def _groups(
    result: Result, measured: Sequence[Measured], about: Form | None
) -> list[pydicom.Dataset]:
    """Return the measurements of each segment: TID 1411, or 1501 where none can be referred to."""
    algorithm = equipment(result.card, result.node_version, result.local)[0]
    number_of = {label.value: number for number, label in result.segments()} if about else {}
    groups = []
    for each in (each for each in measured if each.voxels):
        identifier, uid = tracking(each.label, result.identity)
        given = {
            "tracking_identifier": hd.sr.TrackingIdentifier(uid, identifier),
            "finding_type": coded(each.label.type),
            "finding_sites": _sites(each.label),
            "measurements": [_measurement(*value, algorithm) for value in each.values],
        }
        if about is None:
            group = hd.sr.MeasurementsAndQualitativeEvaluations(**given)
        else:
            segment = _segment(result, about, number_of[each.label.value])
            group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                referenced_segment=segment, **given
            )
        groups.extend(group)
    return groups


def _segment(result: Result, about: Form, number: int) -> hd.sr.ReferencedSegment:
    """Return the reference to a segment, and to the series that it was found in."""
    series = hd.sr.SourceSeriesForSegmentation(result.volume.series_uid)
    # As the template writes it; validators compare meanings letter by letter.
    series.ConceptNameCodeSequence[0].CodeMeaning = "Source series for segmentation"
    segmentation = _segmentation(result, about)
    return hd.sr.ReferencedSegment(
        segmentation.SOPClassUID, segmentation.SOPInstanceUID, number, source_series=series
    )


def _sites(label: Label) -> list[hd.sr.FindingSite] | None:
    """Return where the finding is; the site alone has room for a side (TID 1419)."""
    if label.region is None and label.laterality is None:
        return None
    side = coded(label.laterality) if label.laterality else None
    return [hd.sr.FindingSite(coded(label.region or label.type), side)]


def _measurement(
    quantity: Quantity, value: float, algorithm: hd.ContributingEquipment
) -> hd.sr.Measurement:
    return hd.sr.Measurement(
        name=coded(quantity.concept),
        value=float(value),
        unit=coded(quantity.unit),
        derivation=coded(quantity.derivation) if quantity.derivation else None,
        # Here and not once in the group, whose template has no room for it.
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=algorithm.ManufacturerModelName, version=algorithm.SoftwareVersions
        ),
    )


def _evaluations(result: Result, measured: Sequence[Measured]) -> Iterable[pydicom.Dataset]:
    """Yield what was not found, for machines and in words, and how far to trust the report."""
    absent = [each.label for each in measured if not each.voxels]
    for label in absent:
        item = hd.sr.CodeContentItem(coded(label.type), _ABSENT, "CONTAINS")
        if sites := _sites(label):  # else a missing kidney contradicts the other's measurements
            item.ContentSequence = hd.sr.ContentSequence(sites)
        yield item
    if absent and len(absent) == len(measured):
        yield text(COMMENT, "Nothing was found of what was looked for.")
    for label in absent:
        yield text(COMMENT, f"{plain(label.name)}: looked for and not found.")
    yield text(COMMENT, content(result.version))


def _image_library(result: Result) -> pydicom.Dataset:
    """Return the list of the source images (TID 1600)."""
    images = [
        hd.sr.ImageContentItem(
            _SOURCE, header.SOPClassUID, header.SOPInstanceUID, relationship_type="CONTAINS"
        )
        for header in result.sources.headers
    ]
    return section(codes.DCM.ImageLibrary, [section(codes.DCM.ImageLibraryGroup, images)])
