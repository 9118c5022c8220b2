"""Studies from archives by C-FIND, C-GET and C-MOVE: a real Orthanc and dcmtk's dcmqrscp.

Covered: what is listed and counted, objects byte for byte in plain and compressed syntaxes, some
objects of a series, a retrieval that is cut short and then completed, and what an archive refuses.
Not covered: archives that break the protocol (test_dimse_faults), and TLS beyond one C-ECHO.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from app.config_archives import DimseArchive
from app.errors import ArchiveRefused, ArchiveUnavailable
from app.fetch.dimse import DimseRemote
from app.store.jobs import RemoteState
from tests.node import SETTINGS
from tests.node import running as node
from tests.peers import Orthanc, require
from tests.sockets.pulls import NODE, Site, dcmqrscp, digests, orthanc, part10, site
from tests.sockets.scu import CANARY, Made, image, new_study
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
COMPRESSED = (JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless)


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Site]:
    """A door and its job log."""
    with site(tmp_path / "site") as running:
        yield running


def study(*syntaxes: str, each: int = 2) -> list[Made]:
    """Make a study of one series, with objects in all of these syntaxes."""
    uid = new_study()
    return [image(uid, syntax) for syntax in syntaxes for _ in range(each)]


# -- Orthanc -------------------------------------------------------------------------------------


@pytest.mark.orthanc
def test_orthanc_is_asked_and_gives_each_object_once(ours: Site) -> None:
    """Listed, counted, and the very bytes by C-GET and by C-MOVE, compressed ones too."""
    require("Orthanc")
    first, second = study(*PLAIN, *COMPRESSED), study(*PLAIN, *COMPRESSED)
    with orthanc(ours.door.port, [*first, *second]) as archive:
        getting = ours.remote(archive.dicom_port, "ORTHANC")
        moving = ours.remote(archive.dicom_port, "ORTHANC", retrieve="move")
        counts = {first[0].study_uid: 12, second[0].study_uid: 12}
        assert [*getting.studies({})] == [counts]
        assert [*getting.studies({"StudyDate": "19000101-19000102"})] == [{}]
        for remote, objects in ((getting, first), (moving, second)):
            uid = objects[0].study_uid
            assert remote.count(uid) == 12
            (series,) = remote.series(uid)
            assert series["SeriesInstanceUID"] == (f"{uid}.1",)
            assert series["NumberOfSeriesRelatedInstances"] == (12,)
            assert remote.headers(uid, f"{uid}.1") is None
            for _ in range(2):  # the second time all are held before
                assert ours.fetch(remote, uid) == {each.sop_uid for each in objects}
        for objects in (first, second):
            assert ours.digests_of(objects) == digests(objects)
        assert CANARY not in ours.door.output()


@pytest.mark.orthanc
@pytest.mark.parametrize("way", ["get", "move"])
def test_some_objects_of_a_series_are_fetched(ours: Site, way: str) -> None:
    """What an earlier try left out, and nothing else."""
    require("Orthanc")
    objects = study(ExplicitVRLittleEndian, each=5)
    wanted = {each.sop_uid for each in objects[1:3]}
    with orthanc(ours.door.port, objects) as archive:
        remote = ours.remote(archive.dicom_port, "ORTHANC", retrieve=way)
        assert ours.fetch(remote, objects[0].study_uid, sorted(wanted)) == wanted
    assert ours.held(objects[0].study_uid) == wanted


@pytest.mark.orthanc
def test_a_move_to_where_nobody_is_says_what_to_look_at(ours: Site) -> None:
    """The door's port is not the one that Orthanc knows; another title it does not know at all."""
    require("Orthanc")
    objects = study(ExplicitVRLittleEndian)
    with orthanc(9, objects) as archive:
        remote = ours.remote(archive.dicom_port, "ORTHANC", retrieve="move")
        with pytest.raises(ArchiveUnavailable, match="C-MOVE"):
            ours.fetch(remote, objects[0].study_uid)
        stranger = ours.remote(archive.dicom_port, "ORTHANC", calling_ae_title="NOBODY")
        with pytest.raises(ArchiveUnavailable, match="knows our AE title NOBODY"):
            [*stranger.studies({})]


# -- dcmtk ---------------------------------------------------------------------------------------


@pytest.mark.dcmtk
@pytest.mark.parametrize("way", ["get", "move"])
def test_dcmqrscp_gives_each_object_once(ours: Site, tmp_path: Path, way: str) -> None:
    """The same with an archive that does not count."""
    require("dcmqrscp", "storescu")
    objects = study(ExplicitVRLittleEndian, each=4)  # it would rewrite the others
    uid = objects[0].study_uid
    with dcmqrscp(tmp_path / "qr", ours.door.port, objects) as archive:
        remote = ours.remote(archive.dicom_port, archive.ae_title, retrieve=way)
        assert [uid in page for page in remote.studies({})] == [True]
        assert remote.count(uid) == 4
        assert ours.fetch(remote, uid) == {each.sop_uid for each in objects}
        assert ours.digests_of(objects) == digests(objects)


@pytest.mark.dcmtk
def test_dcmqrscp_does_not_know_another_destination(ours: Site, tmp_path: Path) -> None:
    """The sentence says what to do there."""
    require("dcmqrscp", "storescu")
    objects = study(ExplicitVRLittleEndian)
    with dcmqrscp(tmp_path / "qr", ours.door.port, objects) as archive:
        settings = {"host": "127.0.0.1", "port": archive.dicom_port, "retrieve": "move"}
        configured = DimseArchive(kind="dimse", ae_title=archive.ae_title, **settings)
        remote = DimseRemote("pacs", configured, destination="ELSEWHERE", held=ours.held)
        with pytest.raises(ArchiveRefused, match="register our AE title"):
            ours.fetch(remote, objects[0].study_uid)


# -- the whole node ------------------------------------------------------------------------------


@pytest.mark.orthanc
@pytest.mark.parametrize("way", ["get", "move"])
def test_a_node_fetches_what_its_archive_lists(tmp_path: Path, way: str) -> None:
    """A source may be an archive that speaks DIMSE; the study ends in the same job log."""
    require("Orthanc")
    objects = study(ExplicitVRLittleEndian, JPEG2000Lossless)
    uid = objects[0].study_uid
    with Orthanc() as archive:
        for each in objects:
            archive.put(part10(each))
        speaks = {"kind": "dimse", "host": "127.0.0.1", "port": archive.dicom_port}
        pacs = speaks | {"ae_title": "ORTHANC", "retrieve": way, "timeout_s": 10}
        settings = {
            "archives": SETTINGS["archives"] | {"pacs": pacs},
            "sources": [{"archive": "pacs", "poll_s": 1, "quiet_s": 0}],
        }
        with node(tmp_path, settings) as ours, ours.store() as store:
            archive.introduce(NODE, ours.port)

            def fetched() -> bool:
                return [each.state for each in store.remotes(uid)] == [RemoteState.FETCHED]

            wait_until(fetched, 60, "the study in the job log")
            rows = {row.sop_uid: (row.transfer_syntax, row.sha256) for row in store.instances(uid)}
        archive.kill()
    assert rows == digests(objects)
