"""Measurements → JSON and CSV: the same numbers, nothing of the patient, nothing that runs.

Not covered: how a spreadsheet shows the table.
"""

import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any

import pydicom
import pytest

from app.results.measure import Measured, Quantity
from app.results.result import Result
from app.results.tables import as_csv, as_json
from tests.unit.encoding import Case
from tests.unit.reporting import LEFT_KIDNEY, LESION, LIVER, VOLUME, card, code, found, measure

IDENTIFIES = ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "StudyID")


@pytest.fixture
def result(tmp_path: Path) -> Result:
    """Return a result in which the right kidney was not found."""
    return Case(tmp_path).result(found(LIVER, LEFT_KIDNEY, LESION), card=card())


def rows(table: bytes) -> list[dict[str, str]]:
    """Return the table as Python's own reader reads it."""
    return [*csv.DictReader(StringIO(table.decode(), newline=""), strict=True)]


def named(result: Result, name: str) -> list[Measured]:
    """Return one measured segment, whose name is `name`."""
    label = result.card.labels[0].model_copy(update={"name": name})
    return [Measured(label=label, voxels=1, values=((VOLUME, -1.5),))]


def test_json_holds_every_number_with_its_codes(result: Result) -> None:
    """Each value is exactly what was measured; what is not known is not there."""
    report = json.loads(as_json(result, measure(result)))
    for segment, each in zip(report["segments"], measure(result), strict=True):
        assert (segment["name"], segment["voxels"]) == (each.label.name, each.voxels)
        assert segment["found"] is (each.voxels > 0)
        assert segment["tracking_uid"] == result.identity.uid(f"seg.tracking.{each.label.value}")
        assert [value["value"] for value in segment["measurements"]] == [
            value for _, value in each.values
        ]
    mean = report["segments"][0]["measurements"][3]
    assert mean == {
        "name": "IntensityMean",
        "value": -12.5,
        "unit": "[hnsf'U]",
        "concept": {"scheme": "DCM", "value": "112031", "meaning": "Attenuation Coefficient"},
        "derivation": {"scheme": "SCT", "value": "373098007", "meaning": "Mean"},
    }
    assert "laterality" not in report["segments"][0]
    assert report["segments"][2]["laterality"]["meaning"] == "Left"


def test_json_says_what_it_is_of_and_what_made_it(result: Result) -> None:
    """UIDs name study, series and frame; the model is named to its weights."""
    report = json.loads(as_json(result, measure(result)))
    del report["segments"]
    assert report == {
        "notice": "Made by an algorithm, not reviewed. For research use only.",
        "study_uid": "2.25.1001",
        "series_uid": "2.25.1002",
        "frame_of_reference_uid": "2.25.1003",
        "model": card().identity,
        "version": 1,
        "weights_sha256": card().weights_sha256,
        "node_version": "0.1.0",
        "made_at": result.local.isoformat(),
    }


def test_csv_is_a_row_for_each_segment_and_a_column_for_each_quantity(result: Result) -> None:
    """A segment that was not found has empty cells, not zeros."""
    liver, right, left, lesion = rows(as_csv(result, measure(result)))
    assert {key: liver[key] for key in ("study_uid", "series_uid", "model", "version")} == {
        "study_uid": "2.25.1001",
        "series_uid": "2.25.1002",
        "model": card().identity,
        "version": "1",
    }
    assert float(liver["VoxelVolume [mm3]"]) == 1_523_456.789012345
    assert float(liver["IntensityMean [[hnsf'U]]"]) == -12.5
    assert (liver["found"], right["found"], right["voxels"]) == ("yes", "no", "0")
    assert right["VoxelVolume [mm3]"] == right["LongAxis [mm]"] == liver["LongAxis [mm]"] == ""
    assert float(lesion["LongAxis [mm]"]) == 12.34
    assert lesion["name"] == "Läsion"
    assert left["tracking_uid"] == result.identity.uid(f"seg.tracking.{LEFT_KIDNEY}")
    assert as_csv(result, measure(result)).count(b"\r\n") == 5


@pytest.mark.parametrize(
    "name",
    [
        "=HYPERLINK(A1)",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "  =1",
        "\uff1d1",
        '=1","=2',
    ],
)
def test_no_text_is_a_formula(result: Result, name: str) -> None:
    """The words of a card are foreign; a spreadsheet shows what begins with an apostrophe."""
    (row,) = rows(as_csv(result, named(result, name)))
    assert row["name"] == f"'{name}"
    assert row["VoxelVolume [mm3]"] == "-1.5"


@pytest.mark.parametrize("name", ["Liver", "a=b", "left-sided", "'quoted'", 'a "b", c'])
def test_other_texts_stay_as_they_are(result: Result, name: str) -> None:
    """Signs, commas and quotes inside a name hurt nobody."""
    assert rows(as_csv(result, named(result, name)))[0]["name"] == name


def test_a_header_is_no_formula_either(result: Result) -> None:
    """Names of quantities stand in the first row."""
    quantity = Quantity(name="=1", concept=VOLUME.concept, unit=code("UCUM", "1", "no units"))
    measured = [Measured(label=result.card.labels[0], voxels=1, values=((quantity, 2.0),))]
    assert rows(as_csv(result, measured))[0]["'=1 [1]"] == "2.0"


@pytest.mark.parametrize("write", [as_json, as_csv])
def test_nothing_tells_who_the_patient_is(result: Result, tmp_path: Path, write: Any) -> None:
    """Every value of the source that names a person or an order is looked for."""
    written = write(result, measure(result)).decode()
    source = pydicom.dcmread(tmp_path / "000.dcm")
    for keyword in IDENTIFIES:
        value = str(source[keyword].value)
        assert value
        # The phantom's identifiers are its name in capitals, which no other text has.
        assert value not in written, keyword


@pytest.mark.parametrize("write", [as_json, as_csv])
def test_the_same_result_makes_the_same_bytes(result: Result, write: Any) -> None:
    """A file that is written again is the same file."""
    assert write(result, measure(result)) == write(result, measure(result))


def test_a_number_that_is_none_is_not_written(result: Result) -> None:
    """JSON has no NaN; measuring promises finite numbers."""
    measured = [Measured(label=result.card.labels[0], voxels=1, values=((VOLUME, float("nan")),))]
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json(result, measured)
