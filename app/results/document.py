"""What every report says besides its findings: whose it is, what made it, what it was made from."""

import warnings
from collections.abc import Sequence

import highdicom as hd
import pydicom
from pydicom.sr.codedict import codes

from app.dicom.kind import MANUFACTURER, MODEL_NAME
from app.results.describe import LONG_STRING, equipment, plain, software, stamp, versioned
from app.results.forms import Form
from app.results.result import Result

COMMENT = codes.DCM.Comment

_MEASUREMENTS = " measurements"


def document(
    kind: type[hd.sr.Comprehensive3DSR] | type[hd.sr.EnhancedSR],
    root: hd.sr.ContainerContentItem,
    result: Result,
    *,
    form: Form,
    what: str,
    segmentations: Sequence[pydicom.Dataset] = (),
) -> pydicom.Dataset:
    """Return a report of every source image; `what` is what its UIDs are derived from."""
    card, local = result.card, result.local
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values of the source may be odd, see sources.py
        report: pydicom.Dataset = kind(
            evidence=[*result.sources.headers, *segmentations],
            content=root,
            series_instance_uid=result.identity.uid(f"{what}.series"),
            series_number=result.series_number(form),
            series_description=_description(result),
            series_date=local.date(),
            series_time=local.time(),
            sop_instance_uid=result.identity.uid(f"{what}.instance"),
            instance_number=1,
            content_date=local.date(),
            content_time=local.time(),
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL_NAME,
            software_versions=software(card, result.node_version),
            device_serial_number=card.weights_sha256,
            is_complete=True,  # though preliminary, as nobody has reviewed it
            contributing_equipment=equipment(card, result.node_version, local),
            specific_character_set=None,
        )
        result.sources.identify(report)
    stamp(report, local)
    return report


def root_of(title: hd.sr.CodedConcept, template: str, result: Result) -> hd.sr.ContainerContentItem:
    """Return the container of a whole report: in English, observed by the model (TID 1204, 1001).

    The device is the algorithm as Contributing Equipment names it (IHE AIR 1.3, 6.5.3.1).
    """
    algorithm = equipment(result.card, result.node_version, result.local)[0]
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=algorithm.DeviceUID,
        manufacturer_name=algorithm.Manufacturer,
        model_name=algorithm.ManufacturerModelName,
        serial_number=result.card.weights_sha256,
    )
    observer = hd.sr.ObserverContext(codes.DCM.Device, device)
    english = hd.sr.CodedConcept("en", "RFC5646", "English")
    root = hd.sr.ContainerContentItem(name=title, template_id=template)
    root.ContentSequence = hd.sr.ContentSequence(
        [
            *hd.sr.LanguageOfContentItemAndDescendants(english),
            *hd.sr.ObservationContext(observer_device_context=observer),
        ]
    )
    return root


def section(name: hd.sr.CodedConcept, items: Sequence[pydicom.Dataset]) -> pydicom.Dataset:
    """Return a container of the report with these items in it."""
    container: pydicom.Dataset = hd.sr.ContainerContentItem(name=name, relationship_type="CONTAINS")
    container.ContentSequence = hd.sr.ContentSequence(items)
    return container


def text(name: hd.sr.CodedConcept, words: str) -> pydicom.Dataset:
    """Return a sentence of the report."""
    item: pydicom.Dataset = hd.sr.TextContentItem(name, words, "CONTAINS")
    return item


def _description(result: Result) -> str:
    """Return the series' name: of the card, marked as measurements and with the version."""
    words = plain(result.card.outputs.series_description)
    suffix = versioned("", result.version).removeprefix("unnamed")
    named = words[: LONG_STRING - len(_MEASUREMENTS) - len(suffix)].strip() + _MEASUREMENTS
    return versioned(named, result.version)
