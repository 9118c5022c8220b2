"""One object on its way in: its bytes to a file without a name, then a verdict."""

import hashlib
import logging
import mmap
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self
from uuid import uuid4

from app.config_door import Limits
from app.dicom.dimse import Status
from app.dicom.encoded import SYNTAXES, UID_FORM, Identifiers, read_identifiers
from app.dicom.part10 import header
from app.errors import NodeError, OutOfResources, UnreadableDicom
from app.files import PARTIAL, make_folder, sync_folder
from app.pipeline.receive import SPOOL, Arrived

log = logging.getLogger(__name__)

IN_MEMORY = 1 << 20
"""Up to so many bytes an object needs no file before it is known to be kept."""

GIGABYTE = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is answered, and the study that grew or was complete already."""

    status: Status
    sop_class_uid: str | None = None
    sop_uid: str | None = None
    study_uid: str | None = None
    new: bool = False
    """Whether a row was made for it."""
    reason: str = ""
    """Why it is not kept; no patient is named."""


class _Intake(Protocol):
    """Where the object goes."""

    @property
    def data(self) -> Path: ...
    @property
    def limits(self) -> Limits: ...
    def has_room(self) -> bool: ...
    def settle(self, incoming: "Incoming", arrived: Arrived) -> Outcome: ...


class Incoming:
    """Bytes of one object, used by one thread; left without `finish()` nothing remains of it."""

    def __init__(
        self, intake: _Intake, transfer_syntax: str, *, claimed: tuple[str, str], source: str
    ) -> None:
        self.source = source
        self._intake = intake
        self._syntax = transfer_syntax
        self._claimed = claimed
        self._limit = int(intake.limits.object_gb * GIGABYTE)
        self._deadline = time.monotonic() + intake.limits.object_s
        self._digest = hashlib.sha256()
        self._size = 0
        self._chunks: list[bytes] = []
        self._head = b""
        self._fd = -1
        self._partial: Path | None = None
        self._failure: tuple[Status, str] | None = None
        self._admit()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._discard()

    @property
    def failed(self) -> Status | None:
        """What will be answered, if that is certain before the end."""
        return self._failure[0] if self._failure else None

    def write(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes; what comes after a failure is dropped."""
        if self._failure:
            return
        self._size += len(chunk)
        if self._size > self._limit:
            limit = self._intake.limits.object_gb
            self._fail(Status.UNREADABLE, f"it is larger than {limit:g} GB")
        elif time.monotonic() > self._deadline:
            self._fail(Status.OUT_OF_RESOURCES, "it took too long to come in")
        else:
            try:
                self._write(chunk)
            except (OSError, MemoryError) as error:
                self._fail(Status.OUT_OF_RESOURCES, f"it could not be written ({_why(error)})")

    def finish(self) -> Outcome:
        """Examine and keep what came; success means that file and row survive a power cut."""
        try:
            if self._failure:
                return Outcome(status=self._failure[0], reason=self._failure[1])
            return self._finish()
        except UnreadableDicom as error:
            log.warning("an object from %s is refused: %s", self.source, error)
            return Outcome(status=Status.UNREADABLE, reason=str(error))
        except (OSError, OutOfResources, MemoryError) as error:
            log.error("an object from %s could not be kept: %s", self.source, error)  # noqa: TRY400
            return Outcome(status=Status.OUT_OF_RESOURCES, reason=_why(error))
        except NodeError as error:
            log.error("an object from %s could not be kept: %s", self.source, error)  # noqa: TRY400
            return Outcome(status=Status.OUR_FAULT, reason=str(error))
        finally:
            self._discard()

    # -- for the intake ----------------------------------------------------------------------

    def keep_as(self, file: str) -> None:
        """Give the object its name in the data folder; it is on stable storage afterwards."""
        self._spill()
        target = self._intake.data / file
        make_folder(target.parent)
        os.fsync(self._fd)
        assert self._partial is not None  # noqa: S101  # for the type checker
        self._partial.rename(target)
        self._partial = None
        sync_folder(target.parent)

    def forget(self, file: str) -> None:
        """Take the name back; the bytes stay here until this object is left."""
        self._partial = (self._intake.data / file).with_suffix(PARTIAL)
        (self._intake.data / file).rename(self._partial)

    # -- inside ------------------------------------------------------------------------------

    def _admit(self) -> None:
        if self._syntax not in SYNTAXES:
            self._fail(Status.UNREADABLE, "its transfer syntax is not accepted")
        elif not self._intake.has_room():
            self._fail(Status.OUT_OF_RESOURCES, "the disk has no space to spare")
        elif all(len(uid) <= 64 and UID_FORM.fullmatch(uid) for uid in self._claimed):  # noqa: PLR2004  # PS3.5 9.1
            # what the header says is what was claimed: an object that differs is not kept
            sop_class, sop_uid = self._claimed
            uids = Identifiers(
                sop_class_uid=sop_class, sop_uid=sop_uid, study_uid="", series_uid=""
            )
            self._head = header(uids, self._syntax)

    def _fail(self, status: Status, reason: str) -> None:
        self._failure = (status, reason)
        log.warning("an object from %s is refused: %s", self.source, reason)
        self._discard()

    def _write(self, chunk: bytes | memoryview) -> None:
        self._digest.update(chunk)
        if self._fd >= 0:
            _write_all(self._fd, chunk)
            return
        self._chunks.append(bytes(chunk))
        if self._size > IN_MEMORY:
            self._spill()

    def _spill(self) -> None:
        """Write what is in memory; from here on the file has it all."""
        if self._fd < 0:
            name = uuid4().hex
            self._partial = self._intake.data / SPOOL / name[:2] / f"{name}{PARTIAL}"
            make_folder(self._partial.parent)
            self._fd = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            for piece in (self._head, *self._chunks):
                _write_all(self._fd, piece)
            self._chunks.clear()

    def _finish(self) -> Outcome:
        uids = self._identifiers()
        if self._claimed != (uids.sop_class_uid, uids.sop_uid):
            reason = "command and data set name different objects or classes"
            return Outcome(status=Status.UIDS_DIFFER, reason=reason)
        arrived = Arrived(
            identifiers=uids,
            transfer_syntax=self._syntax,
            sha256=self._digest.hexdigest(),
            size=self._size,
        )
        return self._intake.settle(self, arrived)

    def _identifiers(self) -> Identifiers:
        if self._fd < 0:
            return read_identifiers(b"".join(self._chunks), self._syntax)
        with mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ) as content:
            return read_identifiers(content, self._syntax, len(self._head))

    def _discard(self) -> None:
        self._chunks.clear()
        with suppress(OSError):
            if self._partial is not None:
                self._partial.unlink(missing_ok=True)
                self._partial = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _why(error: Exception) -> str:
    """Say what is wrong without the paths of this machine."""
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


def _write_all(fd: int, piece: bytes | memoryview) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(fd, rest) :]
