"""TLS on the DICOM port, with dcmtk as the peer and certificates made on the spot.

Covered: trusted, untrusted, expired and missing client certificates, plain TCP on a TLS port, old
TLS, one peer's title with another's certificate, a whole object, and files that cannot be used.
Not covered: revocation lists; a peer whose certificate is lost is taken out of `peers`.
"""

import hashlib
import socket
import ssl
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydicom import config as pydicom_config

from tests.peers import find, require
from tests.sockets.doors import Door

CT = Path(pydicom_config.__file__).parent / "data" / "test_files" / "CT_small.dcm"


@dataclass(frozen=True, kw_only=True)
class Papers:
    """A certificate with its key, as dcmtk wants them."""

    key: Path
    certificate: Path

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate."""
        certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


class Site:
    """An authority, our own certificate, and those of the peers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._authority = trustme.CA()
        self.authorities = folder / "authorities.pem"
        self._authority.cert_pem.write_to_path(self.authorities)
        self.ours = self.papers("ours")

    def papers(self, name: str, **more: Any) -> Papers:
        """Issue a certificate."""
        issued = self._authority.issue_cert(f"{name}.example.org", **more)
        made = Papers(key=self.folder / f"{name}.key", certificate=self.folder / f"{name}.pem")
        issued.private_key_pem.write_to_path(made.key)
        issued.cert_chain_pems[0].write_to_path(made.certificate)
        return made

    @property
    def settings(self) -> dict[str, Any]:
        """What stands in the configuration."""
        return {
            "key": str(self.ours.key),
            "certificate": str(self.ours.certificate),
            "authorities": str(self.authorities),
        }


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An authority of its own for each test."""
    return Site(tmp_path / "site")


def dcmtk(
    tool: str, port: int, site: Site, papers: Papers | None, *paths: Path, calling: str = "PEER"
) -> "subprocess.CompletedProcess[str]":
    """Run one of dcmtk's senders over TLS; without papers it shows no certificate."""
    shown = ["+tls", str(papers.key), str(papers.certificate)] if papers else ["+tla"]
    return subprocess.run(
        [
            *(find(tool) or tool, *shown, "+cf", str(site.authorities)),
            *("-to", "5", "-aet", calling, "-aec", "MARGINALIA", "127.0.0.1", str(port)),
            *map(str, paths),
        ],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=60,
    )


@pytest.mark.dcmtk
def test_a_peer_with_a_trusted_certificate_sends(site: Site, tmp_path: Path) -> None:
    """C-ECHO and a whole object."""
    require("echoscu", "storescu")
    peer = site.papers("peer")
    with Door(tmp_path, tls=site.settings) as door:
        door.start()
        answer = dcmtk("echoscu", door.port, site, peer)
        assert answer.returncode == 0, answer.stderr
        answer = dcmtk("storescu", door.port, site, peer, CT)
        assert answer.returncode == 0, answer.stderr
        row = door.store.find_instance(str(pydicom.dcmread(CT).SOPInstanceUID))
        assert row is not None
        assert row.source == "PEER@127.0.0.1"


@pytest.mark.dcmtk
def test_other_certificates_are_not_let_in(site: Site, tmp_path: Path) -> None:
    """Of another authority, expired, none at all; each leaves a reason, none an association."""
    require("echoscu")
    stranger = Site(tmp_path / "elsewhere").papers("stranger")
    expired = site.papers("expired", not_after=datetime.now(UTC) - timedelta(days=1))
    with Door(tmp_path, tls=site.settings) as door:
        door.start()
        for papers in (stranger, expired, None):
            assert dcmtk("echoscu", door.port, site, papers).returncode != 0
        assert dcmtk("echoscu", door.port, site, site.papers("peer")).returncode == 0
        door.said("came to nothing: no TLS with it")
        assert door.output().count("association from") == 1


@pytest.mark.dcmtk
def test_s41_a_title_belongs_to_its_certificate(site: Site, tmp_path: Path) -> None:
    """The AE title of one peer with the certificate of another is no peer: 1/1/3."""
    require("echoscu")
    first, second = site.papers("first"), site.papers("second")
    peers = [
        {"ae_title": "FIRST", "certificate": first.fingerprint},
        {"ae_title": "SECOND", "certificate": second.fingerprint},
    ]
    with Door(tmp_path, tls=site.settings, peers=peers) as door:
        door.start()
        assert dcmtk("echoscu", door.port, site, first, calling="FIRST").returncode == 0
        assert dcmtk("echoscu", door.port, site, second, calling="SECOND").returncode == 0
        answer = dcmtk("echoscu", door.port, site, second, calling="FIRST")
        assert answer.returncode != 0
        assert "Calling AE Title Not Recognized" in answer.stderr


def test_plain_tcp_on_a_tls_port_is_closed(site: Site, tmp_path: Path) -> None:
    """At once, and without an answer in the clear."""
    with Door(tmp_path, tls=site.settings) as door, door.start().connect() as plain:
        plain.sendall(b"\1\0\0\0\0\x44" + bytes(68))
        plain.settimeout(5)
        try:
            answer = plain.recv(100)
        except ConnectionError:
            answer = b""
        assert not answer or answer[0] == 0x15  # nothing, or a TLS alert


def test_a_silent_peer_does_not_hold_the_handshake(site: Site, tmp_path: Path) -> None:
    """Its time for the whole request runs from the first moment."""
    limits = {"associate_s": 0.5}
    with Door(tmp_path, tls=site.settings, limits=limits) as door, door.start().connect() as silent:
        silent.settimeout(5)
        assert silent.recv(1) == b""


def handshake(door: Door, site: Site, change: str) -> str:
    """Shake hands, changed in one respect; return the protocol that was agreed on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(site.authorities)
    papers = site.papers("peer")
    context.load_cert_chain(papers.certificate, papers.key)
    if change == "TLS 1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    elif change == "no forward secrecy":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("AES128-GCM-SHA256")
    with (
        socket.create_connection(("127.0.0.1", door.port), timeout=10) as plain,
        context.wrap_socket(plain) as secured,
    ):
        return str(secured.version())


def test_only_tls_that_is_good_today_is_spoken(site: Site, tmp_path: Path) -> None:
    """TLS 1.3 and 1.2; not without forward secrecy."""
    with Door(tmp_path, tls=site.settings) as door:
        door.start()
        assert handshake(door, site, "") == "TLSv1.3"
        assert handshake(door, site, "TLS 1.2") == "TLSv1.2"
        with pytest.raises(ssl.SSLError):
            handshake(door, site, "no forward secrecy")


@pytest.mark.parametrize("key", ["key", "certificate", "authorities"])
@pytest.mark.parametrize("content", [None, "no PEM at all"])
def test_a_file_that_cannot_be_used_is_named(
    site: Site, tmp_path: Path, key: str, content: str | None
) -> None:
    """The door does not open, and says which key of the configuration is wrong."""
    path = tmp_path / "bad.pem"
    if content:
        path.write_text(content, encoding="utf-8")
    with Door(tmp_path, tls=site.settings | {key: str(path)}) as door:
        door.launch()
        assert door.wait() == 2
        assert f"door.tls.{key}" in door.output()
        assert "Traceback" not in door.output()


def test_the_end_does_not_wait_for_tls_peers(site: Site, tmp_path: Path) -> None:
    """A connection in the middle of its handshake, and SIGTERM."""
    limits = {"associate_s": 60}
    with (
        Door(tmp_path, tls=site.settings, limits=limits) as door,
        door.start().connect() as silent,
    ):
        silent.sendall(b"\x16\x03\x01")
        assert door.process is not None
        door.process.terminate()
        assert door.wait(30) == 0
