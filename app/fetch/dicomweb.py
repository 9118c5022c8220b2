"""An archive that is asked by DICOMweb."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from starlette.exceptions import HTTPException

from app.dicom import qido, wado
from app.dicom.dimse import Status
from app.dicom.file_meta import FileMeta
from app.dicom.headers import SeriesHeaders, headers_of
from app.dicom.web import Web
from app.door.incoming import Outcome
from app.door.multipart import MultipartReader
from app.door.parts import Keep, ObjectParts
from app.errors import ArchiveRefused, ArchiveUnavailable, OutOfResources
from app.fetch.archive import Attributes

MOST_PARTS = 50_000
"""Objects of one series."""


class DicomwebRemote:
    """QIDO-RS and WADO-RS at one root; everything asked for is there by its UID."""

    def __init__(self, web: Web) -> None:
        self._web = web

    def studies(self, query: Mapping[str, str]) -> Iterator[dict[str, int | None]]:
        """Yield pages of study UID → number of objects."""
        return qido.studies(self._web, query)

    def count(self, study_uid: str) -> int | None:
        """Return how many objects the study has, None when the archive does not know it."""
        return qido.count(self._web, study_uid)

    def series(self, study_uid: str) -> list[Attributes]:
        """Return what is known at series level."""
        return [*qido.series(self._web, study_uid)]

    def headers(self, study_uid: str, series_uid: str) -> list[SeriesHeaders] | None:
        """Return what the headers of a series say; None when they are too many to be told."""
        datasets = wado.metadata(self._web, study_uid, series_uid)
        if datasets is None:
            return None
        found = headers_of(datasets)
        if any((each.study_uid, each.series_uid) != (study_uid, series_uid) for each in found):
            raise ArchiveRefused(f"{self._web.name}: gave the metadata of another series")
        return found

    def retrieve(
        self, study_uid: str, series_uid: str, keep: Keep, only: Collection[str] = ()
    ) -> set[str]:
        """Stream the objects of a series, or `only` some of them, to the spool."""
        taken = _Taken(self._web.name, keep)
        if not only:
            with wado.series(self._web, study_uid, series_uid) as (boundary, pieces):
                taken.take(boundary, pieces)
        for sop_uid in sorted(only):
            with wado.instance(self._web, study_uid, series_uid, sop_uid) as (boundary, pieces):
                taken.take(boundary, pieces)
        taken.check()
        return taken.kept

    def stop(self) -> None:
        """Have the request that is under way end soon."""
        self._web.stop()

    def close(self) -> None:
        """Let its connections go."""
        self._web.close()


class _Taken:
    """What came of the parts of some answers."""

    def __init__(self, name: str, keep: Keep) -> None:
        self.kept: set[str] = set()
        self._name = name
        self._keep = keep
        self._refused: list[str] = []

    def take(self, boundary: bytes, pieces: Iterable[bytes]) -> None:
        """Take one answer; what is kept stays kept, however it ends."""
        parts = ObjectParts(self._keep, self._note, self._refuse)
        try:
            reader = MultipartReader(boundary, parts, MOST_PARTS)
            for piece in pieces:
                reader.write(piece)
        except HTTPException as fault:
            raise ArchiveUnavailable(f"{self._name}: in its answer {fault.detail}") from fault
        finally:
            parts.leave()  # an object without its end
        if not reader.complete:
            raise ArchiveUnavailable(f"{self._name}: its answer is cut short")

    def check(self) -> None:
        """Refuse a series of which something cannot be kept."""
        if self._refused:
            raise ArchiveRefused(
                f"{self._name}: {len(self._refused)} of its objects cannot be kept,"
                f" the first because {self._refused[0]}"
            )

    def _note(self, meta: FileMeta, outcome: Outcome) -> None:
        if outcome.status in {Status.OUT_OF_RESOURCES, Status.OUR_FAULT}:
            raise OutOfResources(f"an object could not be kept: {outcome.reason}")
        if outcome.status in {Status.SUCCESS, Status.OTHER_CONTENT}:  # the latter has its alarm
            self.kept.add(meta.sop_uid)
        else:
            self._refused.append(outcome.reason)

    def _refuse(self, _meta: FileMeta | None, _status: int, words: str) -> None:
        self._refused.append(words)
