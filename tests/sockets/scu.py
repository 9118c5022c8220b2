"""A sender that says exactly what a test wants: pynetdicom's association, bytes of our choice."""

import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from tests.waiting import wait_until

CANARY = "ZZPHI^CANARY"
UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True)
class Made:
    """An encoded object and what a C-STORE says about it."""

    dataset: bytes
    sop_uid: str
    study_uid: str
    sop_class: str = CTImageStorage
    syntax: str = ExplicitVRLittleEndian


def image(study_uid: str, syntax: str = ExplicitVRLittleEndian, size: int = 2048) -> Made:
    """Make a small CT slice of a patient called like the canary; its pixels are any bytes."""
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = generate_uid()
    ds.PatientName, ds.PatientID = CANARY, "ZZPHI-ID"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study_uid, f"{study_uid}.1"
    ds.Rows = ds.Columns = 32
    kind = UID(syntax)
    dataset = encode(ds, kind.is_implicit_VR, kind.is_little_endian)
    assert dataset
    pixels = _pixel_data(kind, bytes(range(256)) * (size // 256))
    return Made(
        dataset=dataset + pixels,
        sop_uid=str(ds.SOPInstanceUID),
        study_uid=study_uid,
        syntax=str(syntax),
    )


def new_study() -> str:
    """Return a fresh Study Instance UID."""
    return f"2.25.{uuid4().int}"


def images(study_uid: str, number: int) -> list[Made]:
    """Make several slices of one study."""
    return [image(study_uid) for _ in range(number)]


def _pixel_data(kind: UID, pixels: bytes) -> bytes:
    order = "<" if kind.is_little_endian else ">"
    tag = struct.pack(f"{order}HH", 0x7FE0, 0x0010)
    if kind.is_implicit_VR:
        return tag + struct.pack("<L", len(pixels)) + pixels
    if not kind.is_encapsulated:
        return tag + b"OW\0\0" + struct.pack(f"{order}L", len(pixels)) + pixels
    fragment = struct.pack("<HHL", 0xFFFE, 0xE000, len(pixels)) + pixels
    table, end = (struct.pack("<HHL", 0xFFFE, number, 0) for number in (0xE000, 0xE0DD))
    return tag + b"OB\0\0" + struct.pack("<L", UNDEFINED) + table + fragment + end


@contextmanager
def released(assoc: Association) -> Iterator[Association]:
    """Release an association at the end unless it ended before."""
    connection = assoc.dul.socket.socket
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()
        if assoc.ident is not None:  # a rejected one has never run
            assoc.join(assoc.acse_timeout)
        if connection is not None:
            connection.close()  # which the library forgets when the peer was faster


@contextmanager
def associated(
    port: int,
    objects: Sequence[Made] = (),
    *,
    contexts: Sequence[tuple[str, str]] = (),
    calling: str = "PEER",
) -> Iterator[Association]:
    """Open an association for these objects; it is released at the end unless it ended before."""
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
    wanted = dict.fromkeys([*contexts, *((each.sop_class, each.syntax) for each in objects)])
    proposals = [build_context(sop_class, syntax) for sop_class, syntax in wanted]
    assoc = ae.associate("127.0.0.1", port, contexts=proposals, ae_title="MARGINALIA")
    with released(assoc):
        yield assoc


def send(
    assoc: Association, made: Made, *, sop_class: str | None = None, sop_uid: str | None = None
) -> tuple[int, str]:
    """Send the bytes of an object under any UIDs; return status and words of the answer.

    -1 when the association ended instead.
    """
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID = sop_class or made.sop_class
    request.AffectedSOPInstanceUID = sop_uid or made.sop_uid
    request.DataSet = io.BytesIO(made.dataset)
    [context] = [
        each
        for each in assoc.accepted_contexts
        if (each.abstract_syntax, each.transfer_syntax[0]) == (made.sop_class, made.syntax)
    ]
    assoc._reactor_checkpoint.clear()  # the library's own sending methods do the same
    wait_until(lambda: assoc._is_paused, what="the pause of the reactor")
    assoc.dimse.send_msg(request, context.context_id)
    _, answer = assoc.dimse.get_msg(block=True)
    assoc._reactor_checkpoint.set()
    return (-1, "") if answer is None else (answer.Status, answer.ErrorComment or "")


def statuses(port: int, objects: Sequence[Made]) -> list[int]:
    """Send objects over one association and return what was answered."""
    with associated(port, objects) as assoc:
        return [send(assoc, each)[0] for each in objects]
