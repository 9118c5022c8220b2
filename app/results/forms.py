"""The forms in which a result can leave; which of them an archive takes is its `accepts`."""

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
