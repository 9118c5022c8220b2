"""Archives that are silent, endless, rude or full, and what becomes of a retrieval from them.

Covered: each way in which a call can go wrong ends in time with an error that says what to do; what
was acknowledged before stays, and the next retrieval completes it; nothing is kept that was not
asked for. Not covered: what honest archives do (test_dimse_pull).
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config_door import Limits
from app.dicom import query
from app.dicom.association import _agreement
from app.dicom.query import echo
from app.dicom.wire import PeerFault
from app.door.intake import Intake
from app.errors import (
    ArchiveRefused,
    ArchiveUnavailable,
    Interrupted,
    NodeError,
    OutOfResources,
)
from tests.sockets import hostile
from tests.sockets.faulty import (
    FIND,
    GET,
    MOVE,
    PENDING,
    Call,
    Faulty,
    Serve,
    rejecting,
    running,
    silent,
)
from tests.sockets.pulls import Site, digests, site
from tests.sockets.scu import CANARY, Made, images, new_study
from tests.waiting import wait_until

pytestmark = pytest.mark.alone

WAY: dict[str, Any] = {"timeout_s": 0.5}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A door and its job log."""
    with site(tmp_path_factory.mktemp("faults") / "site") as started:
        yield started


def study(number: int = 4) -> list[Made]:
    """Make a study of one series."""
    return images(new_study(), number)


# -- calls that go wrong -------------------------------------------------------------------------


def drip(call: Call) -> None:
    """Answer for ever, slowly."""
    while not call.closing.wait(0.05):
        call.say(FIND, PENDING, b"")


def pour(call: Call) -> None:
    """Answer for ever, as fast as can be."""
    while True:
        call.say(FIND, PENDING, hostile.element(0x0020000D, b"UI", b"1.2\0"))


def promise(call: Call) -> None:
    """Begin a PDU of four gigabytes."""
    call.socket.sendall(hostile.pdu(hostile.P_DATA, b"", 0xFFFFFFF0))
    silent(call)


def mumble(call: Call) -> None:
    """Answer what cannot be read."""
    call.say(FIND, PENDING, b"\x08\x00\x05\x00SQ\0\0\xff\xff\xff\xffZZPHI^CANARY")
    call.say(FIND, 0)


def other_message(call: Call) -> None:
    """Answer a request that nobody made."""
    call.say(MOVE, 0)


FAULTS = [
    pytest.param(silent, "silent", id="silent"),
    pytest.param(drip, "answers", id="endless-slow"),
    pytest.param(pour, "more than 200 answers", id="endless-fast"),
    pytest.param(promise, "4294967280 bytes", id="huge"),
    pytest.param(mumble, "cannot be read", id="unreadable"),
    pytest.param(other_message, "something else", id="other"),
    pytest.param(Call.abort, "aborted", id="abort"),
    pytest.param(lambda call: call.socket.close(), "lost", id="closed"),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS)
def test_a_search_that_goes_wrong_ends_in_time(
    ours: Site, monkeypatch: pytest.MonkeyPatch, fault: Serve, words: str
) -> None:
    """It is tried again later; the error names the archive and no patient."""
    monkeypatch.setattr(query, "MOST_ANSWERS", 200)
    monkeypatch.setattr(query, "PATIENCE", 2)
    with running(Faulty(does={FIND: fault})) as archive:
        remote = ours.remote(archive.port, "FAULTY", **WAY)
        began = time.monotonic()
        with pytest.raises(ArchiveUnavailable, match=words) as caught:
            [*remote.studies({})]
        assert time.monotonic() - began < 4
    assert str(caught.value).startswith("pacs: ")
    assert CANARY not in str(caught.value)


REJECTIONS = [
    pytest.param((1, 1, 3), ArchiveRefused, "register it there", id="calling"),
    pytest.param((1, 1, 7), ArchiveRefused, "not called FAULTY", id="called"),
    pytest.param((2, 3, 1), ArchiveUnavailable, "busy", id="busy"),
    pytest.param((2, 3, 2), ArchiveUnavailable, "no room", id="full"),
    pytest.param((1, 9, 9), ArchiveRefused, "no known reason", id="odd"),
]


@pytest.mark.parametrize(("code", "kind", "words"), REJECTIONS)
def test_a_rejected_association_says_what_to_do(
    ours: Site, code: tuple[int, int, int], kind: type[NodeError], words: str
) -> None:
    """Only what passes by itself is tried again."""
    with running(Faulty(instead=rejecting(*code))) as archive:
        line = ours.remote(archive.port, "FAULTY", **WAY)._line
        with pytest.raises(kind, match=words):
            echo(line)


@pytest.mark.parametrize("instead", [silent, lambda call: call.socket.sendall(b"HTTP/1.1 400")])
def test_what_is_no_dicom_port_is_found_out(ours: Site, instead: Serve) -> None:
    """Silent from the start, or another protocol."""
    with running(Faulty(instead=instead)) as archive:
        line = ours.remote(archive.port, "FAULTY", **WAY)._line
        with pytest.raises(ArchiveUnavailable, match="is its DICOM port"):
            echo(line)


STATUSES = [
    (0xA701, ArchiveUnavailable, "cannot count"),
    (0xA702, ArchiveUnavailable, "cannot send"),
    (0xA7AA, ArchiveUnavailable, "out of resources"),
    (0xC123, ArchiveUnavailable, "C123H"),
    (0xFE00, ArchiveUnavailable, "cancelled"),
    (0xA801, ArchiveRefused, "register our AE title"),
    (0xA900, ArchiveRefused, "does not fit"),
    (0x0122, ArchiveRefused, "does not support"),
    (0x0124, ArchiveRefused, "give it the right"),
]


@pytest.mark.parametrize(("status", "kind", "words"), STATUSES)
@pytest.mark.parametrize("way", ["get", "move"])
def test_a_refused_retrieval_says_what_to_do(
    ours: Site, status: int, kind: type[NodeError], words: str, way: str
) -> None:
    """Out of resources passes, a wrong destination or a missing right does not."""
    objects, field = study(1), GET if way == "get" else MOVE
    with running(Faulty(objects, {field: lambda call: call.say(field, status)})) as archive:
        remote = ours.remote(archive.port, "FAULTY", retrieve=way, **WAY)
        with pytest.raises(kind, match=words):
            ours.fetch(remote, objects[0].study_uid)


def test_a_call_ends_when_we_stop(ours: Site) -> None:
    """At once, and no other one begins."""
    heard = threading.Event()

    def listen(call: Call) -> None:
        heard.set()
        silent(call)

    with running(Faulty(does={FIND: listen})) as archive:
        remote = ours.remote(archive.port, "FAULTY", timeout_s=30.0)
        ended: list[Exception] = []

        def ask() -> None:
            try:
                [*remote.studies({})]
            except NodeError as error:
                ended.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        assert heard.wait(10)
        began = time.monotonic()
        remote.stop()
        asking.join(10)
        assert time.monotonic() - began < 3
        with pytest.raises(Interrupted):
            [*remote.studies({})]
    assert [type(each) for each in ended] == [Interrupted]


@given(st.binary(max_size=300))
def test_any_answer_to_an_association_is_an_agreement_or_a_fault_of_the_peer(body: bytes) -> None:
    """Nothing else is raised, whatever the bytes; a context that is agreed on has a syntax."""
    with suppress(PeerFault):
        contexts, _ = _agreement(bytes(68) + body)
        assert all(isinstance(syntax, str) for syntax in contexts.values())


# -- retrievals that go wrong --------------------------------------------------------------------


def after(number: int, objects: list[Made], then: Serve) -> Serve:
    """Send some objects of a C-GET, then do something else."""

    def serve(call: Call) -> None:
        for each in objects[:number]:
            assert call.store(each) == 0
        then(call)

    return serve


def half(call: Call) -> None:
    """Begin an object and break off inside it."""
    number, (sop_class, _) = next((n, a) for n, a in call.contexts.items() if n > 1)
    whole = hostile.message(number, hostile.c_store(sop_class, "2.25.7"), bytes(4000))
    call.socket.sendall(whole[:-100])
    call.socket.close()


@pytest.mark.parametrize("then", [Call.abort, half, silent])
def test_a_broken_retrieval_keeps_what_was_acknowledged_and_is_completed(
    ours: Site, then: Serve
) -> None:
    """The second one brings the rest; each object is there once, byte for byte."""
    objects = study()
    before = len(ours.door.spooled())
    with running(Faulty(objects, {GET: after(2, objects, then)})) as archive:
        remote = ours.remote(archive.port, "FAULTY", **WAY)
        with pytest.raises(ArchiveUnavailable):
            ours.fetch(remote, objects[0].study_uid)
        assert ours.held(objects[0].study_uid) == {each.sop_uid for each in objects[:2]}
        archive.does.clear()
        kept = ours.fetch(remote, objects[0].study_uid)
    assert kept == {each.sop_uid for each in objects}
    assert ours.digests_of(objects) == digests(objects)
    wait_until(lambda: len(ours.door.spooled()) == before + len(objects), 5, "a clean spool")


def test_failed_sub_operations_are_told(ours: Site, caplog: pytest.LogCaptureFixture) -> None:
    """What came is kept and returned; the log says how many did not come."""
    objects = study()

    def some(call: Call) -> None:
        call.say(GET, 0xB000, completed=3, failed=1)

    with (
        caplog.at_level(logging.WARNING),
        running(Faulty(objects, {GET: after(3, objects, some)})) as archive,
    ):
        remote = ours.remote(archive.port, "FAULTY", **WAY)
        kept = ours.fetch(remote, objects[0].study_uid)
    assert kept == {each.sop_uid for each in objects[:3]}
    assert "could not send 1" in caplog.text
    assert "1 objects that it lists did not come" in caplog.text


def test_a_move_that_sends_nothing_is_an_error(ours: Site) -> None:
    """The sentence says where to look on both sides."""
    objects = study(3)
    all_failed = {MOVE: lambda call: call.say(MOVE, 0xB000, failed=3)}
    with running(Faulty(objects, all_failed)) as archive:
        remote = ours.remote(archive.port, "FAULTY", retrieve="move", **WAY)
        with pytest.raises(ArchiveUnavailable, match=r"none of 3 objects.*door\.peers"):
            ours.fetch(remote, objects[0].study_uid)


def test_a_move_is_believed_only_by_the_job_log(ours: Site) -> None:
    """The archive says that all were sent; none came."""
    objects = study(3)
    with running(Faulty(objects)) as archive:
        remote = ours.remote(archive.port, "FAULTY", retrieve="move", **WAY)
        assert ours.fetch(remote, objects[0].study_uid) == set()


@pytest.mark.parametrize("field", [GET, MOVE])
def test_a_retrieval_without_progress_ends(
    ours: Site, monkeypatch: pytest.MonkeyPatch, field: int
) -> None:
    """However often the archive says that it is at work."""
    monkeypatch.setattr(query, "PATIENCE", 1)
    objects = study(1)

    def busy(call: Call) -> None:
        while not call.closing.wait(0.02):
            call.say(field, PENDING, completed=1)

    with running(Faulty(objects, {field: busy})) as archive:
        way = "get" if field == GET else "move"
        remote = ours.remote(archive.port, "FAULTY", retrieve=way, **WAY)
        with pytest.raises(ArchiveUnavailable, match="makes no progress"):
            ours.fetch(remote, objects[0].study_uid)


def test_one_object_for_ever_is_no_progress(ours: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is held once, and the retrieval ends."""
    monkeypatch.setattr(query, "PATIENCE", 1)
    objects = study(1)

    def repeat(call: Call) -> None:
        while True:
            assert call.store(objects[0]) == 0

    with running(Faulty(objects, {GET: repeat})) as archive:
        remote = ours.remote(archive.port, "FAULTY", **WAY)
        with pytest.raises(ArchiveUnavailable, match="makes no progress"):
            ours.fetch(remote, objects[0].study_uid)
    assert ours.digests_of(objects) == digests(objects)


def test_what_was_not_asked_for_is_not_kept(ours: Site) -> None:
    """An object that was not listed, another study's under a UID that was, a UID that is a path."""
    objects, others = study(2), study(2)
    [unlisted] = images(objects[0].study_uid, 1)
    told: list[int] = []

    def mislead(call: Call) -> None:
        told.extend(
            (
                call.store(others[0]),
                call.store(unlisted),
                call.store(others[1], sop_uid=objects[0].sop_uid),
                call.store(objects[0], sop_uid="../../../x"),
                call.store(objects[1]),
            )
        )
        call.say(GET, 0, completed=4)

    with running(Faulty(objects, {GET: mislead})) as archive:
        remote = ours.remote(archive.port, "FAULTY", **WAY)
        assert ours.fetch(remote, objects[0].study_uid) == {objects[1].sop_uid}
    assert told == [0xA900, 0xA900, 0xA900, 0xA900, 0]
    assert ours.held(objects[0].study_uid) == {objects[1].sop_uid}
    assert ours.held(others[0].study_uid) == set()


def test_a_full_disk_ends_the_retrieval(ours: Site) -> None:
    """Without a list of all the objects that cannot be kept."""
    objects = study()
    full = Intake(ours.door.data, ours.door.store, Limits(free_gb=1e9))
    with running(Faulty(objects)) as archive:
        remote = ours.remote(archive.port, "FAULTY", **WAY)
        uid = objects[0].study_uid
        keep = partial(full.begin, source="pacs", study_uid=uid)
        with pytest.raises(OutOfResources, match="no space"):
            remote.retrieve(uid, f"{uid}.1", keep)
    assert archive.told == []
    assert ours.held(objects[0].study_uid) == set()
