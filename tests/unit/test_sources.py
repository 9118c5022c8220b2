"""Headers of real archives: mended for the result where they must be, untouched where they may not.

Covered: values that highdicom or the standard refuses, names in broken character sets. Not
covered: headers without anything that can be missing (test_encode.py, judged by dciodvfy).
"""

import logging
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from app.dicom.series import tolerant
from tests.properties.strategies import STUDY_UID, spoil, spoiled
from tests.unit.encoding import Case

ODD: dict[str, tuple[dict[str, bytes], dict[str, str]]] = {
    "time with colons": ({"StudyTime": b"10:10:00"}, {"StudyTime": "101000"}),
    "date with dots": ({"StudyDate": b"1999.12.31"}, {"StudyDate": "19991231"}),
    "no time": ({"StudyTime": b"noon"}, {"StudyTime": ""}),
    "no date": ({"StudyDate": b"00000000"}, {"StudyDate": ""}),
    "birth in words": ({"PatientBirthDate": b"in spring "}, {"PatientBirthDate": ""}),
    "sex in words": ({"PatientSex": b"FEMALE"}, {"PatientSex": ""}),
    "sex in small letters": ({"PatientSex": b"f "}, {"PatientSex": "F"}),
    "age without unit": ({"PatientAge": b"55"}, {"PatientAge": ""}),
    "weight in words": ({"PatientWeight": b"heavy "}, {"PatientWeight": ""}),
    "series number in words": ({"SeriesNumber": b"two "}, {"SeriesNumber": "300"}),
    "series number at its limit": ({"SeriesNumber": b"2147483647"}, {"SeriesNumber": "2147483647"}),
    "unknown character set": ({"SpecificCharacterSet": b"ISO_IR 999"}, {}),
    "thickness in words": ({"SliceThickness": b"thin"}, {}),
    "device of many words": ({"SoftwareVersions": b"x" * 100}, {}),
    "name of one word": ({"PatientName": b"PHANTOM "}, {"PatientName": "PHANTOM"}),
    "name far too long": ({"PatientName": b"P" * 200}, {"PatientName": "P" * 200}),
}


AS_SENT = {
    "SpecificCharacterSet": b"\\ISO 2022 IR 87",
    "PatientName": b"PHANTOM^\x1b$B;3ED\x1b(B=\xff\xfe^\x81 ",
    "PatientID": b" P-\xe4\xf6\x00",
    "StudyDescription": b"Sch\xe4del ",
    "AccessionNumber": b"A\xdf",
}
"""Elements of patient and study in a wrong or broken character set."""


def assert_as_sent(ds: Dataset) -> None:
    """Check that a result has the bytes of `AS_SENT`."""
    for keyword, value in AS_SENT.items():
        if keyword != "SpecificCharacterSet":  # read already, to decode the others
            assert ds.get_item(keyword).value == value
    assert list(ds.SpecificCharacterSet) == ["", "ISO 2022 IR 87"]


@pytest.mark.parametrize("name", ODD)
def test_odd_headers_are_mended_for_the_result(tmp_path: Path, name: str) -> None:
    """What highdicom or the standard would refuse is put right or left out; the SEG is made."""
    odd, expected = ODD[name]
    path = Case(tmp_path, spoiled(odd)).write()
    with tolerant(path):
        seg = pydicom.dcmread(path)
    for keyword, value in expected.items():
        assert str(seg.get(keyword, "") or "") == value


def test_patient_and_study_keep_their_bytes(tmp_path: Path) -> None:
    """Names in a wrong or broken character set reach the archive as they came."""
    seg = pydicom.dcmread(Case(tmp_path, spoiled(AS_SENT)).write())
    assert_as_sent(seg)
    assert seg.StudyInstanceUID == STUDY_UID


def test_no_name_gets_into_a_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not even one that the libraries find worth a warning."""
    caplog.set_level(logging.DEBUG)
    Case(tmp_path, lambda ds, _: spoil(ds, "PatientName", b"ZZPHI=\xff\x1b ")).write()
    assert "encoded 2 segments" in caplog.text
    assert "ZZPHI" not in caplog.text
