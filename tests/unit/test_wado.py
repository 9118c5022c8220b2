"""Metadata in DICOM JSON as an archive may send it, and what of it becomes a header.

Covered: broken and odd JSON, bulk data, values that pydicom refuses. Not covered: the connection
(tests/sockets/test_fetch).
"""

import json
from typing import Any

import pytest

from app.dicom.wado import _datasets
from app.dicom.web import Web
from app.errors import ArchiveUnavailable

UID = {"00080018": {"vr": "UI", "Value": ["1.2.3"]}}


def datasets(text: str) -> list[Any]:
    """Return the headers in a text."""
    return [*_datasets(Web("pacs", "http://127.0.0.1:1"), text.encode())]


@pytest.mark.parametrize("text", ["[]", " [ ] ", "\n[\n]\n"])
def test_an_empty_list_has_no_headers(text: str) -> None:
    """However it is spaced."""
    assert datasets(text) == []


@pytest.mark.parametrize("indent", [None, 2])
def test_each_item_is_a_header(indent: int | None) -> None:
    """Also when written for people, as Orthanc does."""
    found = datasets(json.dumps([UID, UID], indent=indent))
    assert [ds.SOPInstanceUID for ds in found] == ["1.2.3", "1.2.3"]


@pytest.mark.parametrize(
    "text", ["", "{}", "[", "[1]", "[{}", '[{"00080018', "[" * 100_000, "<a/>", "null", "[null]"]
)
def test_what_is_no_list_of_headers_is_an_error_that_quotes_nothing(text: str) -> None:
    """An answer that was cut off is asked for again."""
    with pytest.raises(ArchiveUnavailable, match="cut short or no DICOM JSON"):
        datasets(text)


@pytest.mark.parametrize(
    "odd",
    [
        {"7FE00010": {"vr": "OW", "BulkDataURI": "file:///etc/passwd"}},
        {"7FE00010": {"vr": "OW", "InlineBinary": "AAAA"}},
        {"00200013": {"vr": "IS", "Value": ["no number"]}},
        {"00280010": {"vr": "US", "Value": [{"a": [1]}]}},
        {"zzzzzzzz": {"vr": "LO", "Value": ["x"]}},
        {"00080060": {"vr": "??", "Value": ["CT"]}},
        {"00080060": "CT"},
        {"00091001": {"vr": "LO", "Value": ["private"]}},
        {"00081140": {"vr": "SQ", "Value": ["no item"]}},
    ],
)
def test_an_element_that_cannot_be_read_is_left_out(odd: dict[str, Any]) -> None:
    """The rest of the header is there."""
    (ds,) = datasets(json.dumps([odd | UID]))
    assert ds.SOPInstanceUID == "1.2.3"
    assert "PixelData" not in ds
