"""QIDO-RS as a client (PS3.18 10.6): which studies and series an archive lists.

Archives page in their own ways: some know no offset, some cap a page below what was asked for,
some list a study twice while others arrive. So a listing ends when a page brings nothing new.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword

from app.dicom.encoded import is_uid
from app.dicom.keywords import is_number, is_plain
from app.dicom.series import Scalar
from app.dicom.web import HTTP_NO_CONTENT, HTTP_NOT_FOUND, Web, hint, values
from app.errors import ArchiveRefused, ArchiveUnavailable

Page = list[Any]

PAGE = 500
MOST_ANSWER = 64 * 1024 * 1024
"""Bytes of one page; an archive that knows no limit gives all at once."""
MOST_LISTED = 500_000
"""Studies of one listing."""

STUDY_UID, SERIES_UID, SOP_UID = "0020000D", "0020000E", "00080018"
STUDY_COUNT, SERIES_COUNT = "00201208", "00201209"

SERIES_LEVEL = (
    *("SeriesInstanceUID", "NumberOfSeriesRelatedInstances", "Modality", "SeriesDescription"),
    *("SeriesNumber", "BodyPartExamined", "ProtocolName", "Laterality", "PatientPosition"),
)
"""What all objects of a series share (PS3.3 C.7.3.1), so that an archive can say it of the series;
other attributes differ from slice to slice, whatever the archive made of them."""


def studies(web: Web, query: Mapping[str, str]) -> Iterator[dict[str, int | None]]:
    """Yield pages of study UID → number of objects; None where the archive does not count."""
    asked = {**query, "includefield": STUDY_COUNT}
    for page in _pages(web, "studies", STUDY_UID, asked):
        yield {_uid(item, STUDY_UID): _number(item, STUDY_COUNT) for item in page}


def count(web: Web, study_uid: str) -> int | None:
    """Return how many objects a study has; None when the archive does not list it."""
    asked = {"StudyInstanceUID": study_uid, "includefield": STUDY_COUNT}
    found = [item for item in _ask(web, "studies", asked) if _uid(item, STUDY_UID) == study_uid]
    if not found:
        return None
    told = _number(found[0], STUDY_COUNT)
    return _count_series(web, study_uid) if told is None else told


def series(web: Web, study_uid: str) -> list[dict[str, tuple[Scalar, ...]]]:
    """Return what the archive says of each series of a study."""
    asked = {"includefield": ",".join(_tag(keyword) for keyword in SERIES_LEVEL)}
    pages = _pages(web, f"studies/{study_uid}/series", SERIES_UID, asked)
    return [_attributes(item) for page in pages for item in page]


def answers(web: Web) -> None:
    """Ask for one study: an error tells why the archive is of no use."""
    _ask(web, "studies", {"limit": "1"})


def _count_series(web: Web, study_uid: str) -> int:
    """Count objects series by series, and one by one where the archive does not even say that."""
    asked = {"includefield": SERIES_COUNT}
    total = 0
    for page in _pages(web, f"studies/{study_uid}/series", SERIES_UID, asked):
        for item in page:
            told = _number(item, SERIES_COUNT)
            total += (
                _count_objects(web, study_uid, _uid(item, SERIES_UID)) if told is None else told
            )
    return total


def _count_objects(web: Web, study_uid: str, series_uid: str) -> int:
    path = f"studies/{study_uid}/series/{series_uid}/instances"
    return sum(len(page) for page in _pages(web, path, SOP_UID, {}))


def _pages(web: Web, path: str, key: str, asked: Mapping[str, str]) -> Iterator[Page]:
    """Yield page by page what was not listed before, until a page brings nothing new."""
    seen: set[str] = set()
    offset = 0
    while page := _ask(web, path, {**asked, "limit": str(PAGE), "offset": str(offset)}):
        offset += len(page)
        by_uid = {uid: item for item in page if is_uid(uid := _uid(item, key))}
        fresh = [item for uid, item in by_uid.items() if uid not in seen]
        if not fresh:
            return
        seen |= by_uid.keys()
        if len(seen) > MOST_LISTED:
            raise ArchiveRefused(
                f"{web.name}: lists more than {MOST_LISTED} at once; ask for fewer by a window of"
                " days or a query"
            )
        yield fresh


def _ask(web: Web, path: str, asked: Mapping[str, str]) -> Page:
    answer = web.ask("GET", path, most=MOST_ANSWER, params=dict(asked))
    if answer.status == HTTP_NO_CONTENT or (answer.status == HTTP_NOT_FOUND and path != "studies"):
        return []
    if not answer.ok:
        raise ArchiveRefused(
            f"{web.name}: refused a question with HTTP {answer.status}{hint(answer.status)}"
        )
    if not answer.is_json:
        raise ArchiveRefused(
            f"{web.name}: answered with {_shown(answer.kind)} instead of JSON; check its url"
        )
    body = answer.body
    if not isinstance(body, list):
        raise ArchiveUnavailable(f"{web.name}: its answer is cut short or no DICOM JSON")
    return body


def _shown(kind: str) -> str:
    """Return a media type as far as it may be quoted."""
    known = {"application/dicom+xml", "application/xml", "text/xml", "text/html", "text/plain"}
    return kind if kind in known else "something"


def _attributes(item: Any) -> dict[str, tuple[Scalar, ...]]:
    found = {keyword: _scalars(keyword, values(item, _tag(keyword))) for keyword in SERIES_LEVEL}
    return {keyword: told for keyword, told in found.items() if told}


def _scalars(keyword: str, told: Collection[Any]) -> tuple[Scalar, ...]:
    vr = dictionary_VR(keyword)
    if not is_plain(vr):
        return ()
    found = (_scalar(value, number=is_number(vr)) for value in told)
    return tuple(value for value in found if value not in {None, ""})


def _scalar(value: Any, *, number: bool) -> Scalar | None:
    """Return a number or text; some archives write numbers as text (PS3.18 F.2.3 allows both)."""
    if number and isinstance(value, str):
        return _whole(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return value.strip(" \0") if isinstance(value, str) else value


def _number(item: Any, tag: str) -> int | None:
    told = _scalar(next(iter(values(item, tag)), None), number=True)
    return told if isinstance(told, int) and told >= 0 else None


def _whole(text: str) -> int | None:
    text = text.strip(" \0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None  # noqa: PLR2004


def _uid(item: Any, tag: str) -> str:
    return str(next(iter(values(item, tag)), "")).rstrip("\0 ")


def _tag(keyword: str) -> str:
    return f"{tag_for_keyword(keyword):08X}"
