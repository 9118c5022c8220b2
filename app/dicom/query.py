"""C-ECHO, C-FIND, C-GET and C-MOVE as their user (PS3.4 Annex C, study root).

There is no paging in DIMSE: the number of answers and the time are bounded here. Objects of a C-GET
are handed on piece by piece as they come and never decoded.
"""

import io
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from app.dicom import command as dimse
from app.dicom.association import MAX_CONTEXTS, Association, Proposal
from app.dicom.calling import Line, answer, expect
from app.dicom.command import Command
from app.dicom.dimse import TRANSFER_SYNTAXES
from app.dicom.messages import joined
from app.dicom.series import Scalar, scalars, tolerant
from app.dicom.wire import BY_USER, PeerFault
from app.errors import ArchiveUnavailable, UnreadableDicom

log = logging.getLogger(__name__)

Answer = dict[str, tuple[Scalar, ...]]
"""Keyword → values, for the keywords that were asked for."""

Take = Callable[[str, tuple[str, str], Iterator[memoryview]], int]
"""Takes transfer syntax, SOP class and UID, and the pieces of an object; returns a status."""

VERIFICATION = "1.2.840.10008.1.1"
FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
PLAIN = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
PENDING = {0xFF00, 0xFF01}
SOME_FAILED = 0xB000
MEDIUM = 0

MOST_ANSWERS = 50_000
PATIENCE = 10
"""A search, and a retrieval without progress, may take this many times the longest silence."""

# What a series may hold when the archive does not say: images, most frequent first.
USUAL_CLASSES = tuple(
    f"1.2.840.10008.5.1.4.1.1.{rest}"
    for rest in (
        *("2", "4", "128", "20", "2.1", "4.1", "130", "1", "1.1", "1.2", "12.1", "12.2", "6.1"),
        *("3.1", "7", "7.1", "7.2", "7.3", "7.4", "481.1", "481.3", "66.4", "88.22", "88.33"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """How many objects a peer says it sent, could not send, and sent with a warning."""

    completed: int
    failed: int
    warned: int


def echo(line: Line) -> None:
    """Ask whether the peer is there and knows us."""
    with line.association([Proposal(abstract=VERIFICATION, syntaxes=PLAIN)]) as association:
        context = association.context(VERIFICATION)
        if context is None:
            raise line.unsupported("C-ECHO")
        message_id = association.request(context, dimse.C_ECHO_RQ)
        said, _ = answer(association, dimse.C_ECHO_RQ, message_id)
        if said.status:
            raise line.refusal("C-ECHO", said.status)


def find(line: Line, level: str, keys: Mapping[str, str]) -> list[Answer]:
    """Return what matches; `keys` are what must match, empty ones what is to be told as well."""
    with line.association([Proposal(abstract=FIND, syntaxes=PLAIN)]) as association:
        return search(line, association, level, keys)


def search(
    line: Line, association: Association, level: str, keys: Mapping[str, str]
) -> list[Answer]:
    """Do the same in an association that is there already."""
    context = association.context(FIND)
    if context is None:
        raise line.unsupported("C-FIND (study root)")
    implicit = association.contexts[context][1] != ExplicitVRLittleEndian
    identifier = _identifier(level, keys, implicit=implicit)
    medium = {dimse.PRIORITY: MEDIUM}
    message_id = association.request(context, dimse.C_FIND_RQ, identifier, medium)
    found: list[Answer] = []
    deadline = time.monotonic() + PATIENCE * line.peer.timeout_s
    while True:
        said, content = answer(association, dimse.C_FIND_RQ, message_id)
        if said.status not in PENDING:
            break
        if len(found) >= MOST_ANSWERS or time.monotonic() > deadline:
            raise PeerFault(f"a search has more than {len(found)} answers", BY_USER)
        found.append(_answer(line, content, keys, implicit=implicit))
    if said.status:
        raise line.refusal(f"C-FIND at {level} level", said.status)
    return found


def get(
    line: Line, level: str, keys: Mapping[str, str], classes: Sequence[str], take: Take
) -> Retrieved:
    """Bring what matches over the same association; `classes` are those of the objects, if known.

    Each class is proposed once for each transfer syntax, so that the archive can send an object as
    it holds it; with many classes the rarer syntaxes do not fit any more.
    """
    storage = [
        Proposal(abstract=each, syntaxes=(str(syntax),), takes=True)
        for syntax in TRANSFER_SYNTAXES
        for each in classes or USUAL_CLASSES
    ][: MAX_CONTEXTS - 1]
    with line.association([Proposal(abstract=GET, syntaxes=PLAIN), *storage]) as association:
        retrieval = _Retrieval(line, association, GET, dimse.C_GET_RQ, "C-GET")
        return retrieval.run(level, keys, take=take)


def move(line: Line, level: str, keys: Mapping[str, str], destination: str) -> Retrieved:
    """Let the peer send what matches to the AE title `destination`."""
    with line.association([Proposal(abstract=MOVE, syntaxes=PLAIN)]) as association:
        retrieval = _Retrieval(line, association, MOVE, dimse.C_MOVE_RQ, "C-MOVE")
        return retrieval.run(level, keys, extra={dimse.MOVE_DESTINATION: destination.strip()})


class _Retrieval:
    """One C-GET or C-MOVE: requests to store, if any, and answers until the last one."""

    def __init__(
        self, line: Line, association: Association, model: str, field: int, name: str
    ) -> None:
        self._line, self._association = line, association
        self._model, self._field, self._name = model, field, name
        self._kept: set[str] = set()
        self._done = 0
        self._progressed = time.monotonic()

    def run(
        self,
        level: str,
        keys: Mapping[str, str],
        take: Take | None = None,
        extra: Mapping[int, int | str] | None = None,
    ) -> Retrieved:
        """Ask, and serve what comes back."""
        association = self._association
        context = association.context(self._model)
        if context is None:
            raise self._line.unsupported(f"{self._name} (study root)")
        implicit = association.contexts[context][1] != ExplicitVRLittleEndian
        identifier = _identifier(level, keys, implicit=implicit)
        more = {dimse.PRIORITY: MEDIUM, **(extra or {})}
        message_id = association.request(context, self._field, identifier, more)
        while True:
            number, command, content = association.receive()
            if command.field == dimse.C_STORE_RQ and take is not None:
                self._store(number, command, content, take)
            else:
                expect(command, self._field, message_id)
                joined(content)  # the UIDs of what failed; what is missing is seen in the log
                if command.status not in PENDING:
                    return self._result(command)
                self._count(command.completed + command.failed + command.warned)
            if time.monotonic() > self._progressed + PATIENCE * self._line.peer.timeout_s:
                raise PeerFault(f"{self._name} makes no progress", BY_USER)

    def _store(
        self, number: int, command: Command, content: Iterator[memoryview], take: Take
    ) -> None:
        abstract, syntax = self._association.contexts[number]
        if abstract == command.sop_class_uid != self._model:
            status = take(syntax, (abstract, command.sop_uid), content)
        else:
            status = 0x0122
        for _ in content:
            pass
        if not status and command.sop_uid not in self._kept:
            self._kept.add(command.sop_uid)
            self._progressed = time.monotonic()
        self._association.send(number, dimse.respond(command, status))

    def _count(self, done: int) -> None:
        if done > self._done:
            self._done, self._progressed = done, time.monotonic()

    def _result(self, said: Command) -> Retrieved:
        if said.status not in {0, SOME_FAILED}:
            raise self._line.refusal(self._name, said.status)
        result = Retrieved(completed=said.completed, failed=said.failed, warned=said.warned)
        if result.failed or result.warned:
            log.warning(
                "%s: %s sent %d objects, %d with a warning, and could not send %d",
                *(self._line.peer.name, self._name),
                *(result.completed + result.warned, result.warned, result.failed),
            )
        return result


def _identifier(level: str, keys: Mapping[str, str], *, implicit: bool) -> bytes:
    ds = Dataset()
    ds.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(ds, keyword, value)
    encoded = DicomBytesIO()
    encoded.is_implicit_VR, encoded.is_little_endian = implicit, True
    write_dataset(encoded, ds)
    return encoded.getvalue()


def _answer(line: Line, content: bytes, keys: Mapping[str, str], *, implicit: bool) -> Answer:
    try:
        with tolerant("an answer"):
            ds = read_dataset(io.BytesIO(content), implicit, True)
            return {keyword: values for keyword in keys if (values := scalars(ds, keyword))}
    except UnreadableDicom as error:
        raise ArchiveUnavailable(
            f"{line.peer.name}: an answer to C-FIND cannot be read; look at its log"
        ) from error
