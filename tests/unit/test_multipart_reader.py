"""A multipart body read piece by piece, and the file meta at the beginning of each object in it.

Covered: that it does not matter where a body is cut into pieces, near boundaries and line ends
included; what a file meta must have. The limits are tried over HTTP in tests/sockets.
Not covered: the parser of python-multipart beyond that.
"""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from starlette.exceptions import HTTPException

from app.dicom.file_meta import MOST, FileMeta, read_file_meta
from app.dicom.part10 import header
from app.door.multipart import MultipartReader
from app.errors import UnreadableDicom

BOUNDARY = b"b-b"
NEAR = [
    b"\r\n--b-b",
    b"\r\n--b-",
    b"\r\n--",
    b"--b-b--",
    b"\r",
    b"\n",
    b"-",
    b"b",
    b"\r\n",
    b"x",
    b"\0",
]
HEAD = header(CTImageStorage, "1.2.3", ExplicitVRLittleEndian)


class Heard:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self._content = b""

    def begin(self, headers: dict[str, str]) -> None:
        """Note a beginning."""
        self.headers.append(headers)
        self._content = b""

    def write(self, piece: memoryview) -> None:
        """Note content."""
        self._content += piece

    def end(self) -> None:
        """Note an end."""
        self.parts.append(self._content)


def read(body: bytes, cuts: list[int]) -> tuple[list[bytes], bool]:
    """Return the contents of a body that comes in pieces, and whether it was whole."""
    heard = Heard()
    reader = MultipartReader(BOUNDARY, heard, max_parts=10)
    ends = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    for start, end in itertools.pairwise(ends):
        reader.write(body[start:end])
    return heard.parts, reader.complete


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Return content full of what is nearly a boundary, but has none."""
    content = b"".join(draw(st.lists(st.sampled_from(NEAR), max_size=12)))
    return content.replace(b"\r\n--b-b", b"\r\n--b.b") + b"."


@given(
    parts=st.lists(contents(), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 300), max_size=30),
    preamble=st.sampled_from([b"", b"\r\n", b"preamble\r\n", b"--b-c\r\n"]),
)
def test_it_does_not_matter_where_a_body_is_cut(
    parts: list[bytes], cuts: list[int], preamble: bytes
) -> None:
    """Every part comes out as it went in."""
    body = preamble + b"".join(b"--b-b\r\nA: b\r\n\r\n%b\r\n" % part for part in parts)
    assert read(body + b"--b-b--\r\n", cuts) == (parts, True)
    assert read(body + b"--b-b--\r\n", [*range(len(body) + 20)]) == (parts, True)
    # the last part has no end yet: nobody is told that it is whole
    assert read(body, cuts) == (parts[:-1], False)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=10))
def test_any_bytes_are_read_or_refused(body: bytes, cuts: list[int]) -> None:
    """Nothing else is raised."""
    try:
        parts, _ = read(b"--b-b\r\n" + body, cuts)
    except HTTPException as refusal:
        assert refusal.status_code == 400  # noqa: PT017  # nothing is refused in other cases
    else:
        assert len(parts) <= 10


@pytest.mark.parametrize("boundary", [b"", b" ", b"b" * 71, b"b ", b"b\r\n", b'b"', b"b\xe4"])
def test_a_boundary_must_be_one(boundary: bytes) -> None:
    """RFC 2046 5.1.1."""
    with pytest.raises(HTTPException, match="boundary"):
        MultipartReader(boundary, Heard(), max_parts=1)


def test_the_file_meta_is_known_as_soon_as_it_is_whole() -> None:
    """One byte earlier it is not, and what follows does not matter."""
    expected = FileMeta(
        sop_class_uid=CTImageStorage,
        sop_uid="1.2.3",
        transfer_syntax=ExplicitVRLittleEndian,
        dataset_at=len(HEAD),
    )
    assert [read_file_meta(HEAD[:size]) for size in range(len(HEAD))] == [None] * len(HEAD)
    assert read_file_meta(HEAD) == read_file_meta(HEAD + b"\xff" * 100) == expected


def with_length(meta: bytes, length: int) -> bytes:
    """Return a head whose group length is a claim."""
    return HEAD[:132] + struct.pack("<HH2sHL", 2, 0, b"UL", 4, length) + meta


META = HEAD[144:]


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (bytes(200), "DICM"),
        (HEAD[:132] + META + bytes(100), "group length"),
        (with_length(META, MOST), "too long"),
        (with_length(META, 0xFFFFFFFF), "too long"),
        (with_length(META, 20), "ends inside"),
        (with_length(META + b"\2\0\1\1U", len(META) + 5), "ends inside"),
        (with_length(META + b"\2\0\1\1OB\0\0\xff", len(META) + 9), "ends inside"),
        (with_length(META + b"\x08\0\1\1UI\0\0", len(META) + 8), "broken"),
        (with_length(META + b"\2\0\1\1??\0\0", len(META) + 8), "broken"),
        (with_length(b"", 0), "no valid sop_class_uid"),
        (header(CTImageStorage, "1.2.3/../x", ExplicitVRLittleEndian), "no valid sop_uid"),
        (header(CTImageStorage, "1" * 65, ExplicitVRLittleEndian), "no valid sop_uid"),
        (header(CTImageStorage, "1.2.3", "no syntax"), "no valid transfer_syntax"),
    ],
)
def test_a_file_meta_that_says_too_little_is_refused(head: bytes, why: str) -> None:
    """The sentence names what is wrong, and quotes nothing."""
    with pytest.raises(UnreadableDicom, match=why):
        read_file_meta(head)


@given(st.binary(max_size=300))
def test_any_file_meta_is_read_or_refused(meta: bytes) -> None:
    """Nothing else is raised."""
    try:
        read_file_meta(with_length(meta, len(meta)))
    except UnreadableDicom as error:
        assert str(error)  # noqa: PT017  # most are refused
