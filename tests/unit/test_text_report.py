"""Measurements → flat SR: the sentences that a dictation system takes over.

Its validity is judged in test_report.py, beside that of the other report. Not covered: what a
dictation system makes of it.
"""

from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from app.models.card import Code
from app.results.measure import Measured, Quantity
from app.results.text_report import encode_text_report
from tests.unit.encoding import Case, as_bytes
from tests.unit.reporting import (
    LEFT_KIDNEY,
    LESION,
    LIVER,
    MEAN,
    VOLUME,
    brightness,
    card,
    found,
    measure,
)

FIRST = "Made by an algorithm, not reviewed. For research use only."


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Return a plain axial case."""
    return Case(tmp_path)


def encode(case: Case, *values: int, modality: str = "CT") -> Dataset:
    """Return the report on a label map with these values in it."""
    result = case.result(found(*values), card=card(modality))
    return encode_text_report(result, measure(result))


def lines(report: Dataset) -> list[str]:
    """Return the sentences of the report's one section."""
    (section,) = (item for item in report.ContentSequence if item.ValueType == "CONTAINER")
    return [str(item.TextValue) for item in section.ContentSequence]


def test_each_segment_is_one_line_after_the_warning(case: Case, tmp_path: Path) -> None:
    """Read from the file: only a lesion has diameters, and what is not there is said."""
    path = tmp_path / "text.dcm"
    encode(case, LIVER, LEFT_KIDNEY, LESION).save_as(path, enforce_file_format=True)
    first, *others = lines(pydicom.dcmread(path))
    assert first == f"{FIRST} Model: {card().identity}."
    measured = "volume 1523 mL, mean -12.5 HU, SD 0.250 HU"
    assert others == [
        f"Liver: {measured}.",
        "Right kidney: looked for and not found.",
        f"Left kidney: {measured}.",
        f"Lasion: {measured}, long axis 12.3 mm, short axis 8.00 mm.",
    ]


def test_a_report_without_a_finding_says_so_before_it_goes_into_detail(case: Case) -> None:
    """The second line is what a reader has to know; each segment follows."""
    said = lines(encode(case))
    assert said[1] == "Nothing was found of what was looked for."
    assert [line.endswith(": looked for and not found.") for line in said[2:]] == [True] * 4


@pytest.mark.parametrize(
    ("modality", "mean"), [("PT", "mean -12.5 SUVbw,"), ("MR", "mean -12.5, SD")]
)
def test_units_are_written_as_they_are_spoken(case: Case, modality: str, mean: str) -> None:
    """UCUM's code of an SUV is no word, and its unit of nothing is none."""
    assert mean in lines(encode(case, LIVER, modality=modality))[1]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0.00"),
        (0.000123456, "0.000123"),
        (-0.5, "-0.500"),
        (9.999, "10.00"),
        (45.678, "45.7"),
        (-1024.4, "-1024"),
        (1_234_567.8, "1234568"),
    ],
)
def test_numbers_have_three_digits_and_no_exponent(case: Case, value: float, said: str) -> None:
    """Nobody dictates an e+06, and no digit before the point is lost."""
    result = case.result(found(LIVER), card=card())
    measured = Measured(
        label=result.card.labels[0], voxels=1, values=((brightness("CT", MEAN), value),)
    )
    assert lines(encode_text_report(result, [measured]))[1] == f"Liver: mean {said} HU."


@pytest.mark.parametrize(("unit", "said"), [("mm3", "1.50"), ("cm3", "1500"), ("mL", "1500")])
def test_a_volume_is_in_millilitres_whatever_its_unit(case: Case, unit: str, said: str) -> None:
    """Of several volumes the first is said: two numbers for one organ confuse."""
    quantity = Quantity(
        name="Volume", concept=VOLUME.concept, unit=Code(scheme="UCUM", value=unit, meaning=unit)
    )
    result = case.result(found(LIVER), card=card())
    values = ((quantity, 1500.0), (VOLUME, 7.0))
    measured = Measured(label=result.card.labels[0], voxels=1, values=values)
    assert lines(encode_text_report(result, [measured]))[1] == f"Liver: volume {said} mL."


def test_what_was_found_and_not_measured_is_not_called_missing(case: Case) -> None:
    """An empty list of numbers is no empty segment."""
    result = case.result(found(LIVER), card=card())
    measured = Measured(label=result.card.labels[0], voxels=1, values=())
    assert lines(encode_text_report(result, [measured]))[1:] == [
        "Liver: found, nothing was measured."
    ]


def test_it_is_an_object_of_its_own_beside_the_other_report(case: Case) -> None:
    """Enhanced SR in a series behind that of TID 1500; every source image is evidence."""
    result = case.result(found(LIVER), card=card())
    report = encode_text_report(result, measure(result))
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.22"
    assert report.SOPInstanceUID == result.identity.uid("text_sr.instance")
    assert report.SeriesInstanceUID == result.identity.uid("text_sr.series")
    assert report.SeriesNumber == 308
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    evidence = {item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence}
    assert evidence == {pydicom.dcmread(path).SOPInstanceUID for path in case.paths}


def test_it_is_flat(case: Case) -> None:
    """What a dictation system must understand is text below one heading."""
    (section,) = (
        item for item in encode(case, LIVER).ContentSequence if item.ValueType == "CONTAINER"
    )
    assert {item.ValueType for item in section.ContentSequence} == {"TEXT"}
    assert not any("ContentSequence" in item for item in section.ContentSequence)
    assert all(line.isascii() for line in lines(encode(case, LIVER)))


def test_the_same_result_makes_the_same_bytes(case: Case) -> None:
    """Times are the clock's in highdicom, which has moved between the two."""
    first, second = (as_bytes(encode(case, LIVER)) for _ in range(2))
    assert first == second
