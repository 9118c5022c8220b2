"""The parts of a multipart body, each an object for the intake (PS3.18 8.6.1.2.1).

Bodies come from senders (STOW-RS) and from archives that are asked (WADO-RS): the checks, the
durability and what is put aside are the same.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol

from pynetdicom import AllStoragePresentationContexts

from app.dicom.dimse import TRANSFER_SYNTAXES, Status
from app.dicom.file_meta import MOST, FileMeta, read_file_meta
from app.door.incoming import Incoming, Outcome
from app.errors import UnreadableDicom

SYNTAX_NOT_SUPPORTED = 0xC122
"""PS3.18 I.2.2: the transfer syntax is not one of ours; a deflated object is one such."""
CLASS_NOT_SUPPORTED = 0x0122

STORAGE_CLASSES = frozenset(str(each.abstract_syntax) for each in AllStoragePresentationContexts)
SYNTAXES = frozenset(map(str, TRANSFER_SYNTAXES))


class Keep(Protocol):
    """Where objects go: `Intake.begin` for one source and one study."""

    def __call__(self, transfer_syntax: str, *, claimed: tuple[str, str]) -> Incoming:
        """Let an object in; `claimed` is the SOP class and UID that its sender says it has."""


OnKept = Callable[[FileMeta, Outcome], None]
"""Is told what the intake made of an object."""
OnRefused = Callable[[FileMeta | None, int, str], None]
"""Is told of a part that never came to the intake: status and reason."""


class ObjectParts:
    """Takes the parts that a MultipartReader tells of; used by one thread."""

    def __init__(self, keep: Keep, on_kept: OnKept, on_refused: OnRefused) -> None:
        self._keep = keep
        self._on_kept = on_kept
        self._on_refused = on_refused
        self._part = ExitStack()
        self._incoming: Incoming | None = None
        self._meta: FileMeta | None = None
        self._head = bytearray()
        self._refused: tuple[int, str] | None = None

    def begin(self, headers: dict[str, str]) -> None:
        """Start with a part; a refused one is read to its end and forgotten."""
        self.leave()
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
            assert self._meta is not None  # noqa: S101  # for the type checker
            self._on_kept(self._meta, self._incoming.finish())
        else:
            status, words = self._refused or (Status.UNREADABLE, "it ends inside its file meta")
            self._on_refused(self._meta, status, words)
        self.leave()

    def leave(self) -> None:
        """Forget the part; of an object without its verdict nothing remains."""
        self._part.close()
        self._incoming = self._meta = self._refused = None
        self._head = bytearray()

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
            claimed = meta.sop_class_uid, meta.sop_uid
            self._incoming = self._part.enter_context(
                self._keep(meta.transfer_syntax, claimed=claimed)
            )
            self._incoming.write(memoryview(self._head)[meta.dataset_at :])
        self._head = bytearray()


def _plain(headers: dict[str, str]) -> bool:
    encoding = headers.get("content-encoding", "identity").lower()
    transfer = headers.get("content-transfer-encoding", "binary").lower()
    return encoding == "identity" and transfer in {"binary", "8bit", "7bit"}
