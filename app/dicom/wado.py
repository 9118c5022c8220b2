"""WADO-RS as a client (PS3.18 10.4): what the headers of a series say, and its objects as a stream.

Addresses in an answer (BulkDataURI, RetrieveURL) are never asked: they can name any machine.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from typing import Any

import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement

from app.dicom.web import HTTP_NOT_FOUND, HTTP_TOO_LARGE, Opened, TooLarge, Web, hint
from app.errors import ArchiveRefused, ArchiveUnavailable

OBJECTS = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""Every object as it is kept there; nothing is transcoded for us."""
MOST_METADATA = 128 * 1024 * 1024
"""Bytes of one series' metadata: some twenty thousand slices."""
MOST_SERIES = 64 * 10**9
"""Bytes of one series."""


@contextmanager
def series(web: Web, study_uid: str, series_uid: str) -> Iterator[tuple[bytes, Iterator[bytes]]]:
    """Ask for the objects of a series; give the boundary and the pieces of the multipart body."""
    with _objects(web, f"studies/{study_uid}/series/{series_uid}") as body:
        yield body


@contextmanager
def instance(
    web: Web, study_uid: str, series_uid: str, sop_uid: str
) -> Iterator[tuple[bytes, Iterator[bytes]]]:
    """Ask for one object; give the same."""
    with _objects(web, f"studies/{study_uid}/series/{series_uid}/instances/{sop_uid}") as body:
        yield body


def metadata(web: Web, study_uid: str, series_uid: str) -> Iterator[pydicom.Dataset] | None:
    """Return the headers of a series one by one; None when they are too many for one answer."""
    try:
        answer = web.ask(
            "GET", f"studies/{study_uid}/series/{series_uid}/metadata", most=MOST_METADATA
        )
    except TooLarge:
        return None
    if answer.status == HTTP_TOO_LARGE:
        return None
    if not answer.ok or not answer.is_json:
        raise _refused(web, answer.status, "the metadata of a series")
    return _datasets(web, answer.content)


def _datasets(web: Web, content: bytes) -> Iterator[pydicom.Dataset]:
    """Decode one header at a time: all at once would take ten times the memory of the text."""
    decoder, at = json.JSONDecoder(), 0
    try:
        text = content.decode("utf-8").strip()
        if not text.startswith("["):
            raise ValueError  # noqa: TRY301  # ends like JSON that is broken
        at = _behind(text, 1, "")
        while text[at] != "]":
            item, at = decoder.raw_decode(text, at)
            yield _dataset(item)
            at = _behind(text, at, ",")
    except (ValueError, IndexError, RecursionError) as error:
        raise ArchiveUnavailable(
            f"{web.name}: the metadata of a series are cut short or no DICOM JSON"
        ) from error


def _behind(text: str, at: int, separator: str) -> int:
    """Return where the next item begins, or the end of the list stands."""
    while text[at] in " \t\r\n" + separator:
        at += 1
    return at


def _dataset(item: Any) -> pydicom.Dataset:
    """Return a header of the DICOM JSON model (PS3.18 F.2); what cannot be read is left out."""
    ds = pydicom.Dataset()
    if not isinstance(item, dict):
        raise ValueError  # noqa: TRY004  # like JSON that is broken
    for tag, element in item.items():
        if isinstance(element, dict) and (found := _element(tag, element)) is not None:
            ds.add(found)
    return ds


def _element(tag: str, element: dict[str, Any]) -> DataElement | None:
    vr, told = element.get("vr"), element.get("Value")
    if len(tag) != 8 or not isinstance(vr, str) or not isinstance(told, list):  # noqa: PLR2004
        return None  # bulk data among them
    try:
        if not keyword_for_tag(int(tag, 16)):
            return None
        return DataElement.from_json(pydicom.Dataset, tag, vr, told, "Value")
    except Exception:  # noqa: BLE001  # pydicom raises what it likes on hostile values
        return None


@contextmanager
def _objects(web: Web, path: str) -> Iterator[tuple[bytes, Iterator[bytes]]]:
    with web.opened("GET", path, headers={"Accept": OBJECTS}) as opened:
        yield _boundary(web, opened), opened.pieces(MOST_SERIES)


def _boundary(web: Web, opened: Opened) -> bytes:
    if not 200 <= opened.status < 300 or opened.kind != "multipart/related":  # noqa: PLR2004  # HTTP
        raise _refused(web, opened.status, "the objects of a series")
    header = Message()
    header["Content-Type"] = opened.content_type
    return str(header.get_param("boundary", "")).encode("latin-1", "replace")


def _refused(web: Web, status: int, what: str) -> ArchiveRefused:
    if status == HTTP_NOT_FOUND:
        return ArchiveRefused(f"{web.name}: does not have {what} (any more): HTTP 404")
    if 200 <= status < 300:  # noqa: PLR2004  # HTTP's successes
        return ArchiveRefused(f"{web.name}: answered with another kind of content for {what}")
    return ArchiveRefused(f"{web.name}: refused {what} with HTTP {status}{hint(status)}")
