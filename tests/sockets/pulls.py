"""A site for tests of DIMSE: a real door, its job log, an intake beside it, and an archive."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from app.config_archives import DimseArchive
from app.dicom.part10 import header
from app.door.intake import Intake
from app.fetch.dimse import DimseRemote
from tests.peers import Dcmqrscp, Orthanc, storescu
from tests.sockets.doors import Door
from tests.sockets.scu import Made

NODE = "MARGINALIA"


class Site:
    """Our side: what arrives, by whatever way, is in one job log."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.door = Door(folder, limits={"free_gb": 0}).start()
        self.intake = Intake(self.door.data, self.door.store)

    def remote(self, port: int, ae_title: str, **settings: Any) -> DimseRemote:
        """Return an archive that may be asked."""
        given = {"host": "127.0.0.1", "calling_ae_title": NODE, "timeout_s": 10.0} | settings
        archive = DimseArchive(kind="dimse", port=port, ae_title=ae_title, **given)
        return DimseRemote("pacs", archive, destination=NODE, held=self.held)

    def held(self, study_uid: str) -> set[str]:
        """Return the UIDs that the job log has of a study."""
        return {row.sop_uid for row in self.door.rows(study_uid)}

    def fetch(self, remote: DimseRemote, study_uid: str, only: Sequence[str] = ()) -> set[str]:
        """Retrieve the one series of a study."""
        keep = partial(self.intake.begin, source="pacs", study_uid=study_uid)
        return remote.retrieve(study_uid, f"{study_uid}.1", keep, only)

    def digests_of(self, objects: Sequence[Made]) -> dict[str, tuple[str, str]]:
        """Return syntax and SHA-256 of what the job log has of the study of these objects."""
        rows = self.door.rows(objects[0].study_uid)
        return {row.sop_uid: (row.transfer_syntax, row.sha256) for row in rows}


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Run a door until the end of the block."""
    made = Site(folder)
    with made.door, closing(made.intake):
        yield made


def digests(objects: Sequence[Made]) -> dict[str, tuple[str, str]]:
    """Return what `Site.digests` must say of these objects."""
    return {
        each.sop_uid: (each.syntax, hashlib.sha256(each.dataset).hexdigest()) for each in objects
    }


def part10(made: Made) -> bytes:
    """Return the object as a file."""
    return header(made.sop_class, made.sop_uid, made.syntax) + made.dataset


@contextmanager
def orthanc(door_port: int, objects: Sequence[Made]) -> Iterator[Orthanc]:
    """Run an Orthanc that holds the objects and knows our door."""
    with Orthanc() as archive:
        archive.introduce(NODE, door_port)
        for each in objects:
            archive.put(part10(each))
        yield archive
        archive.kill()  # its orderly end takes seconds


@contextmanager
def dcmqrscp(folder: Path, door_port: int, objects: Sequence[Made]) -> Iterator[Dcmqrscp]:
    """Run dcmtk's archive that holds the objects and knows our door."""
    with Dcmqrscp(folder, ae_title=NODE, port=door_port) as archive:
        files = folder / "sent"
        files.mkdir()
        for each in objects:
            (files / each.sop_uid).write_bytes(part10(each))
        sent = storescu(archive.dicom_port, [files], called=archive.ae_title)
        assert sent.returncode == 0, sent.stderr
        yield archive
