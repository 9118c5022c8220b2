"""What a hostile or broken request may take of us over HTTP, each case by its number.

Covered: deflated and compressed bodies (S6, S7), lengths (S9), memory for large objects,
zip uploads (S8), boundaries inside objects (S11), executable preambles (S24).
Not covered: floods and slow senders, which stand in test_stow_floods.
"""

import gzip
import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from app.dicom.dimse import Status
from app.dicom.multipart import Multipart
from app.dicom.part10 import read_part10
from tests.sockets.scu import image, images, new_study
from tests.sockets.stows import (
    BEARER,
    BOUNDARY,
    Answer,
    StowDoor,
    part10,
    private_bytes,
    related,
    resident_mb,
    small_door,
)

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StowDoor]:
    """One door with small limits for most tests; each uses a study of its own."""
    with small_door(tmp_path_factory.mktemp("door")) as one:
        yield one.start()


@pytest.fixture(autouse=True)
def _alive(door: StowDoor) -> Iterator[None]:
    """After each attack an honest sender is served at once."""
    yield
    door.serves_at_once()


# -- S6, S7: bombs ---------------------------------------------------------------------------------


def test_s6_a_deflated_object_is_not_inflated(door: StowDoor) -> None:
    """Refused by its transfer syntax, whatever is inside."""
    before = resident_mb(door)
    bomb = zlib.compress(bytes(200 << 20), 9, wbits=-15)
    made = replace(image(new_study()), dataset=bomb, syntax=str(DeflatedExplicitVRLittleEndian))
    assert door.store_objects([made]) == Answer(status=409, failed={made.sop_uid: 0xC122})
    assert resident_mb(door) - before < 30


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "GZIP", "x"])
def test_s7_an_encoded_body_is_refused(door: StowDoor, encoding: str) -> None:
    """415 before it is read."""
    body = gzip.compress(related([part10(image(new_study()))]))
    headers = BEARER | {"Content-Encoding": encoding}
    assert door.post(body, headers=headers).status_code == 415


def test_s7_identity_is_no_encoding(door: StowDoor) -> None:
    """Some senders say so."""
    body = related([part10(image(new_study()))])
    assert door.post(body, headers=BEARER | {"Content-Encoding": "identity"}).status_code == 200


def test_s8_a_zip_is_neither_taken_nor_opened(door: StowDoor) -> None:
    """Not as a body, and not where an object should be."""
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("large", bytes(1 << 24))
    body = zipped.getvalue()
    assert door.post(body, content_type="application/zip").status_code == 415
    before = resident_mb(door)
    assert door.post(related([body])).status_code == 409
    assert resident_mb(door) - before < 8


# -- S9: lengths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", ["4294967000", "100000001", "9" * 18])
def test_s9_a_huge_body_is_refused_before_it_is_read(door: StowDoor, length: str) -> None:
    """413 at once."""
    with door.raw() as peer:
        assert peer.head(Content_Length=length).status() == 413


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Length": "-1"},
        {"Content_Length": "1e3"},
        {"Content_Length": "9" * 30},
        {"Content_Length": "5", "Transfer_Encoding": "chunked"},
        {"Transfer_Encoding": "gzip, chunked"},
        {"Content_Length": "5, 6"},
    ],
    ids=str,
)
def test_s9_a_length_that_means_two_things_is_refused(
    door: StowDoor, headers: dict[str, str]
) -> None:
    """A proxy in between could read another request than we do."""
    with door.raw() as peer:
        assert peer.head(**headers).status() in {400, 413, 501}


def test_s9_an_endless_chunked_body_is_cut(door: StowDoor) -> None:
    """413 after the limit; what was whole before is kept and listed."""
    made, rest = image(new_study()), image(new_study())
    beginning = related([part10(made), part10(rest)], end=False)[:-2]

    def body() -> Iterator[bytes]:
        yield beginning
        while True:
            yield bytes(1 << 20)

    with door.raw() as peer:
        peer.head(Transfer_Encoding="chunked")
        sent = 0
        for piece in body():
            chunk = b"%x\r\n%b\r\n" % (len(piece), piece)
            if not peer.send_as_far_as_possible(chunk) or sent > 150 << 20:
                break
            sent += len(piece)
        assert sent < 150 << 20
    door.said("answered 413")
    assert [row.sop_uid for row in door.rows(made.study_uid)] == [made.sop_uid]
    assert door.gone(rest.study_uid)


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"5\r\n123456789\r\n", b"-1\r\n", b"\0" * 100_000])
def test_s9_broken_chunks_end_the_body(door: StowDoor, chunk: bytes) -> None:
    """400 with the list of what is kept until then, also behind the last boundary."""
    made, rest = image(new_study()), image(new_study())
    beginning = related([part10(made), part10(rest)], end=False)[:-2]
    with door.raw() as peer:
        peer.head(Transfer_Encoding="chunked")
        peer.send(b"%x\r\n%b\r\n" % (len(beginning), beginning))
        peer.send_as_far_as_possible(chunk)
        said = peer.everything()
    assert said.startswith(b"HTTP/1.1 400")
    assert made.sop_uid.encode() in said
    assert door.gone(rest.study_uid)
    whole = related([part10(made)])
    with door.raw() as peer:
        peer.head(Transfer_Encoding="chunked")
        peer.send(b"%x\r\n%b\r\n" % (len(whole), whole)).send_as_far_as_possible(chunk)
        said = peer.everything()
    assert said.startswith(b"HTTP/1.1 400")
    assert made.sop_uid.encode() in said


def test_an_object_that_is_too_large_fails_alone(door: StowDoor) -> None:
    """The ones beside it are kept; memory does not grow with it."""
    before = resident_mb(door)
    small, large = images(new_study(), 2)
    large = image(large.study_uid, size=82 << 20)
    answer = door.store_objects([large, small])
    assert answer == Answer(
        status=202, stored=[small.sop_uid], failed={large.sop_uid: Status.UNREADABLE}
    )
    assert resident_mb(door) - before < 40


def test_a_large_object_needs_little_memory(door: StowDoor) -> None:
    """64 MB go to the disk as they come."""
    before = resident_mb(door)
    made = image(new_study(), size=64 << 20)
    assert door.store_objects([made]).status == 200
    assert resident_mb(door) - before < 40


# -- S11, S24: what objects contain ----------------------------------------------------------------


def test_s11_what_looks_like_a_part_inside_an_object_is_part_of_it(
    door: StowDoor, tmp_path: Path
) -> None:
    """Our own sender takes a boundary that its object does not contain."""
    hidden = image(new_study())
    outer = image(new_study())
    pixels_at = outer.dataset.index(b"\xe0\x7f\x10\x00")
    for boundary in ("0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1", BOUNDARY):
        inside = private_bytes(b"\r\n" + related([part10(hidden)], boundary=boundary))
        head, tail = outer.dataset[:pixels_at], outer.dataset[pixels_at:]
        made = replace(outer, dataset=head + inside + tail)
        file = tmp_path / "object.dcm"
        file.write_bytes(part10(made))
        with Multipart(file) as body:
            response = door.post(body, content_type=body.content_type)
        assert Answer.of(response).failed in ({}, {outer.sop_uid: Status.OTHER_CONTENT})
        assert door.gone(hidden.study_uid)
    assert len(door.rows(outer.study_uid)) == 1


def test_s24_an_executable_preamble_is_not_kept(door: StowDoor) -> None:
    """The file has zeros there, and nobody may run or read it but us."""
    made = image(new_study())
    elf = b"\x7fELF\x02\x01\x01" + os.urandom(121)
    assert Answer.of(door.post(related([part10(made, preamble=elf)]))).stored == [made.sop_uid]
    [row] = door.rows(made.study_uid)
    path = door.data / row.file
    assert path.read_bytes()[:132] == bytes(128) + b"DICM"
    assert path.read_bytes()[read_part10(path).dataset_at :] == made.dataset
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
