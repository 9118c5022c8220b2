"""Series as their headers describe them: which instances they have and what they say, no pixels.

Headers are untrusted. Whatever pydicom raises on them becomes UnreadableDicom with the file's name
and the kind of fault; values never enter a message, they may identify the patient.
"""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pydicom
from pydicom import config
from pydicom.tag import BaseTag

from app.dicom.keywords import is_number
from app.errors import NodeError, OutOfResources, UnreadableDicom

Scalar = str | int | float

# Odd values are common; they are kept as text, and pydicom's complaints would quote them.
config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.ERROR)

BULK_BYTES = 64 * 1024
"""Longer values stay in the file."""

PART_MARK = "#"
"""What stands between a series' UID and the number of its part; no UID has it."""

_LARGEST = 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The objects of one series, the values that their headers hold and what follows from them."""

    study_uid: str
    series_uid: str
    sop_uids: tuple[str, ...]
    """Sorted."""
    sop_classes: tuple[str, ...] = ()
    """Distinct, sorted."""
    tags: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    """Keyword → distinct values over the objects, sorted, at most 16; nothing identifying."""
    facts: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    """Name in `app.dicom.facts.FACTS` → what the headers together say; unknown facts are absent."""
    patients: tuple[str, ...] = ()
    """Fingerprints of the patients named by the headers; more than one is an alarm."""
    part: int = 0
    """Which point in time of the series this is, from 1 on; 0 is the whole series."""
    parts: tuple["Series", ...] = ()
    """The points in time that the series can be split into, in their order."""

    @property
    def key(self) -> str:
        """What tells it from every other series and from the other parts of its own."""
        return f"{self.series_uid}{PART_MARK}{self.part:03}" if self.part else self.series_uid

    @property
    def modality(self) -> str:
        """The modality, or nothing when the headers do not say."""
        return str(next(iter(self.tags.get("Modality", ())), ""))

    def to_json(self) -> dict[str, Any]:
        """Return the series in the types that JSON knows."""
        return {
            "study_uid": self.study_uid,
            "series_uid": self.series_uid,
            "sop_uids": list(self.sop_uids),
            "sop_classes": list(self.sop_classes),
            "tags": {keyword: list(values) for keyword, values in self.tags.items()},
            "facts": {name: list(values) for name, values in self.facts.items()},
            "patients": list(self.patients),
            "part": self.part,
            "parts": [part.to_json() for part in self.parts],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the series that `to_json` wrote."""
        return cls(
            study_uid=value["study_uid"],
            series_uid=value["series_uid"],
            sop_uids=tuple(value["sop_uids"]),
            sop_classes=tuple(value["sop_classes"]),
            tags={keyword: tuple(values) for keyword, values in value["tags"].items()},
            facts={name: tuple(values) for name, values in value["facts"].items()},
            patients=tuple(value["patients"]),
            part=value["part"],
            parts=tuple(cls.from_json(part) for part in value["parts"]),
        )


@contextmanager
def tolerant(path: str | Path) -> Iterator[None]:
    """Silence pydicom's warnings on odd values and turn its odd exceptions into ours.

    Warning filters belong to the process, so this is for worker processes, which have one thread.
    """
    name = Path(path).name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except NodeError:
        raise
    except MemoryError:
        raise OutOfResources(f"{name}: reading it needs more memory than is allowed") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UnreadableDicom(f"{name}: cannot be opened ({reason}); send it again") from None
    except Exception as error:  # noqa: BLE001  # StopIteration, RecursionError, struct.error …
        # The cause is dropped on purpose: its text quotes the value, which may be a name.
        fault = type(error).__name__
        raise UnreadableDicom(f"{name}: is not readable DICOM ({fault}); send it again") from None


def read_header(path: str | Path) -> pydicom.Dataset:
    """Read one object up to its pixels; values longer than 64 KiB stay in the file."""
    with tolerant(path):
        return pydicom.dcmread(path, stop_before_pixels=True, defer_size=BULK_BYTES)


def scalars(ds: pydicom.Dataset, tag: BaseTag | str) -> tuple[Scalar, ...]:
    """Return the values of one element; what does not conform to its VR comes as text."""
    try:
        element = ds[tag]
    except KeyError:
        return ()
    except Exception:  # noqa: BLE001  # pydicom converts on access and raises what it likes
        raw = ds.get_item(tag)
        text = bytes(getattr(raw, "value", None) or b"").decode("latin-1")
        return tuple(filter(None, map(_clean, text.split("\\"))))
    if element.value is None:
        return ()
    values = element.value if element.VM > 1 else [element.value]
    found = (_scalar(value, element.VR) for value in values)
    return tuple(value for value in found if value != "")


def text_of(ds: pydicom.Dataset, keyword: str) -> str:
    """Return the values of one element as one text, or nothing."""
    return "\\".join(str(value) for value in scalars(ds, keyword))


def _scalar(value: Any, vr: str) -> Scalar:
    if is_number(vr) and isinstance(value, int | float):
        if isinstance(value, int):
            return int(value) if abs(value) < _LARGEST else _clean(value)
        if math.isfinite(value):
            return float(value)
    return _clean(value)


def _clean(value: Any) -> str:
    text = str(value).strip(" \0\t\r\n")
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)
