"""The objects of one STOW-RS request: parts in, outcomes and their list out (PS3.18 10.5).

It waits for the disk and runs in a thread of its own. Every object is kept, or not, by the same
intake as one that came by C-STORE, with the same statuses.
"""

import json
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from pynetdicom import AllStoragePresentationContexts
from starlette.exceptions import HTTPException

from app.dicom.dimse import TRANSFER_SYNTAXES, Status
from app.dicom.file_meta import MOST, FileMeta, read_file_meta
from app.door.incoming import Incoming, Outcome
from app.door.intake import Intake
from app.door.multipart import MultipartReader
from app.errors import UnreadableDicom

SYNTAX_NOT_SUPPORTED = 0xC122
"""PS3.18 I.2.2: the transfer syntax is not one of ours; a deflated object is one such."""
CLASS_NOT_SUPPORTED = 0x0122
RETRY_HELPS = {Status.OUT_OF_RESOURCES, Status.OUR_FAULT}

STORAGE_CLASSES = frozenset(str(each.abstract_syntax) for each in AllStoragePresentationContexts)
SYNTAXES = frozenset(map(str, TRANSFER_SYNTAXES))

REFERENCED_SOP_SEQUENCE = "00081199"
FAILED_SOP_SEQUENCE = "00081198"
OTHER_FAILURES_SEQUENCE = "0008119A"
REFERENCED_SOP_CLASS_UID = "00081150"
REFERENCED_SOP_INSTANCE_UID = "00081155"
FAILURE_REASON = "00081197"


class Upload:
    """What one request brought so far; used by one thread."""

    def __init__(
        self, intake: Intake, *, source: str, study_uid: str | None, boundary: bytes, max_parts: int
    ) -> None:
        self._intake = intake
        self._source = source
        self._study_uid = study_uid
        self._reader = MultipartReader(boundary, self, max_parts)
        self._part = ExitStack()
        self._incoming: Incoming | None = None
        self._meta: FileMeta | None = None
        self._head = bytearray()
        self._refused: tuple[int, str] | None = None
        self._stored: list[FileMeta] = []
        self._failed: list[tuple[FileMeta | None, int]] = []
        self.studies: set[str] = set()
        self.answers: Counter[str] = Counter()
        """For the log: how many were kept, held before, or refused with what."""

    def take(self, pieces: Iterable[bytes]) -> HTTPException | None:
        """Take the body; return what is wrong with it, if anything. What is kept stays kept."""
        try:
            for piece in pieces:
                self._reader.write(piece)
        except HTTPException as refusal:
            return refusal
        finally:
            self._leave()  # an object without its end
        if not self._reader.complete:
            return HTTPException(400, "the body ends without its closing boundary")
        if not self.touched:
            return HTTPException(400, "the body has no parts")
        return None

    @property
    def touched(self) -> bool:
        """Whether there is anything to list."""
        return bool(self._stored or self._failed)

    @property
    def status(self) -> int:
        """The status of a request that was read to its end."""
        if not self._failed:
            return 200
        if self._stored:
            return 202
        return 503 if all(reason in RETRY_HELPS for _, reason in self._failed) else 409

    def listed(self) -> bytes:
        """Return the answer in DICOM JSON: what is kept, what is not and why."""
        lists = {
            REFERENCED_SOP_SEQUENCE: [_reference(meta) for meta in self._stored],
            FAILED_SOP_SEQUENCE: [
                _reference(meta) | _reason(reason) for meta, reason in self._failed if meta
            ],
            OTHER_FAILURES_SEQUENCE: [
                _reason(reason) for meta, reason in self._failed if meta is None
            ],
        }
        answer = {tag: {"vr": "SQ", "Value": items} for tag, items in lists.items() if items}
        return json.dumps(answer, separators=(",", ":")).encode()

    # -- what the reader tells ---------------------------------------------------------------

    def begin(self, headers: dict[str, str]) -> None:
        """Start with a part; a refused one is read to its end and forgotten."""
        self._leave()
        kind = headers.get("content-type", "application/dicom").split(";")[0].strip().lower()
        if kind != "application/dicom":
            self._refused = Status.UNREADABLE, "its media type is not application/dicom"
        elif not _plain(headers):
            self._refused = Status.UNREADABLE, "it is encoded; send it as it is"

    def write(self, piece: memoryview) -> None:
        """Take bytes of the part."""
        if self._incoming is not None:
            self._incoming.write(piece)
        elif self._refused is None:
            self._head += piece
            self._open()

    def end(self) -> None:
        """Come to a verdict on the part."""
        if self._incoming is not None:
            self._note(self._incoming.finish())
        else:
            status, words = self._refused or (Status.UNREADABLE, "it ends inside its file meta")
            self._intake.refusals.note(self._source, f"{status:04X}: {words}")
            self._failed.append((self._meta, status))
            self.answers[f"refused with {status:04X}"] += 1
        self._leave()

    # -- inside ------------------------------------------------------------------------------

    def _open(self) -> None:
        """Hand the object to the intake as soon as its file meta is there."""
        try:
            self._meta = meta = read_file_meta(self._head)
        except UnreadableDicom as error:
            self._refused = Status.UNREADABLE, str(error)
            return
        if meta is None:
            if len(self._head) > MOST:
                self._refused = Status.UNREADABLE, "its file meta is too long"
            return
        if meta.sop_class_uid not in STORAGE_CLASSES:
            self._refused = CLASS_NOT_SUPPORTED, "its SOP class is not accepted"
        elif meta.transfer_syntax not in SYNTAXES:
            self._refused = SYNTAX_NOT_SUPPORTED, "its transfer syntax is not accepted"
        else:
            self._incoming = self._part.enter_context(
                self._intake.begin(
                    meta.transfer_syntax,
                    claimed=(meta.sop_class_uid, meta.sop_uid),
                    source=self._source,
                    study_uid=self._study_uid,
                )
            )
            self._incoming.write(memoryview(self._head)[meta.dataset_at :])
        self._head = bytearray()

    def _note(self, outcome: Outcome) -> None:
        assert self._meta is not None  # noqa: S101  # for the type checker
        if outcome.status is Status.SUCCESS:
            self._stored.append(self._meta)
            self.answers["kept" if outcome.new else "held before"] += 1
        else:
            self._failed.append((self._meta, outcome.status))
            self.answers[f"refused with {outcome.status:04X}"] += 1
        if outcome.study_uid is not None:
            self.studies.add(outcome.study_uid)

    def _leave(self) -> None:
        """Forget the part; of an object without its verdict nothing remains."""
        self._part.close()
        self._incoming = self._meta = self._refused = None
        self._head = bytearray()


def _plain(headers: dict[str, str]) -> bool:
    encoding = headers.get("content-encoding", "identity").lower()
    transfer = headers.get("content-transfer-encoding", "binary").lower()
    return encoding == "identity" and transfer in {"binary", "8bit", "7bit"}


def _reference(meta: FileMeta) -> dict[str, Any]:
    return {
        REFERENCED_SOP_CLASS_UID: {"vr": "UI", "Value": [meta.sop_class_uid]},
        REFERENCED_SOP_INSTANCE_UID: {"vr": "UI", "Value": [meta.sop_uid]},
    }


def _reason(reason: int) -> dict[str, Any]:
    return {FAILURE_REASON: {"vr": "US", "Value": [int(reason)]}}
