"""The real peers that tests and the demo talk to: Debian's Orthanc and dcmtk's senders.

Usable without pytest; only `require` needs it, to skip on a developer's machine and to fail in CI.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Self

import requests

from tests.waiting import wait_until

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
PLUGINS = {
    "orthanc-dicomweb": Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),
    "orthanc-python": Path("/usr/share/orthanc/plugins/libOrthancPython.so"),
}
NAMESPACES = "the right to make namespaces, as root has it"
STOP_S = 20.0


def find(tool: str) -> str | None:
    """Return the path of an installed program or plugin; NAMESPACES is there if it is allowed."""
    if tool == NAMESPACES:
        made = _run("unshare", "--net", "--mount", "--pid", "--fork", "true")
        return shutil.which("unshare") if made.returncode == 0 else None
    if tool in PLUGINS:
        return str(PLUGINS[tool]) if PLUGINS[tool].exists() else None
    return shutil.which(tool, path=PATH)


def require(*tools: str) -> None:
    """Skip the test when a tool is missing; in CI, where all are installed, fail."""
    missing = [tool for tool in tools if find(tool) is None]
    if not missing:
        return
    import pytest  # noqa: PLC0415  # the demo has none

    reason = f"not installed: {', '.join(missing)}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def echoscu(
    port: int, *, called: str = "MARGINALIA", calling: str = "PEER"
) -> "subprocess.CompletedProcess[str]":
    """Ask with dcmtk's echoscu whether the door is there."""
    return _run("echoscu", "-aet", calling, "-aec", called, "127.0.0.1", str(port))


def storescu(
    port: int,
    paths: Sequence[Path],
    *,
    called: str = "MARGINALIA",
    calling: str = "PEER",
    options: Sequence[str] = (),
) -> "subprocess.CompletedProcess[str]":
    """Send files, or all files in folders, with dcmtk's storescu over one association.

    -R proposes only what the files need: its default proposals have no SEG in them.
    """
    names = ["-aet", calling, "-aec", called, "127.0.0.1", str(port)]
    return _run("storescu", "-R", "+sd", "+r", *options, *names, *map(str, paths))


def dcmsend(
    port: int, paths: Sequence[Path], *, called: str = "MARGINALIA", calling: str = "PEER"
) -> "subprocess.CompletedProcess[str]":
    """Send files as they are, compressed or not, with dcmtk's dcmsend."""
    names = ["-aet", calling, "-aec", called, "127.0.0.1", str(port)]
    return _run("dcmsend", "--no-uid-checks", "--decompress-never", *names, *map(str, paths))


def _run(tool: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    call = [find(tool) or tool, *arguments]
    return subprocess.run(
        call, capture_output=True, text=True, errors="replace", check=False, timeout=120
    )


def free_port() -> int:
    """Return a port that was free a moment ago, for peers that cannot take port 0.

    It lies below those that the kernel gives to outgoing connections, one of which could otherwise
    take it before the peer listens.
    """
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311  # not for secrets
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("0.0.0.0", port))  # noqa: S104  # as Orthanc will
            return port


class Orthanc:
    """A real Orthanc with its DICOMweb plugin, on free ports, with a storage of its own.

    `settings` are added to its configuration, in place of what is there under the same key.

    Orthanc 1.10 cannot bind to the loopback address alone; HTTP is answered to this machine only.
    """

    def __init__(
        self,
        storage: Path | None = None,
        settings: Mapping[str, object] | None = None,
        **environment: str,
    ) -> None:
        self._settings = settings or {}
        self._environment = environment
        self._stack = ExitStack()
        if storage is None:
            temporary = tempfile.TemporaryDirectory(prefix="orthanc-")
            storage = Path(self._stack.enter_context(temporary))
        self.storage = storage
        self.http_port = free_port()
        self.dicom_port = free_port()
        self.log = storage / "orthanc.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._stack.close()

    @property
    def url(self) -> str:
        """Root of the REST interface."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb_url(self) -> str:
        """Root of the DICOMweb service."""
        return f"{self.url}/dicom-web"

    @property
    def pid(self) -> int:
        """The process id, 0 when it does not run."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.storage.mkdir(parents=True, exist_ok=True)
        configuration = self.storage / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration()), encoding="utf-8")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [find("Orthanc") or "Orthanc", str(configuration)],
                env=os.environ | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_until(self._answers, 30, f"the start of Orthanc (see {self.log})")
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ask it to end and wait for that."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def kill(self) -> None:
        """End it without a warning; its storage stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Start it again on the same ports and the same storage."""
        self.stop()
        self.start()

    def instances(self) -> list[str]:
        """Return the SOP Instance UIDs that it holds."""
        found = requests.get(f"{self.url}/instances?expand", timeout=10).json()
        return sorted(each["MainDicomTags"]["SOPInstanceUID"] for each in found)

    def introduce(self, ae_title: str, port: int) -> None:
        """Let it know a DICOM node of this machine: who may ask it, and where it may send to."""
        modality = {"AET": ae_title, "Host": "127.0.0.1", "Port": port}
        requests.put(
            f"{self.url}/modalities/{ae_title}", json=modality, timeout=10
        ).raise_for_status()

    def put(self, part10: bytes) -> None:
        """Let it hold an object, as it is encoded."""
        requests.post(f"{self.url}/instances", data=part10, timeout=10).raise_for_status()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text(errors="replace")[-2000:]
        try:
            return requests.get(f"{self.url}/system", timeout=2).ok
        except requests.ConnectionError:
            return False

    def _configuration(self) -> dict[str, object]:
        return {
            "Name": "archive of a test",
            "StorageDirectory": str(self.storage / "db"),
            "IndexDirectory": str(self.storage / "db"),
            "Plugins": [str(PLUGINS["orthanc-dicomweb"])],
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": "ORTHANC",
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "UnknownSopClassAccepted": True,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
            **self._settings,
        }


class Dcmqrscp:
    """dcmtk's archive on a free port, with a storage of its own; knows one node of this machine."""

    ae_title = "QRSCP"

    def __init__(self, folder: Path, *, ae_title: str, port: int) -> None:
        self.dicom_port = free_port()
        self.log = folder / "dcmqrscp.log"
        self._storage = folder / "storage"
        self._config = folder / "dcmqrscp.cfg"
        self._storage.mkdir(parents=True)
        self._config.write_text(
            f"NetworkTCPPort = {self.dicom_port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
            f"HostTable BEGIN\nnode = ({ae_title}, 127.0.0.1, {port})\nHostTable END\n"
            "VendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\n{self.ae_title} {self._storage} RW (200, 1024mb) ANY\nAETable END\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        call = [find("dcmqrscp") or "dcmqrscp", "-c", str(self._config)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                call, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        echo = ("echoscu", "-aec", self.ae_title, "127.0.0.1", str(self.dicom_port))
        try:
            wait_until(lambda: _run(*echo).returncode == 0, 20, f"dcmqrscp (see {self.log})")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(STOP_S)
