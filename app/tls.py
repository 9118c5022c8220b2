"""Transport security of associations (PS3.15 B.12: the non-downgrading profile of BCP 195)."""

import hashlib
import ssl

from app.config_door import Tls
from app.errors import ConfigError

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context(tls: Tls, where: str = "door.tls") -> ssl.SSLContext:
    """Return how we answer peers; ConfigError names the key whose file cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= (
        ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    )
    _load(context, tls, where)
    if tls.require_client_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: Tls, where: str = "door.tls") -> ssl.SSLContext:
    """Return how we call a peer: with our certificate, content with one that is trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.check_hostname = False  # DICOM devices' certificates carry no host names
    _load(context, tls, where)
    return context


def fingerprint(connection: object) -> str | None:
    """Return the SHA-256 of the peer's certificate, if it showed one."""
    if not isinstance(connection, ssl.SSLSocket):
        return None
    certificate = connection.getpeercert(binary_form=True)
    return hashlib.sha256(certificate).hexdigest() if certificate else None


def _load(context: ssl.SSLContext, tls: Tls, where: str) -> None:
    for key, path in (("certificate", tls.certificate), ("key", tls.key)):
        if not path.is_file():
            raise ConfigError(f"{where}.{key}: {path} is no file that can be read")
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_no_password)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{where}.certificate, {where}.key: {_why(error)}; give a PEM certificate and its own "
            "private key without a password"
        ) from error
    if tls.authorities is None:
        return
    try:
        context.load_verify_locations(tls.authorities)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{where}.authorities: {_why(error)}; give a file of PEM certificates"
        ) from error


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # else OpenSSL asks the terminal


def _why(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
