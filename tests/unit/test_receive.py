"""What bytes say of an object, and the folders where objects lie, without a network.

Covered: what is told about a data set without decoding it, every kind of truncation, hostile
structure, real files of many makers, and what a start removes. Not covered: how an object gets
into its file (test_incoming.py), and what the door answers (tests/sockets).
"""

import struct
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import config as pydicom_config
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from app.dicom.encoded import MAX_DEPTH, Identifiers, read_identifiers
from app.dicom.part10 import header, read_part10
from app.errors import UnreadableDicom
from app.pipeline.receive import Arrived, prepare, quarantine_name, spool_name

CT = "1.2.840.10008.5.1.4.1.1.2"
UIDS = Identifiers(sop_class_uid=CT, sop_uid="2.25.1", study_uid="2.25.2", series_uid="2.25.3")
EXPLICIT, IMPLICIT, BIG = ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian
SYNTAXES = [EXPLICIT, IMPLICIT, BIG]
LONG = {"OB", "OW", "SQ", "UN"}
UNDEFINED = 0xFFFFFFFF


def element(syntax: str, tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """Encode one element by hand, so that the oracle is not the library."""
    order = ">" if syntax == BIG else "<"
    length = len(value) if length is None else length
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT:
        return head + struct.pack("<L", length) + value
    if vr in LONG:
        return head + vr.encode() + b"\0\0" + struct.pack(f"{order}L", length) + value
    return head + vr.encode() + struct.pack(f"{order}H", length) + value


def marker(element_number: int, length: int = 0, order: str = "<") -> bytes:
    """Encode an item (E000), the end of an item (E00D) or of a sequence (E0DD)."""
    return struct.pack(f"{order}HHL", 0xFFFE, element_number, length)


def uid(value: str) -> bytes:
    """Encode a UID with its padding."""
    return value.encode() + b"\0" * (len(value) % 2)


def elements(syntax: str = EXPLICIT, /, **changed: bytes | None) -> list[bytes]:
    """Return the elements of a small image; `changed` replaces a UID, None leaves it out."""
    order = ">" if syntax == BIG else "<"
    values: list[tuple[int, str, str, bytes]] = [
        (0x00080016, "UI", "sop_class", uid(CT)),
        (0x00080018, "UI", "sop", uid("2.25.1")),
        (0x00100010, "PN", "name", b"PHANTOM^ONE "),
        (0x0020000D, "UI", "study", uid("2.25.2")),
        (0x0020000E, "UI", "series", uid("2.25.3")),
    ]
    kept = [(tag, vr, changed.get(name, value)) for tag, vr, name, value in values]
    item = element(syntax, 0x00080104, "LO", b"four")
    sequence = marker(0xE000, len(item), order) + item
    return [
        *(element(syntax, tag, vr, value) for tag, vr, value in kept if value is not None),
        element(syntax, 0x00400275, "SQ", sequence),
        element(syntax, 0x00400555, "SQ", sequence + marker(0xE0DD, 0, order), UNDEFINED),
        element(syntax, 0x7FE00010, "OW", bytes(range(64))),
    ]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_whole_data_set_says_who_it_is(syntax: str) -> None:
    """All native encodings are understood."""
    assert read_identifiers(b"".join(elements(syntax)), syntax) == UIDS


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_data_set_cut_inside_an_element_is_refused(syntax: str) -> None:
    """At every byte, except where an element happens to end: such a data set is whole."""
    parts = elements(syntax)
    whole = b"".join(parts)
    ends = {sum(map(len, parts[:number])) for number in range(5, len(parts) + 1)}
    for cut in range(len(whole)):
        if cut not in ends:
            with pytest.raises(UnreadableDicom):
                read_identifiers(whole[:cut], syntax)


def encapsulated(*, end: bool = True, fragments: tuple[bytes, ...] = (b"", b"abcd")) -> bytes:
    """Return a data set with fragments as pixel data."""
    pieces = b"".join(marker(0xE000, len(piece)) + piece for piece in fragments)
    pixels = pieces + (marker(0xE0DD) if end else b"")
    return b"".join(elements()[:5]) + element(EXPLICIT, 0x7FE00010, "OB", pixels, UNDEFINED)


def test_fragments_must_come_to_their_end() -> None:
    """Encapsulated pixel data are whole only with their delimiter."""
    whole = encapsulated()
    assert read_identifiers(whole, JPEG2000Lossless) == UIDS
    with pytest.raises(UnreadableDicom, match="no end"):
        read_identifiers(encapsulated(end=False), JPEG2000Lossless)
    for cut in range(len(b"".join(elements()[:5])) + 1, len(whole)):
        with pytest.raises(UnreadableDicom):
            read_identifiers(whole[:cut], JPEG2000Lossless)


def test_pixel_data_must_be_encoded_as_the_transfer_syntax_says() -> None:
    """A native object under a compressed syntax, or the reverse, would be read as noise."""
    with pytest.raises(UnreadableDicom, match="transfer syntax says"):
        read_identifiers(b"".join(elements()), JPEG2000Lossless)
    with pytest.raises(UnreadableDicom, match="transfer syntax says"):
        read_identifiers(encapsulated(), EXPLICIT)


@pytest.mark.parametrize(("said", "meant"), [(EXPLICIT, IMPLICIT), (IMPLICIT, EXPLICIT)])
def test_a_wrong_transfer_syntax_is_noticed(said: str, meant: str) -> None:
    """Bytes in implicit VR make no sense as explicit VR, and the reverse."""
    with pytest.raises(UnreadableDicom):
        read_identifiers(b"".join(elements(meant)), said)


@pytest.mark.parametrize("name", ["sop_class", "sop", "study", "series"])
@pytest.mark.parametrize(
    "value", [None, b"", b"..", b"../../etc/passwd", b"1.2.x ", b"1..2", b"9" * 66, b"\xff\xfe"]
)
def test_a_missing_or_malformed_uid_is_refused(name: str, value: bytes | None) -> None:
    """What is no UID is never used as one, in a path or elsewhere."""
    with pytest.raises(UnreadableDicom):
        read_identifiers(b"".join(elements(**{name: value})), EXPLICIT)


@pytest.mark.parametrize("value", [b"1.02.3 ", b"2.25." + b"1" * 39, b"1.2\0\0\0"])
def test_a_uid_that_is_merely_unusual_is_kept(value: bytes) -> None:
    """Leading zeros and odd padding are common and harmless."""
    found = read_identifiers(b"".join(elements(study=value)), EXPLICIT)
    assert found.study_uid == value.rstrip(b"\0 ").decode()


def test_a_uid_that_stands_twice_is_refused() -> None:
    """Readers differ in which of the two they take."""
    twice = [*elements(), element(EXPLICIT, 0x00080018, "UI", uid("2.25.9"))]
    with pytest.raises(UnreadableDicom, match="twice"):
        read_identifiers(b"".join(twice), EXPLICIT)


@pytest.mark.parametrize("tag", [0x00020010, 0x00041130, 0x00000100])
def test_file_meta_inside_a_data_set_is_refused(tag: int) -> None:
    """A reader of our file would take it for the file's own meta information."""
    smuggled = element(EXPLICIT, tag, "UI", uid(DeflatedExplicitVRLittleEndian))
    with pytest.raises(UnreadableDicom, match="does not belong"):
        read_identifiers(smuggled + b"".join(elements()), EXPLICIT)


def nested(syntax: str, depth: int, *, delimited: bool) -> bytes:
    """Return a data set with `depth` sequences inside each other."""
    inner = b""
    for _ in range(depth):
        if delimited:
            item = marker(0xE000, UNDEFINED) + inner + marker(0xE00D) + marker(0xE0DD)
            inner = element(syntax, 0x00400275, "SQ", item, UNDEFINED)
        else:
            inner = element(syntax, 0x00400275, "SQ", marker(0xE000, len(inner)) + inner)
    return b"".join(elements(syntax)[:5]) + inner


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("delimited", [True, False])
def test_nesting_has_a_limit(syntax: str, delimited: bool) -> None:
    """Deep nesting ends in our error, not in the interpreter's."""
    assert read_identifiers(nested(syntax, MAX_DEPTH, delimited=delimited), syntax) == UIDS
    for depth in (MAX_DEPTH + 1, 3000):
        with pytest.raises(UnreadableDicom, match="nested"):
            read_identifiers(nested(syntax, depth, delimited=delimited), syntax)


def test_an_unknown_element_of_undefined_length_is_implicit_inside() -> None:
    """PS3.5 6.2.2: what a converter did not know is UN, and its items stay implicit VR."""
    inner = element(IMPLICIT, 0x00091001, "", b"abcd")
    item = marker(0xE000, UNDEFINED) + inner + marker(0xE00D) + marker(0xE0DD)
    whole = b"".join(elements()) + element(EXPLICIT, 0x7FE10010, "UN", item, UNDEFINED)
    assert read_identifiers(whole, EXPLICIT) == UIDS
    with pytest.raises(UnreadableDicom):
        read_identifiers(whole[:-8], EXPLICIT)


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, CT, "1.2.3", ""])
def test_what_is_not_offered_is_not_read(syntax: str) -> None:
    """A deflated data set may be a thousand times larger inside; other UIDs are no encoding."""
    with pytest.raises(UnreadableDicom, match="not accepted"):
        read_identifiers(b"".join(elements()), syntax)


@given(st.binary(max_size=400), st.sampled_from([*SYNTAXES, JPEG2000Lossless]))
def test_any_bytes_are_read_or_refused(content: bytes, syntax: str) -> None:
    """Nothing but our own error comes out."""
    with suppress(UnreadableDicom):
        read_identifiers(content, syntax)


@given(st.data())
def test_any_damage_is_read_or_refused(data: st.DataObject) -> None:
    """The same for data sets of which a few bytes were changed."""
    syntax = data.draw(st.sampled_from(SYNTAXES))
    content = bytearray(b"".join(elements(syntax)))
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[at] = data.draw(st.sampled_from([0, 1, 0x10, 0x7F, 0xFE, 0xFF]))
    with suppress(UnreadableDicom):
        read_identifiers(bytes(content), syntax)


REFUSED = {
    "ExplVR_BigEndNoMeta.dcm": "no Part 10 file",
    "ExplVR_LitEndNoMeta.dcm": "no Part 10 file",
    "JPEGLSNearLossless_08.dcm": "StudyInstanceUID is missing",
    "JPEGLSNearLossless_16.dcm": "StudyInstanceUID is missing",
    "MR_truncated.dcm": "8192 bytes, 8130 are there",
    "SC_rgb_jls_lossy_line.dcm": "StudyInstanceUID is missing",
    "SC_rgb_jls_lossy_sample.dcm": "StudyInstanceUID is missing",
    "SC_rgb_jpeg.dcm": "no valid VR",  # implicit VR inside a JPEG file
    "UN_sequence.dcm": "SOPClassUID is missing",
    "empty_charset_LEI.dcm": "SOPClassUID is missing",
    "image_dfl.dcm": "not accepted",
    "meta_missing_tsyntax.dcm": "no transfer syntax",
    "nested_priv_SQ.dcm": "does not belong",
    "no_meta.dcm": "no Part 10 file",
    "no_meta_group_length.dcm": "no Part 10 file",
    "priv_SQ.dcm": "SOPClassUID is missing",
    "rtplan_truncated.dcm": "976 bytes, 711 are there",
    "rtstruct.dcm": "no Part 10 file",
}


def test_the_files_of_pydicom_say_what_pydicom_reads() -> None:
    """Real objects of many makers: the same UIDs, and none refused but for its known reason."""
    folder = Path(pydicom_config.__file__).parent / "data" / "test_files"
    refused = {}
    for path in sorted(folder.glob("*.dcm")):
        try:
            found = read_part10(path)
        except UnreadableDicom as error:
            refused[path.name] = str(error)
            continue
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        assert found.identifiers.sop_uid == ds.SOPInstanceUID, path.name
        assert found.identifiers.series_uid == ds.SeriesInstanceUID, path.name
        assert found.transfer_syntax == ds.file_meta.TransferSyntaxUID, path.name
    assert refused.keys() == REFUSED.keys()
    assert all(words in refused[name] for name, words in REFUSED.items())


def test_other_content_has_one_place_in_quarantine() -> None:
    """Sending it again and again does not fill the disk; yet other content goes elsewhere."""
    first = Arrived(identifiers=UIDS, transfer_syntax=EXPLICIT, sha256="0" * 64, size=8)
    assert quarantine_name(first) == quarantine_name(replace(first))
    assert quarantine_name(first) != quarantine_name(replace(first, sha256="1" * 64))
    assert quarantine_name(first) != quarantine_name(replace(first, transfer_syntax=IMPLICIT))
    assert "2.25" not in quarantine_name(first)


def test_a_start_removes_what_was_cut_short_and_nothing_else(tmp_path: Path) -> None:
    """Partial files were acknowledged to nobody; whole ones may have been."""
    prepare(tmp_path)
    whole = tmp_path / spool_name()
    partial = whole.with_name("0" * 32 + ".dcm.part")
    for path in (whole, partial):
        path.write_bytes(b"any")
    prepare(tmp_path)
    assert not partial.exists()
    assert whole.exists()
    assert len([*(tmp_path / "spool").iterdir()]) == 256


def test_a_file_that_is_not_ours_or_not_whole_is_refused(tmp_path: Path) -> None:
    """Empty files, other files and files cut in their header end in our error."""
    whole = header(CT, "2.25.1", EXPLICIT) + b"".join(elements())
    path = tmp_path / "x.dcm"
    for content in (b"", b"text", bytes(200), *(whole[:cut] for cut in range(1, 400, 3))):
        path.write_bytes(content)
        with pytest.raises(UnreadableDicom, match=r"x\.dcm"):
            read_part10(path)


def test_an_object_of_too_many_elements_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two gigabytes of empty elements would take minutes to walk, wherever they are nested."""
    monkeypatch.setattr("app.dicom.encoded.MAX_ELEMENTS", 100)
    empty = b"\x09\x00\x01\x10UN\x00\x00\x00\x00\x00\x00"
    with pytest.raises(UnreadableDicom, match="more than 100 elements"):
        read_identifiers(empty * 101, "1.2.840.10008.1.2.1")
    nested = (
        b"\x09\x00\x01\x10UN\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\x00\x00\x00\x00" * 101
    )
    with pytest.raises(UnreadableDicom, match="more than 100 elements"):
        read_identifiers(nested, "1.2.840.10008.1.2.1")
