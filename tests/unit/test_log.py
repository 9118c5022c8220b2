"""Log lines: JSON or words, the job's id, levels, and what must never get through.

Covered: both forms on real streams (a pipe and a pseudo-terminal), control characters, exceptions
and warnings that quote header values. Not covered: what each part of the node says, which the
acceptance test greps for the name of its patient.
"""

import io
import json
import logging
import os
import pty
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from app.errors import ConfigError, UnreadableDicom
from app.log import about, sentence, set_up, traced

PATIENT = "PHANTOM^CANARY"

log = logging.getLogger("app.tested")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with warnings.catch_warnings():  # puts showwarning back as well
        yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the JSON objects that were logged, one of each line."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail_with(error: Exception) -> None:
    """Raise the error from a place with a name."""
    raise error


def fail_without_its_cause() -> None:
    """Raise an error that hides the one before it."""
    try:
        fail_with(OSError("first"))
    except OSError:
        raise RuntimeError("second") from None


def test_each_line_is_one_json_object() -> None:
    """A name, a level, a time in UTC, and no empty facts."""
    stream = io.StringIO()
    set_up("info", stream)
    log.info("%d slices", 3)
    (line,) = lines(stream)
    assert line.pop("at").endswith("+00:00")
    assert line == {"level": "INFO", "logger": "app.tested", "message": "3 slices"}


def test_a_message_cannot_begin_a_line_of_its_own() -> None:
    """Escapes keep a forged line and terminal commands inside the message."""
    stream = io.StringIO()
    set_up("INFO", stream)
    evil = 'a\nb\r\x1b[2J\u2028\u202e"'
    log.info("%s", evil)
    assert lines(stream)[0]["message"] == evil
    assert stream.getvalue().strip().isprintable()
    assert stream.getvalue().isascii()


def test_a_terminal_gets_plain_words() -> None:
    """Words, the job in brackets, and replacements for whatever a terminal would obey."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        set_up("INFO", terminal)
        with about("abc123"):
            log.warning("3×3×3\x1b[2J\nforged")
        said = os.read(ours, 4096).decode()
    os.close(ours)
    assert said.count("\n") == 1
    assert "WARNING app.tested [abc123] 3×3×3\ufffd[2J\ufffdforged" in said


def test_a_terminal_gets_tracebacks_line_by_line() -> None:
    """A traceback is for reading: its lines stay lines, set in."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        set_up("INFO", terminal)
        try:
            fail_with(OSError("no room"))
        except OSError:
            log.exception("stage failed")
        said = os.read(ours, 4096).decode().splitlines()
    os.close(ours)
    assert said[0].endswith("stage failed")
    assert all(line.startswith("    ") for line in said[1:])
    assert said[-1] == "    OSError: no room"


def test_every_line_names_the_job_it_is_about() -> None:
    """The id holds inside the block, for this thread, and the outer one returns after it."""
    stream = io.StringIO()
    set_up("INFO", stream)
    with about("outer"):
        with about("inner"):
            log.info("1")
            other = threading.Thread(target=log.info, args=("2",))
            other.start()
            other.join()
        log.info("3")
    log.info("4")
    assert [line.get("job") for line in lines(stream)] == ["inner", None, "outer", None]


def test_the_level_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """INFO unless the variable says otherwise; an argument goes before both."""
    for variable, argument, level in (
        (None, None, logging.INFO),
        ("debug", None, logging.DEBUG),
        ("ERROR", "WARNING", logging.WARNING),
    ):
        if variable:
            monkeypatch.setenv("MARGINALIA_LOG_LEVEL", variable)
        set_up(argument, io.StringIO())
        assert logging.getLogger().level == level


def test_a_wrong_level_is_an_error_of_the_configuration() -> None:
    """A typo must not silence the log."""
    with pytest.raises(ConfigError, match=r"'LOUD' is no level; use one of DEBUG, INFO"):
        set_up("loud", io.StringIO())


def test_setting_up_again_replaces_the_first() -> None:
    """No line is written twice."""
    first, second = io.StringIO(), io.StringIO()
    set_up("INFO", first)
    set_up("INFO", second)
    log.info("once")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1


@pytest.mark.parametrize("name", ["pynetdicom.acse", "urllib3.connectionpool", "alembic.runtime"])
def test_libraries_are_heard_from_warning_on(name: str) -> None:
    """Even at DEBUG their chatter stays out; at ERROR their warnings do too."""
    stream = io.StringIO()
    set_up("DEBUG", stream)
    logging.getLogger(name).info("chatter")
    logging.getLogger(name).warning("trouble")
    set_up("ERROR", stream)
    logging.getLogger(name).warning("more trouble")
    assert [line["message"] for line in lines(stream)] == ["trouble"]


def test_an_exception_shows_its_place_and_not_the_value_it_quotes() -> None:
    """ValueError quotes header values; its causes are stripped alike."""
    stream = io.StringIO()
    set_up("INFO", stream)
    try:
        try:
            fail_with(ValueError(f"bad name {PATIENT}"))
        except ValueError as error:
            raise UnreadableDicom("1.2.3: has no pixels") from error
    except UnreadableDicom:
        log.exception("route failed")
    trace = lines(stream)[0]["traceback"]
    assert PATIENT not in stream.getvalue()
    assert "in fail_with" in trace
    assert trace.index("ValueError") < trace.index("which led to")
    assert trace.endswith("UnreadableDicom: 1.2.3: has no pixels")


def test_an_exception_given_as_the_message_is_stripped_too() -> None:
    """The network library logs the exceptions of our callbacks in this way."""
    stream = io.StringIO()
    set_up("INFO", stream)
    log.error(ValueError(PATIENT))
    assert lines(stream)[0]["message"] == "ValueError"


def test_a_suppressed_context_is_not_told() -> None:
    """`raise … from None` means that the cause helps nobody."""
    with pytest.raises(RuntimeError) as caught:
        fail_without_its_cause()
    assert "OSError" not in traced(caught.value)
    assert sentence(caught.value) == "RuntimeError: second"


def test_a_warning_is_told_by_kind_and_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning about a person's name quotes it; nothing of it reaches standard error."""
    stream, stderr = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    set_up("DEBUG", stream)
    warnings.simplefilter("always")
    warnings.warn(f"odd name {PATIENT}", UserWarning, stacklevel=1)
    assert lines(stream)[0]["message"].startswith(f"UserWarning at {__file__}:")
    assert PATIENT not in stream.getvalue() + stderr.getvalue()
