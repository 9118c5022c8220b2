"""The resident composition: door, job log, workers and graph, until told to stop."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.announce import Announcement
from app.backup_folder import LOCK, RESTORING
from app.children import Child
from app.config import Config, application_version
from app.errors import ConfigError
from app.files import READY, locked, make_writable
from app.installed import install, start_crew
from app.node import Node
from app.notify import Notifier
from app.retain import Cleaner, finish
from app.runner import now
from app.signals import on_stop
from app.store.store import Store
from app.web.watch import Watch, Watched

log = logging.getLogger(__name__)


def serve(config: Config, config_path: Path) -> int:
    """Run the node until SIGTERM or SIGINT."""
    os.umask(0o077)  # what lies in the data folder is nobody else's business
    supervisor = Notifier.take()
    with ExitStack() as stack:
        make_writable(config.data)
        stack.enter_context(only_node_in(config.data))
        ready = config.data / READY
        ready.unlink(missing_ok=True)
        models = install(config)
        store = Store.open(config.data / "node.db")
        stack.callback(store.close)
        orphans = store.recover(now(), all_running=True)
        if orphans:
            log.warning("%d jobs were left running by an earlier node and go on", len(orphans))
        finish(config, store)
        crew = start_crew(config)
        stack.callback(crew.stop)
        node = Node(config, store, models=models, crew=crew)

        announcement = Announcement(config, models, ready)
        stack.callback(ready.unlink, missing_ok=True)
        children = _children(config, config_path, announcement)
        for child in children:
            stack.callback(child.close)
            child.open()
        if config.web is not None:
            watched = Watched(
                config=config,
                store=store,
                models=models,
                crew=crew,
                children=children,
                loop=node,
                away=node.couriers.away,
            )
            watch = Watch(config.web, watched, application_version())
            stack.callback(watch.close)
            announcement.web(watch.open())
        announcement.make()
        supervisor.ready(f"data in {config.data}")
        cleaner = Cleaner(config, store, now)
        stack.callback(cleaner.close)
        cleaner.open()

        def stop() -> None:
            log.info("stopping: the door closes, running jobs finish or are handed back")
            supervisor.stopping()
            for child in children:
                threading.Thread(target=child.close, name="child closing").start()
            node.stop()

        on_stop(stop)
        node.run(done=lambda: False, alive=supervisor.alive)
    log.info("stopped")
    return 0


def _children(config: Config, config_path: Path, told: Announcement) -> list[Child]:
    """Return the processes beside this one, in the order in which they are started."""
    where = {"config_path": config_path, "data": config.data}
    children = [Child("door", "app.door", **where, on_ready=told.door)]
    if config.sources or config.counted:
        children.append(Child("fetcher", "app.fetch", **where, on_ready=told.fetcher))
    return children


@contextmanager
def only_node_in(data: Path) -> Iterator[None]:
    """Hold the data folder's lock; a second node on the same folder would run every job twice."""
    taken = f"{data}: another node works in this folder; stop it or give this one its own `data`"
    with locked(data / LOCK, refusal=taken):
        if (data / RESTORING).exists():
            raise ConfigError(
                f"{data}: a `restore` into this folder was cut short; empty it and restore again"
            )
        yield
