"""What the processes beside the node have in common.

Covered: a stop signal at bad moments. Not covered here: readiness and the end with the parent,
which tests/sockets/test_door_process.py and test_fetch.py see in real processes.
"""

import subprocess
import sys

import pytest

IN_THE_LOCK = """
with stop._cond:  # as the main thread holds it for a moment, each time it begins to wait
    signal.raise_signal(signal.SIGTERM)
"""

IN_ANOTHER_THREAD = """
def take() -> None:
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

threading.Timer(0.5, take).start()
"""


@pytest.mark.parametrize("moment", [IN_THE_LOCK, IN_ANOTHER_THREAD])
def test_a_signal_ends_the_wait_whenever_it_comes(moment: str) -> None:
    """While the event's lock is held, and taken by a thread that nobody waits for."""
    program = (
        "import signal, threading\nfrom app.child import _stop_event\n"
        f"stop = _stop_event()\n{moment}\nprint(stop.wait(30))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.stdout == "True\n", run.stderr
