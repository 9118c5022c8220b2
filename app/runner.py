"""Run one stage of one job: the one place where errors are caught and rows are written.

Every stage of a job ends in exactly one of: passed, finished, postponed, gave up, handed back.
What that means for the job is said by the error's type (see app.errors), not by the stage.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event, Lock
from typing import Any

from app.config import Config
from app.errors import (
    Interrupted,
    ModelError,
    NodeError,
    SeveralPatients,
    TransientError,
)
from app.faults import crash_point
from app.installed import Crew, Installed
from app.log import about, sentence, traced
from app.pipeline import JOB_STAGES, Stage
from app.pipeline.route import Pick, Verdict, route, several_patients
from app.pipeline.work import JobWork, StudyWork, Work
from app.stages import JobStages
from app.store.jobs import Job, LeaseLost, NewJob, State
from app.store.store import Store
from app.workers import WorkerFault

log = logging.getLogger(__name__)

ROUTE_TRIES = 3
"""How often a study whose headers cannot be read for want of a worker is tried."""


def now() -> datetime:
    """Return the time as rows have it."""
    return datetime.now(UTC)


class StageRunner:
    """The stages as operators call them: work in, work out, never an exception."""

    def __init__(
        self,
        config: Config,
        store: Store,
        *,
        models: Mapping[str, Installed],
        crew: Crew,
        left: Callable[[Work], None],
    ) -> None:
        self.config = config
        self.store = store
        self.models = models
        self.crew = crew
        self._stages = JobStages(config, store, models, crew)
        self._left = left
        self._by_identity = {each.card.identity: name for name, each in models.items()}
        self._held: dict[str, Job] = {}
        self._route_tries: Counter[StudyWork] = Counter()
        self._lock = Lock()
        self._interrupted = Event()

    # -- what the operators call -------------------------------------------------------------

    def route(self, work: Work) -> list[tuple[str, JobWork]]:
        """Route a study, or send a job to the port of its model."""
        if isinstance(work, JobWork):
            return [(work.model, work)]
        self._route_study(work)
        self._left(work)
        return []

    def infer(self, work: JobWork) -> JobWork:
        """Make the label map."""
        return self._run(work, Stage.INFER, self._stages.infer)

    def encode(self, work: JobWork) -> JobWork:
        """Make the DICOM objects."""
        return self._run(work, Stage.ENCODE, self._stages.encode)

    def deliver(self, work: JobWork) -> None:
        """Hand the objects over to the couriers of their destinations."""
        self._run(work, Stage.DELIVER, self._stages.deliver)
        self._left(work)

    # -- jobs on their way -------------------------------------------------------------------

    def take(self, job: Job) -> JobWork | None:
        """Hold a claimed job until it is settled; None when its model is not installed."""
        with self._lock:
            self._held[job.id] = job
        if job.model in self._by_identity:
            return JobWork(job_id=job.id, model=self._by_identity[job.model])
        with about(job.id):
            error = ModelError(
                f"the job was made for {job.model}, which is not installed; install it again,"
                " or send the study again to have it read by the model that is"
            )
            self._settle(job, partial(self._note_failure, error=error))
        return None

    def held(self) -> list[str]:
        """Return the jobs whose leases are kept; not one whose end could not be written."""
        with self._lock:
            return list(self._held)

    def interrupt(self) -> None:
        """End running stages where they stand and start no other; their jobs are handed back."""
        self._interrupted.set()
        self.crew.interrupt()

    def hand_back_all(self) -> None:
        """Hand back every job still held; called when the graph has ended."""
        with self._lock:
            left = list(self._held.values())
        for job in left:
            with about(job.id):
                self._settle(job, lambda job: self.store.hand_back(job, "node stopped", now()))

    def _run(self, work: JobWork, stage: Stage, action: Callable[[Job], dict[str, Any]]) -> JobWork:
        job = self._held.get(work.job_id)
        if work.ended or job is None:
            return replace(work, ended=True)
        if JOB_STAGES.index(Stage(job.stage)) > JOB_STAGES.index(stage):
            return work  # its result is there
        with about(job.id):
            started = time.monotonic()
            try:
                if self._interrupted.is_set():
                    raise Interrupted  # noqa: TRY301  # ends like an interrupted stage
                crash_point(f"{stage}.before")
                detail = action(job)
                crash_point(f"{stage}.after")
            except Exception as error:  # noqa: BLE001  # the one place where a stage's errors end
                self._settle(job, partial(self._note_failure, error=error))
                return replace(work, ended=True)
            seconds, told = time.monotonic() - started, _sentence(detail)
            log.info("%s took %.1f s: %s", stage, seconds, told)
            return self._note_success(work, job, stage, seconds, told)

    def _note_success(
        self, work: JobWork, job: Job, stage: Stage, seconds: float, told: str
    ) -> JobWork:
        if stage is JOB_STAGES[-1]:
            self._settle(job, lambda job: self._hand_over(job, seconds, told))
            self._stages.tidy(job)
            return replace(work, ended=True)
        following = JOB_STAGES[JOB_STAGES.index(stage) + 1]
        try:
            moved = self.store.passed(job, stage, following, seconds, told, now())
        except NodeError as error:
            self._settle(job, partial(self._note_failure, error=error))
            return replace(work, ended=True)
        with self._lock:
            self._held[job.id] = moved
        return work

    def _hand_over(self, job: Job, seconds: float, told: str) -> None:
        """Let couriers bring the results where they go; in shadow mode the job is done."""
        wanted = self._stages.deliveries(job)
        if wanted:
            self.store.hand_over(job, wanted, seconds, told, now())
        else:
            self.store.finish(job, seconds, told, now())

    def _note_failure(self, job: Job, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, LeaseLost):
            raise error
        if isinstance(error, Interrupted):
            self.store.hand_back(job, reason, now())
        elif isinstance(error, TransientError):
            self._try_later(job, error, reason)
        elif isinstance(error, NodeError):
            log.error("failed: %s", reason)
            self.store.give_up(job, reason, now())
        else:
            kind, told = sentence(error), traced(error)
            if isinstance(error, WorkerFault):
                kind, told = error.class_name, error.traceback
            log.error("failed by a fault of ours:\n%s", told)
            self.store.give_up(job, f"a fault of ours, see the log: {kind}", now())

    def _try_later(self, job: Job, error: TransientError, reason: str) -> None:
        limit = min(error.attempts or math.inf, self.config.jobs.attempts)
        if job.attempts >= limit:
            log.error("gave up after %d tries: %s", job.attempts, reason)
            self.store.give_up(job, f"{reason} (tried {job.attempts} times)", now())
            return
        delays = self.config.jobs.retry_delays_s
        delay = delays[min(job.attempts, len(delays)) - 1]
        log.warning("waits %g s: %s", delay, reason)
        self.store.postpone(job, now() + timedelta(seconds=delay), reason, now())

    def _settle(self, job: Job, note: Callable[[Job], object]) -> None:
        """Write the job's end for this node and let go of it; a job lost meanwhile is let go."""
        try:
            note(job)
        except LeaseLost as error:
            log.info("dropped: %s", error)
        except NodeError as error:
            log.error("left as it is in the log: %s", error)  # noqa: TRY400  # a sentence will do
        with self._lock:
            self._held.pop(job.id, None)

    # -- studies ----------------------------------------------------------------------------

    def _route_study(self, work: StudyWork) -> None:
        started = time.monotonic()
        try:
            told = self._decide(work)
        except Exception as error:  # noqa: BLE001  # a study must not end the node
            self._note_study_failure(work, error)
            return
        seconds = time.monotonic() - started
        log.info("route took %.1f s: study …%s, %s", seconds, work.study_uid[-12:], told)

    def _decide(self, work: StudyWork) -> str:
        """Hold the study against every route and make the jobs; return what came of it."""
        series = self._stages.series(work.study_uid)
        if alarm := several_patients(series):
            raise SeveralPatients(alarm)
        verdicts = route(series, self.config.routes)
        jobs = [
            self._new_job(work.study_uid, verdict, pick)
            for verdict in verdicts
            for pick in verdict.picks
        ]
        trace = {"signal": work.signal, "routes": [each.to_json() for each in verdicts]}
        crash_point("route.before")
        made = self.store.route_study(work.study_uid, work.version, trace, jobs, now())
        if made is None:
            return "objects arrived meanwhile, it is routed again"
        self._tidy_superseded(work.study_uid)
        taken = sum(verdict.taken for verdict in verdicts)
        return f"{taken} of {len(verdicts)} routes take it, {len(made)} new jobs"

    def _tidy_superseded(self, study_uid: str) -> None:
        """Remove the volumes of jobs that nobody works on any more."""
        for job in self.store.jobs(State.SUPERSEDED, study_uid):
            if job.id not in self.held():
                self._stages.tidy(job)

    def _new_job(self, study_uid: str, verdict: Verdict, pick: Pick) -> NewJob:
        chosen = self.config.route(verdict.route)
        model = self.models[verdict.model].card.identity
        identity = pick.identity(study_uid, verdict.route, model)
        return NewJob(
            id=identity.job_id,
            identity=identity.key,
            study_uid=study_uid,
            route=verdict.route,
            model=identity.model,
            digest=identity.digest,
            stage=JOB_STAGES[0],
            inputs=pick.inputs,
            instances=pick.instances,
            priority=chosen.priority,
            series_uid=pick.keys[next(iter(chosen.inputs))] if chosen.take == "all" else "",
        )

    def _note_study_failure(self, work: StudyWork, error: Exception) -> None:
        """Close the study with the reason, unless another try may help."""
        self._route_tries[work] += 1
        known = isinstance(error, NodeError)
        reason = str(error) if known else f"a fault of ours, see the log: {sentence(error)}"
        log.error("study …%s cannot be routed: %s", work.study_uid[-12:], reason)
        if not known:
            told = error.traceback if isinstance(error, WorkerFault) else traced(error)
            log.error("failed by a fault of ours:\n%s", told)
        if isinstance(error, TransientError) and self._route_tries[work] < ROUTE_TRIES:
            return
        event = "alarm" if isinstance(error, SeveralPatients) else "failed"
        try:
            self.store.fail_study(work.study_uid, work.version, reason, now(), event)
        except NodeError as fault:
            log.error("left open in the log: %s", fault)  # noqa: TRY400  # a sentence will do


def _sentence(detail: Any) -> str:
    """Return what a stage tells of its result in one line of the log and the history."""
    if isinstance(detail, Mapping):
        return ", ".join(f"{key} {_sentence(value)}" for key, value in detail.items())
    if isinstance(detail, list):
        return " ".join(map(str, detail))
    return str(detail)
