"""Measurements → JSON and CSV, for people and programs that read no DICOM.

Of the patient they say nothing: studies, series and segments are named by their UIDs. The same
result makes the same bytes.
"""

import csv
import json
import unicodedata
from collections.abc import Sequence
from io import StringIO
from typing import Any

from app.models.card import Code
from app.results.describe import content, tracking
from app.results.measure import Measured, Quantity
from app.results.result import Result

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a cell begins with that a spreadsheet takes for a formula, or for the end of the cell."""


def as_json(result: Result, measured: Sequence[Measured]) -> bytes:
    """Return the measurements with their codes."""
    report = {
        "notice": content(result.version),
        **_origin(result),
        "weights_sha256": result.card.weights_sha256,
        "node_version": result.node_version,
        "made_at": result.local.isoformat(),
        "segments": [_segment(each, result) for each in measured],
    }
    written = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    return f"{written}\n".encode()


def as_csv(result: Result, measured: Sequence[Measured]) -> bytes:
    """Return a row for each segment and a column for each quantity, with its unit in the header.

    Each row says what it is of, so that the tables of many studies can be put together.
    """
    origin = _origin(result)
    kinds = {_column(quantity): None for each in measured for quantity, _ in each.values}
    table = StringIO()
    rows = csv.writer(table, lineterminator="\r\n")  # RFC 4180
    header = [*origin, "tracking_uid", "label", "name", "found", "voxels", *kinds]
    rows.writerow([_harmless(name) for name in header])
    for each in measured:
        values = {_column(quantity): value for quantity, value in each.values}
        about = [tracking(each.label, result.identity)[1], each.label.value, each.label.name]
        found = "yes" if each.voxels else "no"
        cells = [*origin.values(), *about, found, each.voxels, *map(values.get, kinds)]
        rows.writerow([_harmless(cell) if isinstance(cell, str) else cell for cell in cells])
    return table.getvalue().encode()


def _origin(result: Result) -> dict[str, str | int]:
    """Return what the measurements are of, and which answer of which model they are."""
    return {
        "study_uid": result.identity.study_uid,
        "series_uid": result.volume.series_uid,
        "frame_of_reference_uid": result.volume.frame_of_reference_uid,
        "model": result.card.identity,
        "version": result.version,
    }


def _segment(measured: Measured, result: Result) -> dict[str, Any]:
    label = measured.label
    return {
        "label": label.value,
        "name": label.name,
        "tracking_uid": tracking(label, result.identity)[1],
        **_codes(type=label.type, laterality=label.laterality, region=label.region),
        "found": measured.voxels > 0,
        "voxels": measured.voxels,
        "measurements": [_measurement(*each) for each in measured.values],
    }


def _measurement(quantity: Quantity, value: float) -> dict[str, Any]:
    return {
        "name": quantity.name,
        "value": float(value),
        "unit": quantity.unit.value,
        **_codes(concept=quantity.concept, derivation=quantity.derivation),
    }


def _codes(**codes: Code | None) -> dict[str, dict[str, str]]:
    return {what: code.model_dump() for what, code in codes.items() if code}


def _column(quantity: Quantity) -> str:
    return f"{quantity.name} [{quantity.unit.value}]"


def _harmless(text: str) -> str:
    """Return a text that no spreadsheet runs; full-width signs are signs to some of them."""
    begins = unicodedata.normalize("NFKC", text).lstrip(" ")
    return f"'{text}" if text.startswith(_FORMULA) or begins.startswith(_FORMULA) else text
