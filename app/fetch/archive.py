"""An archive that can be asked: which studies it has, what is in them, and for their objects.

The answers are untrusted. What an archive gets wrong is an error of `app.errors`:
`ArchiveUnavailable` where trying again may help, `ArchiveRefused` where a person must look.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

from app.dicom.headers import SeriesHeaders
from app.dicom.series import Scalar
from app.door.parts import Keep

Attributes = Mapping[str, tuple[Scalar, ...]]
"""Keyword → values, as conditions see them; nothing that identifies a person."""


class Remote(Protocol):
    """One archive, used by one thread; each call asks once and repeats nothing."""

    def studies(self, query: Mapping[str, str]) -> Iterator[dict[str, int | None]]:
        """Yield pages of study UID → number of objects, None where the archive does not count.

        `query` is keyword → matching value (PS3.4 C.2.2.2: `*` and `-` for ranges).
        """

    def count(self, study_uid: str) -> int | None:
        """Return how many objects the study has, None when the archive does not know it."""

    def series(self, study_uid: str) -> list[Attributes]:
        """Return what is known at series level; each has a SeriesInstanceUID.

        `NumberOfSeriesRelatedInstances` is there as a number if the archive counts.
        """

    def headers(self, study_uid: str, series_uid: str) -> list[SeriesHeaders] | None:
        """Return what the headers of a series say; None: this archive cannot say (DIMSE)."""

    def retrieve(
        self, study_uid: str, series_uid: str, keep: Keep, only: Collection[str] = ()
    ) -> set[str]:
        """Bring the objects of a series to the spool; return the SOP UIDs that are kept.

        With `only`, these alone; an archive that cannot choose brings all. What was kept before
        an error stays kept. Objects that reach the spool on another way (C-MOVE to the door) need
        not be returned: the job log is what counts.
        """

    def stop(self) -> None:
        """Have the call that is under way end soon, by an error; may come from another thread."""

    def close(self) -> None:
        """Let its connections go."""
