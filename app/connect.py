"""Ask every archive and peer of app.yaml whether it answers; nothing is sent to be kept."""

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

from app.config import Config
from app.config_archives import ArchiveConfig, DicomwebArchive, DimseArchive
from app.config_door import Peer
from app.dicom import association, qido
from app.dicom.calling import Line
from app.dicom.query import echo, find
from app.dicom.web import Web
from app.errors import ArchiveUnavailable, NodeError
from app.pipeline.access import connect
from app.pipeline.line import line_to
from app.tls import client_context

AT_ONCE = 8
PATIENCE_S = 10.0
"""The longest silence of a peer whose entry sets none."""


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
        reason = str(error).removeprefix(f"{name.partition(' ')[2]}: ")
    seconds = time.monotonic() - began
    return Answer(name=name, how=how, answers=not reason, seconds=seconds, reason=reason)


def ask_archive(config: Config, name: str, longest_s: float) -> str:
    """Ask one archive, which may be silent for at most so long; raise why it is of no use."""
    archive = config.archives[name]
    if isinstance(archive, DicomwebArchive | DimseArchive):
        timeout_s = min(archive.timeout_s, longest_s)
        archive = archive.model_copy(update={"timeout_s": timeout_s})
    _, how, call = _of_archive(config, name, archive)
    began = time.monotonic()
    try:
        call()
    except NodeError as error:
        raise ArchiveUnavailable(str(error).removeprefix(f"{name}: ")) from error
    verbs = how.partition(" at ")[0].partition(" to ")[0]  # not where: who asks us need not know
    return f"answers ({verbs}, {time.monotonic() - began:.2f} s)"


def _questions(config: Config) -> Iterator[Question]:
    for name, archive in config.archives.items():
        yield _of_archive(config, name, archive)
    for peer in config.door.peers:
        if peer.host and peer.port:
            how = f"C-ECHO to {peer.host}:{peer.port}"
            yield (
                f"peer {peer.ae_title}",
                how,
                partial(_echo_peer, config, peer, peer.host, peer.port),
            )


def _of_archive(config: Config, name: str, archive: ArchiveConfig) -> Question:
    who = f"archive {name}"
    match archive:
        case DicomwebArchive():
            return who, f"QIDO-RS at {archive.url}", partial(_list_one, name, archive)
        case DimseArchive():
            is_source = any(source.archive == name for source in config.sources)
            verbs = "C-ECHO and C-FIND" if is_source else "C-ECHO"
            how = f"{verbs} to {archive.ae_title} at {archive.host}:{archive.port}"
            return who, how, partial(_call, name, archive, searched=is_source)
        case _:
            folder = config.data / archive.path
            return who, f"writing to {folder}", partial(_write, folder)


def _call(name: str, archive: DimseArchive, *, searched: bool) -> None:
    """Call an archive; many let everybody echo and few let everybody search."""
    line = line_to(name, archive)
    echo(line)
    if searched:
        find(line, "STUDY", {"StudyInstanceUID": f"2.25.{uuid4().int}"})


def _echo_peer(config: Config, peer: Peer, host: str, port: int) -> None:
    """Call a peer of the door where storage commitment reports go."""
    tls = client_context(config.door.tls) if config.door.tls else None
    called = association.Peer(
        name=peer.ae_title,
        host=host,
        port=port,
        called=peer.ae_title.strip(),
        calling=config.door.ae_title,
        timeout_s=PATIENCE_S,
        tls=tls,
    )
    echo(Line(called))


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
