"""The door's own reading and writing of commands and reference lists, with libraries as oracles.

Covered: commands against pynetdicom, lists of references against pydicom, every cut of both, and
pieces of a message for a peer that takes little. Not covered: what is done with them (sockets).
"""

import io
import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode, encode

from app.dicom import command as dimse
from app.dicom.command import parse, respond
from app.dicom.references import (
    MOST_OBJECTS,
    Reference,
    read_report,
    read_request,
    write_report,
)
from app.dicom.wire import P_DATA, PeerFault, pieces_of
from app.errors import UnreadableDicom

CT = "1.2.840.10008.5.1.4.1.1.2"
WANTED = [(CT, "2.25.1"), (CT, "2.25.22")]


def store_request() -> bytes:
    """Return a C-STORE-RQ as pynetdicom writes it."""
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = 7, 2
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = CT, "2.25.1"
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    message.command_set.CommandDataSetType = 1
    encoded = encode(message.command_set, True, True)
    assert encoded
    return encoded


def test_a_command_is_read() -> None:
    """All that is looked at."""
    command = parse(store_request())
    assert (command.field, command.message_id) == (dimse.C_STORE_RQ, 7)
    assert (command.sop_class_uid, command.sop_uid) == (CT, "2.25.1")
    assert command.has_dataset
    assert not command.is_response


def test_an_answer_is_what_the_library_reads() -> None:
    """Values, paddings and the group's length."""
    encoded = respond(parse(store_request()), 0xA700, "no room")
    ds = decode(io.BytesIO(encoded), True, True)
    assert ds.CommandGroupLength == len(encoded) - 12
    assert (ds.CommandField, ds.MessageIDBeingRespondedTo) == (0x8001, 7)
    assert (ds.Status, ds.ErrorComment, ds.CommandDataSetType) == (0xA700, "no room", 0x0101)
    assert (ds.AffectedSOPClassUID, ds.AffectedSOPInstanceUID) == (CT, "2.25.1")


@given(st.binary(max_size=200))
def test_anything_is_a_command_or_a_fault_of_the_peer(encoded: bytes) -> None:
    """Nothing else is raised, whatever the bytes."""
    with suppress(PeerFault):
        parse(encoded)


def test_a_cut_command_is_a_fault_of_the_peer() -> None:
    """At each place: an element is cut or missing."""
    whole = store_request()
    for end in range(whole.index(struct.pack("<HH", 0, 0x0800))):
        with pytest.raises(PeerFault):
            parse(whole[:end])


def test_what_is_no_uid_is_nothing() -> None:
    """It cannot become a name, a line or a match."""
    command = parse(store_request().replace(b"2.25.1", b"../../"))
    assert command.sop_uid == ""


def request(wanted: list[Reference], *, explicit: bool, undefined: bool, **more: Any) -> bytes:
    """Return a request as pydicom writes it."""
    ds = Dataset()
    ds.TransactionUID = "2.25.9"
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    ds.ReferencedSOPSequence = [item(*each) for each in wanted]
    ds["ReferencedSOPSequence"].is_undefined_length = undefined
    for each in ds.ReferencedSOPSequence:
        each.is_undefined_length_sequence_item = undefined
    encoded = encode(ds, not explicit, True)
    assert encoded
    return encoded


def item(sop_class: str, sop_uid: str) -> Dataset:
    """Return one reference."""
    ds = Dataset()
    ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = sop_class, sop_uid
    return ds


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("undefined", [True, False])
def test_a_request_is_read(explicit: bool, undefined: bool) -> None:
    """Defined and undefined lengths; other sequences are stepped over."""
    more = {"ReferencedPerformedProcedureStepSequence": [item("1.2", "2.25.3")]}
    encoded = request(WANTED, explicit=explicit, undefined=undefined, **more)
    assert read_request(encoded, explicit=explicit) == ("2.25.9", tuple(WANTED))
    for end in range(len(encoded) - 1):
        with pytest.raises(UnreadableDicom):
            read_request(encoded[:end], explicit=explicit)


def test_a_request_names_something_and_not_too_much() -> None:
    """An empty list, an item without UIDs, and one too many."""
    for wanted in ([], [("", "")], [WANTED[0]] * (MOST_OBJECTS + 1)):
        with pytest.raises(UnreadableDicom):
            read_request(request(wanted, explicit=True, undefined=False), explicit=True)


@given(st.binary(max_size=200), st.booleans())
def test_anything_is_a_request_or_is_refused(encoded: bytes, explicit: bool) -> None:
    """Nothing else is raised, whatever the bytes."""
    with suppress(UnreadableDicom):
        read_request(encoded, explicit=explicit)


@pytest.mark.parametrize("explicit", [True, False])
def test_a_report_is_what_the_library_reads(explicit: bool) -> None:
    """Both sequences with their items."""
    encoded = write_report("2.25.9", WANTED[:1], [(WANTED[1], 0x0112)], explicit=explicit)
    ds = decode(io.BytesIO(encoded), not explicit, True)
    assert ds.TransactionUID == "2.25.9"
    assert [each.ReferencedSOPInstanceUID for each in ds.ReferencedSOPSequence] == ["2.25.1"]
    [failed] = ds.FailedSOPSequence
    assert (failed.ReferencedSOPClassUID, failed.FailureReason) == (CT, 0x0112)


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("undefined", [True, False])
def test_a_report_of_the_library_is_read(explicit: bool, undefined: bool) -> None:
    """Held and failed objects are told apart, and a cut report is none."""
    failed = item(*WANTED[1])
    failed.FailureReason = 0x0213
    more = {"FailedSOPSequence": [failed]}
    encoded = request(WANTED[:1], explicit=explicit, undefined=undefined, **more)
    expected = ("2.25.9", (WANTED[0],), ((WANTED[1], 0x0213),))
    assert read_report(encoded, explicit=explicit) == expected
    whole = {len(encoded)} | ends_between_elements(encoded, explicit=explicit)
    for end in {*range(len(encoded))} - whole:
        with pytest.raises(UnreadableDicom):
            read_report(encoded[:end], explicit=explicit)


def ends_between_elements(encoded: bytes, *, explicit: bool) -> set[int]:
    """Return where a report could end: before its second sequence, by (0008,1199)'s tag."""
    tag = struct.pack("<HH", 0x0008, 0x1199) + (b"SQ" if explicit else b"")
    second = struct.pack("<HH", 0x0008, 0x1198) + (b"SQ" if explicit else b"")
    return {encoded.index(tag), encoded.index(second)}


@given(st.binary(max_size=200), st.booleans())
def test_anything_is_a_report_or_is_refused(encoded: bytes, explicit: bool) -> None:
    """Nothing else is raised, whatever the bytes."""
    with suppress(UnreadableDicom):
        read_report(encoded, explicit=explicit)


@given(st.binary(min_size=1, max_size=300), st.integers(1, 300))
def test_pieces_fit_and_are_the_whole(content: bytes, size: int) -> None:
    """Only the last one says that it is the last."""
    pieces = pieces_of(3, content, 1, size)
    joined, lasts = b"", []
    for head, pdv, piece in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True):
        assert struct.unpack(">BxL", head) == (P_DATA, len(pdv) + len(piece))
        length, context, control = struct.unpack(">LBB", pdv)
        assert (length, context, control & 1) == (len(piece) + 2, 3, 1)
        assert 0 < len(piece) <= size
        joined, lasts = joined + piece, [*lasts, bool(control & 2)]
    assert joined == content
    assert lasts == [False] * (len(lasts) - 1) + [True]
