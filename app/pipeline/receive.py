"""Bytes → spool: what arrived, where it is put, and what a start finds there."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from app.dicom.encoded import Identifiers
from app.dicom.part10 import dataset_sha256, read_part10
from app.files import PARTIAL, make_folder, read_json, sync_folder

SPOOL, QUARANTINE = "spool", "quarantine"
REMOVING = "removing"
"""Folder in the data folder with lists of files that are being removed."""
FOLDERS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """An object that came in whole; digest and size are of the data set as it was sent."""

    identifiers: Identifiers
    transfer_syntax: str
    sha256: str
    size: int


def spool_name() -> str:
    """Return a fresh relative path in the spool; nothing in it comes from the sender.

    All objects of one minute share a folder: what ends together is then put on stable storage by
    one sync of it. After 256 minutes the first folder is used again, so that none grows too large.
    """
    name = f"{int(time.time()) // 60 % FOLDERS:02x}{uuid4().hex[2:]}"
    return f"{SPOOL}/{name[:2]}/{name}.dcm"


def quarantine_name(arrived: Arrived) -> str:
    """Return where other content of a held UID is put; sent again, it goes to the same file."""
    text = f"{arrived.identifiers.sop_uid}/{arrived.transfer_syntax}/{arrived.sha256}"
    return f"{QUARANTINE}/{hashlib.sha256(text.encode()).hexdigest()[:32]}.dcm"


def put_aside(data_folder: Path, file: str, target: str) -> None:
    """Move a kept file to `target`, durably."""
    source, goal = data_folder / file, data_folder / target
    make_folder(goal.parent)
    source.rename(goal)
    sync_folder(goal.parent)
    sync_folder(source.parent)


def being_removed(data_folder: Path) -> set[str]:
    """Return the files whose rows may be gone while they are not: they are no new arrivals."""
    lists = (data_folder / REMOVING).glob("*.json")
    return {file for each in lists for file in read_json(each)}


def prepare(data_folder: Path) -> None:
    """Make the folders beforehand and remove files whose writing was cut short.

    Nobody was told that such a file is kept. A folder made by a process that was then killed may
    not have reached the disk, hence the syncs.
    """
    make_folder(data_folder / QUARANTINE)
    for number in range(FOLDERS):
        make_folder(data_folder / SPOOL / f"{number:02x}")
    for folder in (data_folder, data_folder / SPOOL):
        sync_folder(folder)
    for pattern in (f"{SPOOL}/*/*{PARTIAL}", f"{QUARANTINE}/*{PARTIAL}"):
        for path in data_folder.glob(pattern):
            path.unlink(missing_ok=True)


def read_spooled(data_folder: Path, file: str) -> Arrived:
    """Say of a spooled file what was said when it came in; a broken file is refused."""
    found = read_part10(data_folder / file)
    return Arrived(
        identifiers=found.identifiers,
        transfer_syntax=found.transfer_syntax,
        sha256=dataset_sha256(data_folder / file),
        size=found.size,
    )
