"""Floods and slow senders over HTTP, each case by its number.

Covered: floods of parts, headers, preambles and one-byte chunks with the latency meanwhile (S10),
slow and silent senders (S40), requests and connections beyond their number.
Not covered: a flood from many machines at once.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import requests

from app.dicom.dimse import Status
from tests.sockets.scu import image, new_study
from tests.sockets.stows import (
    BEARER,
    BOUNDARY,
    Answer,
    Raw,
    StowDoor,
    part10,
    related,
    resident_mb,
    small_door,
)

pytestmark = pytest.mark.alone

LATENCY_S = 0.2


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


@contextmanager
def latency(door: StowDoor) -> Iterator[list[float]]:
    """Ask again and again for the smallest answer; collect how long each took."""
    took: list[float] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            began = time.monotonic()
            with door.raw() as peer:
                assert peer.head(Authorization="", Content_Length="0").status() == 401
            took.append(time.monotonic() - began)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield took
    finally:
        done.set()
        asking.join()


# -- S10: floods -----------------------------------------------------------------------------------


def test_s10_too_many_parts_are_refused(door: StowDoor) -> None:
    """413; the first ones are listed, each with its reason."""
    answer = Answer.of(door.post(related([b"x"] * 100_000)))
    assert answer == Answer(status=413, others=[Status.UNREADABLE] * 50)


@pytest.mark.parametrize(
    "headers",
    [
        "X: " + "x" * (10 << 20) + "\r\n",
        "X" * (10 << 20),
        "".join(f"X{number}: y\r\n" for number in range(100_000)),
        "Content-Type: application/dicom\r\nContent-Type: application/dicom\r\n",
        " folded: yes\r\n",
    ],
    ids=["long value", "long name", "many", "twice", "folded"],
)
def test_s10_headers_of_a_part_are_limited(door: StowDoor, headers: str) -> None:
    """400 as soon as the limit is passed."""
    before = resident_mb(door)
    assert door.post(related([b"x"], headers=headers)).status_code == 400
    assert resident_mb(door) - before < 60


@pytest.mark.parametrize(
    "filler", [b"x", b"\r\n", b"\r\n-", b"--", f"\r\n--{BOUNDARY}"[:-1].encode()]
)
def test_s10_a_preamble_is_limited(door: StowDoor, filler: bytes) -> None:
    """400 long before its end."""
    body = related([part10(image(new_study()))], preamble=filler * ((50 << 20) // len(filler)))
    assert door.post(body).status_code == 400


def test_a_short_preamble_is_allowed(door: StowDoor) -> None:
    """RFC 2046 5.1.1: for readers without MIME; so is an epilogue."""
    made = image(new_study())
    for preamble in (b"\r\n", b"This is a multipart message.\r\n", b"--not it\r\n"):
        body = related([part10(made)], preamble=preamble) + b"epilogue\r\n--" + BOUNDARY.encode()
        assert door.post(body).status_code == 200


@pytest.mark.parametrize("boundary", ["", "b" * 71, "b" * 5000, "b\u00e4", '"', "b b "])
def test_s10_a_boundary_must_be_one(door: StowDoor, boundary: str) -> None:
    """RFC 2046 5.1.1 says which are."""
    content_type = f'multipart/related; type="application/dicom"; boundary="{boundary}"'
    response = door.post(b"", content_type=content_type.encode("latin-1"))  # type: ignore[arg-type]
    assert response.status_code == 400


@pytest.mark.parametrize("kind", ["parts", "near boundaries", "one-byte chunks", "line feeds"])
def test_s10_others_are_served_during_a_flood(door: StowDoor, kind: str) -> None:
    """Two floods at once; the loop must be free for the smallest answer all the time."""
    near = f"\r\n--{BOUNDARY[:-1]}x".encode()
    begin = related([part10(image(new_study()))], end=False)[:-2]
    content = {
        "parts": related([b""] * 200_000),
        "near boundaries": begin + near * ((24 << 20) // len(near)),
        "one-byte chunks": b"1\r\nx\r\n" * 400_000,
        "line feeds": begin + b"\r\n" * (12 << 20),
    }[kind]
    length = {"Content_Length": str(len(content))}
    if kind == "one-byte chunks":
        length = {"Transfer_Encoding": "chunked"}

    def flood() -> None:
        for _ in range(3):
            with door.raw() as peer:
                peer.head(Connection="close", **length).send_as_far_as_possible(content)
                peer.send_as_far_as_possible(b"0\r\n\r\n")
                peer.closed_after_s()

    floods = [threading.Thread(target=flood) for _ in range(2)]
    with latency(door) as took:
        for each in floods:
            each.start()
        for each in floods:
            each.join()
    took.sort()
    assert len(took) > 3
    # the machine of the tests is busy itself: a single slow answer proves nothing
    assert took[int(len(took) * 0.95)] < LATENCY_S, took[-5:]


# -- S40: the slow and the many --------------------------------------------------------------------


def trickle(peer: Raw, byte: bytes, every_s: float, most_s: float) -> float:
    """Send one byte at a time until the other side hangs up; return how long that took."""
    began = time.monotonic()
    pause = threading.Event()
    while time.monotonic() - began < most_s and peer.send_as_far_as_possible(byte):
        pause.wait(every_s)
    return time.monotonic() - began


def test_s40_a_slow_body_is_dropped(door: StowDoor) -> None:
    """408 after the patience of the configuration, 20 s at most; its beginning is forgotten."""
    made = image(new_study())
    with door.raw() as peer:
        peer.head(Content_Length="100000").send(related([part10(made)], end=False)[:-100])
        assert trickle(peer, b"x", 0.2, 20) < 8
    door.said("answered 408")
    assert door.gone(made.study_uid)


def test_s40_speed_in_the_beginning_buys_no_time(door: StowDoor) -> None:
    """The rate holds for every moment of the body."""
    with door.raw() as peer:
        peer.head(Content_Length=str(90 << 20))
        peer.send(related([part10(image(new_study(), size=30 << 20))], end=False))
        assert peer.closed_after_s() < 8


@pytest.mark.parametrize("beginning", [b"", b"POST /dicom-web/studies HTTP/1.1\r\nX: "])
def test_s40_a_request_that_does_not_come_is_not_waited_for(
    door: StowDoor, beginning: bytes
) -> None:
    """Silent, or one byte at a time."""
    with door.raw() as peer:
        peer.send(beginning)
        took = trickle(peer, b"x", 0.1, 10) if beginning else peer.closed_after_s()
        assert took < 4


def test_s40_a_head_is_limited(door: StowDoor) -> None:
    """400 after some kilobytes."""
    with door.raw() as peer:
        peer.send(b"POST / HTTP/1.1\r\nX: ").send_as_far_as_possible(b"x" * 65536, 100)
        assert peer.status() in {0, 400, 431}


def test_s40_who_fetches_no_answer_is_dropped(door: StowDoor) -> None:
    """Requests one after the other on one connection, and nobody reads what is answered."""
    line = b"POST /nothing HTTP/1.1\r\nHost: d\r\nAuthorization: %b\r\nContent-Length: 0\r\n\r\n"
    request = line % BEARER["Authorization"].encode()
    with door.raw() as peer:
        assert peer.send_as_far_as_possible(request * 1000, 200) < 200_000 * len(request)


def test_too_many_requests_are_told_to_come_again(door: StowDoor) -> None:
    """503 with Retry-After for the one above the limit; the slots are free again soon."""
    with ExitStack() as stack:
        for _ in range(3):
            peer = stack.enter_context(door.raw())
            peer.head(Content_Length="1000").send(b"--")
        assert "Retry-After" in door.refuses_one_more()
    door.becomes_free()


def test_silent_connections_do_not_keep_others_out(door: StowDoor) -> None:
    """The oldest of them makes room, so an honest sender is always served."""
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(door.raw())
        began = time.monotonic()
        assert door.store_objects([image(new_study())]).status == 200
        assert time.monotonic() - began < 2
    door.said("came to nothing")


def test_junk_is_answered_and_counted(door: StowDoor) -> None:
    """A few hundred connections without HTTP leave a few lines."""
    before = door.output().count("\n")
    for number in range(300):
        with door.raw() as peer:
            peer.send_as_far_as_possible(
                b"\x01\0\0\0\0\xff" + os.urandom(20) + bytes([number % 256])
            )
            peer.send_as_far_as_possible(b"\r\n\r\n")
            assert peer.status() in {0, 400, 401}
    assert door.output().count("\n") - before < 30


def test_a_lost_sender_leaves_nothing(door: StowDoor) -> None:
    """The object that was on its way is forgotten, the one before it stays."""
    whole, cut = image(new_study()), image(new_study(), size=3 << 20)
    with door.raw() as peer:
        peer.head(Content_Length=str(50 << 20))
        peer.send(related([part10(whole), part10(cut)], end=False)[:-1000])
        door.said_row(whole.study_uid)
    door.becomes_free()
    assert door.gone(cut.study_uid)
    assert not [path for path in door.spooled() if path.suffix != ".dcm"]


def test_a_sender_that_is_refused_early_reads_why(door: StowDoor) -> None:
    """The rest of a body that nobody wants is read for a moment."""
    body = bytes(8 << 20)
    response = requests.post(door.url, data=body, headers={"Content-Type": "a/b"}, timeout=10)
    assert response.status_code == 401
    assert door.post(body, content_type="application/dicom+xml").status_code == 415
