"""Whether an object is what the standard asks of its kind (PS3.3): presence, values, SR content.

The tables are those that come with highdicom: IOD → modules → attributes with their types. They
know no conditions; those that our objects meet are in `_ALWAYS`. What names patient and study comes
from the source as it is, so that its presence counts here and its values do not.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pydicom
from highdicom._standard_utils import (
    get_iod_module_map,
    get_module_attribute_map,
    get_sop_class_iod_map,
)
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VM
from pydicom.dataelem import DataElement
from pydicom.multival import MultiValue
from pydicom.valuerep import validate_value

from app.results.sources import IDENTITY

MOST_FRAMES = 200
"""Functional groups of so many frames are looked at one by one; of more, the first and last."""

_ALWAYS = {
    "SegmentSequence": ("SegmentationAlgorithmIdentificationSequence", "SegmentAlgorithmName"),
    "": ("PatientName", "PatientID", "SeriesInstanceUID", "StudyInstanceUID", "Modality"),
}
"""Conditions of the standard that all our objects meet: sequence → what its items must have."""

_ENUMERATED: Mapping[str, set[str]] = {
    "SegmentationType": {"BINARY", "FRACTIONAL", "LABELMAP"},
    "SegmentationFractionalType": {"PROBABILITY", "OCCUPANCY"},
    "SegmentAlgorithmType": {"AUTOMATIC"},
    "SegmentsOverlap": {"YES", "NO", "UNDEFINED"},
    "CompletionFlag": {"PARTIAL", "COMPLETE"},
    "VerificationFlag": {"UNVERIFIED"},
    "ContinuityOfContent": {"SEPARATE", "CONTINUOUS"},
    "LossyImageCompression": {"00", "01"},
    "BurnedInAnnotation": {"YES", "NO"},
    "ROIGenerationAlgorithm": {"AUTOMATIC"},
    "ApprovalStatus": {"UNAPPROVED"},
    "PixelRepresentation": {"0"},
}
_FROM_SOURCE = {*IDENTITY, "SpecificCharacterSet"}
_FUNCTIONAL_GROUPS = {"SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"}
_PATIENT_GROUPS = {0x0010, 0x0012}
_REQUIRED_BY_VALUE_TYPE = {
    "TEXT": ("TextValue",),
    "NUM": ("MeasuredValueSequence",),
    "CODE": ("ConceptCodeSequence",),
    "DATETIME": ("DateTime",),
    "UIDREF": ("UID",),
    "PNAME": ("PersonName",),
    "IMAGE": ("ReferencedSOPSequence",),
    "COMPOSITE": ("ReferencedSOPSequence",),
    "CONTAINER": ("ContinuityOfContent",),
}
"""PS3.3 C.17.3 and C.18."""
_RELATIONSHIPS = {
    *("CONTAINS", "HAS PROPERTIES", "HAS OBS CONTEXT", "HAS ACQ CONTEXT", "INFERRED FROM"),
    *("SELECTED FROM", "HAS CONCEPT MOD"),
}


@dataclass(slots=True)
class _Attribute:
    """What the modules of an IOD say of one attribute, and of those inside it."""

    type: str = "3"
    inside: dict[str, "_Attribute"] = field(default_factory=dict)


def faults(ds: pydicom.Dataset) -> list[str]:
    """Return in words what is wrong with an object; nothing when it conforms."""
    iod = get_sop_class_iod_map().get(str(ds.get("SOPClassUID", "")))
    if iod is None:
        return [f"SOPClassUID: {ds.get('SOPClassUID', 'none')} is no kind that is made here"]
    found = [*_meta_faults(ds), *_presence_faults(ds, _attributes(iod), ""), *_value_faults(ds)]
    found += [f"{keyword}: is missing" for keyword in _ALWAYS[""] if keyword not in ds]
    if "NumberOfFrames" in ds and "PerFrameFunctionalGroupsSequence" in ds:
        groups = len(ds.PerFrameFunctionalGroupsSequence)
        if groups != int(ds.NumberOfFrames):
            found.append(f"NumberOfFrames: is {ds.NumberOfFrames}, there are groups for {groups}")
    if "ValueType" in ds:
        found += _content_faults(ds)
    return found


@lru_cache(maxsize=8)
def _attributes(iod: str) -> dict[str, _Attribute]:
    """Return the attributes of an IOD; those of modules that need not be there are optional."""
    top: dict[str, _Attribute] = {}
    for module in get_iod_module_map()[iod]:
        # what a content item needs follows from its value type, see _tree_faults
        optional = module["usage"] != "M" or module["key"] == "sr-document-content"
        for each in get_module_attribute_map()[module["key"]]:
            at = top
            for step in each["path"]:
                at = at.setdefault(step, _Attribute()).inside
            attribute = at.setdefault(each["keyword"], _Attribute())
            kind = "3" if optional and not each["path"] else each["type"]
            attribute.type = min(attribute.type, kind)  # "1" < "1C" < "2" < "2C" < "3"
    for name in _FUNCTIONAL_GROUPS & top.keys():  # a group stands in one of them, not in both
        for attribute in top[name].inside.values():
            attribute.type = "3"
    return top


def _presence_faults(
    ds: pydicom.Dataset, attributes: Mapping[str, _Attribute], where: str
) -> Iterator[str]:
    for keyword, attribute in attributes.items():
        if attribute.type in {"1", "2"} and keyword not in ds:
            yield f"{where}{keyword}: is missing"
    for element in ds:
        keyword = element.keyword
        if element.tag.is_private or element.tag.element == 0:
            yield f"{where}{element.tag}: is no attribute of the standard"
            continue
        if keyword not in attributes:
            if where == "" or attributes:
                yield f"{where}{keyword}: does not belong to this kind of object"
            continue
        attribute = attributes[keyword]
        if attribute.type == "1" and _is_empty(element):
            yield f"{where}{keyword}: is empty"
        if element.VR == "SQ" and keyword != "ContentSequence":
            yield from _item_faults(element, attribute, f"{where}{keyword}")


def _item_faults(element: DataElement, attribute: _Attribute, where: str) -> Iterator[str]:
    items = list(enumerate(element.value, 1))
    if len(items) > MOST_FRAMES and element.keyword == "PerFrameFunctionalGroupsSequence":
        items = [items[0], items[-1]]
    for number, item in items:
        if attribute.inside:
            yield from _presence_faults(item, attribute.inside, f"{where}[{number}].")
        for keyword in _ALWAYS.get(element.keyword, ()):
            background = item.get("SegmentNumber") == 0  # of a label map; no algorithm made it
            if not item.get(keyword) and not background:
                yield f"{where}[{number}].{keyword}: is missing"
        yield from _code_faults(item, f"{where}[{number}]", element.keyword)


def _code_faults(item: pydicom.Dataset, where: str, keyword: str) -> Iterator[str]:
    """Refuse a code of which a part is missing (PS3.3 8.8)."""
    if keyword.endswith("CodeSequence"):
        if not any(item.get(each) for each in ("CodeValue", "LongCodeValue", "URNCodeValue")):
            yield f"{where}: is a code without a value"
        if not item.get("URNCodeValue") and not item.get("CodingSchemeDesignator"):
            yield f"{where}: is a code without a scheme"
        if not item.get("CodeMeaning"):
            yield f"{where}: is a code without a meaning"


def _is_empty(element: DataElement) -> bool:
    if element.keyword == "PixelData":
        return not element.value
    return bool(element.is_empty) or (element.VR == "SQ" and not len(element.value))


# -- values --------------------------------------------------------------------------------------


def _value_faults(ds: pydicom.Dataset, where: str = "", top: bool = True) -> Iterator[str]:
    for element in ds:
        keyword = element.keyword
        if top and (keyword in _FROM_SOURCE or element.tag.group in _PATIENT_GROUPS):
            continue
        if element.VR == "SQ":
            items = list(enumerate(element.value, 1))
            if len(items) > MOST_FRAMES and keyword == "PerFrameFunctionalGroupsSequence":
                items = [items[0], items[-1]]
            for number, item in items:
                yield from _value_faults(item, f"{where}{keyword}[{number}].", top=False)
            continue
        yield from (f"{where}{keyword}: {fault}" for fault in _faults_of(element))


def _faults_of(element: DataElement) -> Iterator[str]:
    if element.is_empty or element.VR in {"OB", "OW"}:
        return
    value = element.value
    several = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    for each in several:
        try:
            text = str(each) if element.VR in {"DS", "IS"} else each
            validate_value(element.VR, text, RAISE)
        except (ValueError, TypeError, AttributeError) as error:
            yield f"has a value that {element.VR} does not allow ({type(error).__name__})"
        if isinstance(each, float) and not math.isfinite(each):
            yield "is not a number"
        allowed = _ENUMERATED.get(element.keyword)
        if allowed is not None and str(each) not in allowed:
            yield f"is {each}, not one of {', '.join(sorted(allowed))}"
    if element.keyword and not _fits(len(several), dictionary_VM(element.tag)):
        yield f"has {len(several)} values"


def _fits(number: int, multiplicity: str) -> bool:
    """Return whether so many values are allowed by, say, `1`, `1-3`, `2-n` or `3-3n`."""
    low, _, high = multiplicity.partition("-")
    if number < int(low):
        return False
    if not high:
        return number == int(low)
    if high.endswith("n"):
        return number % int(high.removesuffix("n") or 1) == 0
    return number <= int(high)


def _meta_faults(ds: pydicom.Dataset) -> Iterator[str]:
    meta: Any = getattr(ds, "file_meta", None)
    if meta is None:
        yield "the file has no meta information"
        return
    for keyword, own in (
        ("MediaStorageSOPClassUID", "SOPClassUID"),
        ("MediaStorageSOPInstanceUID", "SOPInstanceUID"),
    ):
        if meta.get(keyword) != ds.get(own):
            yield f"{keyword}: differs from {own}"
    if not meta.get("TransferSyntaxUID"):
        yield "TransferSyntaxUID: is missing"


# -- the content of reports ----------------------------------------------------------------------


def _content_faults(ds: pydicom.Dataset) -> Iterator[str]:
    evidence = [
        study
        for keyword in (
            "CurrentRequestedProcedureEvidenceSequence",
            "PertinentOtherEvidenceSequence",
        )
        for study in ds.get(keyword) or []
    ]
    known = {
        str(sop.ReferencedSOPInstanceUID)
        for study in evidence
        for series in study.ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    }
    yield from _tree_faults(ds, "content", known)


def _tree_faults(item: pydicom.Dataset, where: str, known: set[str]) -> Iterator[str]:
    kind = item.get("ValueType")
    if kind not in _REQUIRED_BY_VALUE_TYPE:
        yield f"{where}: has the value type {kind}"
        return
    for keyword in _REQUIRED_BY_VALUE_TYPE[kind]:
        if keyword not in item or _is_empty(item[keyword]):
            yield f"{where}: {kind} without {keyword}"
    if kind != "IMAGE" and not item.get("ConceptNameCodeSequence"):
        yield f"{where}: {kind} without a name"
    yield from _content_value_faults(item, where)
    for reference in item.get("ReferencedSOPSequence") or []:
        if str(reference.get("ReferencedSOPInstanceUID")) not in known:
            yield f"{where}: refers to an object that its evidence does not list"
    for number, inner in enumerate(item.get("ContentSequence") or [], 1):
        if inner.get("RelationshipType") not in _RELATIONSHIPS:
            yield f"{where}.{number}: has no relationship to what it stands in"
        yield from _tree_faults(inner, f"{where}.{number}", known)


def _content_value_faults(item: pydicom.Dataset, where: str) -> Iterator[str]:
    for keyword in ("ConceptNameCodeSequence", "ConceptCodeSequence"):
        for code in item.get(keyword) or []:
            yield from _code_faults(code, where, keyword)
    for measured in item.get("MeasuredValueSequence") or []:
        units = measured.get("MeasurementUnitsCodeSequence") or []
        if not units:
            yield f"{where}: a number without a unit"
        for unit in units:
            yield from _code_faults(unit, where, "MeasurementUnitsCodeSequence")
        if not math.isfinite(float(measured.get("NumericValue", math.nan))):
            yield f"{where}: a value that is not a number"
