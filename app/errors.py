"""Everything raised on purpose, sorted by who must act.

    NodeError
    + ConfigError              the site's file is wrong: mend it, start again
    + StudyError               the study cannot be used: the job ends, its reason is shown
      - UnreadableDicom
      - IncompleteSeries
      - UnsupportedGeometry
      - SeveralPatients        an alarm: one study names two of them
    + TransientError           the world is busy or away: the job waits and tries again
      - ArchiveUnavailable
      - OutOfResources
      - WorkerLost
      - NotShownYet            the archive took the result and does not list it: it is asked again
      - Interrupted            the node is stopping: the job is handed back, nothing is counted
    + DeliveryRefused          the archive said no: a person must look
      - FormRefused            it does not take this kind of object: another form is sent, if any
    + ArchiveRefused           the archive does not give what was asked of it: a person must look
    + ResultRejected           a result failed a check of ours and does not leave
    + ModelError               weights or output are not what the card promised
    + StoreError               the job log cannot be used as it is

The first line of each docstring is the sentence shown when no better one is given.
"""

from typing import ClassVar

DONE, INPUT_WRONG, NODE_WRONG = 0, 1, 2
"""Exit statuses of every command, sorted in the same way."""


class NodeError(Exception):
    """The node could not do what was asked."""

    retry: ClassVar[bool] = False
    """Whether trying the same thing later can help."""

    attempts: ClassVar[int | None] = None
    """How often it is tried at most; None leaves it to the configuration."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").splitlines()[0])


class ConfigError(NodeError):
    """The configuration is wrong; mend the file and start again."""


class StudyError(NodeError):
    """The study cannot be used."""


class UnreadableDicom(StudyError):
    """An object of the study cannot be read as DICOM."""


class IncompleteSeries(StudyError):
    """Slices of the series are missing."""


class UnsupportedGeometry(StudyError):
    """The slices of the series do not form one regular volume."""


class SeveralPatients(StudyError):
    """The images of one study name different patients."""


class TransientError(NodeError):
    """The world is busy or away; the job is tried again later."""

    retry = True


class ArchiveUnavailable(TransientError):
    """The archive refused the connection, timed out or is busy."""

    def __init__(self, message: str | None = None, *, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s
        """How long it asks to be left alone."""


class OutOfResources(TransientError):
    """Disk or memory ran out; free some or wait."""

    attempts = 3


class WorkerLost(TransientError):
    """The worker process died or ran past its deadline and was killed."""

    attempts = 3


class NotShownYet(TransientError):
    """The archive took the result and does not list it yet; it is asked again."""


class Interrupted(TransientError):
    """The node is stopping; the job is handed back and continues after the restart."""


class DeliveryRefused(NodeError):
    """The archive refused the result; a person must look."""


class FormRefused(DeliveryRefused):
    """The archive does not take this kind of object."""


class ArchiveRefused(NodeError):
    """The archive does not give what was asked of it; a person must look."""


class ResultRejected(NodeError):
    """The result failed a check and is not sent; a person must look."""


class ModelError(NodeError):
    """The model's weights or output are not what its card promises."""


class StoreError(NodeError):
    """The job log cannot be used as it is."""
