"""The objects of one STOW-RS request: parts in, outcomes and their list out (PS3.18 10.5).

It waits for the disk and runs in a thread of its own. Every object is kept, or not, by the same
intake as one that came by C-STORE, with the same statuses.
"""

import json
from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException

from app.dicom.dimse import Status
from app.dicom.file_meta import FileMeta
from app.door.incoming import Outcome
from app.door.intake import Intake
from app.door.multipart import MultipartReader
from app.door.parts import ObjectParts
from app.door.tally import REFUSED

RETRY_HELPS = {Status.OUT_OF_RESOURCES, Status.OUR_FAULT}

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
        keep = partial(intake.begin, source=source, study_uid=study_uid)
        self._parts = ObjectParts(keep, self._note, self._refuse)
        self._reader = MultipartReader(boundary, self._parts, max_parts)
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
            self._parts.leave()  # an object without its end
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

    # -- what becomes of the parts -------------------------------------------------------------

    def _note(self, meta: FileMeta, outcome: Outcome) -> None:
        if outcome.status is Status.SUCCESS:
            self._stored.append(meta)
            self.answers["kept" if outcome.new else "held before"] += 1
        else:
            self._failed.append((meta, outcome.status))
            self.answers[f"refused with {outcome.status:04X}"] += 1
        if outcome.study_uid is not None:
            self.studies.add(outcome.study_uid)

    def _refuse(self, meta: FileMeta | None, status: int, words: str) -> None:
        self._intake.refusals.note(self._source, f"{status:04X}: {words}")
        self._intake.tally.add(f"{REFUSED} {status:04X}")
        self._failed.append((meta, status))
        self.answers[f"refused with {status:04X}"] += 1


def _reference(meta: FileMeta) -> dict[str, Any]:
    return {
        REFERENCED_SOP_CLASS_UID: {"vr": "UI", "Value": [meta.sop_class_uid]},
        REFERENCED_SOP_INSTANCE_UID: {"vr": "UI", "Value": [meta.sop_uid]},
    }


def _reason(reason: int) -> dict[str, Any]:
    return {FAILURE_REASON: {"vr": "US", "Value": [int(reason)]}}
