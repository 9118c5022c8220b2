"""Results → archive, until the archive proves that it holds them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.config import (
    ArchiveConfig,
    DicomwebArchive,
    DimseArchive,
    FilesArchive,
    FolderArchive,
)
from app.dicom.dicomweb import Dicomweb
from app.dicom.encoded import Identifiers
from app.dicom.folder import FolderStore
from app.dicom.part10 import read_part10
from app.dicom.send import send
from app.errors import ArchiveUnavailable, DeliveryRefused
from app.files import durable, make_folder
from app.pipeline.access import connect
from app.pipeline.line import line_to


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What an archive holds by its own word."""

    destination: str
    sop_uids: tuple[str, ...]
    proof: str
    """A sentence: who says so."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return asdict(self) | {"sop_uids": list(self.sop_uids)}


def deliver(files: Sequence[Path], name: str, archive: ArchiveConfig) -> Receipt:
    """Bring Part 10 files to the archive called `name`; the receipt is the proof.

    Doing it again is harmless: the same objects go to the same places.
    """
    uids = [read_part10(file).identifiers for file in files]
    match archive:
        case FolderArchive():
            FolderStore(name, archive.path).store(files, uids)
            proof = f"{archive.path} lists {_objects(uids)}"
        case FilesArchive():
            _copy(files, uids, name, archive.path)
            proof = f"{_objects(uids)} written to {archive.path}"
        case DicomwebArchive():
            proof = _send(files, uids, name, archive)
        case DimseArchive():
            proof = f"{archive.ae_title.strip()} {send(line_to(name, archive), files)}"
    return Receipt(destination=name, sop_uids=tuple(each.sop_uid for each in uids), proof=proof)


def _objects(uids: Sequence[Identifiers]) -> str:
    return "the object" if len(uids) == 1 else f"all {len(uids)} objects"


def _copy(files: Sequence[Path], uids: Sequence[Identifiers], name: str, folder: Path) -> None:
    try:
        make_folder(folder)
        for file, each in zip(files, uids, strict=True):
            with durable(folder / f"{each.sop_uid}.dcm") as copy:
                copy.write(file.read_bytes())
    except OSError as error:
        raise ArchiveUnavailable(
            f"{name}: {error.strerror} in {folder}; look at the folder's disk and rights"
        ) from error


def _send(
    files: Sequence[Path], uids: Sequence[Identifiers], name: str, archive: DicomwebArchive
) -> str:
    with connect(Dicomweb, name, archive) as client:
        sent = [_send_one(client, file, each) for file, each in zip(files, uids, strict=True)]
        missing = [each.sop_uid for each in uids if not client.holds(each)]
    if missing:
        raise ArchiveUnavailable(f"{name}: does not list {', '.join(missing)} (yet)")
    before = f", {sent.count(False)} of them before this try" if not all(sent) else ""
    return f"{archive.url} lists {_objects(uids)} (QIDO-RS){before}"


def _send_one(client: Dicomweb, file: Path, uids: Identifiers) -> bool:
    """Send one object unless it is held already; return whether it was sent.

    An earlier try may have arrived although its answer was lost. Some archives refuse an object
    that they have, so that after a refusal they are asked as well.
    """
    if client.holds(uids):
        return False
    try:
        client.store(file, uids)
    except DeliveryRefused:
        if not client.holds(uids):
            raise
    return True
