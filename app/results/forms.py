"""The forms in which a result can leave; which of them an archive takes is its `accepts`."""

from collections.abc import Collection, Iterable
from enum import StrEnum


class Form(StrEnum):
    """One kind of object that is made of a result."""

    SEG = "seg"
    """Binary DICOM segmentation."""
    LABELMAP = "labelmap"
    """DICOM label map segmentation, for archives and viewers that know it."""
    FRACTIONAL = "fractional"
    """DICOM segmentation with probabilities."""
    SR = "sr"
    """Measurements as a structured report, TID 1500."""
    TEXT_SR = "text_sr"
    """The same as a flat report that dictation systems read."""
    RTSTRUCT = "rtstruct"
    """Contours, for treatment planning."""
    OVERVIEW = "overview"
    """One picture of slices with their segments, as a secondary capture."""
    JSON = "json"
    """Measurements as a JSON file; for archives of kind `files`."""
    CSV = "csv"
    """Measurements as a table; for archives of kind `files`."""


ENCODED = "encode"
"""The folder in a job's folder where its results lie."""

TABLES = frozenset({Form.JSON, Form.CSV})
"""Forms that are no DICOM objects."""

SEGMENTATIONS = (Form.SEG, Form.LABELMAP, Form.FRACTIONAL)
"""An archive gets one of these at most."""

MANY_SEGMENTS = 20
"""Above it a binary SEG has thousands of frames, and a label map is a tenth of it."""


def forms_for(
    accepts: Collection[Form], *, preferred: Form, segments: int, overlaps: bool
) -> tuple[Form, ...]:
    """Return what an archive gets of what it accepts, for a model that prefers one segmentation.

    A voxel has one value in a label map, so that segments that overlap go as the binary one.
    """
    possible = [form for form in SEGMENTATIONS if form in accepts]
    if overlaps and Form.LABELMAP in possible:
        possible.remove(Form.LABELMAP)
    if preferred is not Form.FRACTIONAL and Form.FRACTIONAL in possible:
        possible.remove(Form.FRACTIONAL)
    chosen = [preferred] if preferred in possible else possible[:1]
    if segments > MANY_SEGMENTS and preferred is Form.SEG and Form.LABELMAP in possible:
        chosen = [Form.LABELMAP]
    return (*chosen, *(form for form in Form if form in accepts and form not in SEGMENTATIONS))


def in_place_of(forms: Iterable[Form]) -> tuple[Form, ...] | None:
    """Return what an archive gets that does not know its segmentation; None if it has the last."""
    there = [*forms]
    if about(there) in {None, Form.SEG}:
        return None
    return (Form.SEG, *(form for form in there if form not in SEGMENTATIONS))


def about(forms: Iterable[Form]) -> Form | None:
    """Return the segmentation among the forms that go to one archive."""
    return next((form for form in forms if form in SEGMENTATIONS), None)


def file_name(form: Form, forms: Iterable[Form]) -> str:
    """Return the name of a form's file; a report refers to the segmentation beside it."""
    if form in TABLES:
        return f"measurements.{form}"
    return f"sr-{about(forms) or 'none'}.dcm" if form is Form.SR else f"{form}.dcm"
