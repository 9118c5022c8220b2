"""SIGTERM and SIGINT, waited for instead of handled."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}


@contextmanager
def stop_signals() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Give a function that names what SIGTERM and SIGINT shall do, from now on and before.

    The signals are blocked in every thread and waited for in one of ours: Holoscan's own handlers,
    which would end the graph under running jobs, never see them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def then(stop: Callable[[], None]) -> None:
        def wait() -> None:
            signal.sigwait(STOP_SIGNALS)
            stop()

        threading.Thread(target=wait, name="signals", daemon=True).start()

    try:
        yield then
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
