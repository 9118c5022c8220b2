"""Logging: one JSON object a line for machines, plain words on a terminal, never PHI.

The text of an exception can quote a header value (pydicom, highdicom and pydantic all do), so an
exception is written as its class, where it was raised, and its sentence only for classes in
`SAY_WHY`, whose sentences speak of files and code. Warnings lose their text for the same reason.

Lines go to standard output, where journald or the container's engine rotates them. Where nobody
does, three environment variables do: MARGINALIA_LOG_FILE names a file, which all processes of the
node then share; at MARGINALIA_LOG_MAX_MB (20) it becomes file.1, and MARGINALIA_LOG_KEEP (10) of
those are kept.
"""

import fcntl
import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from typing import Any, TextIO

from app.errors import ConfigError, NodeError

LEVEL_VARIABLE = "MARGINALIA_LOG_LEVEL"
FILE_VARIABLE = "MARGINALIA_LOG_FILE"
MAX_MB_VARIABLE = "MARGINALIA_LOG_MAX_MB"
KEEP_VARIABLE = "MARGINALIA_LOG_KEEP"
MOST_MB, MOST_KEPT = 10_000, 1000
_ONE_WRITE = 1 << 18  # bytes of a line that get to the file in one piece
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
SAY_WHY = (NodeError, OSError, ImportError, NameError, AttributeError, MemoryError, RuntimeError)
"""Exceptions whose sentence never quotes a header value."""

QUIET = {
    "alembic": logging.WARNING,
    "dicomweb_client": logging.WARNING,
    "h5py": logging.WARNING,
    "httpcore": logging.WARNING,
    "httpx": logging.WARNING,
    "matplotlib": logging.WARNING,
    "monai": logging.WARNING,
    "PIL": logging.WARNING,
    "pydicom": logging.ERROR,  # its warnings quote values
    "pynetdicom": logging.WARNING,
    "requests": logging.WARNING,
    "torch": logging.WARNING,
    "urllib3": logging.WARNING,
}

log = logging.getLogger(__name__)
_job: ContextVar[str | None] = ContextVar("job", default=None)


def set_up(level: str | None = None, stream: TextIO | None = None, *, to_file: bool = True) -> None:
    """Send every logger of this process to `stream` (standard output), at `level` and above.

    Without a level, MARGINALIA_LOG_LEVEL or INFO holds. MARGINALIA_LOG_FILE takes the stream's
    place unless `to_file` is false. Calling it again replaces the set-up.
    """
    stream = sys.stdout if stream is None else stream
    level = (level or os.environ.get(LEVEL_VARIABLE) or "INFO").upper()
    if level not in LEVELS:
        raise ConfigError(
            f"{LEVEL_VARIABLE}: {level!r} is no level; use one of {', '.join(LEVELS)}"
        )
    handler: logging.Handler
    if path := os.environ.get(FILE_VARIABLE) if to_file else None:
        handler = _file_handler(path)
    else:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(PlainLines() if stream.isatty() else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, at_least in QUIET.items():
        logging.getLogger(name).setLevel(max(at_least, root.level))
    warnings.showwarning = _warn_without_words


@contextmanager
def about(job_id: str | None) -> Iterator[None]:
    """Put the job's id on every line that this thread logs inside the block."""
    token = _job.set(job_id)
    try:
        yield
    finally:
        _job.reset(token)


def current_job() -> str | None:
    """Return the id that `about` has set for this thread."""
    return _job.get()


def sentence(error: BaseException) -> str:
    """Return the exception's class, and what it says if that cannot quote a header value."""
    name = type(error).__name__
    words = str(error) if isinstance(error, SAY_WHY) else ""
    return f"{name}: {words}" if words else name


def traced(error: BaseException) -> str:
    """Return the exception's traceback and its causes', without text that could be PHI."""
    lines = [*traceback.format_tb(error.__traceback__), sentence(error)]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        lines = [traced(cause), "\n\nwhich led to\n\n", *lines]
    return "".join(lines)


class JsonLines(logging.Formatter):
    """One JSON object a line; JSON's escapes keep every line one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON in ASCII."""
        facts: dict[str, Any] = {
            "at": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "job": _job.get(),
            "message": _message(record),
            "traceback": _traceback(record),
        }
        return json.dumps({key: value for key, value in facts.items() if value is not None})


class PlainLines(logging.Formatter):
    """Words for a person at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record in words; what a terminal would obey is replaced."""
        job = f" [{_job.get()}]" if _job.get() else ""
        time = _time(record).astimezone().strftime("%H:%M:%S")
        lines = [f"{time} {record.levelname:<7} {record.name}{job} {_message(record)}"]
        lines += [f"    {line}" for line in (_traceback(record) or "").split("\n") if line]
        return "\n".join(map(_printable, lines))


class SharedFile(RotatingFileHandler):
    """A file that several processes append to; whoever finds it full puts it aside.

    No process ever waits for another, which may be hung: a line is one appended write, and only
    rotating takes a lock, by one that happens to get it. A line that cannot be written, as on a
    full disk, is lost: an object on its way is worth more.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record where the file is now."""
        try:
            self._follow()
        except OSError:
            self.handleError(record)
        super().emit(record)

    def doRollover(self) -> None:  # noqa: N802  # the name is the library's
        """Rotate unless another process does or just did."""
        with open(f"{self.baseFilename}.lock", "ab", opener=_private) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if not self._follow():
                super().doRollover()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # same
        """Say nothing: the library would print the record's arguments."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", _ONE_WRITE, encoding="ascii", opener=_private)

    def _follow(self) -> bool:
        """Open the file that has the name now; return whether it is another one."""
        if self.stream is None:  # a rotation failed
            self.stream = self._open()
        try:
            there = os.stat(self.baseFilename)  # noqa: PTH116  # as the library has it: a string
            if os.path.samestat(there, os.fstat(self.stream.fileno())):
                return False
        except FileNotFoundError:
            pass
        self.stream.close()
        self.stream = self._open()
        return True


def _file_handler(path: str) -> SharedFile:
    size = _number(MAX_MB_VARIABLE, 20, MOST_MB) << 20
    keep = _number(KEEP_VARIABLE, 10, MOST_KEPT)
    try:
        handler = SharedFile(path, maxBytes=size, backupCount=keep, encoding="ascii")
    except OSError as error:
        raise ConfigError(
            f"{FILE_VARIABLE}: cannot write {path} ({error.strerror}); give a file in a folder "
            "that the node's user may write to"
        ) from error
    handler.setFormatter(JsonLines())
    return handler


def _number(variable: str, default: int, most: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise ConfigError(f"{variable}: {text!r} is no whole number from 1 to {most}")
    return int(text)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _message(record: logging.LogRecord) -> str:
    # logger.exception(error), as pynetdicom calls it, makes the exception itself the message.
    message: Any = record.msg
    return sentence(message) if isinstance(message, BaseException) else record.getMessage()


def _traceback(record: logging.LogRecord) -> str | None:
    error = record.exc_info[1] if record.exc_info else None
    return traced(error) if error else None


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _printable(text: str) -> str:
    # Not printable are also the marks that turn the direction of what follows on the screen.
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _warn_without_words(  # noqa: PLR0917  # as the warnings module calls it
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    del message, file, line
    log.debug("%s at %s:%d", category.__name__, filename, lineno)
