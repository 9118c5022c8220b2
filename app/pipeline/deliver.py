"""Results → archive: one try to bring them there, and who says that it holds them.

Couriers (app.couriers) decide when; here is how. Doing it again is harmless: the same objects go to
the same places, and what an archive lists already is not sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.config_archives import (
    ArchiveConfig,
    DicomwebArchive,
    DimseArchive,
    FilesArchive,
    FolderArchive,
)
from app.dicom.dicomweb import Dicomweb
from app.dicom.encoded import Identifiers
from app.dicom.folder import FolderStore
from app.dicom.part10 import patient_id, read_part10
from app.dicom.send import all_of, send
from app.errors import (
    ArchiveUnavailable,
    DeliveryRefused,
    FormRefused,
    NotShownYet,
    ResultRejected,
)
from app.files import durable, make_folder
from app.pipeline.access import connect
from app.pipeline.line import line_to


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What an archive says of one delivery."""

    told: str
    """A sentence: who says so."""
    proved: bool
    """Whether that shows that it holds all; else it must be asked to commit itself."""


def identifiers(files: Sequence[Path]) -> list[Identifiers]:
    """Return what names each Part 10 file."""
    return [read_part10(file).identifiers for file in files]


def deliver(
    files: Sequence[Path],
    name: str,
    archive: ArchiveConfig,
    tables: Mapping[str, Path] | None = None,
) -> Receipt:
    """Bring Part 10 files, and tables by the names they get, to the archive called `name`."""
    tables = tables or {}
    _are_there([*files, *tables.values()])
    uids = identifiers(files)
    match archive:
        case FolderArchive():
            FolderStore(name, archive.path).store(files, uids)
            told = f"{archive.path} lists {all_of(uids)}"
        case FilesArchive():
            named = {f"{each.sop_uid}.dcm": file for each, file in zip(uids, files, strict=True)}
            _copy(named | dict(tables), name, archive.path)
            told = f"{len(named) + len(tables)} files written to {archive.path}"
        case DicomwebArchive():
            told = _send(files, uids, name, archive)
        case DimseArchive():
            said = send(line_to(name, archive), files, archive.proof)
            proved = archive.proof != "commitment"
            return Receipt(told=f"{archive.ae_title.strip()} {said}", proved=proved)
    return Receipt(told=told, proved=True)


def _are_there(files: Sequence[Path]) -> None:
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ResultRejected(
            f"{', '.join(missing)} is not in the job's folder; `retry` the job with `--from infer`"
        )


def _copy(files: Mapping[str, Path], name: str, folder: Path) -> None:
    try:
        make_folder(folder)
        for file_name, file in files.items():
            with durable(folder / file_name) as copy:
                copy.write(file.read_bytes())
    except OSError as error:
        raise ArchiveUnavailable(
            f"{name}: {error.strerror} in {folder}; look at the folder's disk and rights"
        ) from error


def _send(
    files: Sequence[Path], uids: Sequence[Identifiers], name: str, archive: DicomwebArchive
) -> str:
    patients = {patient_id(file) for file in files}
    with connect(Dicomweb, name, archive) as client:
        sent = [_send_one(client, file, each) for file, each in zip(files, uids, strict=True)]
        missing = [each.sop_uid for each in uids if not client.holds(each)]
        warnings = sorted(client.warnings)
        if client.patients - patients:
            warnings.append("it keeps the result under another patient ID than its source has")
    if missing:
        raise NotShownYet(f"{name}: does not list {', '.join(missing)} (yet)")
    before = f", {sent.count(False)} of them before this try" if not all(sent) else ""
    warned = "".join(f", with a warning: {each}" for each in warnings)
    return f"{archive.url} lists {all_of(uids)} (QIDO-RS){before}{warned}"


def _send_one(client: Dicomweb, file: Path, uids: Identifiers) -> bool:
    """Send one object unless it is held already; return whether it was sent.

    An earlier try may have arrived although its answer was lost. Some archives refuse an object
    that they have, so that after a refusal they are asked as well.
    """
    if client.holds(uids):
        return False
    try:
        client.store(file, uids)
    except FormRefused:
        raise
    except DeliveryRefused:
        if not client.holds(uids):
            raise
    return True
