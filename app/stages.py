"""What each stage does with a job: which files it reads, which worker it calls, what it leaves.

Every stage leaves its result in the job's folder and skips what is there already. Errors pass
through; `app.runner` sorts them.
"""

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from app.config import Config
from app.destinations import bundles, deliveries_of
from app.dicom.series import Series
from app.errors import StudyError
from app.files import make_folder
from app.installed import Crew, Installed
from app.pipeline.infer import LABELS, VOLUMES
from app.results.forms import ENCODED
from app.store.delivery import NewDelivery
from app.store.jobs import Job, SeriesRow
from app.store.store import Store


class JobStages:
    """The stages of a job, as functions from the job to what is told of it."""

    def __init__(
        self, config: Config, store: Store, models: Mapping[str, Installed], crew: Crew
    ) -> None:
        self._config = config
        self._store = store
        self._crew = crew
        self._models = {each.card.identity: each for each in models.values()}

    def series(self, study_uid: str) -> list[Series]:
        """Return the series of a study; only files that were not read before are read."""
        rows = {row.series_uid: row for row in self._store.series_rows(study_uid)}
        known = {uid: Series.from_json(row.summary) for uid, row in rows.items()}
        counts = self._store.series_counts(study_uid)
        grown = {uid for uid, n in counts.items() if uid not in rows or rows[uid].instances != n}
        if grown:
            known |= self._read(study_uid, grown, known)
        return [known[uid] for uid in sorted(known)]

    def _read(
        self, study_uid: str, grown: Collection[str], known: Mapping[str, Series]
    ) -> dict[str, Series]:
        """Have the stage worker read the new files of some series, and keep what they say."""
        data = self._config.data
        files = {
            sop_uid: str(data / file)
            for uid, each in self._store.files_of(study_uid).items()
            if uid in grown
            for sop_uid, file in each.items()
        }
        before = [uid for uid in grown if uid in known]
        held = {sop_uid for uid in before for sop_uid in known[uid].sop_uids}
        answer = self._crew.stage.call(
            "read_series",
            {
                "files": files,
                "new": [sop_uid for sop_uid in files if sop_uid not in held],
                "before": [self._store.series_headers(study_uid, uid) for uid in before],
            },
            self._config.workers.stage_timeout_s,
        )
        found = {each["series_uid"]: each for each in answer["series"]}
        rows = [
            SeriesRow(
                study_uid=study_uid,
                series_uid=uid,
                instances=len(each["sop_uids"]),
                summary=each,
            )
            for uid, each in found.items()
        ]
        self._store.keep_series(rows, dict(zip(found, answer["headers"], strict=True)))
        return {uid: Series.from_json(each) for uid, each in found.items()}

    def infer(self, job: Job) -> dict[str, Any]:
        """Build the volumes, then run the model on them."""
        folder = self._folder(job)
        make_folder(folder)
        files = self._files(job.study_uid)
        gone = [uid for uids in job.instances.values() for uid in uids if uid not in files]
        if gone:
            raise StudyError(
                f"{len(gone)} of its images are not here any more, first {gone[0]}; have the study"
                " sent again"
            )
        inputs = {role: [files[uid] for uid in uids] for role, uids in job.instances.items()}
        built: dict[str, Any] = self._crew.stage.call(
            "build",
            {"folder": str(folder), "inputs": inputs},
            self._config.workers.stage_timeout_s,
        )
        if (folder / LABELS).exists():
            return built | {"labels": "made before"}
        installed = self._models[job.model]
        made: dict[str, Any] = self._crew.model.call(
            "segment",
            {
                "folder": str(folder),
                "card": str(installed.folder),
                "model": job.model,
                "device": self._config.workers.device,
            },
            installed.card.limits.timeout_s,
        )
        self._crew.usage.note(installed.card.name, made["device"], made.pop("use"))
        return built | made

    def encode(self, job: Job) -> dict[str, Any]:
        """Make the DICOM objects of the label map."""
        installed = self._models[job.model]
        files = self._files(job.study_uid)
        encoded: dict[str, Any] = self._crew.stage.call(
            "encode",
            {
                "folder": str(self._folder(job)),
                "card": str(installed.folder),
                "role": installed.card.inputs[0].role,
                "files": files,
                "identity": {
                    "study_uid": job.study_uid,
                    "route": job.route,
                    "model": job.model,
                    "digest": job.digest,
                },
                "version": job.version,
                "bundles": bundles(self._destinations(job)),
            },
            self._config.workers.stage_timeout_s,
        )
        return encoded

    def deliver(self, job: Job) -> dict[str, Any]:
        """Say where the results go; couriers bring them there once this is in the job log."""
        wanted = self.deliveries(job)
        if not wanted:
            return {"shadow:": f"nothing is sent; the results lie in {self._folder(job) / ENCODED}"}
        return {"to": [self._told(each) for each in wanted]}

    def deliveries(self, job: Job) -> list[NewDelivery]:
        """Return what is to be delivered; nothing while the route is in shadow mode."""
        shadow = self._config.route(job.route).mode == "shadow"
        return [] if shadow else self._destinations(job)

    def _destinations(self, job: Job) -> list[NewDelivery]:
        route, card = self._config.route(job.route), self._models[job.model].card
        return deliveries_of(self._config, route, card, self._store.study(job.study_uid).source)

    @staticmethod
    def _told(delivery: NewDelivery) -> str:
        held = " held" if delivery.held else ""
        return f"{delivery.destination}{held} ({'+'.join(delivery.forms)})"

    def tidy(self, job: Job) -> None:
        """Remove what only a job that goes on needs: volumes are a hundred megabytes and more."""
        shutil.rmtree(self._folder(job) / VOLUMES, ignore_errors=True)

    def _folder(self, job: Job) -> Path:
        return self._config.data / "jobs" / job.id

    def _files(self, study_uid: str) -> dict[str, str]:
        """Return the study's files by SOP Instance UID."""
        series = self._store.files_of(study_uid).values()
        data = self._config.data
        return {sop_uid: str(data / file) for each in series for sop_uid, file in each.items()}
