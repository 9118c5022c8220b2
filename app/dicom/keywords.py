"""Which attributes may be read and asked for: those that name nobody."""

from difflib import get_close_matches

from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword
from pydicom.tag import Tag

_PATIENT_GROUP, _VISIT_GROUP = 0x0010, 0x0038
_PATIENT_KEPT = frozenset({"PatientAge", "PatientSex", "PatientSize", "PatientWeight"})
# Names of machines and protocols: routes need them, and they name nobody.
_NAMES_KEPT = frozenset(
    {"ManufacturerModelName", "ProtocolName", "PulseSequenceName", "SequenceName", "StationName"}
)
_IDENTIFYING = ("Accession", "Address", "Comment", "Operator", "Physician", "Tele")
_NUMBERS = frozenset(["DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"])
_TEXTS = frozenset(["AE", "AS", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UT"])


def tells_nobody(group: int, keyword: str) -> bool:
    """Say whether an element can hold nothing that identifies a person."""
    if group == _PATIENT_GROUP:
        return keyword in _PATIENT_KEPT
    if group == _VISIT_GROUP or any(word in keyword for word in _IDENTIFYING):
        return False
    return not keyword.endswith("Name") or keyword in _NAMES_KEPT


def is_plain(vr: str) -> bool:
    """Say whether elements of this VR hold short text or numbers."""
    # The dictionary gives a choice such as "US or SS" for a few.
    return any(each in _NUMBERS or each in _TEXTS for each in vr.split(" or "))


def is_number(vr: str) -> bool:
    """Say whether elements of this VR hold numbers."""
    return vr in _NUMBERS


def fault_of(keyword: str) -> str | None:
    """Say why an attribute cannot be asked for, or nothing when it can."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        close = get_close_matches(keyword, keyword_dict, n=3, cutoff=0.7)
        hint = f"did you mean {' or '.join(close)}?" if close else "see PS3.6 for the keywords"
        return f"{keyword!r} is no DICOM keyword; {hint}"
    if not tells_nobody(Tag(tag).group, keyword):
        return f"{keyword} may identify a person, so it is never read; ask for another attribute"
    if not is_plain(dictionary_VR(tag)):
        return f"{keyword} holds neither text nor numbers; ask for another attribute"
    return None
