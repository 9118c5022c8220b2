"""The units under a real systemd, with all that they forbid: install, start, a study, hang, stop.

Covered: `systemctl start` returns when the node is ready; a study is read by the real network under
the unit's sandbox, as its own user; a node that hangs is started again; a backup by its timer's
unit; `systemctl stop`; a wrong app.yaml; what the sandbox takes away, by what the processes can
still do; the units' grammar and exposure. Not covered: a GPU, port 104, cgroups of version 2, other
distributions; of a kernel's limits only what this one has.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from app.config import Workers
from tests.node import ROOT, SETTINGS
from tests.peers import free_port, require
from tests.phantoms.dicom import write_study
from tests.sending import send
from tests.systemd import Systemd, is_possible, running
from tests.waiting import wait_until

UNITS = ROOT / "deploy/systemd"
MOST_EXPOSED = 2.0
"""Of 10, as `systemd-analyze security` counts; 1.2 is where the unit is."""


def value(unit: str, key: str) -> str:
    """Return what a unit says, the last time it says it."""
    return re.findall(rf"^{key}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)[-1]


def analyze(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Ask systemd-analyze."""
    call = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, check=False, timeout=60)


def test_the_units_are_well_formed(tmp_path: Path) -> None:
    """No warning; the programs that they name lie elsewhere in this copy."""
    require("systemd-analyze")
    for unit in UNITS.glob("marginalia*.*"):
        text = unit.read_text().replace("/opt/marginalia/current/venv/bin/python", sys.executable)
        (tmp_path / unit.name).write_text(text)
    for name in ("gpu", "port-104"):
        folder = tmp_path / "marginalia.service.d"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.conf").write_text((UNITS / f"{name}.conf").read_text())
    checked = analyze("verify", "--man=no", *tmp_path.glob("marginalia*.*[re]"))
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    (tmp_path / "marginalia.service").write_text("[Service]\nColour=blue\nExecStart=/bin/true\n")
    spoiled = analyze("verify", "--man=no", tmp_path / "marginalia.service")
    assert "Colour" in spoiled.stderr, "a fault is seen at all"


@pytest.mark.parametrize("unit", ["marginalia.service", "marginalia-backup.service"])
def test_the_units_expose_little(unit: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By systemd's own count."""
    require("systemd-analyze")
    threshold = f"--threshold={MOST_EXPOSED * 10:.0f}"
    told = analyze("security", "--offline=true", threshold, UNITS / unit)
    with capsys.disabled():
        print(f"\n{told.stdout.strip().splitlines()[-1]}")  # noqa: T201  # for the record
    assert told.returncode == 0, told.stdout


def test_systemd_waits_longer_than_the_node_may_take() -> None:
    """For running jobs, the couriers and the children, at the largest `workers.stop_s`."""
    (longest,) = (
        each.le for each in Workers.model_fields["stop_s"].metadata if hasattr(each, "le")
    )
    minutes = re.fullmatch(r"(\d+)min", value("marginalia.service", "TimeoutStopSec"))
    assert minutes is not None
    assert int(minutes[1]) * 60 >= longest + 30


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    """A systemd of its own."""
    if reason := is_possible():
        pytest.skip(reason)
    (tmp_path / "work").mkdir()
    with running(tmp_path / "work", ROOT) as found:
        yield found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_lives_under_systemd(systemd: Systemd, tmp_path: Path) -> None:
    """From deploy/install to `systemctl stop`, in the order in which a site meets it."""
    port = free_port()
    install = ("bash", "/opt/source/deploy/install", "--python-env", "/opt/environment")
    systemd.run(*install, "--no-start")
    config = systemd.root() / "etc/marginalia/app.yaml"
    document = yaml.safe_load(config.read_text())
    document["node"]["door"] |= {"port": port, "peers": [{"ae_title": "SENDER"}]}
    document["node"]["door"]["limits"] = {"free_gb": 0}
    document["node"] |= {key: SETTINGS[key] for key in ("assemble", "archives", "routes")}
    config.write_text(yaml.safe_dump(document))

    installed = systemd.run(*install)
    assert "is the current one" in installed.stdout
    assert systemd.shown("marginalia", "ActiveState") == "active"
    assert systemd.shown("marginalia", "StatusText") == "data in /var/lib/marginalia"
    study = write_study(tmp_path / "study", seed=5, shape=(32, 32), slices=24)
    assert {*send(study.paths, port)} == {0}
    wait_until(lambda: jobs(systemd) == ["done"], 240, "the end of the job")
    _is_confined(systemd)

    backup = systemd.run("systemctl", "start", "marginalia-backup.service", check=False)
    assert backup.returncode == 0, systemd.shown("marginalia-backup", "Result")
    (made,) = (systemd.root() / "var/backups/marginalia").glob("2*Z")
    assert (made / "data/node.db").stat().st_uid == made.parent.stat().st_uid != 0

    quick = "/etc/systemd/system/marginalia.service.d/quick.conf"
    systemd.write(quick, "[Service]\nWatchdogSec=10\nRestartSec=1")
    systemd.run("systemctl", "daemon-reload")
    systemd.run("systemctl", "restart", "marginalia")
    hung = main_pid(systemd)
    systemd.run("kill", "-STOP", hung)
    wait_until(lambda: main_pid(systemd) not in {hung, "0"}, 120, "another node")
    wait_until(lambda: systemd.shown("marginalia", "ActiveState") == "active", 120, "its start")

    systemd.run("systemctl", "stop", "marginalia")
    assert systemd.shown("marginalia", "ActiveState") == "inactive"
    assert systemd.shown("marginalia", "Result") == "success"
    config.write_text(config.read_text() + "\ncolour: blue\nnode: wrong\n")
    refused = systemd.run(*install, check=False)
    assert (refused.returncode, "nothing was changed" in refused.stderr) == (1, True)


def jobs(systemd: Systemd) -> list[str]:
    """Return the states of all jobs, asked by the command that a site uses."""
    asked = systemd.run("/usr/local/bin/marginalia", "jobs", "--json").stdout
    return [str(job["state"]) for job in yaml.safe_load(asked)]


def main_pid(systemd: Systemd) -> str:
    """Return the node's process."""
    return systemd.shown("marginalia", "MainPID")


def _is_confined(systemd: Systemd) -> None:
    """Look at what the node's process has, and see what a program in its place can do."""
    pid = main_pid(systemd)
    status = systemd.run("cat", f"/proc/{pid}/status").stdout
    told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert told["Seccomp"] == "2"
    assert told["NoNewPrivs"] == "1"
    assert {int(told[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    assert told["Umask"] == "0077"
    assert told["Uid"].split()[0] != "0"
    inside = ("nsenter", "--target", pid, "--mount", "--")
    for path in ("/etc", "/usr", "/opt/marginalia"):
        touched = systemd.run(*inside, "touch", f"{path}/new", check=False)
        assert "Read-only file system" in touched.stderr
    assert systemd.run(*inside, "ls", "/root", "/home", check=False).stdout.split() == [
        "/home:",
        "/root:",
    ]
    devices = {*systemd.run(*inside, "ls", "/dev").stdout.split()}
    assert {"null", "urandom", "shm"} <= devices
    assert not devices & {"kvm", "mem", "vda", "sda", "fuse"}
