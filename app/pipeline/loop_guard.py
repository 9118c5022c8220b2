"""Series that never start a job: our own results, and whatever is no image.

Always on. Without it, a node that listens to the archive it delivers to would read its own results.
"""

from collections.abc import Mapping, Sequence

from app.dicom.series import Scalar, Series

NOT_IMAGES = frozenset(
    {
        *("SEG", "SR", "PR", "KO", "DOC", "REG", "FID", "RWV", "PLAN", "TEXTUREMAP", "AU"),
        *("RTSTRUCT", "RTDOSE", "RTIMAGE", "RTPLAN", "RTRECORD", "RTINTENT", "RTSEGANN", "RTRAD"),
        *("ECG", "EPS", "HD", "RESP", "EEG", "EMG", "EOG", "SMR", "ANN", "M3D", "STAIN", "ASMT"),
    }
)
"""Modalities (PS3.3 C.7.3.1.1.1) of objects that are derived from images or are none."""


def guarded(series: Series) -> str | None:
    """Say why the series is never an input, or nothing when it may be one."""
    if "yes" in series.facts.get("own", ()):
        return "made by this program"
    if "not_image" in series.facts.get("kind", ()):
        return f"holds objects that are no images ({series.modality or 'of unknown modality'})"
    return guarded_modality(series.tags)


def guarded_modality(values: Mapping[str, Sequence[Scalar]]) -> str | None:
    """Say the same as far as the modality tells."""
    found = [value for value in values.get("Modality", ()) if str(value).upper() in NOT_IMAGES]
    return f"holds objects that are no images ({found[0]})" if found else None
