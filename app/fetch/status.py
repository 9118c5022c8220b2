"""How a source fares, in a file that the commands read and a restart goes by."""

from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from app.files import make_folder, read_json, write_json

SOURCES = "sources"
"""Folder in the data folder; one file a source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """What is known of a source besides its studies."""

    polled_at: str = ""
    """When its list was last read to the end."""
    polls: int = 0
    """How often that was done."""
    swept_at: str = ""
    """When it was last read without the window."""
    listed: int = 0
    """How many studies stood there."""
    changed: int = 0
    """How many of them were new or had grown."""
    error: str = ""
    """What was wrong the last time that something was; empty since it is well again."""
    error_at: str = ""
    fetching: str = ""
    """The study that is being fetched."""
    died: dict[str, int] = field(default_factory=dict)
    """Study UID → how often the process ended over it."""


def read_status(data: Path, name: str) -> SourceStatus:
    """Return what was last noted of a source."""
    try:
        found: dict[str, Any] = read_json(_path(data, name))
        return SourceStatus(**found)
    except (OSError, ValueError, TypeError):
        return SourceStatus()  # none yet, or of another version: nothing hangs on it


class StatusFile:
    """The status of one source as its own thread notes it."""

    def __init__(self, data: Path, name: str) -> None:
        self._path = _path(data, name)
        make_folder(self._path.parent)
        self._status = read_status(data, name)

    @property
    def last(self) -> SourceStatus:
        """What was noted last."""
        return self._status

    def interrupted(self) -> tuple[str, int]:
        """Return the study over which the process ended the last time, and how often it did."""
        uid = self._status.fetching
        if not uid:
            return "", 0
        died = self._status.died | {uid: self._status.died.get(uid, 0) + 1}
        self._note(fetching="", died=died)
        return uid, died[uid]

    def polled(self, listed: int, changed: int, now: datetime, *, swept: bool) -> None:
        """Note that the list was read to its end."""
        at = now.isoformat(timespec="seconds")
        well = {"error": "", "error_at": ""}
        sweep = {"swept_at": at} if swept else {}
        polls = self._status.polls + 1
        self._note(polled_at=at, polls=polls, listed=listed, changed=changed, **well, **sweep)

    def failed(self, error: str, now: datetime) -> None:
        """Note what is wrong."""
        self._note(error=error, error_at=now.isoformat(timespec="seconds"))

    def worked(self) -> None:
        """Note that it is well again."""
        if self._status.error:
            self._note(error="", error_at="")

    def begin(self, study_uid: str) -> None:
        """Note which study is fetched, in case the process ends over it."""
        self._note(fetching=study_uid)

    def end(self) -> None:
        """Note that the process outlived the study."""
        left = {uid: n for uid, n in self._status.died.items() if uid != self._status.fetching}
        self._note(fetching="", died=left)

    def _note(self, **values: Any) -> None:
        self._status = replace(self._status, **values)
        write_json(self._path, asdict(self._status))


def _path(data: Path, name: str) -> Path:
    return data / SOURCES / f"{name}.json"
