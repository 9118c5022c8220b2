"""Workers with real children: answers, errors, limits, deaths, interruption, the parent's end.

Covered: the protocol and every way a child can end. Not covered: the pipeline's functions behind
the shipped table (tests of the pipeline call them directly), GPU memory, and a process that a
driver holds beyond SIGKILL, which cannot be made on purpose.
"""

import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import app.errors
from app.errors import Interrupted, NodeError, OutOfResources, WorkerLost
from app.log import about
from app.workers import Worker, WorkerFault
from tests.waiting import wait_until

CHILD = "tests.unit.worker_child"
LONG_S = 60.0

PARENT = f"""
import sys
from app.workers import Worker
Worker("orphan", module="{CHILD}").call("hang", {{"note": sys.argv[1], "in_c": True}}, 600)
"""

KINDS = sorted(
    name
    for name, kind in inspect.getmembers(app.errors, inspect.isclass)
    if issubclass(kind, NodeError)
)


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Give a worker of its own to the test."""
    made = Worker("tested", module=CHILD)
    yield made
    made.stop()


def is_running(pid: int) -> bool:
    """Whether the process is there and not a zombie that waits for its parent."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def noted_pids(note: Path) -> list[int]:
    """Return the process ids that `hang` wrote down."""
    wait_until(note.exists, what="the note of the hanging child")
    return [int(pid) for pid in note.read_text(encoding="ascii").split()]


def all_end(pids: list[int], timeout_s: float = 5) -> None:
    """Wait until none of the processes runs."""
    wait_until(lambda: not any(map(is_running, pids)), timeout_s, "the end of the group")


def test_a_child_answers_and_is_kept(worker: Worker) -> None:
    """No child before the first call; afterwards one and the same, in a session of its own."""
    assert worker.pid is None
    first = worker.call("echo", {"a": [1, "ü", None]}, LONG_S)
    second = worker.call("echo", {}, LONG_S)
    assert first["got"] == {"a": [1, "ü", None]}
    assert first["pid"] == second["pid"] == worker.pid
    assert second["calls"] == 2
    assert os.getsid(first["pid"]) == first["pid"] != os.getsid(0)


def test_the_job_is_known_in_the_child(worker: Worker) -> None:
    """A line that the child logs names the job that the caller is about."""
    with about("abc123"):
        assert worker.call("echo", {}, LONG_S)["job"] == "abc123"
    assert worker.call("echo", {}, LONG_S)["job"] is None


def test_a_message_larger_than_a_pipe_goes_both_ways(worker: Worker) -> None:
    """A pipe holds 64 KiB; neither side may block the other."""
    text = "x" * 3_000_000
    assert worker.call("echo", {"text": text}, LONG_S)["got"] == {"text": text}


def test_prints_do_not_disturb_the_protocol(
    worker: Worker, capfd: pytest.CaptureFixture[str]
) -> None:
    """What Python, C and grandchildren print is among the logs; nothing is left to read."""
    assert worker.call("be_noisy", {}, LONG_S) == {"stdin": ""}
    assert worker.call("echo", {}, LONG_S)["calls"] == 1
    worker.stop()
    printed = capfd.readouterr()
    assert printed.out == ""
    for source in ("a print", "a C library", "a grandchild"):
        assert source in printed.err


@pytest.mark.parametrize("name", KINDS)
def test_an_error_of_the_tree_comes_back_as_itself(shared: Worker, name: str) -> None:
    """Class and sentence are the child's, so that the retry policy holds."""
    with pytest.raises(NodeError) as caught:
        shared.call("fail", {"name": name}, LONG_S)
    assert type(caught.value).__name__ == name
    assert str(caught.value) == "said by the child"


@pytest.fixture(scope="module")
def shared() -> Iterator[Worker]:
    """Give one worker to all tests that leave it alive."""
    made = Worker("shared", module=CHILD)
    yield made
    made.stop()


def test_any_other_exception_is_a_fault_without_its_values(shared: Worker) -> None:
    """The class and the place are told; the text, which may quote the study, is not."""
    with pytest.raises(WorkerFault) as caught:
        shared.call("fail_otherwise", {}, LONG_S)
    fault = caught.value
    assert fault.class_name == "ValueError"
    assert "in fail_otherwise" in fault.traceback
    assert str(fault) == "shared: fail_otherwise failed: ValueError"
    assert not isinstance(fault, NodeError)


@pytest.mark.parametrize(
    ("function", "class_name"),
    [
        ("return_what_is_not_json", "TypeError"),
        ("missing", "ModuleNotFoundError"),
        ("not in the table", "KeyError"),
    ],
)
def test_a_fault_of_the_program_keeps_the_child(
    shared: Worker, function: str, class_name: str
) -> None:
    """An answer came, so nothing warm is thrown away."""
    before = shared.call("echo", {}, LONG_S)["pid"]
    with pytest.raises(WorkerFault) as caught:
        shared.call(function, {}, LONG_S)
    assert caught.value.class_name == class_name
    assert shared.call("echo", {}, LONG_S)["pid"] == before


def test_memory_beyond_the_limit_is_refused_and_the_child_lives() -> None:
    """Three GiB do not fit into two; afterwards one MiB does."""
    limited = Worker("limited", module=CHILD, memory_limit_bytes=2 << 30)
    try:
        with pytest.raises(OutOfResources, match="memory or disk ran out"):
            limited.call("take_memory", {"bytes": 3 << 30}, LONG_S)
        pid = limited.pid
        assert limited.call("take_memory", {"bytes": 1 << 20}, LONG_S) == {"sum": 1 << 20}
        assert limited.pid == pid
    finally:
        limited.stop()


def test_a_full_disk_is_out_of_resources(shared: Worker) -> None:
    """ENOSPC in the child makes the job wait, not fail."""
    with pytest.raises(OutOfResources, match="No space left"):
        shared.call("fill_the_disk", {}, LONG_S)


def test_the_environment_reaches_the_child() -> None:
    """A module path without the project keeps the child from starting."""
    told = Worker("told", module="app.workers.child", environment={"PYTHONPATH": "/nowhere"})
    with pytest.raises(WorkerLost, match="ended with status 1 during echo"):
        told.call("echo", {}, LONG_S)
    told.stop()


@pytest.mark.parametrize(
    ("function", "words"),
    [("crash_in_c", "was ended by SIGSEGV"), ("leave", "ended with status 7")],
)
def test_a_dead_child_is_named_and_the_next_call_starts_another(
    worker: Worker, function: str, words: str
) -> None:
    """The signal or the exit status stands in the reason."""
    before = worker.call("echo", {}, LONG_S)["pid"]
    with pytest.raises(WorkerLost, match=f"tested: the process {words} during {function}"):
        worker.call(function, {}, LONG_S)
    assert worker.pid is None
    after = worker.call("echo", {}, LONG_S)
    assert after["pid"] != before
    assert after["calls"] == 1


def test_a_child_killed_between_calls_costs_no_call(worker: Worker) -> None:
    """The call after starts another one."""
    pid = worker.call("echo", {}, LONG_S)["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: worker.condition.losses, what="the notice of its end")
    assert worker.call("echo", {}, LONG_S)["pid"] != pid


def test_a_child_that_died_idle_is_told_and_started_again(worker: Worker) -> None:
    """Without a call; how it ended stays known, and after the node's stop nothing starts."""
    assert worker.condition.starts == 0
    pid = worker.call("echo", {}, LONG_S)["pid"]
    assert (worker.condition.doing, worker.condition.ended) == ("", "")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: worker.pid is None, what="the notice of its end")
    assert "was ended by SIGKILL" in worker.condition.ended
    assert "while it was idle" in worker.condition.ended
    wait_until(lambda: worker.pid not in {None, pid}, what="another child")
    assert (worker.condition.starts, worker.condition.losses) == (2, 1)
    assert worker.call("echo", {}, LONG_S)["pid"] == worker.pid
    second = worker.pid
    worker.stop()
    assert worker.pid is None
    assert not is_running(second)
    assert worker.condition.losses == 1


def test_what_a_worker_does_is_told_while_it_does_it(worker: Worker, tmp_path: Path) -> None:
    """Its function, since when, and how long it may take; a child that was killed counts."""
    with ThreadPoolExecutor(1) as threads:
        note = tmp_path / "note"
        call = threads.submit(worker.call, "hang", {"note": str(note), "in_c": False}, LONG_S)
        (pid, *_) = noted_pids(note)
        told = worker.condition
        assert (told.doing, told.limit_s, told.pid) == ("hang", LONG_S, pid)
        assert 0 <= time.monotonic() - told.began_at < LONG_S
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerLost):
            call.result(LONG_S)
    assert worker.condition.doing == ""
    assert worker.condition.losses == 1
    assert "during hang" in worker.condition.ended


@pytest.mark.parametrize("in_c", [False, True])
def test_a_call_past_its_limit_is_killed_with_its_group(
    worker: Worker, tmp_path: Path, *, in_c: bool
) -> None:
    """Child and grandchild end, waiting or stuck in C."""
    worker.call("echo", {}, LONG_S)
    began = time.monotonic()
    with pytest.raises(WorkerLost, match="hang ran past its limit of 1 s and was killed"):
        worker.call("hang", {"note": str(tmp_path / "note"), "in_c": in_c}, 1)
    assert 1 <= time.monotonic() - began < 10
    all_end(noted_pids(tmp_path / "note"))
    assert worker.call("echo", {}, LONG_S)["calls"] == 1


def test_a_child_outlives_the_signals_that_reach_the_whole_service(worker: Worker) -> None:
    """SIGTERM and SIGINT reach every process of a service; the node decides for its children."""
    assert worker.call("end_by_terminate", {}, LONG_S) == {"pid": worker.pid}


def test_interrupt_ends_the_running_call(worker: Worker, tmp_path: Path) -> None:
    """The caller gets Interrupted, the group is gone, the next call runs."""
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(worker.call, "hang", {"note": str(tmp_path / "note")}, LONG_S)
        pids = noted_pids(tmp_path / "note")
        worker.interrupt()
        with pytest.raises(Interrupted, match="the node is stopping"):
            call.result()
    all_end(pids)
    assert worker.call("echo", {}, LONG_S)["calls"] == 1


def test_interrupt_leaves_an_idle_child_alone(worker: Worker) -> None:
    """What is warm stays warm when nothing runs."""
    pid = worker.call("echo", {}, LONG_S)["pid"]
    worker.interrupt()
    assert worker.call("echo", {}, LONG_S)["pid"] == pid


def test_stop_lets_an_idle_child_end_and_is_final(worker: Worker) -> None:
    """The second stop does nothing; a call after it is refused."""
    pid = worker.call("echo", {}, LONG_S)["pid"]
    began = time.monotonic()
    worker.stop()
    assert not is_running(pid)
    assert time.monotonic() - began < 10
    worker.stop()
    with pytest.raises(Interrupted):
        worker.call("echo", {}, LONG_S)


def test_stop_ends_the_running_call_and_those_that_wait(worker: Worker, tmp_path: Path) -> None:
    """No caller may start a child behind the back of a stopping node."""
    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(worker.call, "hang", {"note": str(tmp_path / "note")}, LONG_S)
        pids = noted_pids(tmp_path / "note")
        waiting = threads.submit(worker.call, "echo", {}, LONG_S)
        worker.stop()
        for call in (running, waiting):
            with pytest.raises(Interrupted):
                call.result()
    all_end(pids)


def test_a_worker_that_never_ran_can_be_stopped() -> None:
    """There is no child to end."""
    Worker("unused").stop()


def test_callers_take_turns(worker: Worker) -> None:
    """Twelve calls from four threads are counted one by one by one child."""
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(worker.call, "echo", {"n": n}, LONG_S) for n in range(12)]
        answers = [call.result() for call in calls]
    assert [answer["got"]["n"] for answer in answers] == list(range(12))
    assert len({answer["pid"] for answer in answers}) == 1
    assert sorted(answer["calls"] for answer in answers) == list(range(1, 13))


def test_two_workers_run_side_by_side(worker: Worker, tmp_path: Path) -> None:
    """The second answers while the first hangs, and outlives the killing of the first."""
    other = Worker("other", module=CHILD)
    try:
        with ThreadPoolExecutor(1) as threads:
            call = threads.submit(worker.call, "hang", {"note": str(tmp_path / "note")}, LONG_S)
            pids = noted_pids(tmp_path / "note")
            assert other.call("echo", {}, LONG_S)["calls"] == 1
            assert not call.done()
            worker.interrupt()
            all_end(pids)
        assert other.call("echo", {}, LONG_S)["calls"] == 2
    finally:
        other.stop()


def test_a_child_started_by_a_thread_that_ended_lives_on(worker: Worker) -> None:
    """PR_SET_PDEATHSIG would kill it; the graph's threads come and go."""
    thread = threading.Thread(target=worker.call, args=("echo", {}, LONG_S))
    thread.start()
    thread.join()
    assert worker.call("echo", {}, LONG_S)["calls"] == 2


def test_the_childs_group_ends_with_its_parent(tmp_path: Path) -> None:
    """SIGKILL of the parent ends child and grandchild in 2 s, even while C holds the lock."""
    note = tmp_path / "note"
    with subprocess.Popen([sys.executable, "-c", PARENT, str(note)]) as parent:
        pids = noted_pids(note)
        parent.kill()
    all_end(pids, timeout_s=2)


def test_descriptors_are_given_back(worker: Worker) -> None:
    """A node that loses a child a day must not run out of descriptors."""

    def is_open() -> int:
        return len([*Path("/proc/self/fd").iterdir()])

    before = is_open()
    for _ in range(3):
        with pytest.raises(WorkerLost):
            worker.call("leave", {}, LONG_S)
    worker.stop()  # else it starts again by itself
    wait_until(lambda: is_open() == before, 30, "the watchers' end")
