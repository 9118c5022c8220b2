"""Every form of a result: made, read back and judged, and only then put where couriers look.

What fails a check is kept in `quarantine`, beside the folder of what may leave.
"""

import logging
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import pydicom
from numpy.typing import NDArray

from app.errors import ResultRejected
from app.files import durable, make_folder
from app.results.check_contours import check_rtstruct
from app.results.contours import encode_rtstruct
from app.results.forms import ENCODED, Form, about, file_name
from app.results.fractional import check_fractional, write_fractional
from app.results.gate import leave
from app.results.labelmap import check_labelmap, write_labelmap
from app.results.measure import Measured
from app.results.overview import encode_overview
from app.results.report import encode_report
from app.results.result import Result
from app.results.segmentation import check_seg, write_seg
from app.results.tables import as_csv, as_json
from app.results.text_report import encode_text_report

log = logging.getLogger(__name__)

QUARANTINE = "quarantine"
"""The folder in a job's folder where what failed a check lies."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Made:
    """What the forms are made of."""

    result: Result
    measured: Sequence[Measured]
    probabilities: NDArray[np.uint8] | None
    """[label, k, j, i] in 255ths, for a card that wants them."""


Write = Callable[[IO[bytes]], object]
Check = Callable[[Path], object]


def make(folder: Path, form: Form, forms: Sequence[Form], made: Made) -> Path:
    """Make one of the forms that go to one archive; it appears whole and checked, or not at all."""
    name = file_name(form, forms)
    path = folder / ENCODED / name
    write, checks = _ways(form, about(forms), made)
    make_folder(path.parent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # identity is written as it came
        with durable(path) as file:
            write(file)
            file.flush()
            for check in checks:
                _or_aside(check, Path(file.name), folder / QUARANTINE / name)
    return path


def _ways(form: Form, segmentation: Form | None, made: Made) -> tuple[Write, list[Check]]:
    """Return how a form is written and what it is held against."""
    result, measured = made.result, made.measured
    may_leave = partial(leave, result=result)
    match form:
        case Form.SEG:
            return partial(write_seg, result=result), [
                partial(check_seg, result=result),
                may_leave,
            ]
        case Form.LABELMAP:
            return partial(write_labelmap, result=result), [
                partial(check_labelmap, result=result),
                may_leave,
            ]
        case Form.FRACTIONAL:
            given = {"result": result, "probabilities": made.probabilities}
            return partial(write_fractional, **given), [
                partial(check_fractional, **given),
                may_leave,
            ]
        case Form.SR:
            return partial(_save, encode_report(result, measured, segmentation)), [may_leave]
        case Form.TEXT_SR:
            return partial(_save, encode_text_report(result, measured)), [may_leave]
        case Form.RTSTRUCT:
            return partial(_save, encode_rtstruct(result)), [
                partial(check_rtstruct, result=result),
                may_leave,
            ]
        case Form.OVERVIEW:
            return partial(_save, encode_overview(result)), [may_leave]
        case Form.JSON:
            return lambda file: file.write(as_json(result, measured)), []
        case Form.CSV:
            return lambda file: file.write(as_csv(result, measured)), []


def _save(ds: pydicom.Dataset, file: IO[bytes]) -> None:
    ds.save_as(file, enforce_file_format=True)


def _or_aside(check: Check, path: Path, aside: Path) -> None:
    """Keep what fails the check for a person to look at; it is not where couriers look."""
    try:
        check(path)
    except ResultRejected as error:
        make_folder(aside.parent)
        shutil.copyfile(path, aside)
        aside.with_suffix(".txt").write_text(f"{error}\n", encoding="utf-8")
        log.error("%s is kept in %s: %s", aside.name, QUARANTINE, error)  # noqa: TRY400  # raised
        raise
