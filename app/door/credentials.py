"""Who may send over HTTP: a bearer token, or a name and password, compared in constant time."""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping

from app.config_door import Http
from app.errors import ConfigError

BY_TOKEN = "token"  # noqa: S105  # a name for the log
Headers = Iterable[tuple[bytes, bytes]]


class Credentials:
    """The secrets of the configuration; ConfigError when the environment does not have them."""

    def __init__(self, config: Http, environment: Mapping[str, str] = os.environ) -> None:
        self._user = config.user
        self._known: list[tuple[bytes, str]] = []
        ways = []
        if config.token_env:
            secret = _secret("token_env", config.token_env, environment)
            self._known.append((_digest(b"bearer", secret), BY_TOKEN))
            ways.append('Bearer realm="marginalia"')
        if config.user and config.password_env:
            secret = _secret("password_env", config.password_env, environment)
            pair = base64.b64encode(config.user.encode() + b":" + secret)
            self._known.append((_digest(b"basic", pair), config.user))
            ways.append('Basic realm="marginalia", charset="UTF-8"')
        self.challenge = ", ".join(ways)
        """What WWW-Authenticate says."""

    def user(self, headers: Headers) -> str | None:
        """Return who sends the request; None when it does not say so properly."""
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) != 1:
            return None
        scheme, _, secret = given[0].partition(b" ")
        secret = secret.strip()
        if scheme.lower() == b"basic":
            secret = _canonical(secret)
        digest = _digest(scheme.lower(), secret)
        found = None
        for known, user in self._known:  # all of them, however the first comparison ends
            if hmac.compare_digest(known, digest):
                found = user
        return found


def _secret(key: str, variable: str, environment: Mapping[str, str]) -> bytes:
    secret = environment.get(variable, "")
    if not secret:
        raise ConfigError(
            f"door.http.{key}: the environment variable {variable} is not set; set it to the"
            " secret that senders give"
        )
    return secret.encode()


def _digest(scheme: bytes, secret: bytes) -> bytes:
    """Make values of one length, so that a comparison tells nothing of the secret's."""
    return hashlib.sha256(scheme + b" " + secret).digest()


def _canonical(secret: bytes) -> bytes:
    """Write basic credentials as we would; senders pad them differently."""
    try:
        return base64.b64encode(base64.b64decode(secret + b"=" * (-len(secret) % 4), validate=True))
    except binascii.Error:
        return b""
