"""A DICOMweb archive that can refuse, stall, lie and break off; a real server on a real port.

It takes STOW-RS and answers QIDO-RS for instances. Each fault in `faults` is used up by one POST,
in order; without one the archive is honest. The multipart parser is its own, so that it judges the
sender's: it splits at the boundary wherever it stands, as a naive archive does.
"""

import io
import json
import re
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pydicom

from tests.http_server import Handler, serving

Fault = dict[str, Any]


def unavailable(code: int = 503, retry_after: str = "") -> Fault:
    """Answer an error of the server and store nothing."""
    return {"kind": "status", "code": code, "retry_after": retry_after}


def refusal(code: int = 409, reason: int | None = None) -> Fault:
    """Answer that the object is not stored, for `reason` if there is one."""
    return {"kind": "status", "code": code, "reason": reason}


def moved(where: str) -> Fault:
    """Answer that another address is to be asked."""
    return {"kind": "status", "code": 307, "location": where}


LIE: Fault = {"kind": "lie"}
"""Answer 200 with empty lists and store nothing, as Orthanc does for bodies it cannot read."""
QUIET: Fault = {"kind": "quiet"}
"""Store, and answer 200 with empty lists."""
XML: Fault = {"kind": "xml"}
"""Answer 200 with an XML body that says all is stored, and store nothing."""
STALL: Fault = {"kind": "stall"}
"""Take the body and never answer."""
DRIP: Fault = {"kind": "drip"}
"""Answer one byte at a time, for ever."""
CUT_BEFORE: Fault = {"kind": "cut"}
"""Break the connection and store nothing."""
CUT_AFTER: Fault = {"kind": "cut", "store": True}
"""Store, and break the connection before the answer."""
CUT_INSIDE: Fault = {"kind": "cut", "store": True, "answer": True}
"""Store, and break the connection in the middle of the answer."""


@dataclass
class Archive:
    """What the archive holds, what it will do wrong, and what it was sent."""

    faults: deque[Fault] = field(default_factory=deque)
    held: dict[str, bytes] = field(default_factory=dict)
    """Part 10 bytes by SOP Instance UID."""
    posts: list[int] = field(default_factory=list)
    """Length of the body of each POST."""
    boundaries: list[str] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    asked: int = 0
    """How many QIDO requests were answered."""
    down: bool = False
    """Whether every request is answered with 503."""
    keeps_as: str | None = None
    """The PatientID under which it lists what it gets, if not the object's own."""
    chokes_on: set[str] = field(default_factory=set)
    """SOP Instance UIDs of the objects to which it always answers 503."""
    url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)

    def take(self, content_type: str, body: bytes) -> list[pydicom.Dataset]:
        """Store what is in a body and return it."""
        found = re.search(r'boundary="?([^";]+)', content_type)
        assert found, content_type
        self.boundaries.append(found[1])
        stored: list[pydicom.Dataset] = []
        for part in body.split(f"--{found[1]}".encode())[1:-1]:
            content = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
            ds = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
            self.held[str(ds.SOPInstanceUID)] = content
            stored.append(ds)
        return stored

    def find(self, study_uid: str, series_uid: str, sop_uid: str) -> list[dict[str, Any]]:
        """Answer a QIDO question."""
        if sop_uid not in self.held:
            return []
        ds = pydicom.dcmread(io.BytesIO(self.held[sop_uid]), stop_before_pixels=True)
        if (ds.StudyInstanceUID, ds.SeriesInstanceUID) != (study_uid, series_uid):
            return []
        patient_id = self.keeps_as or str(ds.get("PatientID", ""))
        return [
            {
                "00080018": {"vr": "UI", "Value": [sop_uid]},
                "00100020": {"vr": "LO", "Value": [patient_id]},
            }
        ]


@contextmanager
def running_archive() -> Iterator[Archive]:
    """Run an archive on a free port until the end of the block."""
    archive = Archive()
    handler = type("Handler", (_Handler,), {"archive": archive})
    with serving(handler, archive.closing) as archive.url:
        yield archive


class _Handler(Handler):
    archive: ClassVar[Archive]
    body: bytes
    fault: Fault

    def do_GET(self) -> None:  # noqa: N802  # as http.server calls it
        """Answer QIDO-RS for one instance."""
        parts = urlsplit(self.path)
        match = re.fullmatch(r"/dicom-web/studies/([^/]+)/series/([^/]+)/instances", parts.path)
        wanted = parse_qs(parts.query).get("SOPInstanceUID", [""])[0]
        if self.archive.down:
            self._answer(503)
            return
        self.archive.asked += 1
        self.archive.authorizations.append(self.headers.get("Authorization", ""))
        found = self.archive.find(match[1], match[2], wanted) if match else []
        if found:
            self._answer(200, found)
        else:
            self._answer(204)

    def do_POST(self) -> None:  # noqa: N802  # as http.server calls it
        """Take STOW-RS, or do what the next fault says."""
        self.body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.archive.posts.append(len(self.body))
        self.archive.authorizations.append(self.headers.get("Authorization", ""))
        self.fault = self.archive.faults.popleft() if self.archive.faults else {"kind": "none"}
        if self.archive.chokes_on and _sop_uid_in(self.body) in self.archive.chokes_on:
            self.fault = unavailable(503)
        getattr(self, f"_do_{self.fault['kind']}")()

    def _do_none(self) -> None:
        stored = self.archive.take(self.headers["Content-Type"], self.body)
        items = [
            {
                "00081150": {"vr": "UI", "Value": [str(ds.SOPClassUID)]},
                "00081155": {"vr": "UI", "Value": [str(ds.SOPInstanceUID)]},
            }
            for ds in stored
        ]
        self._answer(200, {"00081199": {"vr": "SQ", "Value": items}})

    def _do_status(self) -> None:
        self.fault.get("before", dict)()
        lists = None
        if self.fault.get("reason") is not None:
            sop_uid = _sop_uid_in(self.body)
            item = {
                "00081155": {"vr": "UI", "Value": [sop_uid]},
                "00081197": {"vr": "US", "Value": [self.fault["reason"]]},
            }
            lists = {"00081198": {"vr": "SQ", "Value": [item]}}
        headers = {
            "Retry-After": self.fault.get("retry_after"),
            "Location": self.fault.get("location"),
        }
        self._answer(self.fault["code"], lists, {k: v for k, v in headers.items() if v})

    def _do_lie(self) -> None:
        self._answer(200, {"00081198": {"vr": "SQ"}, "00081199": {"vr": "SQ", "Value": []}})

    def _do_quiet(self) -> None:
        self.archive.take(self.headers["Content-Type"], self.body)
        self._answer(200, {})

    def _do_xml(self) -> None:
        xml = f"<NativeDicomModel><Value>{_sop_uid_in(self.body)}</Value></NativeDicomModel>"
        self.send(200, xml.encode(), "application/dicom+xml")

    def _do_stall(self) -> None:
        self.archive.closing.wait(60)

    def _do_drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json")
        self.end_headers()
        while not self.archive.closing.wait(0.05):
            self.wfile.write(b" ")

    def _do_cut(self) -> None:
        if self.fault.get("store"):
            self.archive.take(self.headers["Content-Type"], self.body)
        if self.fault.get("answer"):
            self.send(200, b"{", "application/dicom+json", length=500)
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _answer(self, code: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send(code, content, "application/dicom+json; charset=utf-8", headers)


def _sop_uid_in(body: bytes) -> str:
    """Return the UID in the file meta of the one object in a body."""
    at = body.index(b"\x02\x00\x03\x00UI") + 8
    length = int.from_bytes(body[at - 2 : at], "little")
    return body[at : at + length].rstrip(b"\0").decode()
