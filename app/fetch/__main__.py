"""The fetcher as a process: `python -m app.fetch --config app.yaml --data FOLDER`.

Prints one JSON line, `{"sources": [name, …]}`, when it asks archives, and then one each second with
what came from them. What they answer is decoded here, under a memory limit: a hostile archive costs
this process, which the node starts again.
"""

import resource
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from app.child import leave, ready, run
from app.config import load_config
from app.dicom.dimse import silence_pynetdicom
from app.door.intake import Intake
from app.errors import NodeError
from app.fetch.counts import CountLoop
from app.fetch.remote import remote
from app.fetch.source import SourceLoop
from app.store.store import Store

MEMORY = 4 * 1024**3
"""Address space: the metadata of the largest series that are asked for need a fourth of it."""
GRACE_S = 5.0
LOOK_S = 1.0
"""How often it is seen whether all threads live."""


def main(argv: list[str] | None = None) -> int:
    """Ask until told to stop; 0 after a clean stop, 2 when it could not begin or go on."""
    return run("app.fetch", __doc__ or "", _serve, argv)


def _serve(config_path: Path, data: Path, stop: threading.Event) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    silence_pynetdicom()
    config = load_config(config_path).at(data)
    with ExitStack() as stack:
        store = Store.open(config.data / "node.db", migrate=False)
        stack.callback(store.close)
        intake = Intake(config.data, store, config.door.limits)
        stack.callback(intake.close)
        loops = [
            SourceLoop(config, source, remote(config, source.archive, store), store, intake)
            for source in config.sources
        ]
        counted = {name: remote(config, name, store) for name in config.counted}
        count = CountLoop(config, counted, store, stop).run
        fetching = {
            each: threading.Thread(target=each.run, name=f"from {each.name}", daemon=True)
            for each in loops
        }
        counting = threading.Thread(target=count, name="counting", daemon=True)
        threads = [*fetching.values(), counting]
        for thread in threads:
            thread.start()
        ready(
            {"sources": [each.name for each in loops]},
            lambda: {"counts": intake.tally.counts()},
        )
        dead = _await_end(threads, stop)
        for each in loops:
            each.stop()
        for archive in counted.values():
            archive.stop()
        until = time.monotonic() + GRACE_S
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        for each, thread in fetching.items():
            if thread not in dead:
                each.spare()
        if dead:
            raise NodeError(f"the thread {dead[0].name!r} ended; a new process begins anew")


def _await_end(threads: list[threading.Thread], stop: threading.Event) -> list[threading.Thread]:
    """Wait until told to stop, or until a thread ends without that; return those that did."""
    dead: list[threading.Thread] = []
    while not dead and not stop.wait(LOOK_S):
        dead = [each for each in threads if not each.is_alive()]
    return [] if stop.is_set() else dead


if __name__ == "__main__":
    leave(main())
