"""Who is let in over HTTP, and what the port tells those who are not.

Covered: both ways to authenticate and every wrong one, at every address (S33); secrets that are not
set; paths and UIDs that point elsewhere (S1); headers that would end a line (S27); TLS, with and
without client certificates (G19), and silence before it (G10).
Not covered: how long a guesser needs; nothing but the secret's length slows one down.
"""

import base64
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import requests
import trustme

from tests.sockets.scu import image, new_study
from tests.sockets.stows import (
    BEARER,
    PASSWORD,
    RELATED,
    TOKEN,
    USER,
    Answer,
    StowDoor,
    part10,
    related,
)

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StowDoor]:
    """One door for most tests; each uses a study of its own."""
    with StowDoor(tmp_path_factory.mktemp("door")) as one:
        yield one.start()


def basic(pair: str) -> str:
    """Return the header of basic authentication."""
    return "Basic " + base64.b64encode(pair.encode()).decode()


# -- S33: nobody unknown ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Basic {TOKEN}",
        TOKEN,
        basic(f"{USER}:"),
        basic(f":{PASSWORD}"),
        basic(f"{USER}:{PASSWORD}x"),
        basic(f"other:{PASSWORD}"),
        basic(f"{USER}"),
        "Basic %%%",
        f"Bearer {TOKEN}\t{TOKEN}",
    ],
)
@pytest.mark.parametrize("path", ["/dicom-web/studies", "/nothing/here"])
def test_nobody_unknown_gets_any_other_answer(
    door: StowDoor, path: str, authorization: str
) -> None:
    """S33: 401 everywhere, also where there is nothing."""
    with door.raw() as peer:
        peer.head(f"POST {path} HTTP/1.1", Authorization=authorization, Content_Length="0")
        assert peer.status() == 401


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "FOO"])
@pytest.mark.parametrize(
    "path", ["/", "/dicom-web", "/dicom-web/studies/1.2", "/docs", "/openapi.json", "/metrics", "*"]
)
def test_no_address_and_no_method_is_open(door: StowDoor, method: str, path: str) -> None:
    """S33: the answer says how to authenticate and nothing about us."""
    with door.raw() as peer:
        peer.head(f"{method} {path} HTTP/1.1", Authorization="", Content_Type="")
        assert peer.status() == 401


def test_the_answer_says_how_to_authenticate_and_not_who_we_are(door: StowDoor) -> None:
    """No name or version of a server."""
    response = requests.get(door.url, timeout=10)
    assert response.headers["WWW-Authenticate"].startswith("Bearer realm=")
    assert "Basic realm=" in response.headers["WWW-Authenticate"]
    assert "Server" not in response.headers
    assert "uvicorn" not in str(response.headers) + response.text


def test_two_sets_of_credentials_are_none(door: StowDoor) -> None:
    """A proxy in between could have looked at the other one."""
    lines = f"POST /dicom-web/studies HTTP/1.1\r\nHost: d\r\nAuthorization: Bearer {TOKEN}\r\n"
    with door.raw() as peer:
        peer.send(f"{lines}Authorization: Bearer x\r\nContent-Length: 0\r\n\r\n".encode())
        assert peer.status() == 401


@pytest.mark.parametrize(
    ("authorization", "source"),
    [
        (f"bearer  {TOKEN}", "token@127.0.0.1"),
        (basic(f"{USER}:{PASSWORD}"), "modality@127.0.0.1"),
        (basic(f"{USER}:{PASSWORD}").rstrip("="), "modality@127.0.0.1"),
    ],
)
def test_who_is_known_is_let_in_and_noted(door: StowDoor, authorization: str, source: str) -> None:
    """The source in the job log is our name for the sender, not one of its own choice."""
    made = image(new_study())
    body = related([part10(made)])
    assert door.post(body, headers={"Authorization": authorization}).status_code == 200
    assert [row.source for row in door.rows(made.study_uid)] == [source]


@pytest.mark.parametrize("missing", ["STOW_TOKEN", "STOW_PASSWORD"])
def test_a_secret_that_is_not_set_keeps_the_door_shut(tmp_path: Path, missing: str) -> None:
    """An empty one counts as not set."""
    with StowDoor(tmp_path) as door:
        door.launch(**{"STOW_TOKEN": "t", "STOW_PASSWORD": "p", missing: ""})
        assert door.wait() == 2
        assert f"environment variable {missing} is not set" in door.output()


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_only_post_is_offered(door: StowDoor, method: str) -> None:
    """405 says so; a header that would change the method does nothing (S35)."""
    override = BEARER | {"X-HTTP-Method-Override": "POST"}
    response = requests.request(method, door.url, headers=override, timeout=10)
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/dicom-web/studies/",
        "/dicom-web/studies/1.2/series",
        "/dicom-web/studies/../../etc/passwd",
        "/dicom-web/studies/..%2F..%2Fetc%2Fpasswd",
        "//dicom-web/studies",
        "/DICOM-WEB/studies",
    ],
)
def test_other_addresses_do_not_exist(door: StowDoor, path: str) -> None:
    """S1: 404 and no redirection, for who is known."""
    with door.raw() as peer:
        assert peer.head(f"POST {path} HTTP/1.1", Content_Length="0").status() == 404


@pytest.mark.parametrize(
    "study",
    ["..", "1.2.x", "1..2", "1" * 65, "%00", "1.2%0d%0aSet-Cookie:%20evil=1", "1.2;x", "%D9%A1"],
)
def test_a_study_in_the_address_must_be_a_uid(door: StowDoor, study: str) -> None:
    """S1, S27: 400, and what was written there is not repeated in the answer."""
    with door.raw() as peer:
        line = f"POST /dicom-web/studies/{study} HTTP/1.1"
        peer.head(line, Content_Length="0", Connection="close")
        said = peer.everything()
    assert said.startswith(b"HTTP/1.1 400")
    assert b"evil" not in said


@pytest.mark.parametrize(
    "uid",
    [
        "../../../../evil",
        "..\\..\\evil",
        "/etc/cron.d/evil",
        "1.2/../evil",
        "1.2\r\nevil",
        "1.2 evil",
        "evil",
    ],
)
def test_a_uid_never_becomes_a_path(door: StowDoor, uid: str) -> None:
    """S1: in the file meta or in the object, it is refused; names of files are ours."""
    made = image(new_study())
    inside = uid.encode().ljust(len(made.sop_uid), b"\0")
    wrong = replace(made, dataset=made.dataset.replace(made.sop_uid.encode(), inside))
    contents = [part10(made, sop_uid=uid), part10(wrong), part10(wrong, sop_uid=uid)]
    answer = Answer.of(door.post(related(contents)))
    assert (answer.status, answer.stored) == (409, [])
    names = {path.name for path in door.data.rglob("*")} | {
        p.name for p in door.data.parent.iterdir()
    }
    assert not [name for name in names if "evil" in name]
    assert "evil" not in door.output()


def test_names_of_parts_mean_nothing(door: StowDoor) -> None:
    """S1, S27: what a part's own headers say about files and places is not read."""
    made = image(new_study())
    headers = (
        "Content-Type: application/dicom\r\n"
        'Content-Disposition: attachment; filename="../../evil.dcm"\r\n'
        "Content-Location: http://169.254.169.254/evil\r\n"
    )
    assert door.post(related([part10(made)], headers=headers)).status_code == 200
    assert not [path for path in door.data.rglob("*") if "evil" in path.name]


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs the certificates of this file."""
    return trustme.CA()


def with_tls(folder: Path, authority: trustme.CA, *, client: bool) -> StowDoor:
    """Return a door that is not started yet; with `client` a sender must show a certificate."""
    ours = authority.issue_cert("localhost", "127.0.0.1")
    ours.private_key_pem.write_to_path(folder / "key.pem")
    ours.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    tls = {
        "key": str(folder / "key.pem"),
        "certificate": str(folder / "certificate.pem"),
        "require_client_certificate": client,
    } | ({"authorities": str(folder / "authority.pem")} if client else {})
    return StowDoor(folder, tls=tls)


def test_objects_come_over_tls(tmp_path: Path, authority: trustme.CA) -> None:
    """Plain HTTP on that port gets nothing, and neither does TLS 1.1."""
    made = image(new_study(), size=1 << 20)
    with with_tls(tmp_path, authority, client=False) as door:
        url = door.start().url.replace("http:", "https:")
        body = related([part10(made)])
        headers = BEARER | {"Content-Type": RELATED}
        trusted = str(tmp_path / "authority.pem")
        response = requests.post(url, data=body, headers=headers, verify=trusted, timeout=30)
        assert Answer.of(response) == Answer(status=200, stored=[made.sop_uid])
        with door.raw() as plain:
            assert plain.head(Content_Length="0").status() == 0
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(old)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError):
            door.raw(context=old)


def test_a_sender_without_its_certificate_is_not_heard(
    tmp_path: Path, authority: trustme.CA
) -> None:
    """One that another authority signed is none; credentials are needed all the same."""
    with with_tls(tmp_path, authority, client=True) as door:
        door.start()
        assert heard(door, authority, authority).startswith(b"HTTP/1.1 401")
        assert heard(door, authority, trustme.CA()) == b""
        assert heard(door, authority, None) == b""


def heard(door: StowDoor, authority: trustme.CA, signer: trustme.CA | None) -> bytes:
    """Return what is answered to a request without credentials."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    if signer is not None:
        signer.issue_cert("sender").configure_cert(context)
    try:
        with door.raw(context=context) as peer:
            return peer.head(Authorization="", Content_Length="0").everything()
    except OSError:  # TLS 1.3 tells of it when the sender reads
        return b""


def test_silence_before_tls_keeps_nobody_out(tmp_path: Path, authority: trustme.CA) -> None:
    """G10: connections that never begin their handshake make room for others."""
    with with_tls(tmp_path, authority, client=True) as door, ExitStack() as stack:
        door.start()
        for _ in range(200):
            stack.enter_context(door.raw())
        began = time.monotonic()
        assert heard(door, authority, authority).startswith(b"HTTP/1.1 401")
        assert time.monotonic() - began < 2
        descriptors = len([*Path(f"/proc/{door.pid}/fd").iterdir()])
        assert descriptors < 120


def test_a_key_that_is_not_there_keeps_the_door_shut(tmp_path: Path, authority: trustme.CA) -> None:
    """The sentence names the key of the configuration."""
    with with_tls(tmp_path, authority, client=True) as door:
        (tmp_path / "key.pem").write_text("nothing")
        door.launch(STOW_TOKEN="t", STOW_PASSWORD="p")  # noqa: S106
        assert door.wait() == 2
        assert "door.http.tls" in door.output()
