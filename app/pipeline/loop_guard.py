"""Series that never start a job: our own results, and whatever is no image.

Always on. Without it, a node that listens to the archive it delivers to would read its own results.
"""

from collections.abc import Mapping, Sequence

from app.dicom.series import Scalar, Series

NOT_IMAGES = frozenset(
    {
        *("SEG", "SR", "PR", "KO", "DOC", "REG", "FID", "RWV", "PLAN", "TEXTUREMAP", "AU"),
        *("RTSTRUCT", "RTDOSE", "RTPLAN", "RTRECORD", "RTINTENT", "RTSEGANN", "RTRAD"),
        *("ECG", "EPS", "HD", "RESP", "EEG", "EMG", "EOG", "SMR", "ANN", "M3D", "STAIN", "ASMT"),
    }
)
"""Modalities (PS3.3 C.7.3.1.1.1) of objects that are derived from images or are none."""

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CLASSES = (
    f"{_STORAGE}9.",  # waveforms
    f"{_STORAGE}11.",  # presentation states
    f"{_STORAGE}66",  # raw data, registrations, fiducials, segmentations, surfaces
    f"{_STORAGE}67",  # real world value mappings
    f"{_STORAGE}68.",  # surface scans
    f"{_STORAGE}88.",  # structured reports, key objects
    f"{_STORAGE}104.",  # encapsulated documents
    f"{_STORAGE}481.",  # radiotherapy, but for its images
)
_IMAGES = (f"{_STORAGE}481.1", f"{_STORAGE}481.23")
"""RT Image and Enhanced RT Image: the only radiotherapy classes that are pictures."""


def guarded(series: Series) -> str | None:
    """Say why the series is never an input, or nothing when it may be one."""
    if "yes" in series.facts.get("own", ()):
        return "made by this program"
    told = next((name for name in series.sop_classes if _is_no_image(name)), None)
    if told or "not_image" in series.facts.get("kind", ()):
        return f"holds objects that are no images ({series.modality or 'of unknown modality'})"
    return guarded_modality(series.tags)


def guarded_modality(values: Mapping[str, Sequence[Scalar]]) -> str | None:
    """Say the same as far as the modality tells."""
    found = [value for value in values.get("Modality", ()) if str(value).upper() in NOT_IMAGES]
    return f"holds objects that are no images ({found[0]})" if found else None


def _is_no_image(sop_class_uid: str) -> bool:
    return sop_class_uid.startswith(_CLASSES) and sop_class_uid not in _IMAGES
