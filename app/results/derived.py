"""What every object says of patient, study and maker that no library encodes for us."""

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from app.dicom.kind import MANUFACTURER, MODEL_NAME
from app.results.describe import equipment, software, versioned
from app.results.forms import Form
from app.results.result import Result

_COPIED = (
    *("StudyInstanceUID", "StudyDate", "StudyTime", "PatientBirthDate", "PatientSex"),
    *("PatientAge", "PatientSize", "PatientWeight"),
)
_NEVER_ABSENT = (
    *("AccessionNumber", "StudyID"),
    *("PatientID", "PatientName", "ReferringPhysicianName"),
)
"""Type 2: empty, until `Sources.identify` puts in what the source has."""


def derived(
    result: Result, form: Form, *, sop_class: str, transfer_syntax: str, modality: str
) -> Dataset:
    """Return an object without content: patient, study, its own series, equipment, UIDs."""
    card, identity, local, first = (
        result.card,
        result.identity,
        result.local,
        result.sources.headers[0],
    )
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    ds.SOPClassUID, ds.SOPInstanceUID = UID(sop_class), UID(identity.uid(f"{form}.instance"))
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    for keyword in _COPIED:
        if keyword in first:
            setattr(ds, keyword, first[keyword].value)
    for keyword in _NEVER_ABSENT:
        setattr(ds, keyword, "")
    ds.Modality = modality
    ds.SeriesInstanceUID = identity.uid(f"{form}.series")
    ds.SeriesNumber = result.series_number(form)
    ds.SeriesDescription = versioned(card.outputs.series_description, result.version)
    ds.InstanceNumber = 1
    ds.Manufacturer, ds.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    ds.DeviceSerialNumber = card.weights_sha256
    ds.SoftwareVersions = list(software(card, result.node_version))
    ds.ContributingEquipmentSequence = equipment(card, result.node_version, local)
    for keyword in ("InstanceCreation", "Series", "Content"):
        setattr(ds, f"{keyword}Date", local.strftime("%Y%m%d"))
        setattr(ds, f"{keyword}Time", local.strftime("%H%M%S.%f"))
    return ds


def slice_references(result: Result) -> list[Dataset]:
    """Return a reference to the image of each slice: an instance, or a frame of one."""
    volume = result.volume
    frames = [None] * len(volume.sop_uids) if volume.frames is None else volume.frames
    kinds = {str(each.SOPInstanceUID): each.SOPClassUID for each in result.sources.headers}
    return [
        _reference(kinds[uid], uid, frame)
        for uid, frame in zip(volume.sop_uids, frames, strict=True)
    ]


def instance_references(result: Result) -> list[Dataset]:
    """Return one reference to each instance, with all frames that were used."""
    volume = result.volume
    if volume.frames is None:
        return slice_references(result)
    used: dict[str, list[int]] = {}
    for uid, frame in zip(volume.sop_uids, volume.frames, strict=True):
        used.setdefault(uid, []).append(frame)
    kinds = {str(each.SOPInstanceUID): each.SOPClassUID for each in result.sources.headers}
    return [_reference(kinds[uid], uid, sorted(frames)) for uid, frames in used.items()]


def _reference(sop_class: str, sop_uid: str, frame: int | list[int] | None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_uid
    if frame is not None:
        item.ReferencedFrameNumber = frame
    return item
