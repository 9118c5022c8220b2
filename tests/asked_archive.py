"""A DICOMweb archive that can be asked, and that pages, stalls, lies and dies as it is told to.

It answers QIDO-RS for studies and series, and WADO-RS for metadata, series and instances. Each
fault is used up by one request of its kind, in order; without one the archive is honest. It notes
every request. Its multipart answers are put together by hand, so that they can be wrong.
"""

import gzip
import io
import json
import re
import socket
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from tests.http_server import Handler, serving

JSON = "application/dicom+json"
BOUNDARY = "between-the-parts"

Fault = Callable[["_Handler"], None]


def status(code: int, **headers: str) -> Fault:
    """Answer an error of the server, or a refusal."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.send(code, b"", JSON, named)


def xml(handler: "_Handler") -> None:
    """Answer 200 and an XML document with an external entity."""
    entity = b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><a>&e;</a>'
    handler.send(200, entity, "application/dicom+xml")


def bomb(handler: "_Handler") -> None:
    """Answer a gigabyte in a megabyte, which nobody asked to be packed."""
    packed = gzip.compress(bytes(16 << 20), 9) * 64  # as large, and made in less than a time-out
    handler.send(200, packed, JSON, {"Content-Encoding": "gzip"})


def drip(handler: "_Handler") -> None:
    """Answer one byte at a time, for ever."""
    handler.send(200, b"", JSON, length=10**6)
    while not handler.archive.closing.wait(0.05):
        handler.wfile.write(b" ")


def endless(handler: "_Handler") -> None:
    """Answer more and more."""
    handler.send(200, b"[", JSON, length=10**12)
    while not handler.archive.closing.is_set():
        handler.wfile.write(b" " * (1 << 20))


def cut(handler: "_Handler") -> None:
    """Break the connection instead of answering."""
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def cut_after(number: int) -> Fault:
    """Send so many objects whole, half of the next one, and break the connection."""

    def fault(handler: "_Handler") -> None:
        body = handler.body()
        at = [found.start() for found in re.finditer(f"--{BOUNDARY}".encode(), body)]
        end = (at[number] + at[number + 1]) // 2
        handler.send(200, body[:end], _RELATED, length=len(body))
        cut(handler)

    return fault


def without_end(handler: "_Handler") -> None:
    """Send a body that ends before its closing boundary, as if that were all."""
    body = handler.body()
    handler.send(200, body[: body.rindex(f"--{BOUNDARY}".encode()) - 10], _RELATED)


def short(handler: "_Handler") -> None:
    """Send all objects but the last, properly."""
    handler.send(200, multipart(handler.objects()[:-1]), _RELATED)


def other_study(handler: "_Handler") -> None:
    """Send objects of another study."""
    wrong = ct_series(new_uid(), len(handler.objects())).objects
    handler.send(200, multipart([*wrong.values()]), _RELATED)


def claims(handler: "_Handler") -> None:
    """Send objects whose file meta names others."""
    there = handler.there().objects
    wrong = [each.replace(uid.encode(), f"9{uid[1:]}".encode(), 1) for uid, each in there.items()]
    handler.send(200, multipart(wrong), _RELATED)


_RELATED = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'


@dataclass
class SeriesThere:
    """One series in the archive."""

    series_uid: str
    attributes: dict[str, Any]
    objects: dict[str, bytes]
    """Part 10 bytes by SOP Instance UID."""


@dataclass
class AskedArchive:
    """What the archive holds, how it pages, what it will do wrong, and what it was asked."""

    studies: dict[str, list[SeriesThere]] = field(default_factory=dict)
    """In the order in which they are listed."""
    page: int = 100
    """The most that one page has."""
    knows_offset: bool = True
    counts: bool = True
    empty: int = 200
    """Status of an empty page."""
    before_page: Callable[[int], None] = lambda _offset: None
    """Called before a page of studies is put together."""
    faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    """By kind: studies, count, series, metadata, retrieve, instance."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Kind and path of every request."""
    queries: list[dict[str, str]] = field(default_factory=list)
    authorizations: set[str] = field(default_factory=set)
    url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)

    def add(self, *series: SeriesThere, study_uid: str) -> str:
        """Put a study there, or more series into it."""
        self.studies.setdefault(study_uid, []).extend(series)
        return study_uid

    def number(self, kind: str) -> int:
        """Return how many requests of a kind were made."""
        return Counter(each for each, _ in self.asked)[kind]

    def of(self, kind: str) -> list[str]:
        """Return the last UIDs in the paths of the requests of a kind."""
        return [re.findall(r"/([\d.]+)", path)[-1] for each, path in self.asked if each == kind]


def new_uid() -> str:
    """Return a fresh UID."""
    return f"2.25.{uuid4().int}"


def ct_series(study_uid: str, number: int, **attributes: Any) -> SeriesThere:
    """Make a regular axial series of tiny images; `attributes` replace those of every image."""
    series_uid, frame_of_reference = new_uid(), new_uid()
    objects = {}
    for k in range(number):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, new_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study_uid, series_uid
        ds.PatientName, ds.PatientID, ds.PatientBirthDate = "ZZPHI^CANARY", "ZZID-4711", ""
        ds.Modality, ds.SeriesDescription = "CT", "thin"
        ds.FrameOfReferenceUID, ds.ImageType = frame_of_reference, ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2 * k]
        ds.PixelSpacing, ds.SliceThickness, ds.InstanceNumber = [1, 1], 2, k + 1
        ds.Rows = ds.Columns = 16
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        ds.PixelData = k.to_bytes(2, "little") * 256
        objects[str(ds.SOPInstanceUID)] = part10(ds)
    shown = {"Modality": "CT", "SeriesDescription": "thin"} | {
        keyword: value
        for keyword, value in attributes.items()
        if keyword in {"Modality", "SeriesDescription"}
    }
    return SeriesThere(series_uid=series_uid, attributes=shown, objects=objects)


def part10(ds: Dataset) -> bytes:
    """Encode an object as a file."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def multipart(objects: Sequence[bytes]) -> bytes:
    """Put objects into one body."""
    head = f"\r\n--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + each for each in objects) + f"\r\n--{BOUNDARY}--\r\n".encode()


@contextmanager
def running_asked_archive() -> Iterator[AskedArchive]:
    """Run an archive on a free port until the end of the block."""
    archive = AskedArchive()
    handler = type("Handler", (_Handler,), {"archive": archive})
    with serving(handler, archive.closing) as archive.url:
        yield archive


UID = r"([\d.]+)"
KINDS = {
    "studies": r"/dicom-web/studies",
    "series": rf"/dicom-web/studies/{UID}/series",
    "metadata": rf"/dicom-web/studies/{UID}/series/{UID}/metadata",
    "retrieve": rf"/dicom-web/studies/{UID}/series/{UID}",
    "objects": rf"/dicom-web/studies/{UID}/series/{UID}/instances",
    "instance": rf"/dicom-web/studies/{UID}/series/{UID}/instances/{UID}",
}


class _Handler(Handler):
    archive: ClassVar[AskedArchive]
    query: dict[str, str]
    uids: tuple[str, ...]
    kind: str

    def do_GET(self) -> None:  # noqa: N802  # as http.server calls it
        """Answer, or do what the next fault of this kind says."""
        parts = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        matches = ((kind, re.fullmatch(form, parts.path)) for kind, form in KINDS.items())
        kind, match = next(((kind, match) for kind, match in matches if match), ("other", None))
        self.kind = "count" if kind == "studies" and "StudyInstanceUID" in self.query else kind
        self.uids = match.groups() if match else ()
        self.archive.asked.append((self.kind, parts.path))
        self.archive.queries.append(self.query)
        self.archive.authorizations.add(self.headers.get("Authorization", ""))
        faults = self.archive.faults[self.kind]
        (faults.popleft() if faults else getattr(type(self), f"_{self.kind}"))(self)

    def _other(self) -> None:
        self.send(404, b"", JSON)

    def _studies(self) -> None:
        offset = int(self.query.get("offset", 0))
        self.archive.before_page(offset)
        listed = [*self.archive.studies]
        if self.archive.knows_offset:
            limit = min(int(self.query.get("limit", 10**9)), self.archive.page)
            listed = listed[offset : offset + limit]
        self._answer([self._study(uid) for uid in listed])

    def _count(self) -> None:
        uid = self.query["StudyInstanceUID"]
        self._answer([self._study(uid)] if uid in self.archive.studies else [])

    def _study(self, uid: str) -> dict[str, Any]:
        ds = Dataset()
        ds.StudyInstanceUID = uid
        if self.archive.counts:
            series = self.archive.studies[uid]
            ds.NumberOfStudyRelatedInstances = sum(len(each.objects) for each in series)
        return ds.to_json_dict()

    def _series(self) -> None:
        offset, found = int(self.query.get("offset", 0)), []
        for each in self.archive.studies.get(self.uids[0], [])[offset:]:
            ds = Dataset()
            ds.SeriesInstanceUID = each.series_uid
            if self.archive.counts:
                ds.NumberOfSeriesRelatedInstances = len(each.objects)
            for keyword, value in each.attributes.items():
                setattr(ds, keyword, value)
            found.append(ds.to_json_dict())
        self._answer(found)

    def _objects(self) -> None:
        offset = int(self.query.get("offset", 0))
        uids = [*self.there().objects][offset:]
        self._answer([{"00080018": {"vr": "UI", "Value": [uid]}} for uid in uids])

    def _metadata(self) -> None:
        found = []
        for each in self.there().objects.values():
            ds = dcmread(io.BytesIO(each), stop_before_pixels=True)
            told = ds.to_json_dict()
            there = f"{self.archive.url}/somewhere"
            told["7FE00010"] = {"vr": "OW", "BulkDataURI": there}
            told["00091001"] = {"vr": "OB", "BulkDataURI": "file:///etc/passwd"}
            found.append(told)
        self._answer(found)

    def _retrieve(self) -> None:
        self.send(200, self.body(), _RELATED)

    def _instance(self) -> None:
        self.send(200, self.body(), _RELATED)

    def objects(self) -> list[bytes]:
        """Return the objects that are asked for."""
        there = self.there().objects
        return [there[self.uids[2]]] if self.kind == "instance" else [*there.values()]

    def body(self) -> bytes:
        """Return the honest answer with objects."""
        return multipart(self.objects())

    def there(self) -> SeriesThere:
        """Return the series that is asked for."""
        series = self.archive.studies[self.uids[0]]
        return next(each for each in series if each.series_uid == self.uids[1])

    def _answer(self, items: list[Any]) -> None:
        if not items and self.archive.empty == 204:
            self.send(204, b"", JSON)
        else:
            self.send(200, json.dumps(items).encode(), f"{JSON}; charset=utf-8")
