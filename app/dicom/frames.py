"""The frames of an enhanced multi-frame object, each with the header that a single image has.

Enhanced objects keep in functional groups, for all frames or for each, what single images keep at
the top of their headers (PS3.3 C.7.6.16). Whatever reads images reads frames once they are told
alike; attributes that were renamed get the name that single images have.
"""

from collections.abc import Iterator
from typing import Final

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import Tag

from app.dicom.series import scalars
from app.errors import UnreadableDicom, UnsupportedGeometry

MOST_FRAMES: Final = 20_000
"""Objects with more frames are not taken apart; no volume has as many slices."""

_SHARED = "SharedFunctionalGroupsSequence"
_PER_FRAME = "PerFrameFunctionalGroupsSequence"
_GROUPS: dict[str, dict[str, str]] = {
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelMeasuresSequence": {"PixelSpacing": "PixelSpacing", "SliceThickness": "SliceThickness"},
    "PixelValueTransformationSequence": {
        "RescaleSlope": "RescaleSlope",
        "RescaleIntercept": "RescaleIntercept",
        "RescaleType": "RescaleType",
    },
    "FrameContentSequence": {
        "FrameAcquisitionDateTime": "AcquisitionDateTime",
        "TemporalPositionIndex": "TemporalPositionIndex",
    },
    "TemporalPositionSequence": {"TemporalPositionTimeOffset": "FrameReferenceTime"},
    "CardiacSynchronizationSequence": {
        "NominalCardiacTriggerDelayTime": "TriggerTime",
        "NominalPercentageOfCardiacPhase": "NominalPercentageOfCardiacPhase",
    },
    "CTImageFrameTypeSequence": {"FrameType": "ImageType"},
    "CTXRayDetailsSequence": {"KVP": "KVP"},
    "CTReconstructionSequence": {"ConvolutionKernel": "ConvolutionKernel"},
    "MRImageFrameTypeSequence": {
        "FrameType": "ImageType",
        "ComplexImageComponent": "ComplexImageComponent",
    },
    "MREchoSequence": {"EffectiveEchoTime": "EchoTime"},
    "MRModifierSequence": {"InversionTimes": "InversionTime"},
    "MRTimingAndRelatedParametersSequence": {
        "RepetitionTime": "RepetitionTime",
        "FlipAngle": "FlipAngle",
    },
    "PETFrameTypeSequence": {"FrameType": "ImageType"},
}
"""Functional group → attribute in it → the attribute of single images that says the same."""
_WHOLE = ("MRDiffusionSequence",)
"""Groups that single images have as they are."""


def is_enhanced(ds: pydicom.Dataset) -> bool:
    """Say whether the object describes its frames in functional groups."""
    return _PER_FRAME in ds or _SHARED in ds


def frames_of(ds: pydicom.Dataset, name: str) -> list[pydicom.Dataset]:
    """Return for each frame, in their order, what its functional groups say."""
    groups = list(_items(ds, _PER_FRAME))
    if not groups:
        raise UnsupportedGeometry(
            f"{name}: is an enhanced multi-frame image that does not describe its frames;"
            " send single frames"
        )
    if len(groups) > MOST_FRAMES:
        raise UnsupportedGeometry(
            f"{name}: has {len(groups)} frames, more than {MOST_FRAMES}; send fewer in an object"
        )
    said = scalars(ds, "NumberOfFrames")
    if said != (len(groups),):
        number = said[0] if said and isinstance(said[0], int) else "an unknown number of"
        raise UnreadableDicom(f"{name}: describes {len(groups)} of {number} frames; send it again")
    shared = pydicom.Dataset()
    for group in _items(ds, _SHARED):
        _flatten(group, shared)
    return [_frame(group, shared) for group in groups]


def _frame(group: pydicom.Dataset, shared: pydicom.Dataset) -> pydicom.Dataset:
    frame = pydicom.Dataset()
    frame.update(shared)
    _flatten(group, frame)
    return frame


def _flatten(groups: pydicom.Dataset, to: pydicom.Dataset) -> None:
    """Put what the groups say where single images say it."""
    for keyword in _WHOLE:
        if keyword in groups:
            to[keyword] = groups[keyword]
    for keyword, attributes in _GROUPS.items():
        for item in _items(groups, keyword):
            for inside, outside in attributes.items():
                if element := item.get_item(inside):
                    to[Tag(outside)] = _renamed(element, outside)


def _renamed(element: DataElement | RawDataElement, keyword: str) -> DataElement | RawDataElement:
    """Return the element under another name; as it came, since its value may be no value."""
    tag = Tag(keyword)
    if isinstance(element, RawDataElement):
        vr = element.VR or dictionary_VR(element.tag)  # an implicit one has none
        return element._replace(tag=tag, VR=vr)
    return DataElement(tag, element.VR, element.value)


def _items(ds: pydicom.Dataset, keyword: str) -> Iterator[pydicom.Dataset]:
    found = ds.get(keyword)
    if isinstance(found, pydicom.Sequence):
        yield from found
