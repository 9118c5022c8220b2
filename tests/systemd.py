"""A real systemd beside the machine's own processes, which sees the machine and changes nothing.

It is process 1 of namespaces of its own, on an overlay of the machine's files that vanishes with
it. So `systemctl`, users, units and their sandboxes are what a site has. The network is this
machine's. Needs root, and control groups that may be mounted: see `is_possible`.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.waiting import wait_until

SYSTEMD = Path("/lib/systemd/systemd")
GROUPS = Path("/sys/fs/cgroup")
HIERARCHIES = ("systemd", "pids", "memory", "devices")

BOOT = r"""
set -e
work=$1 python=$2 packages=$3 source=$4
mount --make-rprivate /
mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/own" "$work/root"
root=$work/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/own" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
umount -R "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
for each in systemd pids memory devices; do
    mkdir "$root/sys/fs/cgroup/$each"
    how=$each
    if [ "$each" = systemd ]; then how=none,name=systemd; fi
    mount -t cgroup -o "$how" cgroup "$root/sys/fs/cgroup/$each"
done
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
rm -f "$root"/etc/systemd/system/*.wants/*
printf '[Unit]\nDescription=nothing but what is asked for\n' >"$root/etc/systemd/system/bare.target"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
# the interpreter and its packages where a service may read them, whosever they are here
mkdir -p "$root/opt/python" "$root/opt/source" "$root/opt/environment/bin"
mkdir "$root/opt/environment/lib"
mount --bind "$python" "$root/opt/python"
mount --bind "$packages" "$root/opt/environment/lib"
mount --bind "$source" "$root/opt/source"
ln -s /opt/python/bin/python3.11 "$root/opt/environment/bin/python"
printf 'home = /opt/python/bin\ninclude-system-site-packages = false\n' \
    >"$root/opt/environment/pyvenv.cfg"
# an interpreter may look for its own library where the service cannot; nobody collects its lines
mkdir "$root/etc/systemd/system/service.d"
printf '[Service]\n%s\n%s\n' Environment=LD_LIBRARY_PATH=/opt/python/lib \
    StandardOutput=append:/run/service.log >"$root/etc/systemd/system/service.d/test.conf"
cd "$root"
mkdir -p before
pivot_root . before
umount -l /before
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=bare.target --log-target=null --show-status=no
"""


def is_possible() -> str:
    """Return why it cannot be tried here; nothing when it can."""
    if os.geteuid() != 0:
        return "needs root"
    if not SYSTEMD.exists() or shutil.which("unshare") is None:
        return "not installed: systemd"
    lacking = [each for each in HIERARCHIES if not os.access(GROUPS / each, os.W_OK)]
    return f"no control groups of version 1: {', '.join(lacking)}" if lacking else ""


class Systemd:
    """One that runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def run(
        self, *call: str, check: bool = True, timeout_s: float = 300
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program where this systemd is process 1."""
        inside = ["nsenter", "--target", str(self._pid), "--mount", "--pid", "--root", "--wd"]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        done = subprocess.run(
            [*inside, *call],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        assert done.returncode == 0 or not check, f"{call}: {done.stdout}{done.stderr}"
        return done

    def write(self, path: str, text: str) -> None:
        """Write a file there, with the folders above it."""
        self.run("sh", "-c", f"mkdir -p $(dirname {path}); cat >{path} <<'END'\n{text}\nEND")

    def shown(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", f"--property={name}", "--value", unit).stdout.strip()

    def root(self) -> Path:
        """Return where its files are seen from here."""
        return Path(f"/proc/{self._pid}/root")


@contextmanager
def running(work: Path, source: Path) -> Iterator[Systemd]:
    """Start one; at the end every process of it is gone."""
    groups = [GROUPS / name / f"marginalia-test-{os.getpid()}" for name in HIERARCHIES]
    for group in groups:
        group.mkdir(exist_ok=True)

    def join() -> None:
        for group in groups:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    with (work.parent / "boot.log").open("wb") as log:
        outer = subprocess.Popen(
            [
                *("unshare", "--mount", "--pid", "--fork", "--cgroup", "--uts", "--ipc"),
                *("--kill-child", "bash", "-c", BOOT, "boot", str(work)),
                *(sys.base_prefix, f"{sys.prefix}/lib", str(source)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            preexec_fn=join,  # noqa: PLW1509  # no other thread of a test is at work here
        )
    try:
        systemd = Systemd(wait_until(lambda: _child_of(outer), 60, "the first process"))
        wait_until(lambda: _is_up(systemd), 60, "systemd")
        yield systemd
    finally:
        outer.send_signal(signal.SIGKILL)
        outer.wait(20)
        for group in groups:
            wait_until(lambda: _removed(group), 30, f"the end of what is in {group}")  # noqa: B023


def _child_of(process: "subprocess.Popen[bytes]") -> int:
    assert process.poll() is None, "it ended; boot.log says why"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0]) if children else 0


def _is_up(systemd: Systemd) -> bool:
    state = systemd.run("systemctl", "is-system-running", check=False).stdout.strip()
    return state in {"running", "degraded"}


def _removed(group: Path) -> bool:
    """Remove a control group and those below it, once nothing is in them."""
    below = sorted((p for p in group.rglob("*") if p.is_dir()), key=lambda p: -len(p.parts))
    with suppress(OSError):
        for each in (*below, group):
            each.rmdir()
    return not group.exists()
