"""The services of deploy/compose/compose.yaml as processes, each in namespaces made as it says.

No container engine is needed, and none of the files is changed: mounts, users, capabilities,
read-only file systems, the shared network, environments and commands are taken from compose.yaml.
Not covered: what only an engine does, such as limits of memory, published ports and restarts; and
the images, in place of which stand this source tree and Debian's Orthanc. Linux, as root.
"""

import ctypes
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ROOT / "deploy" / "compose"
ADDRESS = "192.0.2.7"
"""Address of the services' network that is not loopback, as an engine's bridge would give it."""

_CLONE_NEWNET = 0x40000000
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_FROM_ETC = ("alternatives", "group", "hosts", "ld.so.cache", "localtime", "nsswitch.conf")
_FROM_ETC += ("passwd", "ssl")
_DEVICES = ("null", "zero", "full", "random", "urandom")

_FUNCTIONS = """
set -eu
place() {
    if [ -d "$1" ]; then mkdir -p "$root$2"; return; fi
    mkdir -p "$(dirname "$root$2")"
    : >"$root$2"
}
shared() { place "$1" "$2"; mount --bind "$1" "$root$2"; }
shown() { shared "$1" "$2"; mount -o remount,bind,ro "$root$2"; }
memory() { mkdir -p "$root$1"; mount -t tmpfs -o "nosuid,nodev,noexec,$2" memory "$root$1"; }
mount --make-rprivate /
mount -t tmpfs -o mode=755 root "$root"
mkdir -m 1777 "$root/tmp"
mkdir "$root/proc" "$root/dev" "$root/etc"
mount -t proc proc "$root/proc"
shown /sys /sys
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What an image brings: its programs, at their places, and what it runs."""

    entrypoint: Sequence[str]
    folders: Mapping[str, str] = field(default_factory=dict)
    path: str = _PATH


IMAGES = {
    "marginalia": Image(
        entrypoint=("/opt/venv/bin/python", "-m", "app"),
        folders={
            "/opt/holoscan/app": str(ROOT),
            "/opt/venv": sys.prefix,
            sys.base_prefix: sys.base_prefix,
        },
        path=f"/opt/venv/bin:{_PATH}",
    ),
    # the image's own entry point makes one file of all in /etc/orthanc and starts the same program
    "orthancteam/orthanc": Image(entrypoint=("Orthanc", "/etc/orthanc/orthanc.json")),
}


def compose(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the compose file with its variables filled in, as an engine reads it."""
    text = (COMPOSE / "compose.yaml").read_text(encoding="utf-8")

    def value(found: re.Match[str]) -> str:
        name, otherwise, what = found.groups()
        given = environment.get(name, "")
        assert given or otherwise != ":?", what
        return given or what or ""

    described = yaml.safe_load(re.sub(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}", value, text))
    assert isinstance(described, dict)
    return described


class Stack:
    """The services of the compose file; volumes and logs lie in `folder`."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.described = compose(environment)
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            self.start("pod")
            wait_until(self._has_network, 20, f"a network (see {self.log('pod')})")
            with self.network():
                subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
                subprocess.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
            for name in self.described["services"]:
                if name != "pod":
                    self.start(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed([*self._running]):
            self.kill(name)

    def service(self, name: str) -> dict[str, Any]:
        """Return what the compose file says of a service."""
        described: dict[str, Any] = self.described["services"][name]
        return described

    def volume(self, name: str) -> Path:
        """Return the folder of a named volume."""
        return self._folder / "volumes" / name

    def log(self, name: str) -> Path:
        """Return the file with what a service printed."""
        return self._folder / f"{name}.log"

    @contextmanager
    def network(self) -> Iterator[None]:
        """Have this thread, and what it starts, in the network of the services."""
        with (
            Path("/proc/thread-self/ns/net").open("rb") as ours,
            Path(f"/proc/{self._running['pod'].pid}/ns/net").open("rb") as theirs,
        ):
            _enter(theirs.fileno())
            try:
                yield
            finally:
                _enter(ours.fileno())

    def start(self, name: str) -> None:
        """Start a service as its image would be started."""
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        if "network_mode" in self.service(name):
            owner = self.service(name)["network_mode"].removeprefix("service:")
            apart = ["nsenter", f"--net=/proc/{self._running[owner].pid}/ns/net", *apart]
        else:
            apart.append("--net")
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*apart, "sh", "-c", self._script(name)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """End a service, and all that it started, without a warning; wait until nothing is left.

        Its process 1 is ended: a service that changed its user outlives the `unshare` around it.
        """
        process = self._running[name]
        try:
            os.kill(self.first_process(name), signal.SIGKILL)
        except (OSError, IndexError):  # it has ended, or not begun
            process.kill()
        process.wait()
        del self._running[name]

    def stop(self, name: str) -> int:
        """Ask a service to end, as its engine would, and return its exit status."""
        os.kill(self.first_process(name), signal.SIGTERM)
        grace_s = float(self.service(name)["stop_grace_period"].removesuffix("s"))
        return self._running.pop(name).wait(grace_s)

    def first_process(self, name: str) -> int:
        """Return the process that a service calls number 1."""
        pid = self._running[name].pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def execute(self, name: str, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command beside a running service, as its engine would."""
        inside = ["nsenter", "--target", str(self.first_process(name)), "--mount", "--net", "--pid"]
        return subprocess.run(
            [*inside, "--root", *self._as_user(name), *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def health(self, name: str) -> "subprocess.CompletedProcess[str]":
        """Run the check of its health that the compose file names."""
        kind, *command = self.service(name)["healthcheck"]["test"]
        assert kind == "CMD"
        return self.execute(name, *command)

    def _has_network(self) -> bool:
        pod = self._running["pod"]
        assert pod.poll() is None, self.log("pod").read_text()
        return Path(f"/proc/{pod.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()

    def _script(self, name: str) -> str:
        """Return the shell's part: a root of its own, then the service's program in it."""
        service = self.service(name)
        image = _image(service)
        root = self._folder / "roots" / name
        root.mkdir(parents=True, exist_ok=True)
        lines = [f"root={shlex.quote(str(root))}", _FUNCTIONS]
        lines += [_system(Path(path)) for path in _SYSTEM if Path(path).exists()]
        lines += [f"shown /etc/{each} /etc/{each}" for each in _FROM_ETC]
        lines += [f"shared /dev/{each} /dev/{each}" for each in _DEVICES]
        lines += ["memory /dev/shm mode=1777,size=64m"]
        lines += [shlex.join(["shown", here, at]) for at, here in image.folders.items()]
        lines += [self._mount(service, each) for each in service.get("volumes", [])]
        lines += [shlex.join(["memory", *each.split(":", 1)]) for each in service.get("tmpfs", [])]
        if service.get("read_only"):
            lines.append('mount -o remount,bind,ro "$root"')
        command = [*(service.get("entrypoint") or image.entrypoint), *service.get("command", [])]
        lines.append(f'exec chroot "$root" {shlex.join([*self._as_user(name), *command])}')
        return "\n".join(lines)

    def _mount(self, service: Mapping[str, Any], mount: Mapping[str, Any]) -> str:
        if mount["type"] == "bind":
            source = (COMPOSE / mount["source"]).resolve()
            assert source.is_file(), f"{source} is mounted and does not exist"
        else:
            assert mount["source"] in self.described["volumes"]
            source = self.volume(mount["source"])
            if not source.exists():  # an engine gives a new volume the owner that its image has
                source.mkdir(parents=True)
                os.chown(source, *(int(number) for number in service["user"].split(":")))
        kind = "shown" if mount.get("read_only") else "shared"
        return shlex.join([kind, str(source), mount["target"]])

    def _as_user(self, name: str) -> list[str]:
        """Return the call that gives up what the compose file takes away."""
        service = self.service(name)
        user, group = service["user"].split(":")
        call = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        if "no-new-privileges:true" in service.get("security_opt", []):
            call.append("--no-new-privs")
        if service.get("cap_drop") == ["ALL"]:
            call += ["--inh-caps=-all", "--bounding-set=-all"]
        environment = {"PATH": _image(service).path, "HOME": "/"}
        environment |= {key: str(value) for key, value in service.get("environment", {}).items()}
        told = [f"{key}={value}" for key, value in environment.items()]
        return [*call, "env", "-i", f"--chdir={service.get('working_dir', '/')}", *told]


def _image(service: Mapping[str, Any]) -> Image:
    """Return what stands for a service's image."""
    return IMAGES[service["image"].rpartition(":")[0]]


def _system(path: Path) -> str:
    """Give the service the machine's own programs, as a base image would."""
    if path.is_symlink():
        return f'ln -s {path.readlink()} "$root{path}"'
    return f"shown {path} {path}"


def _enter(namespace: int) -> None:
    """Have the calling thread in a network."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
