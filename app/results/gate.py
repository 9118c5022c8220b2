"""What every result must meet before it may leave: what its card promises, and whose it is.

`judge` looks at the label map, once; `leave` at the bytes of each object that was made of it. That
an object's content is the label map is for the check of its form.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filereader import read_partial
from pydicom.multival import MultiValue

from app.errors import ResultRejected
from app.results.conformance import MOST_FRAMES, faults
from app.results.forms import Form
from app.results.measure import Measured
from app.results.result import Result

FULL = 0.999
"""A label that has this share of all voxels is everywhere; a body in a tight field has less."""

MOST_TOLD = 3
_PER_FRAME = 0x52009230


def judge(result: Result, measured: Sequence[Measured]) -> None:
    """Refuse a label map that is not what its card promises."""
    if faults_found := [*_broken_promises(result, measured)]:
        raise ResultRejected(f"{result.card.name}: {'; '.join(faults_found)}; it is not sent")


def _broken_promises(result: Result, measured: Sequence[Measured]) -> Iterator[str]:
    outputs, affine = result.card.outputs, result.volume.affine_lps
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    if not np.isfinite(affine).all() or voxel_ml == 0:
        yield "the volume has no place in the patient"
        return
    if result.labels_kji.shape != result.volume.voxels_kji.shape:
        yield "the label map does not lie on the grid of its volume"
    if outputs.nothing_found == "refuse" and not any(each.voxels for each in measured):
        yield "nothing was found, which its card does not allow"
    for each in measured:
        label, share = each.label, each.voxels / result.labels_kji.size
        if share >= FULL and outputs.fills_volume == "refuse":
            yield f"{label.name} fills the whole volume"
        if label.volume_ml is None or not each.voxels:
            continue
        volume_ml, (least, most) = each.voxels * voxel_ml, label.volume_ml
        if not least <= volume_ml <= most:
            yield f"{label.name} has {volume_ml:.3g} ml, its card allows {least:g} to {most:g} ml"


def leave(path: Path, result: Result) -> None:
    """Refuse an object that does not conform, is another patient's or refers to what is not there.

    No sentence has a value of the patient's in it.
    """
    ds = _read(path)
    found = [*_foreign(ds, result), *faults(ds)]  # in this order: raw values are compared first
    if found:
        more = f" and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
        raise ResultRejected(
            f"{path.name.partition('.')[0]} may not leave: {'; '.join(found[:MOST_TOLD])}{more}"
        )


def _read(path: Path) -> pydicom.Dataset:
    """Read the object without pixels; thousands of frames are left to the check of its form."""
    with path.open("rb") as file:
        ds = read_partial(file, stop_when=lambda tag, _vr, _length: tag >= _PER_FRAME)
    if int(ds.get("NumberOfFrames") or 1) > MOST_FRAMES:
        return ds
    return pydicom.dcmread(path)


def _foreign(ds: pydicom.Dataset, result: Result) -> Iterator[str]:
    """Yield what does not belong to the job's study, patient, place or sources."""
    identity, volume = result.identity, result.volume
    if ds.get("StudyInstanceUID") != identity.study_uid:
        yield "StudyInstanceUID: is not the study's"
    for tag, element in result.sources.identity.items():
        if _bytes_of(ds.get_item(tag)) != _bytes_of(element):
            yield f"{keyword_for_tag(tag)}: is not as its source has it"
    if "FrameOfReferenceUID" in ds and ds.FrameOfReferenceUID != volume.frame_of_reference_uid:
        yield "FrameOfReferenceUID: is not its source's"
    if ds.get("SeriesInstanceUID") == volume.series_uid:
        yield "SeriesInstanceUID: is its source's own"
    ours = {identity.uid(f"{form}.instance") for form in Form}
    if str(ds.get("SOPInstanceUID")) in volume.sop_uids:
        yield "SOPInstanceUID: is that of a source"
    strange = {*_references(ds)} - {*volume.sop_uids} - ours
    if strange:
        yield f"refers to {len(strange)} objects that it was not made of, first {min(strange)}"


def _references(ds: pydicom.Dataset) -> Iterator[str]:
    """Yield every instance that is referred to, however deep."""
    for element in ds:
        if element.keyword == "ReferencedSOPInstanceUID":
            yield str(element.value)
        elif element.VR == "SQ":
            sop_is_study = element.keyword == "RTReferencedStudySequence"
            for item in element.value:
                found = _references(item)
                if sop_is_study:  # PS3.3 C.8.8.5: here it is the study's UID
                    found = (uid for uid in found if uid != item.ReferencedSOPInstanceUID)
                yield from found


def _bytes_of(element: DataElement | RawDataElement | None) -> bytes:
    """Return a value as it is encoded, or as text where it was read already, without padding."""
    value = element.value if element is not None else None
    if isinstance(value, bytes):
        return value.rstrip(b" \0")
    several = value if isinstance(value, MultiValue) else [value or ""]
    return "\\".join(map(str, several)).encode("utf-8", "replace").rstrip(b" \0")
