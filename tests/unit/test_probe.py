"""Looks at parts that fail, hang or stand still, without a node.

Covered: probes that answer, fail, break and hang; readings that are too slow; since when a part is
as it is; what every state of a child, a worker and the main loop is told as; `/healthz`. Not
covered: the real parts (tests/sockets/test_health).
"""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.children import Vitals
from app.errors import ArchiveUnavailable
from app.web import looks, probe
from app.web.looks import look_at_archive, look_at_child, look_at_loop, look_at_worker
from app.web.part import Board, Look, Overall, Part, PartState
from app.web.probe import Probe, Reading
from app.workers import Condition
from tests.waiting import wait_until

OK, FAILING, UNKNOWN = PartState.OK, PartState.FAILING, PartState.UNKNOWN


class Question:
    """Asks what the test lets it."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.free = threading.Event()
        self.free.set()

    def ask(self) -> str:
        """Hang, raise or answer."""
        self.free.wait()
        if self.error is not None:
            raise self.error
        return "well"


@pytest.fixture
def question() -> Iterator[Question]:
    """Give a question, and let it end."""
    made = Question()
    yield made
    made.free.set()


@pytest.fixture
def asked(question: Question, monkeypatch: pytest.MonkeyPatch) -> Iterator[Probe]:
    """Give a probe that asks it often and is not patient."""
    monkeypatch.setattr(probe, "PATIENCE_S", 0.3)
    made = Probe("it", question.ask, every_s=0.02)
    made.open()
    yield made
    made.close()


def becomes(asked: Probe, state: PartState) -> Look:
    """Wait until the probe says so."""
    return wait_until(lambda: found if (found := asked.look()).state is state else None)


def test_a_probe_says_what_its_question_says(asked: Probe, question: Question) -> None:
    """Well, a failure of ours, an error of the system without its path, and well again."""
    assert becomes(asked, OK).says == "well"
    question.error = ArchiveUnavailable("pacs: no answer within 4 s")
    failing = becomes(asked, FAILING)
    assert failing.says == "pacs: no answer within 4 s"
    assert failing.last_ok is not None
    question.error = OSError(28, "No space left on device", "a/secret/path")
    wait_until(lambda: asked.look().says == "No space left on device")
    question.error = None
    assert becomes(asked, OK).says == "well"


def test_a_question_that_hangs_is_the_finding_and_blocks_nobody(
    asked: Probe, question: Question
) -> None:
    """It is told within its patience, and its return at once."""
    becomes(asked, OK)
    question.free.clear()
    assert "no answer for" in becomes(asked, FAILING).says
    began = time.monotonic()
    asked.look()
    assert time.monotonic() - began < 1
    question.free.set()
    becomes(asked, OK)


def test_a_question_with_a_fault_is_failing_and_asked_again(
    asked: Probe, question: Question
) -> None:
    """Its text could quote anything, so that only its kind is told."""
    question.error = ValueError("PHANTOM^SECRET")
    assert becomes(asked, FAILING).says == "a fault of ours, see the log: ValueError"
    question.error = None
    becomes(asked, OK)


def test_a_reading_is_made_once_for_all_who_ask_and_waits_no_longer_than_told() -> None:
    """Who asks meanwhile begins no other; when it has come to its end the next is a new one."""
    free, calls = threading.Event(), []

    def read() -> int:
        calls.append(1)
        free.wait()
        return len(calls)

    reading = Reading("it", read)
    assert reading.get(0.05) is None
    assert reading.get(0.05) is None
    assert len(calls) == 1
    free.set()
    wait_until(lambda: reading.get(5) == 2)


def test_a_board_tells_since_when_and_what_it_means() -> None:
    """Essential parts decide about ready; a UID in a sentence is left out, an address stays."""
    looks_like = {"door": Look(state=OK, says="up"), "archive": Look(state=OK, says="answers")}
    board = Board(
        [
            Part(name=name, essential=name == "door", look=lambda name=name: looks_like[name])
            for name in looks_like
        ]
    )
    first = board.look()
    assert first.overall is Overall.READY
    says = "study 1.2.840.10008.1.2.3 and 2.25.4711 of 10.0.0.5:104 are missing"
    looks_like["archive"] = Look(state=FAILING, says=says)
    second = board.look()
    assert second.overall is Overall.DEGRADED
    assert second.failing == ["archive"]
    told = {part.name: part for part in second.parts}
    assert told["archive"].says == "study … and … of 10.0.0.5:104 are missing"
    assert told["door"].since == first.parts[0].since
    assert told["archive"].since > first.parts[1].since
    assert {part.since for part in board.look().parts} == {part.since for part in second.parts}
    for state in (FAILING, UNKNOWN):
        looks_like["door"] = Look(state=state, says="")
        assert board.look().overall is Overall.NOT_READY


@pytest.mark.parametrize(
    ("changes", "state", "says"),
    [
        ({}, OK, "up"),
        ({"ended": "ended with status 2", "starts": 3}, OK, "started 3 times, the last one ended"),
        ({"alive": False, "ended": "was ended by SIGKILL"}, FAILING, "was ended by SIGKILL; it is"),
        ({"heard_at": -6.0}, FAILING, "says nothing for 6 s: it is stopped or hangs"),
        ({"ages": {"listening": 9.0}}, FAILING, "its DICOM port has not been ready for 9 s"),
        ({"ages": {"listening": 1.0, "http": 12.0}}, FAILING, "its HTTP port has not been ready"),
    ],
)
def test_a_child_is_told_as_it_is(changes: dict, state: PartState, says: str) -> None:
    """`heard_at` is given as seconds before now."""
    heard_at = time.monotonic() + changes.pop("heard_at", 0.0)
    found = look_at_child(Vitals(**{"alive": True, "starts": 1, "heard_at": heard_at} | changes))
    assert found.state is state
    assert says in found.says


@pytest.mark.parametrize(
    ("changes", "state", "says"),
    [
        ({"pid": None, "starts": 0}, PartState.IDLE, "the first job starts it"),
        ({}, OK, "waits for work"),
        ({"doing": "segment"}, OK, "busy with segment for 7 s of at most 600"),
        ({"pid": None, "ended": "was ended by SIGSEGV"}, FAILING, "was ended by SIGSEGV; it is"),
        ({"ended": "was ended by SIGKILL", "losses": 2}, OK, "lost 2 times: was ended by SIGKILL"),
    ],
)
def test_a_worker_is_told_as_it_is(changes: dict, state: PartState, says: str) -> None:
    """A worker that was lost and runs again is a fact, not a failure."""
    now = {"pid": 1, "doing": "", "began_at": time.monotonic() - 7.2, "limit_s": 600.0}
    found = look_at_worker(Condition(**now | {"starts": 1, "losses": 0, "ended": ""} | changes))
    assert found.state is state
    assert says in found.says


class Loop:
    """A main loop that stands as long as the test wants."""

    def __init__(self, stands_s: float, *, stopping: bool = False) -> None:
        self.turned_at = time.monotonic() - stands_s
        self.stopping = stopping


def test_a_main_loop_that_stands_is_told() -> None:
    """So is one that takes no more work."""
    assert look_at_loop(Loop(0)).state is OK
    stands = look_at_loop(Loop(looks.STALLED_S + 1))
    assert (stands.state, stands.says) == (FAILING, "its main loop has stood for 9 s")
    assert look_at_loop(Loop(0, stopping=True)).says == "the node is stopping"


def test_an_archive_is_told_with_what_waits_for_it() -> None:
    """The courier's reason, and how much is under way."""
    found = Look(state=OK, says="answers", last_ok=datetime.now(UTC))
    told = look_at_archive(found, "pacs", {"pacs": "3 deliveries"}, {"pacs": "HTTP 503"})
    assert told.says == "answers; its courier waits: HTTP 503; 3 deliveries"
    assert look_at_archive(found, "other", {"pacs": "3"}, {"pacs": "x"}) == found


def test_the_disk_is_written_and_nothing_stays(tmp_path: Path) -> None:
    """Each time anew."""
    disk = looks.Disk(tmp_path, least_free_gb=0)
    assert "and it can be written" in disk.ask()
    assert disk.free_bytes
    assert [*tmp_path.iterdir()] == []
