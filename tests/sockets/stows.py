"""A real door with its STOW-RS port, and senders that put every byte where a test wants it."""

import json
import signal
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import requests
import yaml

from app.dicom.part10 import header
from tests.sockets.doors import Door
from tests.sockets.scu import Made, image, new_study
from tests.waiting import wait_until

TOKEN, PASSWORD = "token-of-a-test", "pass:word of a test"
USER = "modality"
SECRETS = {"STOW_TOKEN": TOKEN, "STOW_PASSWORD": PASSWORD}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
BOUNDARY = "a-boundary-of-a-test"
RELATED = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
STORED, FAILED, OTHERS = "00081199", "00081198", "0008119A"


class StowDoor(Door):
    """One door with both its ports; settings go to `http:` and to `limits:`."""

    def __init__(
        self, folder: Path, *, limits: Mapping[str, Any] | None = None, **http: Any
    ) -> None:
        super().__init__(folder)
        written = yaml.safe_load(self._config.read_text(encoding="utf-8"))
        ways = {"token_env": "STOW_TOKEN", "user": USER, "password_env": "STOW_PASSWORD"}
        written["node"]["door"] = {
            "port": 0,
            "open": True,
            "limits": {"free_gb": 0} | dict(limits or {}),
            "http": {"port": 0} | ways | http,
        }
        self._config.write_text(yaml.safe_dump(written), encoding="utf-8")
        self.http_port = 0

    def start(self, **environment: str) -> Self:
        """Start it and wait until both its ports listen."""
        process = self.launch(**SECRETS | environment)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, self.output()
        ports = json.loads(line)
        self.port, self.http_port = ports["listening"], ports["http"]
        return self

    @property
    def url(self) -> str:
        """Where objects are sent to."""
        return f"http://127.0.0.1:{self.http_port}/dicom-web/studies"

    def post(
        self,
        body: Any,
        *,
        study: str = "",
        content_type: str | None = RELATED,
        headers: Mapping[str, str] = BEARER,
        timeout: float = 60,
    ) -> requests.Response:
        """Send a request as requests sends it."""
        given = dict(headers) | ({"Content-Type": content_type} if content_type else {})
        url = self.url + (f"/{study}" if study else "")
        return requests.post(url, data=body, headers=given, timeout=timeout)

    def store_objects(self, objects: Iterable[Made], study: str = "") -> "Answer":
        """Send objects in one request."""
        return Answer.of(self.post(related(map(part10, objects)), study=study))

    def serves_at_once(self) -> None:
        """An honest sender is served, whatever others did before."""
        began = time.monotonic()
        assert self.store_objects([image(new_study())]).status == 200
        assert time.monotonic() - began < 2
        assert "fault of ours" not in self.output()

    def raw(self, *, context: ssl.SSLContext | None = None) -> "Raw":
        """Open a bare connection to the HTTP port."""
        return Raw(self.http_port, context)

    def stop(self) -> None:
        """Ask it to end."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def said_row(self, study_uid: str) -> None:
        """Wait until the log has an object of the study."""
        wait_until(lambda: self.rows(study_uid), what="an object's row")

    def refuses_one_more(self) -> Mapping[str, str]:
        """Wait until it serves as many requests as it may; return what one more is told."""

        def asked() -> Mapping[str, str] | None:
            response = self.post(b"")
            return response.headers if response.status_code == 503 else None

        return wait_until(asked, 1.5, what="a refusal") or {}

    def becomes_free(self) -> None:
        """Wait until it serves a request again."""
        wait_until(lambda: self.post(b"").status_code == 400, what="a free slot")

    def gone(self, study_uid: str) -> bool:
        """Return whether the log has nothing of the study."""
        return not self.rows(study_uid)


def small_door(folder: Path) -> StowDoor:
    """Make a door of which a test reaches every limit."""
    limits = {"header_s": 1, "idle_s": 2, "handshakes": 20, "object_gb": 0.08}
    return StowDoor(folder, limits=limits, max_request_gb=0.1, max_parts=50, max_requests=3)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A status and the lists that came along."""

    status: int
    stored: list[str] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)
    others: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, response: requests.Response) -> Self:
        """Read the lists of a response."""
        if response.headers.get("Content-Type") != "application/dicom+json":
            return cls(status=response.status_code)
        lists = response.json()
        reason = "00081197"
        return cls(
            status=response.status_code,
            stored=[_first(item, "00081155") for item in _items(lists, STORED)],
            failed={
                _first(item, "00081155"): _first(item, reason) for item in _items(lists, FAILED)
            },
            others=[_first(item, reason) for item in _items(lists, OTHERS)],
        )


def _items(lists: Mapping[str, Any], tag: str) -> Sequence[Any]:
    return lists.get(tag, {"Value": []})["Value"]  # type: ignore[no-any-return]


def _first(item: Mapping[str, Any], tag: str) -> Any:
    return item[tag]["Value"][0]


def resident_mb(door: Door) -> float:
    """Return the most memory that the door's process ever had."""
    lines = Path(f"/proc/{door.pid}/status").read_text(encoding="ascii").splitlines()
    [line] = [line for line in lines if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


# -- bytes ---------------------------------------------------------------------------------------


def part10(made: Made, *, preamble: bytes = bytes(128), **meta: str) -> bytes:
    """Return an object as a file; `meta` may say something else than the object."""
    claims = {"sop_class": made.sop_class, "sop_uid": made.sop_uid, "syntax": made.syntax} | meta
    head = header(claims["sop_class"], claims["sop_uid"], claims["syntax"])
    return preamble + head[128:] + made.dataset


def related(
    contents: Iterable[bytes],
    *,
    boundary: str = BOUNDARY,
    headers: str = "Content-Type: application/dicom\r\n",
    preamble: bytes = b"",
    end: bool = True,
) -> bytes:
    """Return a multipart body."""
    parts = [
        b"--%b\r\n%b\r\n%b\r\n" % (boundary.encode(), headers.encode("latin-1"), content)
        for content in contents
    ]
    return preamble + b"".join(parts) + (b"--%b--\r\n" % boundary.encode() if end else b"")


def private_bytes(value: bytes) -> bytes:
    """Return a private element that sorts between the header and the pixels of a slice."""
    value += bytes(len(value) % 2)
    creator = struct.pack("<HH2sH", 0x0029, 0x0010, b"LO", 4) + b"TEST"
    return creator + struct.pack("<HH2sHL", 0x0029, 0x1000, b"OB", 0, len(value)) + value


class Raw:
    """One TCP connection; what it sends is up to the test."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self._socket: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        if context is not None:
            self._socket = context.wrap_socket(self._socket, server_hostname="localhost")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def head(self, line: str = "POST /dicom-web/studies HTTP/1.1", **headers: str) -> Self:
        """Send a request's head; underscores in names of headers become hyphens."""
        given = {"Host": "door", "Content_Type": RELATED} | headers
        if "Authorization" not in given:
            given |= BEARER
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in given.items() if value]
        return self.send("\r\n".join([line, *lines, "", ""]).encode("latin-1"))

    def send(self, data: bytes) -> Self:
        """Send bytes."""
        self._socket.sendall(data)
        return self

    def send_as_far_as_possible(self, data: bytes, times: int = 1) -> int:
        """Send until the other side hangs up; return how many bytes went out."""
        sent = 0
        with suppress(OSError):
            for _ in range(times):
                self._socket.sendall(data)
                sent += len(data)
        return sent

    def status(self) -> int:
        """Return the status of the answer; 0 when the connection is closed without one."""
        line = self.line()
        return int(line.split()[1]) if line else 0

    def everything(self) -> bytes:
        """Return all that comes until the other side hangs up."""
        said = b""
        with suppress(ConnectionError):
            while more := self._socket.recv(65536):
                said += more
        return said

    def line(self) -> bytes:
        """Return the first line of what comes."""
        said = b""
        with suppress(ConnectionError):
            while b"\r\n" not in said and (more := self._socket.recv(4096)):
                said += more
        return said.partition(b"\r\n")[0]

    def closed_after_s(self) -> float:
        """Wait until the other side hangs up and return how long that took."""
        began = time.monotonic()
        with suppress(ConnectionError):
            while self._socket.recv(65536):
                pass
        return time.monotonic() - began
