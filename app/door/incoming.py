"""One object on its way in: its bytes to a file without a name, then a verdict."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from app.config_door import Limits
from app.dicom.dimse import Status
from app.dicom.encoded import SYNTAXES, Identifiers, is_uid, read_identifiers
from app.dicom.part10 import header
from app.door.partial import Blocks, Partial
from app.door.refusals import Refusals
from app.errors import NodeError, OutOfResources, UnreadableDicom
from app.pipeline.receive import Arrived, spool_name

log = logging.getLogger(__name__)

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
    @property
    def blocks(self) -> Blocks: ...
    @property
    def refusals(self) -> Refusals: ...
    def has_room(self) -> bool: ...
    def count(self, outcome: Outcome, size: int) -> None: ...
    def settle(self, incoming: "Incoming", arrived: Arrived) -> Outcome: ...


class Incoming:
    """Bytes of one object, used by one thread; left without `finish()` nothing remains of it."""

    def __init__(
        self,
        intake: _Intake,
        transfer_syntax: str,
        *,
        claimed: tuple[str, str],
        source: str,
        study_uid: str | None = None,
    ) -> None:
        file = spool_name()
        self.source = source
        self._intake = intake
        self._syntax = transfer_syntax
        self._claimed = claimed
        self._study_uid = study_uid
        self._limit = int(intake.limits.object_gb * GIGABYTE)
        self._deadline = time.monotonic() + intake.limits.object_s
        self._size = 0
        self._head = 0
        self._partial = Partial(intake.data / file, intake.blocks)
        self.file = file
        self._failure: tuple[Status, str] | None = None
        self._admit()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._partial.close()

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
                self._partial.append(chunk)
            except (OSError, MemoryError) as error:
                self._fail(Status.OUT_OF_RESOURCES, f"it could not be written ({_why(error)})")

    def finish(self) -> Outcome:
        """Examine and keep what came; success means that file and row survive a power cut."""
        outcome = self._outcome()
        self._intake.count(outcome, self._size)
        return outcome

    def _outcome(self) -> Outcome:
        try:
            if self._failure:
                return Outcome(status=self._failure[0], reason=self._failure[1])
            return self._finish()
        except UnreadableDicom as error:
            return self._refused(Status.UNREADABLE, str(error))
        except (OSError, OutOfResources, MemoryError) as error:
            log.error("an object from %s could not be kept: %s", self.source, error)  # noqa: TRY400
            return Outcome(status=Status.OUT_OF_RESOURCES, reason=_why(error))
        except NodeError as error:
            log.error("an object from %s could not be kept: %s", self.source, error)  # noqa: TRY400
            return Outcome(status=Status.OUR_FAULT, reason=Status.OUR_FAULT.words)
        finally:
            self._partial.close()

    # -- for the intake ----------------------------------------------------------------------

    def complete(self) -> Partial:
        """Return the file with all bytes in it, without a name and not synced."""
        self._partial.complete()
        return self._partial

    # -- inside ------------------------------------------------------------------------------

    def _admit(self) -> None:
        if self._syntax not in SYNTAXES:
            self._fail(Status.UNREADABLE, "its transfer syntax is not accepted")
        elif not self._intake.has_room():
            self._fail(Status.OUT_OF_RESOURCES, "the disk has no space to spare")
        elif all(map(is_uid, self._claimed)):
            # what the header says is what was claimed: an object that differs is not kept
            sop_class, sop_uid = self._claimed
            self._partial.begin(header(sop_class, sop_uid, self._syntax))
            self._head = self._partial.size

    def _fail(self, status: Status, reason: str) -> None:
        self._failure = (status, reason)
        self._refused(status, reason)
        self._partial.close()

    def _refused(self, status: Status, reason: str) -> Outcome:
        log.warning("an object from %s is refused: %s", self.source, reason)
        if status not in {Status.OUT_OF_RESOURCES, Status.OUR_FAULT}:  # those are our own matter
            self._intake.refusals.note(self.source, f"{status:04X}: {reason}")
        return Outcome(status=status, reason=reason)

    def _finish(self) -> Outcome:
        uids = self._identifiers()
        if self._claimed != (uids.sop_class_uid, uids.sop_uid):
            return self._refused(Status.UIDS_DIFFER, Status.UIDS_DIFFER.words)
        if self._study_uid not in {None, uids.study_uid}:
            return self._refused(Status.UIDS_DIFFER, "it is of another study than was said")
        arrived = Arrived(
            identifiers=uids,
            transfer_syntax=self._syntax,
            sha256=self._partial.sha256(),
            size=self._size,
        )
        return self._intake.settle(self, arrived)

    def _identifiers(self) -> Identifiers:
        size = self._partial.size
        return read_identifiers(self._partial.content(), self._syntax, self._head, size)


def _why(error: Exception) -> str:
    """Say what is wrong without the paths of this machine."""
    words = error.strerror if isinstance(error, OSError) else None
    return words or Status.OUT_OF_RESOURCES.words
