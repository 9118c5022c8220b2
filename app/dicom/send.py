"""C-STORE as its user (PS3.4 Annex B): objects to a peer, and its word that it holds them."""

import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from app.dicom import command as dimse
from app.dicom.association import Association, Proposal
from app.dicom.calling import Line, answer
from app.dicom.dimse import SOP_CLASS_NOT_SUPPORTED, STORED_ALL_THE_SAME
from app.dicom.encoded import Identifiers
from app.dicom.part10 import Part10, read_part10
from app.dicom.query import FIND, MEDIUM, PLAIN, search
from app.errors import ArchiveRefused, DeliveryRefused, FormRefused, NodeError, NotShownYet

REASONS = {
    0x0111: "it has another object of this UID",
    0x0117: "it does not take the UID",
    0x0124: "our AE title may not store there; give it the right",
}


Proof = Literal["query", "commitment", "status"]


def send(line: Line, files: Sequence[Path], proof: Proof = "query") -> str:
    """Store Part 10 files; return what the peer says of them.

    With `query` it is asked by C-FIND, before and after, whether it holds them. Else its status is
    all that is told: to be believed, or to be followed by a request to commit itself.
    """
    try:
        return _send(line, files, proof)
    except ArchiveRefused as error:
        raise DeliveryRefused(str(error)) from error


def _send(line: Line, files: Sequence[Path], proof: Proof) -> str:
    parts = [read_part10(file) for file in files]
    uids = [part.identifiers for part in parts]
    kinds = {(each.identifiers.sop_class_uid, each.transfer_syntax) for each in parts}
    storage = [Proposal(abstract=one, syntaxes=(syntax,)) for one, syntax in sorted(kinds)]
    asks = [Proposal(abstract=FIND, syntaxes=PLAIN)] if proof == "query" else []
    with line.association([*storage, *asks]) as association:
        held = _held(line, association, uids)
        if held is None and proof == "query":
            raise line.unsupported("C-FIND, by which `proof: query` is had, or give another proof,")
        told = [
            _store(line, association, file, part)
            for file, part in zip(files, parts, strict=True)
            if part.identifiers.sop_uid not in (held or ())
        ]
        listed = held if held is None else _held(line, association, uids)
    warnings = "".join(f", with a warning: {words}" for words in sorted({*told} - {""}))
    if listed is None:
        return f"answered C-STORE of {all_of(uids)} with success{warnings}"
    missing = sorted({each.sop_uid for each in uids} - listed)
    if missing:
        raise NotShownYet(f"{line.peer.name}: does not list {', '.join(missing)} (yet)")
    before = f", {len(held or ())} of them before this try" if held else ""
    return f"lists {all_of(uids)} (C-FIND){before}{warnings}"


def all_of(uids: Sequence[Identifiers]) -> str:
    """Return what stands in a receipt for so many objects."""
    return "the object" if len(uids) == 1 else f"all {len(uids)} objects"


def _held(line: Line, association: Association, uids: Sequence[Identifiers]) -> set[str] | None:
    """Return those that the peer lists; None when it cannot be asked."""
    if association.context(FIND) is None:
        return None
    found: set[str] = set()
    try:
        for each in uids:
            keys = {
                "StudyInstanceUID": each.study_uid,
                "SeriesInstanceUID": each.series_uid,
                "SOPInstanceUID": each.sop_uid,
            }
            answers = search(line, association, "IMAGE", keys)
            found |= {
                each.sop_uid for one in answers if one.get("SOPInstanceUID") == (each.sop_uid,)
            }
    except ArchiveRefused:  # it does not search at this level
        return None
    return found


def _store(line: Line, association: Association, file: Path, part: Part10) -> str:
    """Send one object; return the words of a warning, or nothing."""
    uids = part.identifiers
    context = association.context(uids.sop_class_uid, part.transfer_syntax)
    if context is None:
        raise FormRefused(str(line.unsupported("C-STORE of the result's SOP class")))
    extra: dict[int, int | str] = {dimse.PRIORITY: MEDIUM, dimse.AFFECTED_UID: uids.sop_uid}
    with _mapped(file, part.dataset_at) as dataset:
        message_id = association.request(context, dimse.C_STORE_RQ, dataset, extra)
    said, _ = answer(association, dimse.C_STORE_RQ, message_id)
    if said.status and said.status not in STORED_ALL_THE_SAME:
        raise _refused(line, said.status)
    return STORED_ALL_THE_SAME.get(said.status, "")


@contextmanager
def _mapped(file: Path, start: int) -> Iterator[memoryview]:
    """Give the file's bytes from `start` without reading them into memory."""
    with file.open("rb") as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            yield memoryview(content)[start:]
        finally:
            # the traceback of a connection that broke still holds pieces; they end with it
            with suppress(BufferError):
                content.close()


def _refused(line: Line, status: int) -> NodeError:
    """Busy passes by itself; anything else is the archive's word on the object."""
    if status == SOP_CLASS_NOT_SUPPORTED:
        return FormRefused(f"{line.peer.name}: does not support the SOP class (status 0122H)")
    words = REASONS.get(status)
    if words is None and status >> 12 == 0xC:  # noqa: PLR2004  # PS3.4 table B.2-1
        words = "it cannot understand the object"
    if words is None:
        return line.refusal("the object", status)
    return DeliveryRefused(f"{line.peer.name}: refused the object: {words} (status {status:04X}H)")
