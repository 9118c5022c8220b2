"""Ask every archive and peer of app.yaml whether it answers; nothing is sent to be kept."""

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from app.config import ArchiveConfig, Config, DicomwebArchive
from app.dicom import qido
from app.dicom.web import Web
from app.errors import ArchiveUnavailable, NodeError
from app.pipeline.access import connect

AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of asking one peer."""

    name: str
    how: str
    answers: bool
    seconds: float
    reason: str

    @property
    def words(self) -> str:
        """The answer on one line."""
        told = "answers" if self.answers else f"FAILED: {self.reason}"
        return f"{self.name}: {told} ({self.how}, {self.seconds:.2f} s)"


Question = tuple[str, str, Callable[[], None]]
"""Who is asked, how, and the call; it raises an error of ours when the peer is of no use."""


def ask_all(config: Config) -> list[Answer]:
    """Ask all of them, several at once, and return the answers in the order of app.yaml."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [*pool.map(_ask, _questions(config))]


def _ask(question: Question) -> Answer:
    name, how, call = question
    began, reason = time.monotonic(), ""
    try:
        call()
    except NodeError as error:
        reason = str(error).removeprefix(f"{name.split()[-1]}: ")
    seconds = time.monotonic() - began
    return Answer(name=name, how=how, answers=not reason, seconds=seconds, reason=reason)


def _questions(config: Config) -> Iterator[Question]:
    for name, archive in config.archives.items():
        yield _question(config, name, archive)


def _question(config: Config, name: str, archive: ArchiveConfig) -> Question:
    who = f"archive {name}"
    if isinstance(archive, DicomwebArchive):
        return who, f"QIDO-RS {archive.url}", lambda: _list_one(name, archive)
    folder = config.data / archive.path
    return who, f"writing to {folder}", lambda: _write(folder)


def _list_one(name: str, archive: DicomwebArchive) -> None:
    with closing(connect(Web, name, archive)) as web:
        qido.answers(web)


def _write(folder: Path) -> None:
    """Make a file without a name where the folder is or will be made; it is gone at once."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0")
    except OSError as error:
        raise ArchiveUnavailable(
            f"{error.strerror} in {there}; look at the folder's disk and rights"
        ) from error
