"""One source: list, wait until what is listed is whole, fetch what routes need; until told to stop.

The rows of `remote_studies` are all that a restart needs: what the archive lists is held against
them, whatever was seen before. Nothing is tried twice at once: each study has its own waits, and an
archive that fails again and again is left alone for a while.
"""

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event

from app.config import Config
from app.config_sources import Source
from app.door.incoming import Incoming
from app.door.intake import Intake
from app.errors import (
    ArchiveRefused,
    ArchiveUnavailable,
    Interrupted,
    NodeError,
    OutOfResources,
    StudyError,
)
from app.faults import crash_point
from app.fetch.archive import Remote
from app.fetch.bring import bring
from app.fetch.pace import Pause, wait_s
from app.fetch.status import StatusFile
from app.fetch.wanted import Wanted, look
from app.log import sentence, traced
from app.store.jobs import RemoteState, RemoteStudy
from app.store.store import Store

log = logging.getLogger(__name__)

TICK_S = 0.5
"""How often the job log is asked for due studies; others write to it from their own processes."""
AT_ONCE = 500
"""Studies noted in one transaction."""
REFUSALS = 5
"""How often a study is tried whose archive refuses it."""
DEATHS = 3
"""How often the process may end over one study before that is held to be the cause."""
PATIENCE = 2
"""Failures in a row before the archive as a whole is left alone."""


def utc() -> datetime:
    """Return the time as rows have it."""
    return datetime.now(UTC)


class SourceLoop:
    """Asks one archive, in one thread."""

    def __init__(
        self, config: Config, source: Source, archive: Remote, store: Store, intake: Intake
    ) -> None:
        self.name = source.archive
        self._config = config
        self._source = source
        self._archive = archive
        self._store = store
        self._intake = intake
        self._status = StatusFile(config.data, self.name)
        self._pause = Pause(config.jobs.retry_delays_s, PATIENCE)
        self._poll_at = 0.0
        self._poll_failures = 0
        self._stop = Event()

    def run(self) -> None:
        """Work until stopped."""
        self._store.resume_fetching(self.name)
        self._blame()
        while not self._stop.is_set():
            try:
                self._poll_if_due()
                self._fetch_due()
            except NodeError as error:  # of our own job log or disk: it passes, or a person mends
                log.error("%s: %s", self.name, error)  # noqa: TRY400  # a sentence will do
                self._stop.wait(10 * TICK_S)
            self._stop.wait(TICK_S)
        self._archive.close()

    def stop(self) -> None:
        """End soon; what is on its way is given up and fetched after the next start."""
        self._stop.set()
        self._archive.stop()

    def spare(self) -> None:
        """Note that the end of the process is no fault of the study on its way."""
        self._status.end()

    def _blame(self) -> None:
        """Fail the study over which the process ended again and again."""
        uid, died = self._status.interrupted()
        if died < DEATHS:
            return
        reason = f"the process ended {died} times over it; see the log, then ask for it again"
        for each in self._store.remotes(uid):
            if each.source == self.name:
                log.error("study …%s: %s", uid[-12:], reason)
                self._store.settle_remote(each, RemoteState.FAILED, reason=reason)

    # -- listing -----------------------------------------------------------------------------

    def _poll_if_due(self) -> None:
        if self._source.poll_s is None or time.monotonic() < self._poll_at:
            return
        try:
            self._poll()
        except NodeError as error:
            if self._stop.is_set():
                return
            self._poll_failures += 1
            asked_s = error.wait_s if isinstance(error, ArchiveUnavailable) else None
            delay_s = wait_s(self._config.jobs.retry_delays_s, self._poll_failures, asked_s)
            log.warning("%s cannot be listed, tried again in %.0f s: %s", self.name, delay_s, error)
            self._status.failed(str(error), utc())
        else:
            self._poll_failures, delay_s = 0, 0.0
        self._poll_at = time.monotonic() + max(delay_s, self._source.poll_s)

    def _poll(self) -> None:
        sweep = self._sweep_is_due()
        listed = changed = 0
        for page in self._archive.studies(self._query(sweep=sweep)):
            counts = self._counted(page) if sweep else page
            uids = [*counts]
            for at in range(0, len(uids), AT_ONCE):
                some = {uid: counts[uid] for uid in uids[at : at + AT_ONCE]}
                changed += self._store.note_listed(self.name, some, utc())
            listed += len(page)
            crash_point("fetch.listed")
            if self._stop.is_set():
                return
        if changed:
            log.info("%s lists %d studies, %d new or grown", self.name, listed, changed)
        self._status.polled(listed, changed, utc(), swept=sweep)

    def _query(self, *, sweep: bool) -> dict[str, str]:
        query = dict(self._source.query)
        if self._source.window_days is not None and not sweep:
            first = datetime.now().astimezone() - timedelta(days=self._source.window_days)
            query["StudyDate"] = f"{first:%Y%m%d}-"  # StudyDate is in the hospital's own time
        return query

    def _sweep_is_due(self) -> bool:
        swept_at, every_s = self._status.last.swept_at, self._source.sweep_s
        if every_s is None:
            return False
        return not swept_at or utc() - datetime.fromisoformat(swept_at) >= timedelta(
            seconds=every_s
        )

    def _counted(self, page: Mapping[str, int | None]) -> dict[str, int | None]:
        """Count for an archive that does not, or nobody would see a study grow."""
        return {
            uid: self._archive.count(uid) if count is None and not self._stop.is_set() else count
            for uid, count in page.items()
        }

    # -- fetching ----------------------------------------------------------------------------

    def _fetch_due(self) -> None:
        if not self._pause.over:
            return
        newest = self._source.order == "newest"
        due = self._store.due_remotes(
            self.name, utc(), self._source.quiet_s, limit=1, newest_first=newest
        )
        while due and self._pause.over and not self._stop.is_set():
            if not self._intake.has_room():
                self._status.failed("nothing is fetched while the disk has no space", utc())
                self._pause.failed(10.0)
                return
            self._fetch(due[0])
            self._poll_if_due()  # a long row of studies must not hide what is new
            due = self._store.due_remotes(
                self.name, utc(), self._source.quiet_s, limit=1, newest_first=newest
            )

    def _fetch(self, study: RemoteStudy) -> None:
        self._status.begin(study.study_uid)
        try:
            crash_point("fetch.begun")
            told = self._bring(study)
        except MemoryError:
            self._failed(study, OutOfResources("what the archive says of it exceeds our memory"))
        except NodeError as error:
            if not self._stop.is_set():  # else nothing counts: it is due again after the start
                self._failed(study, error)
        except Exception as error:  # noqa: BLE001  # what an archive says must not end the process
            log.error("failed by a fault of ours:\n%s", traced(error))  # noqa: TRY400  # no PHI
            reason = f"a fault of ours, see the log: {sentence(error)}"
            self._store.settle_remote(study, RemoteState.FAILED, reason=reason)
        else:
            self._pause.worked()
            self._status.worked()
            log.info("study …%s of %s: %s", study.study_uid[-12:], self.name, told)
        finally:
            self._status.end()

    def _bring(self, study: RemoteStudy) -> str:
        """Fetch what routes need of a study that is whole; return what came of it."""
        uid = study.study_uid
        if study.state is RemoteState.LISTED and self._still_grows(study):
            return "it still grows"
        wanted = look(self._archive, uid, self._config.routes)
        if not wanted.series:
            self._settle(study, RemoteState.UNWANTED, wanted)
            return "no route takes it"
        began = time.monotonic()
        source = f"archive {self.name}"
        keep = partial(self._keep, partial(self._intake.begin, source=source, study_uid=uid))
        self._store.settle_remote(study, RemoteState.FETCHING)  # assembly waits for it
        came = bring(self._archive, self._store, uid, wanted.series, keep)
        crash_point("fetch.brought")
        told = f"{len(wanted.series)} of {wanted.listed} series are needed, {came} objects came"
        self._store.complete(uid, f"fetched from {self.name}: {told}", utc())
        self._settle(study, RemoteState.FETCHED, wanted)
        return f"{told} in {time.monotonic() - began:.1f} s"

    def _keep(
        self, begin: "partial[Incoming]", transfer_syntax: str, *, claimed: tuple[str, str]
    ) -> Incoming:
        if self._stop.is_set():
            raise Interrupted
        return begin(transfer_syntax, claimed=claimed)

    def _still_grows(self, study: RemoteStudy) -> bool:
        """Look once more: the list may be older than the quiet time."""
        number = self._archive.count(study.study_uid)
        if number is None:
            raise ArchiveRefused("the archive does not list the study any more")
        return self._store.note_listed(self.name, {study.study_uid: number}, utc()) > 0

    def _settle(self, study: RemoteStudy, state: RemoteState, wanted: Wanted) -> None:
        values = {"trace": wanted.trace, "due_at": None, "reason": ""}
        self._store.settle_remote(study, state, **values)

    def _failed(self, study: RemoteStudy, error: NodeError) -> None:
        """Try again later, unless nothing will be better then."""
        tries = study.attempts + 1
        asked_s = error.wait_s if isinstance(error, ArchiveUnavailable) else None
        if not isinstance(error, StudyError):
            self._pause.failed(asked_s)
            self._status.failed(str(error), utc())
        limit = self._config.jobs.attempts if error.retry else REFUSALS
        if isinstance(error, StudyError) or tries >= limit:
            told = f"{error} (tried {tries} times)" if tries > 1 else str(error)
            log.error("study …%s of %s failed: %s", study.study_uid[-12:], self.name, told)
            self._store.settle_remote(study, RemoteState.FAILED, attempts=tries, reason=told)
            return
        delay_s = wait_s(self._config.jobs.retry_delays_s, tries, asked_s)
        log.warning(
            "study …%s of %s waits %.0f s: %s", study.study_uid[-12:], self.name, delay_s, error
        )
        due_at = utc() + timedelta(seconds=delay_s)
        self._store.settle_remote(
            study, study.state, attempts=tries, due_at=due_at, reason=str(error)
        )
