"""SIGTERM and SIGINT, waited for instead of handled.

Holoscan's own handlers would end the graph under running jobs. So the signals are blocked before
any library has started a thread of its own, which would otherwise be given them: numpy does so
when it is imported, so `app/__main__.py` blocks them before it imports anything else. One thread
of ours waits for them. A signal that comes before that is not lost: it stays pending.
"""

import signal
import threading
from collections.abc import Callable

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}


def block() -> None:
    """Keep the stop signals from every thread of the process; call it before heavy imports."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def on_stop(stop: Callable[[], None]) -> None:
    """Call `stop` once, in a thread of its own, when a stop signal has come or is pending."""

    def wait() -> None:
        signal.sigwait(STOP_SIGNALS)
        stop()

    threading.Thread(target=wait, name="signals", daemon=True).start()
