"""An archive that is a folder, searched and read by dicomweb-client's DICOMfileClient.

That client writes files in place and keeps its index without syncing, so that a power cut or a
reader at the wrong moment would find half a file. Here it writes into a staging folder instead;
the file is then synced and renamed to where the client looks for it, and the index is synced.
"""

import fcntl
import os
import pickle
import shutil
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pydicom
from dicomweb_client import DICOMfileClient
from pydicom.dataset import Dataset

from app.dicom.encoded import Identifiers
from app.errors import ArchiveUnavailable, ConfigError, DeliveryRefused
from app.files import make_folder, sync_file, sync_folder

INDEX = ".dicom-file-client.db"
STAGING, LOCK = ".staging", ".lock"


class FolderStore:
    """The folder of one archive; processes and threads take turns."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._folder = folder.resolve()
        if {"#", "?"} & {*str(self._folder)}:
            raise ConfigError(f"archives.{name}.path: '#' and '?' cannot stand in a folder's URL")

    def store(self, files: Sequence[Path], uids: Sequence[Identifiers]) -> None:
        """Store the files; when this returns they are on stable storage and can be searched."""
        try:
            make_folder(self._folder)
            with self._alone():
                self._store(files)
                missing = [each.sop_uid for each in uids if not self._lists(each)]
        except sqlite3.Error as error:
            raise ArchiveUnavailable(f"{self._name}: its index is in the way: {error}") from error
        except OSError as error:
            raise ArchiveUnavailable(
                f"{self._name}: {error.strerror or type(error).__name__} in {self._folder}; "
                "look at the folder's disk and rights"
            ) from error
        if missing:
            raise ArchiveUnavailable(f"{self._name}: does not list {', '.join(missing)}")

    def _store(self, files: Sequence[Path]) -> None:
        staging = self._folder / STAGING
        shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed
        with self._client(self._folder):
            pass  # makes the index of what is there already, should it be missing
        make_folder(staging)
        with self._client(staging) as client:
            for file in files:
                self._stage(client, pydicom.dcmread(file))
        for path in sorted(path for path in staging.rglob("*") if path.is_file()):
            _publish(path, self._folder / path.relative_to(staging))
        shutil.rmtree(staging)
        self._sync_index()

    def _stage(self, client: DICOMfileClient, ds: Dataset) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # how it calls pydicom's dcmwrite
            answer = client.store_instances([ds])
        if "FailedSOPSequence" in answer:
            raise DeliveryRefused(f"{self._name}: {ds.SOPInstanceUID} cannot be written as DICOM")

    def _lists(self, uids: Identifiers) -> bool:
        with self._client(self._folder) as client:
            found = client.search_for_instances(
                uids.study_uid, uids.series_uid, search_filters={"SOPInstanceUID": uids.sop_uid}
            )
            return bool(found) and _path(self._folder, uids).is_file()

    @contextmanager
    def _client(self, base: Path) -> Iterator[DICOMfileClient]:
        """Open the client for files under `base`, with the archive's index."""
        try:
            client = DICOMfileClient(f"file://{base}", db_dir=self._folder)
        except sqlite3.OperationalError:
            raise  # locked, or no space
        except sqlite3.DatabaseError:
            # damaged by a power cut: the files are what counts, it is made anew from them
            for part in self._folder.glob(f"{INDEX}*"):
                part.unlink()
            client = DICOMfileClient(f"file://{base}", db_dir=self._folder)
        try:
            yield client
        finally:
            pickle.dumps(client)  # the one public way to have it close its connection

    @contextmanager
    def _alone(self) -> Iterator[None]:
        fd = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # held by the open file: between threads as well
            yield
        finally:
            os.close(fd)

    def _sync_index(self) -> None:
        for part in (INDEX, f"{INDEX}-wal"):
            if (path := self._folder / part).exists():
                sync_file(path)
        sync_folder(self._folder)


def _path(folder: Path, uids: Identifiers) -> Path:
    """Return where the client puts an object."""
    series = folder / "studies" / uids.study_uid / "series" / uids.series_uid
    return series / "instances" / uids.sop_uid


def _publish(staged: Path, path: Path) -> None:
    staged.chmod(0o600)
    sync_file(staged)
    make_folder(path.parent)
    staged.rename(path)
    sync_folder(path.parent)
