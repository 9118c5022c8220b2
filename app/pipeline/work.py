"""The small messages that flow between operators, and what an operator may ask of the stages."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyWork:
    """A complete study that is to be routed."""

    study_uid: str
    version: int
    """The study's version when it was found complete; routing is void if more arrived since."""
    signal: str
    """What made it count as complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWork:
    """A claimed job on its way; failures travel as values."""

    job_id: str
    model: str
    ended: bool = False
    """Whether the job was settled on the way: later stages let it pass."""


Work = StudyWork | JobWork


class Stages(Protocol):
    """The stages as the operators see them: work in, work out, never an exception."""

    def route(self, work: Work) -> list[tuple[str, JobWork]]:
        """Route a study, or send a job to its model; return what goes out by which port."""

    def infer(self, work: JobWork) -> JobWork:
        """Make the label map."""

    def encode(self, work: JobWork) -> JobWork:
        """Make the DICOM objects."""

    def deliver(self, work: JobWork) -> None:
        """Bring the objects to the archives and settle the job."""
