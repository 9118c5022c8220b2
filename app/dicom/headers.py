"""What the headers of one series say, collected so that the order of arrival never matters.

Headers come from files or from an archive's metadata, a few at a time. What is collected can be
merged with what was collected before: merging is commutative, associative and idempotent.
"""

import filecmp
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pydicom

from app.dicom.columns import instance_of, unpacked, with_column
from app.dicom.facts import facts_of
from app.dicom.image import PIXELS, Image
from app.dicom.layout import points_in_time, to_compare
from app.dicom.series import Scalar, Series, read_header, text_of, tolerant
from app.dicom.slices import patient_of
from app.dicom.tags import order, smallest
from app.dicom.told import told
from app.dicom.volume import digest_of_values
from app.errors import StudyError, UnreadableDicom

MAX_PARTS = 128
"""A series of more points in time is not split; nobody reads them one by one."""
_FINGERPRINT = 16
"""Hexadecimal digits of a patient's fingerprint: enough to tell a few patients apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesHeaders:
    """The headers of some images of one series."""

    study_uid: str
    series_uid: str
    tags: Mapping[str, tuple[Scalar, ...]]
    """Keyword → distinct values over the images, sorted, at most 16; nothing identifying."""
    images: Mapping[str, Image]
    """SOP Instance UID → what facts need of the image."""
    patients: tuple[str, ...]
    """Fingerprints of the patients that the headers name, sorted."""

    def merged(self, other: Self) -> "SeriesHeaders":
        """Return what both say together."""
        (both,) = merge([self, other])  # of one series, or this is a fault of ours
        return both

    def series(self) -> Series:
        """Return the series as routes see it."""
        whole = self._series()
        (points,) = whole.facts.get("time_points", (1,))[:1]
        if not 1 < int(points) <= MAX_PARTS:
            return whole
        parts = enumerate(points_in_time(self.images), start=1)
        return replace(whole, parts=tuple(self._part(n, sop_uids) for n, sop_uids in parts))

    def _series(self, part: int = 0) -> Series:
        facts = facts_of(self.tags, self.images)
        return Series(
            study_uid=self.study_uid,
            series_uid=self.series_uid,
            sop_uids=tuple(sorted(self.images)),
            sop_classes=tuple(
                sorted({str(each["SOPClassUID"][0]) for each in self.images.values()})
            ),
            tags=self.tags,
            facts={**facts, "time_point": (part,)} if part else facts,
            patients=self.patients,
            part=part,
        )

    def _part(self, number: int, sop_uids: Iterable[str]) -> Series:
        """Return one point in time; of its attributes those kept for each image are its own."""
        images = {uid: self.images[uid] for uid in sop_uids}
        apart = unpacked(images).values()
        own = {
            keyword: smallest(value for each in apart for value in each.get(keyword, ()))
            for keyword in self.tags.keys() & {name for each in apart for name in each}
        }
        headers = replace(self, images=images, tags={**self.tags, **own})
        return headers._series(part=number)  # noqa: SLF001  # of the same class

    def to_json(self) -> dict[str, Any]:
        """Return the headers in the types that JSON knows; what all images share stands once."""
        common = _common(list(self.images.values()))
        return {
            "study_uid": self.study_uid,
            "series_uid": self.series_uid,
            "tags": {keyword: list(values) for keyword, values in self.tags.items()},
            "common": {keyword: list(values) for keyword, values in common.items()},
            "images": {
                uid: {k: list(values) for k, values in image.items() if k not in common}
                for uid, image in sorted(self.images.items())
            },
            "patients": list(self.patients),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the headers that `to_json` wrote."""
        common = {keyword: tuple(values) for keyword, values in value["common"].items()}
        return cls(
            study_uid=value["study_uid"],
            series_uid=value["series_uid"],
            tags={keyword: tuple(values) for keyword, values in value["tags"].items()},
            images={
                uid: common | {keyword: tuple(values) for keyword, values in image.items()}
                for uid, image in value["images"].items()
            },
            patients=tuple(value["patients"]),
        )


def read_headers(paths: Iterable[str | Path]) -> list[SeriesHeaders]:
    """Read the headers of any files of any studies; return them by series, sorted.

    A file that is there twice counts once. Two different files with one SOP Instance UID are
    refused, because one of them would silently be lost.
    """
    files: dict[str, Path] = {}
    return [compared(each, files) for each in merge(_each_file(paths, files))]


def headers_of(datasets: Iterable[pydicom.Dataset]) -> list[SeriesHeaders]:
    """Return the same of metadata, which has no pixels and no files."""
    return merge(_each_dataset(datasets))


def read_series(paths: Iterable[str | Path]) -> list[Series]:
    """Read the headers of any files of any studies; return their series, sorted."""
    return [each.series() for each in read_headers(paths)]


def merge(several: Iterable[SeriesHeaders]) -> list[SeriesHeaders]:
    """Merge what is of one series; return the series, sorted."""
    found: dict[tuple[str, str], _Collected] = {}
    for each in several:
        found.setdefault((each.study_uid, each.series_uid), _Collected()).add(each)
    return [found[key].headers(*key) for key in sorted(found)]


def compared(headers: SeriesHeaders, files: Mapping[str, str | Path]) -> SeriesHeaders:
    """Return the headers with a digest of the pixels where images lie at one place.

    Only images that their headers do not tell apart are read, and none of them twice. `files` maps
    the SOP Instance UIDs of the whole series to its files: an image that came before may have to
    be read now that another one lies at its place.
    """
    digests: dict[str, dict[int, str]] = {}
    for name in to_compare(headers.images):
        uid, frame = instance_of(name)
        if uid in files and (digest := digest_of_values(files[uid], frame)):
            digests.setdefault(uid, {})[frame or 0] = digest
    if not digests:
        return headers
    images = {uid: _with_digests(headers.images[uid], found) for uid, found in digests.items()}
    return replace(headers, images={**headers.images, **images})


def _with_digests(image: Image, found: Mapping[int, str]) -> Image:
    return {**image, PIXELS: (found[0],)} if 0 in found else with_column(image, PIXELS, found)


class _Collected:
    """What was said of one series so far; only this grows, whatever the number of files."""

    def __init__(self) -> None:
        self._tags: dict[str, set[Scalar]] = {}
        self._images: dict[str, Image] = {}
        self._patients: set[str] = set()

    def add(self, headers: SeriesHeaders) -> None:
        for keyword, values in headers.tags.items():
            self._tags.setdefault(keyword, set()).update(values)
        for uid, image in headers.images.items():
            known = self._images.setdefault(uid, image)
            if known is not image and known != image:
                self._images[uid] = _of_one_image(known, image)
        self._patients.update(headers.patients)

    def headers(self, study_uid: str, series_uid: str) -> SeriesHeaders:
        return SeriesHeaders(
            study_uid=study_uid,
            series_uid=series_uid,
            tags={keyword: smallest(values) for keyword, values in sorted(self._tags.items())},
            images=self._images,
            patients=tuple(sorted(self._patients)),
        )


def _each_file(paths: Iterable[str | Path], files: dict[str, Path]) -> Iterator[SeriesHeaders]:
    """Yield the header of each file but copies; note in `files` which file is which image."""
    for path in sorted(Path(path) for path in paths):
        ds = read_header(path)
        with tolerant(path):
            one = _one_image(ds, path.name)
        (sop_uid,) = one.images
        if sop_uid in files:
            _check_same_file(files[sop_uid], path, sop_uid)
        else:
            files[sop_uid] = path
            yield one


def _each_dataset(datasets: Iterable[pydicom.Dataset]) -> Iterator[SeriesHeaders]:
    for ds in datasets:
        with tolerant("metadata"):
            one = _one_image(ds, "metadata")
        yield one


def _one_image(ds: pydicom.Dataset, name: str) -> SeriesHeaders:
    keywords = ("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID")
    uids = {keyword: text_of(ds, keyword) for keyword in keywords}
    for keyword, uid in uids.items():
        if not uid:
            raise UnreadableDicom(f"{name}: has no {keyword}; it cannot be placed in a study")
    patient = json.dumps(patient_of(ds)).encode()
    tags, image = told(ds, name)
    return SeriesHeaders(
        study_uid=uids["StudyInstanceUID"],
        series_uid=uids["SeriesInstanceUID"],
        tags=tags,
        images={uids["SOPInstanceUID"]: {**image, "SOPClassUID": (uids["SOPClassUID"],)}},
        patients=(hashlib.sha256(patient).hexdigest()[:_FINGERPRINT],),
    )


def _check_same_file(one: Path, other: Path, sop_uid: str) -> None:
    if not filecmp.cmp(one, other, shallow=False):
        raise StudyError(
            f"{one.name} and {other.name}: different objects carry the"
            f" SOP Instance UID {sop_uid}; remove the wrong one"
        )


def _of_one_image(one: Image, other: Image) -> Image:
    """Merge what two sources say of one image; where they disagree the smaller value stays.

    They do when an archive's metadata is not what its files say. Any rule will do that does not
    ask who came first.
    """
    both = {**one, **other}
    for keyword in one.keys() & other.keys():
        both[keyword] = min(one[keyword], other[keyword], key=lambda v: [order(each) for each in v])
    return both


def _common(images: list[Image]) -> Image:
    """Return the values that all the images share."""
    if not images:
        return {}
    first, *others = images
    return {
        keyword: values
        for keyword, values in first.items()
        if all(each.get(keyword) == values for each in others)
    }
