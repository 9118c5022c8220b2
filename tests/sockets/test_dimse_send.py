"""Results to DIMSE archives: a real Orthanc, dcmtk's dcmqrscp and storescp, and one that refuses.

Covered: what counts as delivered and who says so, what is tried again and what is not, and C-ECHO,
over TLS too. Not covered: storage commitment (test_commitment_user); when it is tried again
(test_couriers).
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest

from app.config_archives import DimseArchive
from app.config_door import Tls
from app.dicom.query import echo
from app.errors import (
    ArchiveUnavailable,
    ConfigError,
    DeliveryRefused,
    FormRefused,
    NodeError,
    NotShownYet,
)
from app.pipeline.deliver import deliver
from app.pipeline.line import line_to
from tests.peers import Dcmqrscp, Orthanc, find, free_port, require
from tests.sockets.doors import Door
from tests.sockets.faulty import Call, Faulty, running
from tests.sockets.pulls import NODE
from tests.sockets.results import result, uid_of
from tests.sockets.scu import Made
from tests.sockets.test_tls import Site
from tests.waiting import wait_until


def dimse(port: int, ae_title: str = "ARCHIVE", **more: object) -> DimseArchive:
    """Return the configuration of an archive."""
    settings = {"host": "127.0.0.1", "calling_ae_title": NODE, "timeout_s": 5} | more
    return DimseArchive(kind="dimse", port=port, ae_title=ae_title, **settings)


# -- real archives -------------------------------------------------------------------------------


@pytest.mark.orthanc
def test_orthanc_takes_results_and_lists_them(tmp_path: Path) -> None:
    """A large one too; the second time nothing is sent."""
    require("Orthanc")
    paths = [result(tmp_path), result(tmp_path, size=2 << 20)]
    with Orthanc() as orthanc:
        orthanc.introduce(NODE, 9)
        archive = dimse(orthanc.dicom_port, "ORTHANC")
        assert deliver(paths[:1], "pacs", archive).told == "ORTHANC lists the object (C-FIND)"
        receipt = deliver(paths, "pacs", archive)
        assert receipt.told == "ORTHANC lists all 2 objects (C-FIND), 1 of them before this try"
        assert orthanc.instances() == sorted(map(uid_of, paths))
        orthanc.kill()
        with pytest.raises(ArchiveUnavailable, match="is it running"):
            deliver(paths, "pacs", archive)


@pytest.mark.dcmtk
def test_dcmqrscp_takes_results_and_lists_them(tmp_path: Path) -> None:
    """It searches at image level as well."""
    require("dcmqrscp", "echoscu")
    path = result(tmp_path)
    with Dcmqrscp(tmp_path / "qr", ae_title=NODE, port=9) as archive:
        receipt = deliver([path], "pacs", dimse(archive.dicom_port, "QRSCP"))
    assert receipt.told == "QRSCP lists the object (C-FIND)"


@contextmanager
def storescp(folder: Path) -> Iterator[int]:
    """Run dcmtk's storescp, which keeps files and answers no questions; give its port."""
    folder.mkdir()
    port = free_port()
    call = [find("storescp") or "storescp", "-od", str(folder), str(port)]
    with subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _answers(port), 20, "the start of storescp")
            yield port
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    try:
        echo(line_to("pacs", dimse(port)))
    except ArchiveUnavailable:
        return False
    return True


@pytest.mark.dcmtk
def test_a_receiver_that_cannot_be_asked_is_taken_by_its_word_if_the_site_says_so(
    tmp_path: Path,
) -> None:
    """Else nothing is sent, since nothing could show that it is held."""
    require("storescp")
    path = result(tmp_path)
    with storescp(tmp_path / "received") as port:
        with pytest.raises(DeliveryRefused, match="does not accept C-FIND"):
            deliver([path], "pacs", dimse(port))
        assert not [*(tmp_path / "received").iterdir()]
        archive = dimse(port).model_copy(update={"proof": "status"})
        receipt = deliver([path], "pacs", archive)
    assert receipt.proved
    assert receipt.told == "ARCHIVE answered C-STORE of the object with success"
    (kept,) = (tmp_path / "received").iterdir()
    assert pydicom.dcmread(kept) == pydicom.dcmread(path)


# -- what archives answer ------------------------------------------------------------------------

ANSWERS = [
    (0xA700, ArchiveUnavailable, "out of resources"),
    (0x0213, ArchiveUnavailable, "out of resources"),
    (0xA900, DeliveryRefused, "does not fit the SOP class"),
    (0xC000, DeliveryRefused, "cannot understand"),
    (0x0122, FormRefused, "does not support the SOP class"),
    (0x0124, DeliveryRefused, "give it the right"),
    (0x0111, DeliveryRefused, "another object"),
]


@pytest.mark.parametrize(("status", "kind", "words"), ANSWERS)
def test_a_refusal_says_whether_it_passes(
    tmp_path: Path, status: int, kind: type[NodeError], words: str
) -> None:
    """Busy is tried again; for anything else a person must look."""
    with running(Faulty(answers=[status])) as archive, pytest.raises(kind, match=words) as caught:
        deliver([result(tmp_path)], "pacs", dimse(archive.port))
    assert f"{status:04X}H" in str(caught.value)


def listing(path: Path) -> Made:
    """Return what the archive answers to C-FIND for a result."""
    ds = pydicom.dcmread(path)
    return Made(
        dataset=b"",
        sop_uid=str(ds.SOPInstanceUID),
        study_uid=str(ds.StudyInstanceUID),
        sop_class=str(ds.SOPClassUID),
    )


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007])
def test_a_warning_is_told(tmp_path: Path, status: int) -> None:
    """The object is held; the receipt says what the archive did to it."""
    path = result(tmp_path)
    archive = Faulty(answers=[status])
    archive.does[0x01] = lambda call: (archive._take(call), _hold(archive, path))[0]
    with running(archive):
        receipt = deliver([path], "pacs", dimse(archive.port))
    assert "with a warning: it" in receipt.told
    assert archive.asked == [0x20, 0x01, 0x20]


def _hold(archive: Faulty, path: Path) -> None:
    archive.objects = [listing(path)]


def test_a_success_that_is_not_listed_is_no_delivery(tmp_path: Path) -> None:
    """It is tried again, and then nothing is sent of what is listed."""
    path = result(tmp_path)
    with running(Faulty()) as archive:
        with pytest.raises(NotShownYet, match="does not list"):
            deliver([path], "pacs", dimse(archive.port))
        archive.asked.clear()
        _hold(archive, path)
        receipt = deliver([path], "pacs", dimse(archive.port))
    assert "before this try" in receipt.told
    assert 0x01 not in archive.asked


def test_an_archive_that_does_not_search_images_cannot_prove_by_query(tmp_path: Path) -> None:
    """A900 to C-FIND at image level says nothing of the object: the site must choose a proof."""

    def refuse(call: Call) -> None:
        call.say(0x20, 0xA900)

    with running(Faulty(does={0x20: refuse})) as archive:
        with pytest.raises(DeliveryRefused, match="or give another proof"):
            deliver([result(tmp_path)], "pacs", dimse(archive.port))
        assert 0x01 not in archive.asked


# -- C-ECHO --------------------------------------------------------------------------------------


def test_our_own_door_answers_c_echo_over_tls(tmp_path: Path) -> None:
    """Not without TLS, not with a stranger's certificate, and files are checked beforehand."""
    site, strangers = Site(tmp_path / "site"), Site(tmp_path / "strangers")
    with Door(tmp_path, tls=site.settings).start() as door:
        ours = dimse(door.port, NODE, tls=Tls.model_validate(site.settings))
        echo(line_to("pacs", ours))
        for wrong in (dimse(door.port, NODE), dimse(door.port, NODE, tls=strangers.settings)):
            with pytest.raises(ArchiveUnavailable):
                echo(line_to("pacs", wrong))
        lost = ours.tls.model_copy(update={"key": tmp_path / "none"}) if ours.tls else None
        with pytest.raises(ConfigError, match=r"archives\.pacs\.tls\.key"):
            line_to("pacs", ours.model_copy(update={"tls": lost}))
