"""How an archive of the site's file is reached: a connection with its credentials."""

import os
from typing import TypeVar

from app.config_archives import DicomwebArchive
from app.dicom.web import Credentials, Web
from app.errors import ConfigError

W = TypeVar("W", bound=Web)


def connect(kind: type[W], name: str, archive: DicomwebArchive) -> W:
    """Return a client for the archive called `name`; nothing is sent yet."""
    return kind(
        name,
        archive.url,
        credentials=_credentials(name, archive),
        timeout_s=archive.timeout_s,
        verify=os.environ.get("REQUESTS_CA_BUNDLE") or True,
    )


def _credentials(name: str, archive: DicomwebArchive) -> Credentials:
    return Credentials(
        user=archive.user,
        password=_secret(name, "password_env", archive.password_env),
        token=_secret(name, "token_env", archive.token_env),
    )


def _secret(name: str, key: str, variable: str | None) -> str | None:
    if variable is None:
        return None
    value = os.environ.get(variable)
    if not value:
        raise ConfigError(
            f"archives.{name}.{key}: the environment variable {variable} is not set; "
            "set it and start the node again"
        )
    return value
