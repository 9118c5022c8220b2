"""STOW-RS and QIDO-RS as a client (PS3.18 10.5, 10.6): HTTP in and out, our errors out.

The status code is never the proof: archives answer 200 to bodies of which they stored nothing.
What counts is the list in the answer, and then what the archive lists when it is asked.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as SilenceError

from app.dicom.encoded import Identifiers
from app.dicom.multipart import Multipart
from app.errors import ArchiveUnavailable, DeliveryRefused, NodeError

JSON_TYPE = "application/dicom+json"
PIECE = 64 * 1024
MAX_ANSWER = 16 * 1024 * 1024
CONNECT_TIMEOUT_S = 10.0

STORED, FAILED, REASON, UID = "00081199", "00081198", "00081197", "00081155"
SOP_INSTANCE_UID = "00080018"

HTTP_BUSY = {408, 425, 429}
"""4xx codes by which a server asks for another try later."""
HTTP_NO_CONTENT, HTTP_NOT_FOUND = 204, 404

REASONS = {
    0x0110: "processing failure",
    0x0122: "SOP class not supported",
    0x0124: "not authorized",
    0x0213: "resource limitation",
    0xA770: "duplicate rejection note",
    0xA771: "the object was rejected before",
    0xA777: "patient ID missing",
    0xA778: "conflicting patient ID",
    0xA779: "conflicting patient attributes",
    0xA77A: "the study is being deleted",
    0xA77B: "patient, study and series do not fit together",
}
"""PS3.4 B.2.3, PS3.18 table I.2-2 and dcm4chee-arc's own."""
RESOURCES = {0x0213, *range(0xA700, 0xA770), *range(0xA780, 0xA800)}
"""Reasons that pass by themselves (PS3.4 B.2.3); A77x is dcm4chee-arc's word on the object."""


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


class Dicomweb:
    """One DICOMweb archive; each call is one request, nothing is repeated here."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        credentials: Credentials | None = None,
        timeout_s: float = 60.0,
        verify: bool | str = True,
    ) -> None:
        self._name = name
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy that the site's file does not name
        self._session.verify = verify
        self._session.auth = credentials or Credentials()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def store(self, file: Path, uids: Identifiers) -> bool:
        """Send one Part 10 file; return whether the archive says that it stored this object."""
        with Multipart(file) as body:
            headers = {"Content-Type": body.content_type, "Accept": JSON_TYPE}
            answer = self._ask("POST", "studies", data=body, headers=headers)
        failures = _failures(answer.body)
        if uids.sop_uid in failures:
            raise self._failed(failures[uids.sop_uid])
        if uids.sop_uid in _uids(answer.body, STORED):
            return True
        if not answer.ok:
            raise self._refused(answer, "the object")
        return False

    def holds(self, uids: Identifiers) -> bool:
        """Ask whether the archive lists the object in its study and series."""
        answer = self._ask(
            "GET",
            f"studies/{uids.study_uid}/series/{uids.series_uid}/instances",
            params={"SOPInstanceUID": uids.sop_uid},
            headers={"Accept": JSON_TYPE},
        )
        if answer.status in {HTTP_NO_CONTENT, HTTP_NOT_FOUND}:
            return False
        if not answer.ok:
            raise self._refused(answer, "the question whether it holds the object")
        listed = answer.body if isinstance(answer.body, list) else []
        return any(uids.sop_uid in _values(item, SOP_INSTANCE_UID) for item in listed)

    def _ask(self, method: str, path: str, **request: Any) -> "_Answer":
        request["headers"]["Accept-Encoding"] = "identity"  # an answer is short; no bombs
        timeouts = min(CONNECT_TIMEOUT_S, self._timeout_s), self._timeout_s
        try:
            with self._session.request(
                method,
                f"{self._url}/{path}",
                timeout=timeouts,
                allow_redirects=False,
                stream=True,
                **request,
            ) as response:
                answer = self._read(response)
        except (requests.Timeout, SilenceError) as error:
            raise self._silent() from error
        except (requests.RequestException, HTTPError, OSError) as error:
            raise ArchiveUnavailable(
                f"{self._name}: the connection failed ({type(error).__name__}); is it running?"
            ) from error
        if answer.busy:
            wait = f", it asks to wait {answer.retry_after} s" if answer.retry_after else ""
            raise ArchiveUnavailable(f"{self._name}: answered HTTP {answer.status}{wait}")
        return answer

    def _read(self, response: requests.Response) -> "_Answer":
        """Read an answer of bounded length in bounded time, however it drips."""
        content, deadline = bytearray(), time.monotonic() + self._timeout_s
        while chunk := response.raw.read1(PIECE, decode_content=False):
            content += chunk
            if time.monotonic() > deadline:
                raise self._silent()
            if len(content) > MAX_ANSWER:
                raise ArchiveUnavailable(f"{self._name}: its answer has no end")
        retry_after = response.headers.get("Retry-After", "")
        return _Answer(
            status=response.status_code,
            retry_after=retry_after if retry_after.isdecimal() else "",
            body=_json(response.headers.get("Content-Type", ""), bytes(content)),
        )

    def _silent(self) -> ArchiveUnavailable:
        return ArchiveUnavailable(f"{self._name}: no answer within {self._timeout_s:g} s")

    def _failed(self, reason: int) -> NodeError:
        words = REASONS.get(reason) or _kind(reason)
        sentence = f"{self._name}: did not store the object: {words} (reason {reason:04X}H)"
        if reason in RESOURCES:
            return ArchiveUnavailable(sentence)
        return DeliveryRefused(sentence)

    def _refused(self, answer: "_Answer", what: str) -> NodeError:
        hint = {
            401: "; check its credentials",
            403: "; check its credentials and rights",
            404: "; check its url",
            413: "; the object is too large for it",
        }.get(answer.status, "")
        if 300 <= answer.status < 400:  # noqa: PLR2004  # HTTP's redirections
            hint = "; redirections are not followed, check its url"
        return DeliveryRefused(f"{self._name}: refused {what} with HTTP {answer.status}{hint}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """Status and JSON of an answer; a body of another kind counts as none."""

    status: int
    retry_after: str
    body: Any

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300  # noqa: PLR2004  # HTTP's successes

    @property
    def busy(self) -> bool:
        return self.status in HTTP_BUSY or self.status >= 500  # noqa: PLR2004  # HTTP's server errors


def _json(content_type: str, content: bytes) -> Any:
    """Parse JSON; XML is never parsed, whatever the archive says (entities, bombs)."""
    if "json" not in content_type.partition(";")[0].lower():
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _failures(body: Any) -> dict[str, int]:
    """Return the reasons of the objects that the archive says it did not store."""
    items = _values(body, FAILED)
    reasons: dict[str, int] = {}
    for item in items:
        reason = next((value for value in _values(item, REASON) if isinstance(value, int)), 0x0110)
        reasons |= {uid: reason for uid in _values(item, UID) if isinstance(uid, str)}
    return reasons


def _uids(body: Any, tag: str) -> set[str]:
    return {
        uid for item in _values(body, tag) for uid in _values(item, UID) if isinstance(uid, str)
    }


def _values(item: Any, tag: str) -> list[Any]:
    """Return the values of an element of the DICOM JSON model (PS3.18 F.2), however odd it is."""
    element = item.get(tag) if isinstance(item, Mapping) else None
    values = element.get("Value") if isinstance(element, Mapping) else None
    return values if isinstance(values, list) else []


def _kind(reason: int) -> str:
    if reason >> 8 == 0xA9:  # noqa: PLR2004  # PS3.4 table B.2-1
        return "the data set does not match its SOP class"
    kinds = {0xA: "the archive refuses it", 0xC: "the archive cannot understand it"}
    return kinds.get(reason >> 12, "no known reason")
