"""Results to DICOMweb archives: one that fails in every way, and a real Orthanc.

Covered: what counts as delivered, what is tried again and what is not, and that each is true for
the archive afterwards. Not covered: TLS, archives that change what they are sent, storage
commitment, and when it is tried again (test_couriers). Folders: test_deliver_folder.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config_archives import DicomwebArchive
from app.errors import ArchiveUnavailable, ConfigError, DeliveryRefused, TransientError
from app.pipeline.deliver import deliver
from tests import archive as faults
from tests.archive import Archive, Fault, running_archive
from tests.peers import Orthanc, require
from tests.sockets.results import result, uid_of

FIXED_BOUNDARY = b"0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1"
"""The one boundary that dicomweb-client 0.61 uses for every request."""


@pytest.fixture
def archive() -> Iterator[Archive]:
    """An archive that does what it is told."""
    with running_archive() as running:
        yield running


def dicomweb(archive: Archive, timeout_s: float = 5.0) -> DicomwebArchive:
    """Return the configuration of an archive under test."""
    return DicomwebArchive(kind="dicomweb", url=archive.url, timeout_s=timeout_s)


# -- DICOMweb: what counts as delivered ------------------------------------------------------


def test_a_delivery_has_a_receipt(archive: Archive, tmp_path: Path) -> None:
    """It says who says so; the archive holds the very bytes."""
    paths = [result(tmp_path), result(tmp_path)]
    receipt = deliver(paths, "pacs", dicomweb(archive))
    assert receipt.proved
    assert receipt.told == f"{archive.url} lists all 2 objects (QIDO-RS)"
    assert archive.held == {uid_of(path): path.read_bytes() for path in paths}
    assert len(archive.posts) == 2


def test_delivering_again_sends_nothing(archive: Archive, tmp_path: Path) -> None:
    """The archive is asked before anything is sent."""
    path = result(tmp_path)
    deliver([path], "pacs", dicomweb(archive))
    receipt = deliver([path], "pacs", dicomweb(archive))
    assert len(archive.posts) == 1
    assert "before this try" in receipt.told


TRANSIENT = [
    pytest.param(faults.unavailable(503), "HTTP 503", id="503"),
    pytest.param(faults.unavailable(503, "120"), "asks to wait 120 s", id="retry-after"),
    pytest.param(faults.unavailable(429, "7"), "asks to wait 7 s", id="429"),
    pytest.param(faults.unavailable(500), "HTTP 500", id="500"),
    pytest.param(faults.unavailable(507), "HTTP 507", id="507"),
    pytest.param(faults.refusal(401), "credentials", id="401"),
    pytest.param(faults.refusal(403), "rights", id="403"),
    pytest.param(faults.LIE, "does not list", id="200-empty"),
    pytest.param(faults.XML, "does not list", id="xml"),
    pytest.param(faults.refusal(202, 0xA700), "reason A700H", id="202-no-space"),
    pytest.param(faults.refusal(409, 0x0213), "resource limitation", id="409-no-space"),
    pytest.param(faults.CUT_BEFORE, "connection failed", id="cut"),
    pytest.param(faults.CUT_AFTER, "connection failed", id="answer-lost"),
    pytest.param(faults.CUT_INSIDE, "connection failed", id="half-answer"),
    pytest.param(faults.STALL, "no answer within 0.5 s", id="stall"),
    pytest.param(faults.DRIP, "no answer within 0.5 s", id="drip"),
]


@pytest.mark.parametrize("size", [64, 2 << 20], ids=["small", "2MB"])
@pytest.mark.parametrize(("fault", "words"), TRANSIENT)
def test_what_passes_is_tried_again_and_then_whole(
    archive: Archive, tmp_path: Path, fault: Fault, words: str, size: int
) -> None:
    """Never a success the first time, never an empty body the second time (objects > 1 MB)."""
    path = result(tmp_path, size=size)
    archive.faults.append(fault)
    with pytest.raises(TransientError, match=words) as caught:
        deliver([path], "pacs", dicomweb(archive, timeout_s=0.5))
    assert caught.value.retry
    assert "pacs" in str(caught.value)
    deliver([path], "pacs", dicomweb(archive))
    assert archive.held == {uid_of(path): path.read_bytes()}
    assert all(length > path.stat().st_size for length in archive.posts)


def test_a_stored_object_whose_answer_was_lost_is_not_sent_again(
    archive: Archive, tmp_path: Path
) -> None:
    """The archive knows better than the connection."""
    path = result(tmp_path)
    archive.faults.append(faults.CUT_AFTER)
    with pytest.raises(ArchiveUnavailable):
        deliver([path], "pacs", dicomweb(archive))
    deliver([path], "pacs", dicomweb(archive))
    assert len(archive.posts) == 1


def test_an_answer_without_lists_is_settled_by_asking(archive: Archive, tmp_path: Path) -> None:
    """An archive that stores and says nothing of it did store."""
    path = result(tmp_path)
    archive.faults.append(faults.QUIET)
    assert deliver([path], "pacs", dicomweb(archive)).proved


FINAL = [
    pytest.param(faults.refusal(409, 0xA777), "patient ID missing", id="A777"),
    pytest.param(faults.refusal(202, 0xA900), "does not match its SOP class", id="A900"),
    pytest.param(faults.refusal(409, 0xC123), "cannot understand", id="C123"),
    pytest.param(faults.refusal(200, 0x0110), "processing failure", id="200-failed"),
    pytest.param(faults.refusal(409), "HTTP 409", id="409"),
    pytest.param(faults.refusal(400), "HTTP 400", id="400"),
    pytest.param(faults.refusal(415), "HTTP 415", id="415"),
    pytest.param(faults.moved("http://192.0.2.1/"), "not followed", id="redirect"),
]


@pytest.mark.parametrize(("fault", "words"), FINAL)
def test_a_refusal_is_not_tried_again(
    archive: Archive, tmp_path: Path, fault: Fault, words: str
) -> None:
    """A person must look, and reads why."""
    path = result(tmp_path)
    archive.faults.append(fault)
    with pytest.raises(DeliveryRefused, match=words) as caught:
        deliver([path], "pacs", dicomweb(archive))
    assert not caught.value.retry
    assert not archive.held
    assert len(archive.posts) == 1


def test_an_archive_that_refuses_what_it_holds_holds_it(archive: Archive, tmp_path: Path) -> None:
    """Some answer 409 to an object that came before, here while we were sending it."""
    path = result(tmp_path)
    content_type = "multipart/related; boundary=x"
    body = b"--x\r\n\r\n" + path.read_bytes() + b"\r\n--x--"
    archive.faults.append(
        faults.refusal(409) | {"before": lambda: archive.take(content_type, body)}
    )
    assert deliver([path], "pacs", dicomweb(archive)).proved


def test_one_failure_of_two_does_not_send_the_other_again(archive: Archive, tmp_path: Path) -> None:
    """The second try sends what is missing."""
    paths = [result(tmp_path), result(tmp_path)]
    archive.faults.extend([{"kind": "none"}, faults.unavailable(503)])
    with pytest.raises(ArchiveUnavailable):
        deliver(paths, "pacs", dicomweb(archive))
    deliver(paths, "pacs", dicomweb(archive))
    assert len(archive.posts) == 3
    assert archive.held.keys() == {uid_of(path) for path in paths}


def test_nobody_there_is_tried_again(tmp_path: Path) -> None:
    """A refused connection passes."""
    with running_archive() as gone:
        configuration = dicomweb(gone)
    with pytest.raises(ArchiveUnavailable, match="is it running"):
        deliver([result(tmp_path)], "pacs", configuration)


def test_bytes_inside_an_object_cannot_begin_another(archive: Archive, tmp_path: Path) -> None:
    """A boundary that can be known beforehand lets a private element smuggle in a patient."""
    injected = result(tmp_path)
    part = b"--%b\r\nContent-Type: application/dicom\r\n\r\n" % FIXED_BOUNDARY
    private = b"\r\n" + part + injected.read_bytes() + b"\r\n" + part
    carrier = result(tmp_path, private=private)
    assert FIXED_BOUNDARY in carrier.read_bytes()
    for _ in range(2):
        deliver([carrier], "pacs", dicomweb(archive))
        assert archive.held.keys() == {uid_of(carrier)}
        archive.held.clear()
    assert len(set(archive.boundaries)) == 2
    assert FIXED_BOUNDARY.decode() not in archive.boundaries


def test_credentials_come_from_the_environment(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Basic and bearer; without the variable nothing is sent, not even a question."""
    path = result(tmp_path)
    url = archive.url
    variable = "PHANTOM_SECRET"
    basic = DicomwebArchive(kind="dicomweb", url=url, user="node", password_env=variable)
    bearer = DicomwebArchive(kind="dicomweb", url=url, token_env=variable)
    with pytest.raises(ConfigError, match=r"archives\.pacs\.password_env.*PHANTOM_SECRET"):
        deliver([path], "pacs", basic)
    assert not archive.authorizations
    monkeypatch.setenv("PHANTOM_SECRET", "s3cret")
    deliver([path], "pacs", basic)
    assert set(archive.authorizations) == {"Basic bm9kZTpzM2NyZXQ="}
    archive.authorizations.clear()
    deliver([path], "pacs", bearer)
    assert set(archive.authorizations) == {"Bearer s3cret"}


def test_a_proxy_of_the_environment_is_not_used(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results go where the site's file says and nowhere else."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    path = result(tmp_path)
    assert deliver([path], "pacs", dicomweb(archive)).proved


# -- DICOMweb: the real thing ----------------------------------------------------------------


@pytest.mark.orthanc
def test_orthanc_takes_results_and_lists_them(tmp_path: Path) -> None:
    """Also when it was away in between, and when the object carries a false boundary."""
    require("Orthanc", "orthanc-dicomweb")
    injected = result(tmp_path).read_bytes()
    private = b"\r\n--%b\r\n\r\n" % FIXED_BOUNDARY + injected
    paths = [result(tmp_path), result(tmp_path, size=2 << 20), result(tmp_path, private=private)]
    with Orthanc() as orthanc:
        configuration = DicomwebArchive(kind="dicomweb", url=orthanc.dicomweb_url)
        deliver(paths[:1], "orthanc", configuration)
        orthanc.kill()
        with pytest.raises(ArchiveUnavailable):
            deliver(paths, "orthanc", configuration)
        orthanc.start()
        receipt = deliver(paths, "orthanc", configuration)
        assert receipt.proved
        assert orthanc.instances() == sorted(map(uid_of, paths))
        orthanc.kill()  # its orderly end takes seconds
