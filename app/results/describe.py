"""Say in DICOM what was found and what made it: segments, codes, colours, equipment (IHE AIR 1.3).

Our own words are written in ASCII, which is right in every character set a source may use.
"""

import unicodedata
from datetime import datetime
from uuid import NAMESPACE_OID, uuid5

import highdicom as hd
import pydicom
from pydicom.sr.codedict import codes

from app.dicom.kind import MANUFACTURER, MODEL_NAME
from app.models.card import Code, Label, ModelCard
from app.results.identity import Identity

CONTENT = "Made by an algorithm, not reviewed. For research use only."

LONG_STRING = 64
"""Characters in a value of VR LO (PS3.5 6.2)."""


def describe_segment(
    number: int, label: Label, card: ModelCard, identity: Identity
) -> hd.seg.SegmentDescription:
    """Return the description of one label as segment `number`."""
    described = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=plain(label.name),
        segmented_property_category=coded(label.category),
        segmented_property_type=coded(label.type),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=card.name,
            version=_algorithm_version(card),
            family=codes.DCM.ArtificialIntelligence,
            source=MANUFACTURER,
        ),
        tracking_id=tracking(label, identity)[0],
        tracking_uid=tracking(label, identity)[1],
        anatomic_regions=[coded(label.region)] if label.region else None,
        display_color=hd.color.CIELabColor.from_rgb(*label.colour),
    )
    if label.laterality:  # highdicom has no argument for it
        kind = described.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [coded(label.laterality)]
    return described


def equipment(
    card: ModelCard, node_version: str, local: datetime
) -> list[hd.ContributingEquipment]:
    """Return one item for the algorithm and one for the node that ran it.

    The algorithm's name, version and maker are those of its algorithm identification, as AIR wants.
    """
    parts = (
        (card.name, [_algorithm_version(card)], "Algorithm that made the segments"),
        (MODEL_NAME, [node_version], "Node that ran the algorithm and encoded its result"),
    )
    items = []
    for name, versions, contribution in parts:
        item = hd.ContributingEquipment(
            manufacturer=MANUFACTURER,
            manufacturer_model_name=name,
            software_versions=versions,
            contribution_datetime=local.replace(tzinfo=None),
            contribution_description=contribution,
            purpose_of_reference=codes.DCM.ProcessingEquipment,
        )
        device = uuid5(NAMESPACE_OID, f"marginalia.device/{name}/{versions[0]}")
        item.DeviceUID = f"2.25.{device.int}"
        items.append(item)
    return items


def software(card: ModelCard, node_version: str) -> tuple[str, ...]:
    """Return the versions of node and model; a long model identity takes two values."""
    if len(card.identity) <= LONG_STRING:
        return node_version, card.identity
    return node_version, card.name, _algorithm_version(card)


def coded(code: Code) -> hd.sr.CodedConcept:
    """Return a code of the card as an item of a code sequence."""
    return hd.sr.CodedConcept(code.value, code.scheme, plain(code.meaning))


def plain(text: str) -> str:
    """Return a text of the card as one ASCII value of VR LO: no accents, no backslash."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return letters.replace("\\", "/")[:LONG_STRING].strip() or "unnamed"


def versioned(text: str, version: int) -> str:
    """Return a text of the card with the version, where the result replaces an earlier one."""
    suffix = f" version {version}" if version > 1 else ""
    return plain(text)[: LONG_STRING - len(suffix)].strip() + suffix


def content(version: int) -> str:
    """Return what a reader must know first of all."""
    if version == 1:
        return CONTENT
    return plain(f"Version {version} by an algorithm, not reviewed. For research use only.")


def person(text: str) -> str:
    """Return a text as a Person Name with a family name only."""
    name = plain(text).translate(str.maketrans("^=", "  "))
    return f"{name[: LONG_STRING - 4].strip()}^^^^"


def _algorithm_version(card: ModelCard) -> str:
    return card.identity.partition("@")[2]


def stamp(ds: pydicom.Dataset, local: datetime) -> None:
    """Replace the times that highdicom takes from the clock by that of the result."""
    ds.InstanceCreationDate = local.strftime("%Y%m%d")
    ds.InstanceCreationTime = local.strftime("%H%M%S.%f")
    for item in ds.ContributingEquipmentSequence:
        if item.get("ManufacturerModelName") == "highdicom":
            item.ContributionDateTime = local.strftime("%Y%m%d%H%M%S.%f")


def tracking(label: Label, identity: Identity) -> tuple[str, str]:
    """Return the identifier and the UID that a segment has in all objects of a job."""
    return (
        f"{identity.job_id} {plain(label.name)}",
        identity.uid(f"seg.tracking.{label.value}"),
    )
