"""The node: claims due work, feeds the graph, keeps leases alive and stops in reverse order.

What is here serves both compositions, the resident node (app.serve) and the batch (app.batch): the
same stages and the same job log, another source and another end.
"""

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from uuid import uuid4

from app.config import Config
from app.couriers import Couriers
from app.errors import NodeError, TransientError
from app.graph import run as run_graph
from app.installed import Crew, Installed
from app.pipeline.assemble import complete_at, rules_for
from app.pipeline.work import StudyWork, Work
from app.runner import StageRunner, now
from app.store.store import Store
from operators.receive import Feed

log = logging.getLogger(__name__)

POLL_S = 0.2
"""How often the job log is asked for due work; the door writes to it from its own process."""

STUDY_PAUSE_S = 5.0
"""A study that could not be routed is not looked at again before."""

LAST_CALL_S = 3.0
"""What a stage that cannot be interrupted gets after `workers.stop_s`."""


class Node:
    """What both compositions share: the job log, the workers and the graph."""

    def __init__(
        self, config: Config, store: Store, *, models: Mapping[str, Installed], crew: Crew
    ) -> None:
        self.config = config
        self.store = store
        self.feed = Feed()
        self.owner = f"{socket.gethostname()}/{os.getpid()}/{uuid4().hex[:6]}"
        self.runner = StageRunner(config, store, models=models, crew=crew, left=self._left)
        self.couriers = Couriers(config, store, now)
        self._inside: set[Work] = set()
        self._not_before: dict[StudyWork, float] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._stop_at = math.inf
        self._beat_at = 0.0
        self._graph_error: Exception | None = None
        self.turned_at = time.monotonic()
        """When the main loop last turned, by the monotonic clock."""

    @property
    def stopping(self) -> bool:
        """Whether no more work is taken."""
        return self._stopping.is_set()

    def run(self, done: Callable[[], bool], alive: Callable[[], None] = lambda: None) -> None:
        """Run until stopped, or until `done` says so when nothing is due.

        `alive` is called at each turn of the loop, several times a second.

        The graph and the couriers run in threads of their own: a stage that cannot be interrupted
        or a delivery to an archive that hangs then does not hold up the end of the node. Such a job
        is handed back, such a delivery goes on at the next start; sending a result twice is
        harmless, since it is the same object.
        """
        graph = threading.Thread(target=self._run_graph, name="graph", daemon=True)
        graph.start()
        self._feed_all(done, alive)
        while graph.is_alive() and time.monotonic() < self._stop_at + LAST_CALL_S:
            self.turned_at = time.monotonic()
            self._keep_leases()
            graph.join(POLL_S)
        self.runner.hand_back_all()
        left_s = min(self._stop_at - time.monotonic(), self.config.workers.stop_s)
        self.couriers.drain(max(0.0, left_s) + LAST_CALL_S)
        if self._graph_error is not None:
            raise self._graph_error

    def stop(self) -> None:
        """Take no more work; let running jobs go on for `workers.stop_s`, then hand them back."""
        self._stop_at = time.monotonic() + self.config.workers.stop_s
        self._stopping.set()
        self._wake.set()
        killer = threading.Timer(self.config.workers.stop_s, self.runner.interrupt)
        killer.daemon = True
        killer.start()

    @property
    def idle(self) -> bool:
        """Whether nothing is inside the graph."""
        with self._lock:
            return not self._inside

    def _left(self, work: Work) -> None:
        with self._lock:
            self._inside = {each for each in self._inside if _key(each) != _key(work)}
            if isinstance(work, StudyWork):
                self._not_before = {
                    w: t for w, t in self._not_before.items() if t > time.monotonic()
                }
                self._not_before[work] = time.monotonic() + STUDY_PAUSE_S
        self._wake.set()

    def _run_graph(self) -> None:
        try:
            run_graph(stages=self.runner, models=list(self.runner.models), feed=self.feed)
        except Exception as error:  # noqa: BLE001  # raised again by run(), in the main thread
            self._graph_error = error
        if self._graph_error is None and not self.feed.closed:
            self._graph_error = NodeError("the graph ended by itself; the node must start again")
        self._stopping.set()
        self._wake.set()

    def _feed_all(self, done: Callable[[], bool], alive: Callable[[], None]) -> None:
        try:
            while not self._stopping.is_set():
                self.turned_at = time.monotonic()
                self._wake.clear()
                alive()
                try:
                    self._keep_leases()
                    self._offer_due()
                    self.couriers.look()
                    if self.idle and done():
                        break
                except TransientError as error:
                    log.warning("tried again in a moment: %s", error)
                self._wake.wait(POLL_S)
        finally:
            self.feed.close()

    def _keep_leases(self) -> None:
        if time.monotonic() >= self._beat_at:
            self._beat_at = time.monotonic() + self.config.jobs.lease_s / 3
            held = self.runner.held()
            self.store.extend(self.owner, now(), self.config.jobs.lease_s, held=held)
            self.store.recover(now())

    def _offer_due(self) -> None:
        for study in self.store.open_studies():
            rules = rules_for(study.source, self.config.assemble)
            due, signal_seen = complete_at(study, rules)
            work = StudyWork(study_uid=study.study_uid, version=study.version, signal=signal_seen)
            if due <= now() and self._may_enter(work):
                self._enter(work)
        with self._lock:
            room = self.config.jobs.in_flight - len(self._inside)
        if room > 0:
            lease_s = self.config.jobs.lease_s
            for job in self.store.claim(self.owner, now(), lease_s, limit=room):
                if work_of_job := self.runner.take(job):
                    self._enter(work_of_job)

    def _may_enter(self, work: StudyWork) -> bool:
        with self._lock:
            inside = any(_key(each) == _key(work) for each in self._inside)
            room = len(self._inside) < self.config.jobs.in_flight
            return room and not inside and time.monotonic() >= self._not_before.get(work, 0.0)

    def _enter(self, work: Work) -> None:
        with self._lock:
            self._inside.add(work)
        self.feed.offer(work)


def _key(work: Work) -> str:
    return work.study_uid if isinstance(work, StudyWork) else work.job_id
