"""What kind of object it is, from its SOP class and its Image Type (PS3.3 C.7.6.1.1.2)."""

import re
from collections.abc import Mapping
from typing import Final

from app.dicom.image import ENHANCED, FRAMES, LOSSY, Image
from app.dicom.series import Scalar

MANUFACTURER: Final = "Marginalia"
MODEL_NAME: Final = "Marginalia node"
"""How this program calls itself in what it makes; together they tell its own objects."""

Tags = Mapping[str, tuple[Scalar, ...]]

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NOT_IMAGES = tuple(
    _STORAGE + family
    for family in (
        "9.",  # waveforms
        "11.",  # presentation states
        "66",  # raw data, registration, fiducials, segmentation, surfaces, tracts
        "67",  # real world value mapping
        "68.",  # surface scans
        "78.",  # eye measurements
        "79.",
        "80.",
        "82.",
        "88.",  # structured reports and key objects
        "90.",  # assessments
        "104.",  # encapsulated documents
        "200.",  # protocols
        "201.",  # inventories
        "481.",  # radiotherapy
    )
)
_SECONDARY = _STORAGE + "7"
_NOT_IMAGE_MODALITIES = frozenset(
    ("AU", "DOC", "ECG", "EPS", "FID", "HD", "KO", "PLAN", "PR", "REG", "RESP", "RTDOSE")
) | {"RTIMAGE", "RTPLAN", "RTRECORD", "RTSTRUCT", "RWV", "SEG", "SMR", "SR"}
_BY_TYPE = (
    ("secondary", r"SCREEN(?: ?SAVE)?|(?:.* )?REPORT|DOSE INFO|.* PROT"),
    ("localizer", r"LOCALI[ZS]ER|SCOUT|TOPOGRAM|SURVIEW|.* TOP"),
    ("projection", r"(?:.* )?(?:MIP|MINIP|MNIP|MAX IP|MIN IP|AIP|AVERAGE|AVG|RAYSUM)(?: .*)?"),
    ("projection", r"(?:.* )?(?:VRT?|SSD|VOLREN|3D RENDERING|PROJECTION IMAGE)(?: .*)?"),
    ("reformatted", r"(?:.* )?(?:MPR|MPVR|REFORMATTED|CPR|CURVED|RESAMPLED)(?: .*)?"),
    ("derived", r"DERIVED"),
    ("original", r"ORIGINAL"),
)
_LOCALIZER = re.compile(
    r"\b(?:locali[sz]er|scout|topogram|surview|survey|pilot|loc|3[ -]?(?:pl(?:ane)?|axis))\b",
    re.IGNORECASE,
)


def kind_facts(tags: Tags, images: Mapping[str, Image]) -> dict[str, tuple[Scalar, ...]]:
    """Return what kinds of objects the series holds."""
    looks = {(image.get("SOPClassUID"), image.get("ImageType", ())) for image in images.values()}
    kinds = {_kind(tags, str((sop_class or ("",))[0]), *types) for sop_class, types in looks}
    many = {
        "yes" if FRAMES in image else "enhanced" if ENHANCED in image else "no"
        for image in images.values()
    }
    own = MANUFACTURER in tags.get("Manufacturer", ()) and MODEL_NAME in tags.get(
        "ManufacturerModelName", ()
    )
    lossy = any(LOSSY in image for image in images.values())
    facts: dict[str, tuple[Scalar, ...]] = {
        "kind": tuple(sorted(kinds - {""})),
        "multi_frame": tuple(sorted(many)),
        "lossy": ("yes" if lossy else "no",),
        "own": ("yes" if own else "no",),
    }
    return facts


def is_image(tags: Tags, sop_class: str) -> bool:
    """Say whether an object is an image of a patient, as far as its class and modality tell."""
    modality = {str(value).upper() for value in tags.get("Modality", ())}
    return not (sop_class.startswith(_NOT_IMAGES) or modality & _NOT_IMAGE_MODALITIES)


def _kind(tags: Tags, sop_class: str, *image_type: Scalar) -> str:
    if not is_image(tags, sop_class):
        return "not_image"
    if sop_class == _SECONDARY or sop_class.startswith(f"{_SECONDARY}."):
        return "secondary"
    types = [" ".join(re.split(r"[\s_]+", str(each).upper())) for each in image_type]
    for kind, pattern in _BY_TYPE:
        if any(re.fullmatch(pattern, each) for each in types):
            named = kind in {"original", "derived"} and _is_named_localizer(tags)
            return "localizer" if named else kind
    return "localizer" if _is_named_localizer(tags) else ""


def _is_named_localizer(tags: Tags) -> bool:
    """Say whether an MR series is called one; those have no Image Type of their own."""
    if "MR" not in tags.get("Modality", ()):
        return False
    texts = tags.get("SeriesDescription", ()) or tags.get("ProtocolName", ())
    return any(_LOCALIZER.search(str(text).replace("_", " ")) for text in texts)
