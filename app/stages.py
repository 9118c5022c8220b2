"""What each stage does with a job: which files it reads, which worker it calls, what it leaves.

Every stage leaves its result in the job's folder and skips what is there already. Errors pass
through; `app.runner` sorts them.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.config import Config
from app.dicom.series import Series
from app.faults import crash_point
from app.files import make_folder, read_json, write_json
from app.installed import Crew, Installed
from app.pipeline.deliver import deliver
from app.pipeline.encode import SEG
from app.pipeline.infer import LABELS, VOLUMES
from app.store.jobs import Job
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
        """Read the headers of a study."""
        files = self._files(study_uid)
        answer = self._crew.stage.call(
            "read_series",
            {"files": files, "new": list(files), "before": []},
            self._config.workers.stage_timeout_s,
        )
        return [Series.from_json(each) for each in answer["series"]]

    def infer(self, job: Job) -> dict[str, Any]:
        """Build the volumes, then run the model on them."""
        folder = self._folder(job)
        make_folder(folder)
        files = self._files(job.study_uid)
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
            },
            self._config.workers.stage_timeout_s,
        )
        return encoded

    def deliver(self, job: Job) -> dict[str, Any]:
        """Bring the objects to every archive of the route that has not confirmed them yet."""
        folder = self._folder(job) / "deliver"
        make_folder(folder)
        proofs = {}
        for name in self._config.route(job.route).deliver_to:
            note = folder / f"{name}.json"
            if not note.exists():
                receipt = deliver([self._folder(job) / SEG], name, self._config.archives[name])
                crash_point("deliver.stored")
                write_json(note, receipt.to_json())
            proofs[name] = read_json(note)["proof"]
        return {"delivered": proofs}

    def tidy(self, job: Job) -> None:
        """Remove what only a job that goes on needs: volumes are a hundred megabytes and more."""
        shutil.rmtree(self._folder(job) / VOLUMES, ignore_errors=True)

    def _folder(self, job: Job) -> Path:
        return self._config.data / "jobs" / job.id

    def _files(self, study_uid: str) -> dict[str, str]:
        """Return the study's files by SOP Instance UID."""
        rows = self._store.instances(study_uid)
        return {row.sop_uid: str(self._config.data / row.file) for row in rows}
