"""Every form of a result: made, read back and judged, and only then put where couriers look.

What fails a check is kept in `quarantine`, beside the folder of what may leave.
"""

import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pydicom
from numpy.typing import NDArray

from app.errors import ModelError, ResultRejected
from app.files import durable, make_folder
from app.results.check import check_seg
from app.results.check_contours import check_rtstruct
from app.results.contours import encode_rtstruct
from app.results.forms import ENCODED, TABLES, Form, about, file_name
from app.results.fractional import check_fractional, write_fractional
from app.results.gate import leave
from app.results.labelmap import check_labelmap, write_labelmap
from app.results.measure import Measured
from app.results.overview import encode_overview
from app.results.report import encode_report
from app.results.result import Result
from app.results.segmentation import write_seg
from app.results.tables import as_csv, as_json
from app.results.text_report import encode_text_report

QUARANTINE = "quarantine"
"""The folder in a job's folder where what failed a check lies."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Made:
    """What the forms are made of."""

    result: Result
    measured: Sequence[Measured]
    probabilities: NDArray[np.uint8] | None
    """[label, k, j, i] in 255ths, for a card that wants them."""


_ENCODERS: Mapping[Form, Callable[[Made, Form | None], pydicom.Dataset]] = {
    Form.SR: lambda made, beside: encode_report(made.result, made.measured, beside),
    Form.TEXT_SR: lambda made, _: encode_text_report(made.result, made.measured),
    Form.RTSTRUCT: lambda made, _: encode_rtstruct(made.result),
    Form.OVERVIEW: lambda made, _: encode_overview(made.result),
}


def make(folder: Path, form: Form, forms: Sequence[Form], made: Made) -> Path:
    """Make one of the forms that go to one archive; it appears whole and checked, or not at all."""
    name = file_name(form, forms)
    path = folder / ENCODED / name
    make_folder(path.parent)
    with durable(path) as file:
        _write(file, form, about(forms), made)
        file.flush()
        try:
            _check(Path(file.name), form, made)
        except ResultRejected as error:
            _put_aside(Path(file.name), folder / QUARANTINE / name, error)
            raise
    return path


def _write(file: IO[bytes], form: Form, segmentation: Form | None, made: Made) -> None:
    match form:
        case Form.SEG:
            write_seg(file, made.result)
        case Form.LABELMAP:
            write_labelmap(file, made.result)
        case Form.FRACTIONAL:
            write_fractional(file, made.result, _probabilities(made))
        case Form.JSON:
            file.write(as_json(made.result, made.measured))
        case Form.CSV:
            file.write(as_csv(made.result, made.measured))
        case _:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # identity is written as it came
                ds = _ENCODERS[form](made, segmentation)
                ds.save_as(file, enforce_file_format=True)


def _check(path: Path, form: Form, made: Made) -> None:
    match form:
        case Form.SEG:
            check_seg(path, made.result)
        case Form.LABELMAP:
            check_labelmap(path, made.result)
        case Form.FRACTIONAL:
            check_fractional(path, made.result, _probabilities(made))
        case Form.RTSTRUCT:
            check_rtstruct(path, made.result)
    if form not in TABLES:
        leave(path, made.result)


def _probabilities(made: Made) -> NDArray[np.uint8]:
    if made.probabilities is None:
        raise ModelError(
            f"{made.result.card.name}: no probabilities were kept for this job; run it anew with a"
            " card whose outputs.segmentation is fractional"
        )
    return made.probabilities


def _put_aside(path: Path, aside: Path, error: ResultRejected) -> None:
    """Keep what fails a check for a person to look at, where no courier looks."""
    make_folder(aside.parent)
    shutil.copyfile(path, aside)
    aside.with_suffix(".txt").write_text(f"{error}\n", encoding="utf-8")
