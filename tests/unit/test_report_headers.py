"""Reports on images whose headers are poor, odd or broken.

Not covered: which values are mended and how, which is test_sources.py's.
"""

import warnings
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from app.results.forms import Form
from app.results.report import encode_report
from tests.properties.strategies import spoiled
from tests.unit.encoding import Case, as_bytes
from tests.unit.reporting import LIVER, card, found, measure
from tests.unit.test_encode import poor
from tests.unit.test_sources import AS_SENT, ODD, assert_as_sent


def report(case: Case) -> Dataset:
    """Return the report on one organ of these images."""
    result = case.result(found(LIVER), card=card())
    return encode_report(result, measure(result), Form.SEG)


def test_patient_and_study_keep_their_bytes(tmp_path: Path) -> None:
    """Names in a wrong or broken character set reach the archive as they came."""
    encoded = as_bytes(report(Case(tmp_path, spoiled(AS_SENT))))
    assert_as_sent(pydicom.dcmread(BytesIO(encoded)))


def test_a_poor_header_is_enough(tmp_path: Path) -> None:
    """Everything that an image can be without may be missing."""
    encoded = report(Case(tmp_path, poor))
    assert (encoded.PatientID, encoded.StudyDate, encoded.SeriesNumber) == ("", "", 301)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_header_is_no_hindrance(tmp_path: Path, name: str) -> None:
    """Neither for the report nor, as warnings are errors here, for a log without names."""
    encoded = report(Case(tmp_path, spoiled(ODD[name][0])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # identity is written as it came
        assert as_bytes(encoded)
