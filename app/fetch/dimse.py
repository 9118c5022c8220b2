"""A DIMSE archive as one that can be asked: C-FIND, and objects by C-GET or by C-MOVE to our door.

What an archive sends is not what decides: only objects of the series that was asked for are let
in, and what C-FIND lists is compared with what is kept.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from app.config_archives import DimseArchive
from app.dicom.calling import Line
from app.dicom.dimse import Status
from app.dicom.query import Answer, Retrieved, find, get, move
from app.door.parts import Keep
from app.errors import ArchiveRefused, ArchiveUnavailable, OutOfResources
from app.fetch.archive import Attributes
from app.pipeline.line import line_to

log = logging.getLogger(__name__)

COUNT = "NumberOfStudyRelatedInstances"
SERIES_COUNT = "NumberOfSeriesRelatedInstances"
SERIES_KEYS = (
    *("SeriesInstanceUID", SERIES_COUNT, "Modality", "SeriesNumber", "SeriesDescription"),
    *("BodyPartExamined", "ProtocolName", "Laterality", "PatientPosition"),
    *("Manufacturer", "ManufacturerModelName", "StationName", "SeriesDate", "SeriesTime"),
)
"""What conditions may ask of a series; nothing that identifies a person."""

AT_ONCE = 500
"""UIDs in one request for some objects of a series: a list may have 64 KiB."""
LOOK_S = 0.2
NOT_ASKED_FOR = 0xA900

Held = Callable[[str], Collection[str]]
"""Study UID → SOP UIDs that the job log has of it."""


class DimseRemote:
    """One DIMSE archive, used by one thread; `stop` may come from another."""

    def __init__(self, name: str, archive: DimseArchive, *, destination: str, held: Held) -> None:
        """Let C-MOVE send to the AE title `destination`, where `held` sees what arrives."""
        self._name = name
        self._archive = archive
        self._destination = destination
        self._held = held
        self._line: Line = line_to(name, archive)

    def studies(self, query: Mapping[str, str]) -> Iterator[dict[str, int | None]]:
        """Yield all studies at once: there are no pages."""
        keys = {"StudyInstanceUID": "", COUNT: ""}
        answers = find(self._line, "STUDY", keys | dict(query))
        yield {uid: _number(one, COUNT) for one in answers if (uid := _uid(one, "Study"))}

    def count(self, study_uid: str) -> int | None:
        """Return how many objects the study has: by its own number, its series', or its objects."""
        of_study = {"StudyInstanceUID": study_uid}
        for one in find(self._line, "STUDY", of_study | {COUNT: ""}):
            if _uid(one, "Study") == study_uid and (number := _number(one, COUNT)) is not None:
                return number
        counts = [_number(each, SERIES_COUNT) for each in self.series(study_uid)]
        known = [number for number in counts if number is not None]
        return sum(known) if known and len(known) == len(counts) else None

    def series(self, study_uid: str) -> list[Attributes]:
        """Return what the archive tells of each series; where it does not count, we do."""
        keys = dict.fromkeys(SERIES_KEYS, "")
        answers = find(self._line, "SERIES", {"StudyInstanceUID": study_uid} | keys)
        return [self._counted(study_uid, one) for one in answers if _uid(one, "Series")]

    def headers(self, study_uid: str, series_uid: str) -> None:  # noqa: ARG002  # it cannot say
        """Return nothing: C-FIND tells no headers of images."""
        return

    def retrieve(
        self, study_uid: str, series_uid: str, keep: Keep, only: Collection[str] = ()
    ) -> set[str]:
        """Bring the series, or `only` these objects of it."""
        listed = self._objects(study_uid, series_uid)
        wanted = {uid for uid in listed if not only or uid in only} or {*only}
        arriving = _Arriving(keep=keep, name=self._name, wanted=frozenset(wanted))
        for level, keys in _requests(study_uid, series_uid, sorted(wanted if only else ())):
            if self._archive.retrieve == "get":
                classes = sorted({listed[uid] for uid in wanted & listed.keys()} - {""})
                get(self._line, level, keys, classes, arriving.take)
            else:
                self._move(level, keys)
        if self._archive.retrieve == "get":
            _complain(self._name, wanted - arriving.kept)
            return arriving.kept
        return self._arrived(study_uid, wanted)

    def close(self) -> None:
        """Nothing stays open between two calls."""

    def stop(self) -> None:
        """End the call that is under way."""
        self._line.stop()

    # -- inside ------------------------------------------------------------------------------

    def _counted(self, study_uid: str, one: Answer) -> Attributes:
        """Return the answer with its count as a number; without one when nobody can count."""
        number = _number(one, SERIES_COUNT)
        if number is None:
            number = len(self._objects(study_uid, _uid(one, "Series"))) or None
        rest = {keyword: values for keyword, values in one.items() if keyword != SERIES_COUNT}
        return rest if number is None else rest | {SERIES_COUNT: (number,)}

    def _objects(self, study_uid: str, series_uid: str) -> dict[str, str]:
        """Return the SOP class, or nothing, of each object of a series that the archive lists."""
        keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
        try:
            answers = find(self._line, "IMAGE", keys | {"SOPInstanceUID": "", "SOPClassUID": ""})
        except ArchiveRefused as error:
            log.warning("%s; its series are fetched without a list of their objects", error)
            return {}
        return {uid: _first(one, "SOPClassUID") for one in answers if (uid := _uid(one, "SOP"))}

    def _move(self, level: str, keys: Mapping[str, str]) -> None:
        said: Retrieved = move(self._line, level, keys, self._destination)
        if said.failed and not said.completed + said.warned:
            raise ArchiveUnavailable(
                f"{self._name}: C-MOVE sent none of {said.failed} objects to {self._destination}; "
                "look whether it has the right address and port of our door, and whether "
                "door.peers lets it in"
            )

    def _arrived(self, study_uid: str, wanted: set[str]) -> set[str]:
        """Wait until the job log has what was sent to our door; some archives answer early."""
        deadline = time.monotonic() + self._archive.timeout_s
        while missing := wanted - {*self._held(study_uid)}:
            if time.monotonic() > deadline:
                _complain(self._name, missing)
                break
            self._line.wait(LOOK_S)
        return wanted - missing


@dataclass(slots=True, kw_only=True)
class _Arriving:
    """Objects of one C-GET on their way to the spool."""

    keep: Keep
    name: str
    wanted: frozenset[str]
    """Empty where the archive did not list them."""
    kept: set[str] = field(default_factory=set)

    def take(self, syntax: str, claimed: tuple[str, str], content: Iterator[memoryview]) -> int:
        """Keep an object that was asked for; return what the archive is told."""
        if self.wanted and claimed[1] not in self.wanted:
            log.warning("%s: sent an object that was not asked for; it is not kept", self.name)
            return NOT_ASKED_FOR
        with self.keep(syntax, claimed=claimed) as incoming:
            for piece in content:
                incoming.write(piece)
            outcome = incoming.finish()
        if outcome.status is Status.OUT_OF_RESOURCES:  # all others would fare the same
            raise OutOfResources(f"{self.name}: objects of it cannot be kept: {outcome.reason}")
        if outcome.status is Status.SUCCESS:
            self.kept.add(claimed[1])
        return outcome.status


def _requests(
    study_uid: str, series_uid: str, only: Sequence[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield level and keys: one request for a series, or some for some of its objects."""
    keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
    if not only:
        yield "SERIES", keys
    for at in range(0, len(only), AT_ONCE):
        yield "IMAGE", keys | {"SOPInstanceUID": "\\".join(only[at : at + AT_ONCE])}


def _complain(name: str, missing: Collection[str]) -> None:
    """Say what was not brought; whether that matters is for whoever counts."""
    if missing:
        log.warning("%s: %d objects that it lists did not come", name, len(missing))


def _uid(one: Attributes, of: str) -> str:
    return _first(one, f"{of}InstanceUID")


def _first(one: Attributes, keyword: str) -> str:
    return str(next(iter(one.get(keyword, ())), ""))


def _number(one: Attributes, keyword: str) -> int | None:
    text = _first(one, keyword)
    return int(text) if text.isdecimal() and len(text) < 10 else None  # noqa: PLR2004  # sane
