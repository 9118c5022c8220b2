"""What one header says in plain values that name nobody."""

from collections.abc import Iterable
from typing import Final

import pydicom
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from app.dicom.keywords import is_plain, tells_nobody
from app.dicom.series import Scalar, scalars

MAX_VALUES: Final = 16
"""Distinct values of an attribute that are kept: the smallest, so that order never decides."""
MAX_TEXT: Final = 256


def tags_of(ds: pydicom.Dataset) -> dict[str, tuple[Scalar, ...]]:
    """Return the plain values of a header by keyword, distinct and sorted, nothing identifying."""
    tags = {}
    for tag in ds.keys():  # noqa: SIM118  # a Dataset iterates over elements, not over tags
        keyword = keyword_for_tag(tag)
        if keyword and tells_nobody(tag.group, keyword) and _is_plain(ds, tag):
            tags[keyword] = smallest(v for v in scalars(ds, tag) if len(str(v)) <= MAX_TEXT)
    return {keyword: values for keyword, values in tags.items() if values}


def smallest(values: Iterable[Scalar]) -> tuple[Scalar, ...]:
    """Return the distinct values that are kept; the same ones however they are put together."""
    return tuple(sorted(set(values), key=order)[:MAX_VALUES])


def order(value: Scalar) -> tuple[bool, Scalar]:
    """Return what numbers and texts are sorted by, numbers first."""
    return isinstance(value, str), value


def _is_plain(ds: pydicom.Dataset, tag: BaseTag) -> bool:
    """Say whether an element is short text or a number, going by its VR alone."""
    element = ds.get_item(tag, keep_deferred=True)
    vr = element.VR
    if isinstance(element, RawDataElement):
        if element.value is None and element.length:
            return False  # longer than BULK_BYTES: left in the file
        if vr in (None, "UN"):  # implicit VR, or passed on by a system that did not know it
            vr = dictionary_VR(element.tag)
    return is_plain(str(vr))
