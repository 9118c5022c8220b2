"""Measurements → a flat DICOM SR of sentences, for dictation systems that read no TID 1500.

A basic diagnostic imaging report (TID 2000) in Enhanced SR: one section, one line a segment.
"""

import math
import re
from collections.abc import Iterator, Sequence

import highdicom as hd
import pydicom
from pydicom.sr.codedict import codes

from app.results.describe import content, plain
from app.results.document import document, root_of, section, text
from app.results.forms import Form
from app.results.measure import Measured, Quantity
from app.results.result import Result

_TITLE = hd.sr.CodedConcept("18748-4", "LN", "Diagnostic Imaging Report")
_MEAN, _DEVIATION = "373098007", "386136009"  # SCT
_MILLILITRES = {"mm3": 0.001, "cm3": 1.0, "ml": 1.0, "mL": 1.0}
"""Unit of a volume → millilitres in it."""
_SPOKEN = {"[hnsf'U]": "HU", "1": ""}


def encode_text_report(result: Result, measured: Sequence[Measured]) -> pydicom.Dataset:
    """Return the report; its first line says how far to trust the others."""
    root = root_of(_TITLE, "2000", result)
    lines = [text(codes.DCM.Finding, line) for line in lines_of(result, measured)]
    root.ContentSequence.append(section(codes.DCM.Findings, lines))
    return document(hd.sr.EnhancedSR, root, result, form=Form.TEXT_SR, what=Form.TEXT_SR)


def lines_of(result: Result, measured: Sequence[Measured]) -> Iterator[str]:
    """Yield what is said: what made it, then a line for each segment, found or not."""
    yield f"{content(result.version)} Model: {result.card.identity}."
    if not any(each.voxels for each in measured):
        yield "Nothing was found of what was looked for."
    for each in measured:
        said = ", ".join(_said(each)) if each.voxels else "looked for and not found"
        yield f"{plain(each.label.name)}: {said or 'found, nothing was measured'}."


def _said(measured: Measured) -> Iterator[str]:
    """Yield volume, mean with standard deviation, and what a lesion's diameters are."""
    volumes = (each for each in measured.values if each[0].unit.value in _MILLILITRES)
    for quantity, value in [*volumes][:1]:
        yield f"volume {_rounded(value * _MILLILITRES[quantity.unit.value])} mL"
    for quantity, value in measured.values:
        if _derived(quantity) == _MEAN:
            yield f"mean {_with_unit(value, quantity)}"
        elif _derived(quantity) == _DEVIATION:
            yield f"SD {_with_unit(value, quantity)}"
    if measured.label.lesion:
        for quantity, value in measured.values:
            if quantity.unit.value == "mm" and quantity.concept.scheme != "IBSI":
                # IBSI's lengths are those of an ellipsoid, which no reader would measure.
                yield f"{quantity.concept.meaning.lower()} {_with_unit(value, quantity)}"


def _derived(quantity: Quantity) -> str:
    return quantity.derivation.value if quantity.derivation else ""


def _with_unit(value: float, quantity: Quantity) -> str:
    """Return a number with its unit as it is spoken, which UCUM puts into braces, if at all."""
    unit = quantity.unit.value
    annotation = re.search(r"{(.+?)}", unit)
    return f"{_rounded(value)} {annotation[1] if annotation else _SPOKEN.get(unit, unit)}".strip()


def _rounded(value: float) -> str:
    """Return three digits that count, more before the point, and never an exponent."""
    size = math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(0, 2 - size)}f}"
