"""How many objects an archive lists of the studies that are arriving here on another way."""

import logging
import time
from collections.abc import Mapping
from threading import Event

from app.config import Config
from app.errors import ArchiveUnavailable, NodeError
from app.fetch.archive import Remote
from app.fetch.pace import Pause
from app.pipeline.assemble import rules_for
from app.store.jobs import StudyRow
from app.store.store import Store

log = logging.getLogger(__name__)

TICK_S = 1.0
AGAIN_S = 5.0
"""How often a study is asked for while it arrives."""
PATIENCE = 0


class CountLoop:
    """Asks the archives that `assemble.count_from` names, in one thread."""

    def __init__(
        self, config: Config, remotes: Mapping[str, Remote], store: Store, stop: Event
    ) -> None:
        self._rules = config.assemble
        self._remotes = remotes
        self._store = store
        self._stop = stop
        self._pauses = {name: Pause(config.jobs.retry_delays_s, PATIENCE) for name in remotes}
        self._asked_at: dict[str, float] = {}

    def run(self) -> None:
        """Work until stopped."""
        while not self._stop.wait(TICK_S):
            try:
                open_studies = self._store.open_studies()
                self._asked_at = {
                    each.study_uid: self._asked_at.get(each.study_uid, -AGAIN_S)
                    for each in open_studies
                }
                for study in open_studies:
                    self._ask(study)
            except NodeError as error:
                log.error("studies are not counted: %s", error)  # noqa: TRY400  # a sentence will do
        for each in self._remotes.values():
            each.close()

    def _ask(self, study: StudyRow) -> None:
        """Ask how many objects a study has, unless that was done a moment ago."""
        rules = rules_for(study.source, self._rules)
        name, now = rules.count_from, time.monotonic()
        if name is None or self._stop.is_set() or not self._pauses[name].over:
            return
        if now < self._asked_at[study.study_uid] + AGAIN_S:
            return
        self._asked_at[study.study_uid] = now
        try:
            number = self._remotes[name].count(study.study_uid)
        except NodeError as error:
            if self._stop.is_set():
                return
            asked_s = error.wait_s if isinstance(error, ArchiveUnavailable) else None
            self._pauses[name].failed(asked_s)
            log.warning("%s does not say how large studies are: %s", name, error)
            return
        self._pauses[name].worked()
        if number is not None and number != study.expected:
            self._store.expect(study.study_uid, number)
