"""STOW-RS and QIDO-RS as a client (PS3.18 10.5, 10.6): HTTP in and out, our errors out.

The status code is never the proof: archives answer 200 to bodies of which they stored nothing.
What counts is the list in the answer, and then what the archive lists when it is asked.
"""

from pathlib import Path
from typing import Any

from app.dicom.dimse import SOP_CLASS_NOT_SUPPORTED, STORED_ALL_THE_SAME
from app.dicom.encoded import Identifiers
from app.dicom.multipart import Multipart
from app.dicom.web import HTTP_NO_CONTENT, HTTP_NOT_FOUND, Answer, Credentials, Web, hint, values
from app.errors import ArchiveUnavailable, DeliveryRefused, FormRefused, NodeError

__all__ = ["Credentials", "Dicomweb"]

STORED, FAILED, REASON, UID = "00081199", "00081198", "00081197", "00081155"
WARNING = "00081196"
SOP_INSTANCE_UID, PATIENT_ID = "00080018", "00100020"

REASONS = {
    0x0110: "processing failure",
    0x0122: "SOP class not supported",
    0x0124: "not authorized",
    0x0213: "resource limitation",
    0xA770: "duplicate rejection note",
    0xA771: "the object was rejected before",
    0xA777: "patient ID missing",
    0xA778: "conflicting patient ID",
    0xA779: "conflicting patient attributes",
    0xA77A: "the study is being deleted",
    0xA77B: "patient, study and series do not fit together",
}
"""PS3.4 B.2.3, PS3.18 table I.2-2 and dcm4chee-arc's own."""
RESOURCES = {0x0213, *range(0xA700, 0xA770), *range(0xA780, 0xA800)}
"""Reasons that pass by themselves (PS3.4 B.2.3); A77x is dcm4chee-arc's word on the object."""
HTTP_UNSUPPORTED_TYPE = 415
HTTP_UNKNOWN_US = {401, 403}
"""Credentials that ran out are renewed by somebody; until then the archive counts as away."""


class Dicomweb(Web):
    """One DICOMweb archive that results are sent to."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.warnings: set[str] = set()
        """What the archive did to objects that it kept, in words."""
        self.patients: set[str] = set()
        """Under which patient IDs it lists them; not for any log."""

    def store(self, file: Path, uids: Identifiers) -> bool:
        """Send one Part 10 file; return whether the archive says that it stored this object."""
        with Multipart(file) as body:
            headers = {"Content-Type": body.content_type}
            answer = self.ask("POST", "studies", data=body, headers=headers)
        lists = answer.body
        failures = _failures(lists)
        if uids.sop_uid in failures:
            raise self._failed(failures[uids.sop_uid])
        if uids.sop_uid in _uids(lists, STORED):
            self.warnings |= _warnings(lists)
            return True
        if not answer.ok:
            raise self._refused(answer, "the object")
        return False

    def holds(self, uids: Identifiers) -> bool:
        """Ask whether the archive lists the object in its study and series."""
        answer = self.ask(
            "GET",
            f"studies/{uids.study_uid}/series/{uids.series_uid}/instances",
            params={"SOPInstanceUID": uids.sop_uid, "includefield": PATIENT_ID},
        )
        if answer.status in {HTTP_NO_CONTENT, HTTP_NOT_FOUND}:
            return False
        if not answer.ok:
            raise self._refused(answer, "the question whether it holds the object")
        listed = answer.body if isinstance(answer.body, list) else []
        found = [item for item in listed if uids.sop_uid in values(item, SOP_INSTANCE_UID)]
        self.patients |= {str(each).strip() for item in found for each in values(item, PATIENT_ID)}
        return bool(found)

    def _failed(self, reason: int) -> NodeError:
        words = REASONS.get(reason) or _kind(reason)
        sentence = f"{self.name}: did not store the object: {words} (reason {reason:04X}H)"
        if reason in RESOURCES:
            return ArchiveUnavailable(sentence)
        if reason == SOP_CLASS_NOT_SUPPORTED:
            return FormRefused(sentence)
        return DeliveryRefused(sentence)

    def _refused(self, answer: Answer, what: str) -> NodeError:
        told = f"{self.name}: refused {what} with HTTP {answer.status}{hint(answer.status)}"
        if answer.status in HTTP_UNKNOWN_US:
            return ArchiveUnavailable(told)
        return (
            FormRefused(told) if answer.status == HTTP_UNSUPPORTED_TYPE else DeliveryRefused(told)
        )


def _failures(body: Any) -> dict[str, int]:
    """Return the reasons of the objects that the archive says it did not store."""
    items = values(body, FAILED)
    reasons: dict[str, int] = {}
    for item in items:
        reason = next((value for value in values(item, REASON) if isinstance(value, int)), 0x0110)
        reasons |= {uid: reason for uid in values(item, UID) if isinstance(uid, str)}
    return reasons


def _warnings(body: Any) -> set[str]:
    """Return what the archive says it did to the objects that it stored."""
    codes = {code for item in values(body, STORED) for code in values(item, WARNING)}
    return {STORED_ALL_THE_SAME.get(code, "its reason is not a known one") for code in codes}


def _uids(body: Any, tag: str) -> set[str]:
    return {uid for item in values(body, tag) for uid in values(item, UID) if isinstance(uid, str)}


def _kind(reason: int) -> str:
    if reason >> 8 == 0xA9:  # noqa: PLR2004  # PS3.4 table B.2-1
        return "the data set does not match its SOP class"
    kinds = {0xA: "the archive refuses it", 0xC: "the archive cannot understand it"}
    return kinds.get(reason >> 12, "no known reason")
