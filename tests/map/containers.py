"""Podman with a storage of its own, and the ways in which the tests run the image."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

USER = 1000
"""The image's."""

HARDENED = (
    *("--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp"),  # noqa: S108  # its own
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)
"""The least that a container can be given."""

# Some machines, CI's among them, have a hybrid cgroup hierarchy, which crun refuses, and do not let
# root raise limits, as podman's defaults would.
_CONTAINERS = """
[containers]
default_ulimits = ["nofile=8192:8192", "nproc=4096:4096", "stack=33554432:33554432"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
"""

_STORAGE = """
[storage]
driver = "overlay"
graphroot = "{folder}/graph"
runroot = "{folder}/run"
"""

Done = subprocess.CompletedProcess[str]


class Store:
    """A private storage of images and containers, removed at the end with all that runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "containers.conf").write_text(_CONTAINERS)
        (folder / "storage.conf").write_text(_STORAGE.format(folder=folder))
        self.environment = {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it: gigabytes, and mounts that would keep them."""
        self.podman("rm", "--force", "--all", "--time", "0")
        self.podman("volume", "rm", "--force", "--all")
        self.podman("rmi", "--force", "--all")
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        below = [line.split()[1] for line in mounts if line.split()[1].startswith(str(self.folder))]
        for mount in reversed(below):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(self.folder)

    def podman(self, *arguments: str, timeout_s: float = 300) -> Done:
        """Call podman on this storage; whether it ended well is for the caller to judge."""
        return subprocess.run(
            ["podman", *arguments],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    def well(self, *arguments: str, timeout_s: float = 300) -> str:
        """Call podman, which must end well; return what it said."""
        done = self.podman(*arguments, timeout_s=timeout_s)
        assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr[-4000:]}"
        return done.stdout


class Image:
    """The image under test in the storage where it was loaded."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name

    @property
    def described(self) -> dict[str, Any]:
        """What the engine says of it."""
        described: dict[str, Any] = json.loads(self.store.well("image", "inspect", self.name))[0]
        return described

    def run(self, *arguments: str, options: tuple[str, ...] = (), hardened: bool = True) -> Done:
        """Run it to its end, without a network."""
        how = ("--rm", "--network", "none", *(HARDENED if hardened else ()), *options)
        return self.store.podman("run", *how, self.name, *arguments)

    @contextmanager
    def started(self, *arguments: str, options: tuple[str, ...] = ()) -> Iterator["Container"]:
        """Start it in the background; leave nothing of it."""
        told = self.store.well("run", "--detach", *HARDENED, *options, self.name, *arguments)
        container = Container(self.store, told.strip())
        try:
            yield container
        finally:
            self.store.podman("rm", "--force", "--time", "0", container.name)


class Container:
    """A container that runs in the background."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self.name = name

    @property
    def log(self) -> str:
        """What it has said so far, on both streams."""
        done = self._store.podman("logs", self.name)
        return done.stdout + done.stderr

    @property
    def state(self) -> dict[str, Any]:
        """What the engine says of it, such as `Running` and `ExitCode`."""
        state: dict[str, Any] = json.loads(self._store.well("inspect", self.name))[0]["State"]
        return state

    def ask(self, *arguments: str) -> Done:
        """Run one of the program's commands in it, as a person does."""
        return self._store.podman("exec", self.name, "python", "-m", "app", *arguments)

    def stop(self, grace_s: int) -> int:
        """Ask it to stop and return its exit status; after the grace time it would be killed."""
        self._store.well("stop", "--time", str(grace_s), self.name)
        return int(self.state["ExitCode"])


def bind(source: Path, target: str, *, writable: bool = False) -> tuple[str, ...]:
    """Return the options that mount a folder or a file of ours."""
    return "--volume", f"{source}:{target}:{'rw' if writable else 'ro'}"


def owned(folder: Path) -> Path:
    """Make a folder that the image's user may write to."""
    folder.mkdir()
    os.chown(folder, USER, USER)
    return folder
