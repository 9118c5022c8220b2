"""A site whose objects and results are real files, for tests of what may be removed."""

from pathlib import Path
from typing import Any

from app.retain import clean
from tests.delivering import Site
from tests.log_rows import LEASE_S, instance, new_job

DAY_S = 86400.0
FOLDER = {"local": {"kind": "folder", "path": "archive"}}


class Kept(Site):
    """A site whose objects and results are real files."""

    def study(self, number: int = 1, objects: int = 2) -> str:
        """Receive a study of files in the spool; return its UID."""
        uid = f"1.2.{number}"
        for each in range(1, objects + 1):
            row = instance(f"{uid}.1.{each}", uid)
            path = self.config.data / row.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"object")
            self.store.add_instance(row, self.clock())
        return uid

    def routed(self, number: int = 1, jobs: int = 1) -> str:
        """Receive a study and make its jobs `jN`; return its UID."""
        uid = self.study(number)
        made = [new_job(f"j{number}{'abc'[each]}", uid) for each in range(jobs)]
        version = self.store.study(uid).version
        self.store.route_study(uid, version, {}, made, self.clock())
        return uid

    def files(self, uid: str) -> list[Path]:
        """Return the spooled files of a study."""
        return sorted((self.config.data / "spool").glob(f"{uid}.*"))

    def folder(self, job_id: str) -> Path:
        """Return a job's folder, with a result in it."""
        folder = self.config.data / "jobs" / job_id
        (folder / "encode").mkdir(parents=True, exist_ok=True)
        (folder / "encode" / "seg.dcm").write_bytes(b"result")
        return folder

    def clean(self, **how: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Clean; return what went."""
        gone = clean(self.config, self.store, self.clock(), **how)
        return gone.studies, gone.jobs

    def finished(self, job_id: str) -> None:
        """Let a job be done, without anything to deliver."""
        (job,) = self.store.claim("a", self.clock(), LEASE_S)
        assert job.id == job_id
        self.store.finish(job, 1.0, "", self.clock())
