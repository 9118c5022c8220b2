"""HTTP to one archive: what is asked, how long is waited, how much is read, and what errors mean.

Nothing is followed: no redirection, no proxy, no address that an answer names. Answers are read as
they come, never unpacked, and XML is never parsed.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as SilenceError

from app.errors import ArchiveUnavailable, Interrupted

JSON_TYPE = "application/dicom+json"
PIECE = 64 * 1024
MAX_ANSWER = 16 * 1024 * 1024
CONNECT_TIMEOUT_S = 10.0
LEAST_RATE = 50_000
"""Bytes a second below which an answer uses up the time that it has."""

HTTP_BUSY = {408, 425, 429}
"""4xx codes by which a server asks for another try later."""
HTTP_NO_CONTENT, HTTP_NOT_FOUND, HTTP_TOO_LARGE = 204, 404, 413


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What is sent as Authorization; at most one of the two ways."""

    user: str | None = None
    password: str | None = None
    token: str | None = None

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign a request; being callable keeps requests from looking into ~/.netrc."""
        if self.token is not None:
            request.headers["Authorization"] = f"Bearer {self.token}"
        elif self.user is not None:
            requests.auth.HTTPBasicAuth(self.user, self.password or "")(request)
        return request


class TooLarge(ArchiveUnavailable):
    """The archive's answer has no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status and content of an answer that was read to its end."""

    status: int
    kind: str
    """Media type, in lower case."""
    content: bytes

    @property
    def ok(self) -> bool:
        """Whether it is one of HTTP's successes."""
        return 200 <= self.status < 300  # noqa: PLR2004  # HTTP's successes

    @property
    def is_json(self) -> bool:
        """Whether the archive says that it is JSON."""
        return "json" in self.kind

    @property
    def body(self) -> Any:
        """The JSON in it; a body of another kind counts as none."""
        if not self.is_json:
            return None
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            return None


class Web:
    """The connection to one archive; each call is one request, nothing is repeated here."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        credentials: Credentials | None = None,
        timeout_s: float = 60.0,
        verify: bool | str = True,
    ) -> None:
        self.name = name
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._stopping = Event()
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy that the site's file does not name
        self._session.verify = verify
        self._session.auth = credentials or Credentials()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stop(self) -> None:
        """End the answer that is being read; may come from another thread."""
        self._stopping.set()

    def close(self) -> None:
        """Let the connections go."""
        self._session.close()

    def ask(self, method: str, path: str, *, most: int = MAX_ANSWER, **request: Any) -> Answer:
        """Ask once and read the answer, of at most `most` bytes; a busy archive is an error."""
        with self.opened(method, path, **request) as opened:
            content = b"".join(opened.pieces(most))
            return Answer(status=opened.status, kind=opened.kind, content=content)

    @contextmanager
    def opened(self, method: str, path: str, **request: Any) -> Iterator["Opened"]:
        """Ask once; the answer's body is read inside the block, as it comes."""
        headers = {"Accept": JSON_TYPE} | request.pop("headers", {})
        headers["Accept-Encoding"] = "identity"
        try:
            with self._send(method, path, headers=headers, **request) as response:
                opened = Opened(self.name, response, self._timeout_s, self._stopping)
                opened.check()
                yield opened
        except (requests.Timeout, SilenceError) as error:
            raise _silent(self.name, self._timeout_s) from error
        except (requests.RequestException, HTTPError) as error:
            raise _broken(self.name, error) from error

    def _send(self, method: str, path: str, **request: Any) -> requests.Response:
        timeouts = min(CONNECT_TIMEOUT_S, self._timeout_s), self._timeout_s
        address = f"{self._url}/{path}"
        try:
            return self._session.request(
                method, address, timeout=timeouts, allow_redirects=False, stream=True, **request
            )
        except requests.RequestException:  # an OSError itself
            raise
        except OSError as error:
            raise _broken(self.name, error) from error


class Opened:
    """An answer whose body is still on its way."""

    def __init__(
        self, name: str, response: requests.Response, timeout_s: float, stopping: Event
    ) -> None:
        self._name = name
        self._response = response
        self._timeout_s = timeout_s
        self._stopping = stopping
        self._waited_s = 0.0
        self.status = response.status_code
        self.content_type = str(response.headers.get("Content-Type", ""))

    @property
    def kind(self) -> str:
        """Media type, in lower case."""
        return self.content_type.partition(";")[0].strip().lower()

    def check(self) -> None:
        """Refuse an answer that asks for another try, and one that is packed."""
        if self.status in HTTP_BUSY or self.status >= 500:  # noqa: PLR2004  # the server's errors
            wait_s = _wait_s(self._response.headers.get("Retry-After", ""))
            asks = f", it asks to wait {wait_s:g} s" if wait_s else ""
            raise ArchiveUnavailable(
                f"{self._name}: answered HTTP {self.status}{asks}", wait_s=wait_s
            )
        packed = self._response.headers.get("Content-Encoding", "identity").strip().lower()
        if packed not in {"", "identity"}:
            raise ArchiveUnavailable(
                f"{self._name}: its answer is packed although that was not asked for; switch its"
                " compression off"
            )

    def pieces(self, most: int) -> Iterator[bytes]:
        """Yield the body as it comes, bounded in length and, however it drips, in time."""
        size, credit_s = 0, self._timeout_s
        while piece := self._next():
            size += len(piece)
            credit_s = min(self._timeout_s, credit_s - self._waited_s + len(piece) / LEAST_RATE)
            if credit_s < 0:
                raise _silent(self._name, self._timeout_s)
            if size > most:
                raise TooLarge(f"{self._name}: its answer has no end")
            if self._stopping.is_set():
                raise Interrupted
            yield piece

    def _next(self) -> bytes:
        began = time.monotonic()
        try:
            piece: bytes = self._response.raw.read1(PIECE, decode_content=False)
        except OSError as error:
            raise _broken(self._name, error) from error
        self._waited_s = time.monotonic() - began
        return piece


def values(item: Any, tag: str) -> list[Any]:
    """Return the values of an element of the DICOM JSON model (PS3.18 F.2), however odd it is."""
    element = item.get(tag) if isinstance(item, Mapping) else None
    found = element.get("Value") if isinstance(element, Mapping) else None
    return found if isinstance(found, list) else []


def hint(status: int) -> str:
    """Say what to do about a status by which an archive refuses something."""
    if 300 <= status < 400:  # noqa: PLR2004  # HTTP's redirections
        return "; redirections are not followed, check its url"
    return {
        401: "; check its credentials",
        403: "; check its credentials and rights",
        404: "; check its url",
        413: "; it is too large for it",
    }.get(status, "")


def _silent(name: str, timeout_s: float) -> ArchiveUnavailable:
    return ArchiveUnavailable(f"{name}: no answer within {timeout_s:g} s")


def _broken(name: str, error: Exception) -> ArchiveUnavailable:
    kind = type(error).__name__
    return ArchiveUnavailable(f"{name}: the connection failed ({kind}); is it running?")


def _wait_s(retry_after: str) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110 10.2.3)."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:  # noqa: PLR2004  # 30 years
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
