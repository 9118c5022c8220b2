"""Results to archives that are folders.

Covered: that a client opened later finds and reads them, repetition, turns, repair of the index,
leftovers of a killed delivery. Not covered: a power cut (needs a disk image), network file systems.
"""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest
from dicomweb_client import DICOMfileClient

from app.config_archives import ArchiveConfig, FilesArchive, FolderArchive
from app.dicom.folder import INDEX, LOCK, STAGING
from app.errors import ArchiveUnavailable
from app.pipeline.deliver import deliver
from tests.sockets.results import result, uid_of


def listed(folder: Path, path: Path) -> list[str]:
    """Ask a client that is opened now for the object."""
    ds = pydicom.dcmread(path)
    client = DICOMfileClient(f"file://{folder}")
    found = client.search_for_instances(
        ds.StudyInstanceUID,
        ds.SeriesInstanceUID,
        search_filters={"SOPInstanceUID": ds.SOPInstanceUID},
    )
    return [each["00080018"]["Value"][0] for each in found]


def retrieved(folder: Path, path: Path) -> object:
    """Retrieve the object by a client that is opened now."""
    ds = pydicom.dcmread(path)
    uids = ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID
    return DICOMfileClient(f"file://{folder}").retrieve_instance(*uids)


def folder_archive(tmp_path: Path) -> FolderArchive:
    """Return the configuration of a folder with a space in its name."""
    return FolderArchive(kind="folder", path=tmp_path / "the archive")


def test_a_folder_archive_is_read_by_a_client_opened_later(tmp_path: Path) -> None:
    """Searched and retrieved, with nothing else left in the folder."""
    archive = folder_archive(tmp_path)
    paths = [result(tmp_path), result(tmp_path, size=2 << 20)]
    receipt = deliver(paths, "local", archive)
    assert receipt.proved
    assert "lists all 2 objects" in receipt.told
    for path in paths:
        assert listed(archive.path, path) == [uid_of(path)]
        assert retrieved(archive.path, path) == pydicom.dcmread(path)
    hidden = {path.name for path in archive.path.iterdir() if path.name.startswith(".")}
    assert hidden <= {INDEX, f"{INDEX}-wal", f"{INDEX}-shm", LOCK}


def stored_files(folder: Path) -> list[Path]:
    """Return the objects' files."""
    return [path for path in (folder / "studies").rglob("*") if path.is_file()]


def test_a_folder_archive_holds_an_object_once(tmp_path: Path) -> None:
    """However often it is delivered."""
    archive = folder_archive(tmp_path)
    path = result(tmp_path)
    for _ in range(3):
        deliver([path], "local", archive)
    assert len(stored_files(archive.path)) == 1
    assert listed(archive.path, path) == [uid_of(path)]


def test_deliveries_to_one_folder_take_turns(tmp_path: Path) -> None:
    """Ten at once: none lost, none in another's way."""
    archive = folder_archive(tmp_path)
    paths = [result(tmp_path) for _ in range(10)]
    with ThreadPoolExecutor(10) as pool:
        receipts = [*pool.map(lambda path: deliver([path], "local", archive), paths)]
    assert all(receipt.proved for receipt in receipts)
    assert len(stored_files(archive.path)) == 10
    assert all(listed(archive.path, path) == [uid_of(path)] for path in paths)


@pytest.mark.parametrize("damage", [b"", b"no database at all" * 100])
def test_a_lost_or_damaged_index_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    """The files are what counts; what was delivered before is found again."""
    archive = folder_archive(tmp_path)
    before, after = result(tmp_path), result(tmp_path)
    deliver([before], "local", archive)
    for part in archive.path.glob(f"{INDEX}*"):
        part.unlink()
    if damage:
        (archive.path / INDEX).write_bytes(damage)
    deliver([after], "local", archive)
    assert listed(archive.path, before) == [uid_of(before)]
    assert listed(archive.path, after) == [uid_of(after)]


def test_what_a_killed_delivery_left_does_not_get_in(tmp_path: Path) -> None:
    """Half a file in the staging folder is nobody's result."""
    archive = folder_archive(tmp_path)
    left = archive.path / STAGING / "studies" / "1.2.3" / "half"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    path = result(tmp_path)
    deliver([path], "local", archive)
    assert len(stored_files(archive.path)) == 1
    assert not (archive.path / STAGING).exists()


def test_a_folder_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    """The disk may come back; the sentence says which folder."""
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    kinds: list[ArchiveConfig] = [
        FolderArchive(kind="folder", path=blocked / "archive"),
        FilesArchive(kind="files", path=blocked / "archive"),
    ]
    for archive in kinds:
        with pytest.raises(ArchiveUnavailable, match="disk and rights"):
            deliver([result(tmp_path)], "local", archive)


def test_a_locked_index_is_tried_again(tmp_path: Path) -> None:
    """Somebody else works in the index; ours is not made anew over it."""
    archive = folder_archive(tmp_path)
    before = result(tmp_path)
    deliver([before], "local", archive)
    other = sqlite3.connect(archive.path / INDEX, isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ArchiveUnavailable):
            deliver([result(tmp_path)], "local", archive)
    finally:
        other.close()
    assert listed(archive.path, before) == [uid_of(before)]


def test_a_plain_folder_gets_one_file_an_object(tmp_path: Path) -> None:
    """Named by its UID, byte by byte, and the same again when it is repeated."""
    archive = FilesArchive(kind="files", path=tmp_path / "out")
    paths = [result(tmp_path), result(tmp_path)]
    for _ in range(2):
        receipt = deliver(paths, "output", archive)
    assert "2 files written" in receipt.told
    assert {path.name: path.read_bytes() for path in archive.path.iterdir()} == {
        path.name: path.read_bytes() for path in paths
    }
