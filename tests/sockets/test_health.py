"""What a real node tells of itself while its parts are killed, stopped, locked, filled and removed.

Covered: door, worker, database, disk, a real Orthanc, each failing and well again, as told by
`/readyz`, `/healthz` and the command; what the port lets nobody do; the node's end. Not covered: a
disk that hangs, which cannot be made on purpose (tests/unit/test_probe has a question that hangs),
and a main loop that stands (there as well).

The promise is ten seconds; the deadlines are longer, for machines that run other things.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from app.dicom.dimse import Status
from tests.node import Node, running
from tests.peers import Orthanc, require
from tests.phantoms.dicom import write_study
from tests.sending import send
from tests.waiting import wait_until

pytestmark = pytest.mark.alone

WEB = {"web": {"port": 0, "probe_s": 0.5}}

LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give one node to all tests that leave it well."""
    with running(tmp_path_factory.mktemp("node"), WEB) as node:
        is_ready(node)
        yield node


def is_ready(node: Node) -> None:
    """Wait until all parts are well."""
    wait_until(lambda: node.ask("/readyz").json()["status"] == "ready", 30, "a node that is ready")


def not_ready(node: Node) -> bool:
    """Whether studies cannot be taken in or worked on, though starting again would not help."""
    assert node.ask("/healthz").status_code == 200
    return node.ask("/readyz").status_code == 503


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Keep a process from running inside the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_node_that_is_well_says_so(node: Node) -> None:
    """Every part has its state, since when, and a sentence; the command says the same."""
    answer = node.ask("/readyz")
    assert answer.status_code == 200
    told = answer.json()
    states = {name: part["state"] for name, part in told["parts"].items()}
    assert told["status"] == "ready"
    assert {*states} == {
        *("graph", "door", "stage worker", "model worker", "database", "disk", "archive local"),
    }
    assert {*states.values()} <= {"ok", "idle"}
    assert all(part["since"].endswith("Z") and part["says"] for part in told["parts"].values())
    assert node.ask("/readyz?strict=1").status_code == 200
    assert (node.ask("/healthz").status_code, node.ask("/healthz").text) == (200, "alive\n")
    said = node.command("health").stdout
    assert said.startswith("ready\n")
    assert "database: ok since" in said
    assert json.loads(node.command("health", "--json").stdout)["status"] == "ready"


def test_a_killed_door_is_told_and_comes_back(node: Node) -> None:
    """Its supervisor starts it again; how it ended stays known."""
    before = node.ready["door_pid"]
    os.kill(before, signal.SIGKILL)
    node.becomes("door", "failing", "was ended by SIGKILL")
    node.becomes("door", "ok", "the last one was ended by SIGKILL")
    assert node.ready["door_pid"] != before
    is_ready(node)


def test_a_door_that_hangs_is_told_and_returns(node: Node) -> None:
    """The process is there and its port accepts connections, but it does nothing."""
    with stopped(node.ready["door_pid"]):
        node.becomes("door", "failing", "it is stopped or hangs")
        assert not_ready(node)
        assert node.command("health", check=False).returncode == 2
    node.becomes("door", "ok")
    is_ready(node)


def test_a_locked_job_log_is_told_and_its_release(node: Node) -> None:
    """Another process holds the lock that every writer needs."""
    call = [sys.executable, "-c", LOCKER, str(node.data / "node.db")]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as locker:
        assert locker.stdout is not None
        assert locker.stdin is not None
        assert locker.stdout.readline() == b"locked\n"
        node.becomes("database", "failing", "is locked by another process")
        assert not_ready(node)
        locker.stdin.close()
    node.becomes("database", "ok")
    is_ready(node)


def test_a_job_log_that_is_gone_is_told(node: Node) -> None:
    """The node still holds the file, and all that it writes there would be lost."""
    log, away = node.data / "node.db", node.data / "away.db"
    log.rename(away)
    node.becomes("database", "failing", "is gone")
    assert not_ready(node)
    log.write_bytes(b"")
    node.becomes("database", "failing", "another file stands in the place of the job log")
    away.rename(log)
    node.becomes("database", "ok")
    is_ready(node)


def test_a_full_disk_is_told_and_room_again(tmp_path: Path) -> None:
    """A real one where the tests may mount it, else a limit on what the process may write."""
    with ExitStack() as stack:
        data = tmp_path / "data"
        data.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(data)]
        mounted = os.geteuid() == 0 and subprocess.run(mount, check=False).returncode == 0
        if mounted:
            stack.callback(subprocess.run, ["umount", "--lazy", str(data)], check=True)
        node = stack.enter_context(running(tmp_path, WEB))
        is_ready(node)
        with ExitStack() as full:
            if mounted:
                full.callback((data / "ballast").unlink)
                fill(data / "ballast")
            else:
                full.enter_context(no_file_grows(node))
            node.becomes("disk", "failing")
            assert not_ready(node)
        node.becomes("disk", "ok")
        is_ready(node)


def fill(path: Path) -> None:
    """Take all the room that there is."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


@contextmanager
def no_file_grows(node: Node) -> Iterator[None]:
    """Let the node's own process write nothing."""
    import resource  # noqa: PLC0415  # only where nothing can be mounted

    pid = node.ready["pid"]
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def test_too_little_room_is_told(tmp_path: Path) -> None:
    """With less than `door.limits.free_gb` nothing is received, which a monitor should know."""
    door = {"port": 0, "open": True, "limits": {"free_gb": 1e6}}
    with running(tmp_path, WEB | {"door": door}) as node:
        node.becomes("disk", "failing", "door.limits.free_gb asks for 1e+06")
        assert not_ready(node)


def test_a_worker_that_is_killed_is_told_and_comes_back(tmp_path: Path) -> None:
    """By the kernel while it is idle: the next study does not even notice."""
    first, second = (
        write_study(tmp_path / str(seed), seed=seed, shape=(16, 16), slices=6) for seed in (81, 82)
    )
    with running(tmp_path / "node", WEB) as node, node.store() as store:
        node.becomes("stage worker", "idle", "not started yet")
        send(first.paths, node.port)
        wait_until(lambda: store.trace(first.study_uid), 60, "the verdict on the first study")
        node.becomes("stage worker", "ok", "waits for work")
        os.kill(worker_of(node, "stage"), signal.SIGKILL)
        node.becomes("stage worker", "failing", "was ended by SIGKILL")
        node.becomes("stage worker", "ok", "lost 1 times: was ended by SIGKILL")
        is_ready(node)
        assert node.ask("/healthz").status_code == 200
        send(second.paths, node.port)
        wait_until(lambda: store.trace(second.study_uid), 60, "the verdict on the second study")
    assert "cannot be routed" not in node.log.read_text()


def worker_of(node: Node, name: str) -> int:
    """Return the process id of one of the node's workers."""
    for entry in Path("/proc").iterdir():
        try:
            call = (entry / "cmdline").read_bytes().split(b"\0")
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:  # no process, or no more
            continue
        mine = int(parent) == node.ready["pid"]
        if mine and b"app.workers.child" in call and name.encode() in call:
            return int(entry.name)
    raise AssertionError(f"no {name} worker runs")


@pytest.mark.slow
@pytest.mark.orthanc
def test_an_archive_that_is_away_degrades_the_node_and_reception_goes_on(tmp_path: Path) -> None:
    """It is silent, then gone: a load balancer still sends studies, a monitor is told."""
    require("Orthanc", "orthanc-dicomweb")
    study = write_study(tmp_path / "study", seed=83, shape=(48, 48), slices=24)
    with Orthanc(tmp_path / "orthanc") as orthanc:
        web = {"kind": "dicomweb", "url": orthanc.dicomweb_url}
        dimse = {
            "kind": "dimse",
            "host": "127.0.0.1",
            "port": orthanc.dicom_port,
            "ae_title": "ORTHANC",
            "proof": "status",
        }
        archives = {"local": web, "dimse": dimse}
        both = ("archive local", "archive dimse")
        with running(tmp_path / "node", WEB | {"archives": archives}) as node:
            is_ready(node)
            with stopped(orthanc.pid):
                for name in both:
                    node.becomes(name, "failing")
                degraded(node)
                assert set(send(study.paths, node.port)) == {Status.SUCCESS}
                node.becomes("archive local", "failing", "deliveries are under way", 90)
                assert node.command("health", check=False).returncode == 1
            for name in both:
                node.becomes(name, "ok")
            orthanc.kill()
            for name in both:
                node.becomes(name, "failing", "is it running?")
            degraded(node)
            orthanc.restart()
            for name in both:
                node.becomes(name, "ok")
            is_ready(node)


def degraded(node: Node) -> None:
    """Check that studies are still wanted while something fails."""
    answer = node.ask("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert node.ask("/readyz?strict=1").status_code == 503
    assert node.ask("/healthz").status_code == 200


def test_the_port_can_only_be_looked_at(node: Node) -> None:
    """Other methods and addresses are refused; HEAD is answered without a body."""
    url = f"http://127.0.0.1:{node.ready['web_port']}"
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        for path in ("/healthz", "/readyz", "/metrics"):
            assert requests.request(method, url + path, timeout=10).status_code == 405
    assert node.ask("/").status_code == 404
    assert node.ask("/api/studies/1.2.3").status_code == 404
    head = requests.head(f"{url}/readyz", timeout=10)
    assert (head.status_code, head.content) == (200, b"")
    assert "server" not in {name.lower() for name in head.headers}


def test_silent_and_rude_visitors_keep_nobody_out(node: Node) -> None:
    """More connections than there are places, and a head without an end."""
    address = ("127.0.0.1", node.ready["web_port"])
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(address, timeout=10))
        rude = stack.enter_context(socket.create_connection(address, timeout=30))
        rude.sendall(b"GET /readyz HTTP/1.1\r\nX-Long: " + b"x" * 40_000)
        began = time.monotonic()
        assert node.ask("/readyz").status_code == 200
        assert time.monotonic() - began < 10
        assert b"200 OK" not in rude.recv(100)


def test_the_end_of_the_node_waits_for_no_monitor(tmp_path: Path) -> None:
    """Connections that say nothing and an archive that does not answer: both are left behind."""
    silent = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/dicom-web"
    settings = WEB | {"archives": {"local": {"kind": "dicomweb", "url": url}}}
    with silent, running(tmp_path, settings) as node:
        address = ("127.0.0.1", node.ready["web_port"])
        with socket.create_connection(address), socket.create_connection(address) as half:
            half.sendall(b"GET /readyz HTTP/1.1\r\n")
            node.becomes("archive local", "failing", "no answer")
            assert node.stop(30) == 0
        assert node.command("health", check=False).returncode == 2


def test_a_node_without_the_port_is_said_to_have_none(tmp_path: Path) -> None:
    """Nothing listens unless the file says so; the command tells what to add."""
    with running(tmp_path) as node:
        assert "web_port" not in node.ready
        answer = node.command("health", check=False)
    assert answer.returncode == 2
    assert "`node.web`" in answer.stderr


def test_a_web_port_in_use_is_named(tmp_path: Path) -> None:
    """As every other port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        web: dict[str, Any] = {"port": taken.getsockname()[1]}
        refused = Node(tmp_path, {"web": web}).command("serve", check=False)
    assert refused.returncode == 2
    assert f"web.host, web.port: cannot listen on 127.0.0.1:{web['port']}" in refused.stderr
