"""What an association request asks for, and what it gets (PS3.8 9.3.2, PS3.7 Annex D.3).

The titles and the version are read here, so that a stranger is turned away before anything else
of its request is decoded; the rest is pynetdicom's.
"""

import struct
from dataclasses import dataclass

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AllStoragePresentationContexts, build_context
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from app.dicom.dimse import IMPLEMENTATION_NAME, IMPLEMENTATION_UID, TRANSFER_SYNTAXES
from app.dicom.wire import ASSOCIATE_RJ, ASSOCIATE_RQ, HEADER, INVALID, MAX_PDU, PeerFault
from app.errors import NodeError

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION, COMMITMENT = str(Verification), str(StorageCommitmentPushModel)
PLAIN = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
MAX_CONTEXTS = 128
FIXED = struct.Struct(">H2x16s16s32x")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""

    code: tuple[int, int, int]
    words: str

    def encode(self) -> bytes:
        """Return the PDU."""
        return HEADER.pack(ASSOCIATE_RJ, 4) + bytes((0, *self.code))


class Rejected(NodeError):
    """The association is not wanted."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.words)
        self.rejection = rejection


WRONG_VERSION = Rejection(code=(1, 2, 2), words="its protocol version is not 1")
WRONG_CONTEXT = Rejection(code=(1, 1, 2), words="its application context is unknown")
WRONG_CALLED = Rejection(code=(1, 1, 7), words="it called another AE title")
WRONG_CALLING = Rejection(code=(1, 1, 3), words="it is not one of the peers")
TOO_MANY = Rejection(code=(2, 3, 2), words="all associations that it may have are taken")
NO_ROOM = Rejection(code=(2, 3, 2), words="the disk has no space to spare")
STOPPING = Rejection(code=(2, 3, 1), words="the door closes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The fixed part of a request, and the whole of it."""

    version: int
    called: str
    calling: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What both sides hold to, and the PDU that says so."""

    contexts: dict[int, tuple[str, str]]
    """Context id → abstract and transfer syntax."""
    max_pdu: int
    """Longest list of PDVs that the peer takes; 0 is any."""
    answer: bytes


def read_request(body: memoryview) -> Request:
    """Read the fixed part of an A-ASSOCIATE-RQ."""
    if len(body) < FIXED.size:
        raise PeerFault("an association request is too short", INVALID)
    version, called, calling = FIXED.unpack_from(body)
    return Request(
        version=version, called=_title(called), calling=_title(calling), content=bytes(body)
    )


def _title(title: bytes) -> str:
    """Return an AE title without its padding; with what may not stand in one, it is nobody's."""
    text = title.strip(b" \0").decode("latin-1")
    return text if all(" " <= c <= "~" and c != "\\" for c in text) else ""


def agree(request: Request) -> Agreement:
    """Negotiate presentation contexts; Rejected when the application context is unknown."""
    asked = _decode(request)
    if asked.application_context_name != APPLICATION_CONTEXT:
        raise Rejected(WRONG_CONTEXT)
    roles = {
        item.sop_class_uid: (item.scu_role, item.scp_role)
        for item in asked.user_information
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
    }
    wanted = asked.presentation_context_definition_list
    contexts, granted = negotiate_as_acceptor(wanted, SUPPORTED, roles)
    return Agreement(
        contexts={
            each.context_id: (str(each.abstract_syntax), str(each.transfer_syntax[0]))
            for each in contexts
            if each.result == 0
        },
        max_pdu=asked.maximum_length_received or 0,
        answer=_answer(asked, contexts, granted),
    )


def _decode(request: Request) -> A_ASSOCIATE:
    # the titles were judged above; the library refuses some that are harmless
    titles = b"X".ljust(16) + b"X".ljust(16)
    content = request.content[:4] + titles + request.content[36:]
    pdu = A_ASSOCIATE_RQ()
    try:
        pdu.decode(HEADER.pack(ASSOCIATE_RQ, len(content)) + content)
        asked = pdu.to_primitive()
        wanted = asked.presentation_context_definition_list
        whole = all(each.abstract_syntax and each.transfer_syntax for each in wanted)
        ids = {each.context_id for each in wanted}
    except Exception as error:  # the library raises anything on hostile bytes
        raise PeerFault("an association request is malformed", INVALID) from error
    if not whole or len(ids) < len(wanted) or len(wanted) > MAX_CONTEXTS:
        raise PeerFault("an association request has wrong presentation contexts", INVALID)
    asked.calling_ae_title, asked.called_ae_title = request.calling, request.called
    return asked


def _answer(asked: A_ASSOCIATE, contexts: list[PresentationContext], roles: list[object]) -> bytes:
    answer = A_ASSOCIATE()
    answer.application_context_name = UID(APPLICATION_CONTEXT)
    answer.calling_ae_title, answer.called_ae_title = asked.calling_ae_title, asked.called_ae_title
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = contexts
    length, ours, name = (
        MaximumLengthNotification(),
        ImplementationClassUIDNotification(),
        ImplementationVersionNameNotification(),
    )
    length.maximum_length_received = MAX_PDU
    ours.implementation_class_uid = IMPLEMENTATION_UID
    name.implementation_version_name = IMPLEMENTATION_NAME
    answer.user_information = [length, ours, name, *roles]
    pdu = A_ASSOCIATE_AC()
    pdu.from_primitive(answer)
    return bytes(pdu.encode())


def _supported() -> list[PresentationContext]:
    storage = dict.fromkeys(each.abstract_syntax for each in AllStoragePresentationContexts)
    commitment = build_context(COMMITMENT, PLAIN)
    # a peer that calls back with its report is the provider, and says so (PS3.4 J.3.3)
    commitment.scu_role = commitment.scp_role = True
    return [
        build_context(VERIFICATION, PLAIN),
        commitment,
        *(build_context(each, list(TRANSFER_SYNTAXES)) for each in storage),
    ]


SUPPORTED = _supported()
"""Storage without roles: the peer sends, we take, whatever roles it proposes."""
