"""The gate: a result that is not what its card promises, or not its patient's, does not leave.

Covered: each promise of a card, whose an object is and what it refers to, and that every form of a
right result passes. Not covered: conformance (test_conformance) and that an object's content is the
label map (test_check and the tests of the other forms).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from app.errors import ResultRejected
from app.models.card import ModelCard
from app.results.contours import encode_rtstruct
from app.results.forms import Form
from app.results.gate import judge, leave
from app.results.measure import measure
from app.results.overview import encode_overview
from app.results.report import encode_report
from app.results.result import Result
from app.results.segmentation import encode_seg
from app.results.text_report import encode_text_report
from tests.properties.strategies import spoil, tiny_card
from tests.unit.encoding import Case, organs

FORMS: dict[str, Callable[[Result], Dataset]] = {
    "seg": encode_seg,
    "sr": lambda result: encode_report(result, measure(result), Form.SEG),
    "sr without a segmentation": lambda result: encode_report(result, measure(result), None),
    "text_sr": lambda result: encode_text_report(result, measure(result)),
    "rtstruct": encode_rtstruct,
    "overview": encode_overview,
}


def card(label: dict[str, Any] | None = None, **outputs: str) -> ModelCard:
    """Return the small card with the first label and the outputs changed."""
    plain = tiny_card().model_dump()
    plain["labels"] = [plain["labels"][0] | (label or {}), *plain["labels"][1:]]
    plain["outputs"] |= outputs
    return ModelCard.model_validate(plain)


def judged(case: Case, labels: Any, given: ModelCard) -> None:
    """Hold a label map against its card."""
    result = case.result(labels, card=given)
    judge(result, measure(result))


def saved(folder: Path, ds: Dataset) -> Path:
    """Write an object as the encode stage does."""
    path = folder / "seg.dcm.part"
    ds.save_as(path, enforce_file_format=True)
    return path


NOTHING = np.zeros((4, 5, 6), np.uint8)
EVERYWHERE = np.ones((4, 5, 6), np.uint8)


def test_a_result_as_its_card_promises_may_leave(tmp_path: Path) -> None:
    """Found or not, as long as nothing forbids it; a volume that fits."""
    case = Case(tmp_path)
    judged(case, organs(), card({"volume_ml": (0.0001, 1)}))
    judged(case, NOTHING, card({"volume_ml": (5, 9)}))
    judged(case, EVERYWHERE, card(fills_volume="send"))


BROKEN = {
    "nothing found": (NOTHING, card(nothing_found="refuse"), "nothing was found"),
    "everywhere": (EVERYWHERE, card(), "organ 1 fills the whole volume"),
    "too small": (organs(), card({"volume_ml": (1, 2)}), "its card allows 1 to 2 ml"),
    "too large": (organs(), card({"volume_ml": (0, 0.0001)}), "organ 1 has 0.00[0-9]+ ml"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_told(tmp_path: Path, name: str) -> None:
    """The sentence names the model, the label and the promise."""
    labels, given, words = BROKEN[name]
    with pytest.raises(ResultRejected, match=words) as caught:
        judged(Case(tmp_path), labels, given)
    assert str(caught.value).startswith("phantom-organs: ")


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # identity is written as it came
def test_every_form_of_a_right_result_may_leave(tmp_path: Path, name: str) -> None:
    """Also of a source with a poor header and names in a broken character set."""

    def edit(ds: Dataset, _: int) -> None:
        spoil(ds, "SpecificCharacterSet", b"\\ISO 2022 IR 87")
        spoil(ds, "PatientName", b"PHANTOM^\x1b$B;3ED\x1b(B=\xff\xfe^\x81 ")
        del ds.StudyDate, ds.AccessionNumber

    for number, odd in enumerate((None, edit)):
        folder = tmp_path / str(number)
        folder.mkdir()
        result = Case(folder, odd).result()
        leave(saved(folder, FORMS[name](result)), result)


def other_study(ds: Dataset) -> None:
    """Put the object into another study."""
    ds.StudyInstanceUID = "2.25.77"


def other_patient(ds: Dataset) -> None:
    """Give it another patient's id."""
    ds.PatientID = "ZZPHI-OTHER"


def no_patient(ds: Dataset) -> None:
    """Leave the name out."""
    del ds.PatientName


def other_place(ds: Dataset) -> None:
    """Give it another frame of reference."""
    ds.FrameOfReferenceUID = "2.25.78"


def strange_source(ds: Dataset) -> None:
    """Let it refer to an object that it was not made of."""
    ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID = "2.25.9"


def series_of_the_source(ds: Dataset) -> None:
    """Put it into the series of its images."""
    ds.SeriesInstanceUID = ds.ReferencedSeriesSequence[0].SeriesInstanceUID


def uid_of_a_source(ds: Dataset) -> None:
    """Let it replace an image."""
    images = ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    ds.SOPInstanceUID = images[0].ReferencedSOPInstanceUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID


@pytest.mark.parametrize(
    ("spoiled", "words"),
    [
        (other_study, "StudyInstanceUID: is not the study's"),
        (other_patient, "PatientID: is not as its source has it"),
        (no_patient, "PatientName: is not as its source has it"),
        (other_place, "FrameOfReferenceUID: is not its source's"),
        (strange_source, "refers to 1 objects that it was not made of, first 2.25.9"),
        (series_of_the_source, "SeriesInstanceUID: is its source's own"),
        (uid_of_a_source, "SOPInstanceUID: is that of a source"),
    ],
)
def test_what_is_not_the_jobs_own_does_not_leave(
    tmp_path: Path, spoiled: Callable[[Dataset], None], words: str
) -> None:
    """The sentence says what is wrong and never whose it is."""
    result = Case(tmp_path).result()
    seg = encode_seg(result)
    spoiled(seg)
    with pytest.raises(ResultRejected, match="seg may not leave: ") as caught:
        leave(saved(tmp_path, seg), result)
    assert words in str(caught.value)
    assert "ZZPHI" not in str(caught.value)
    assert pydicom.dcmread(tmp_path / "seg.dcm.part").SOPClassUID == seg.SOPClassUID
