"""Reading headers: what is collected, what is left out, and that nothing odd gets through.

Covered: values over a series, arrival order, copies, values that break their VR, files that are no
DICOM, no identifying value in result or message, every file that pydicom ships as test data.
Not covered: pixels (test_volume.py), and objects that only a network peer could send.
"""

import json
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from app.dicom.headers import read_series
from app.dicom.series import Series, read_header, scalars
from app.errors import StudyError, UnreadableDicom
from tests.properties.strategies import axial, sop_uid, spoil, write_series

SHIPPED = Path(pydicom.__file__).parent / "data"
CANARY = "ZZPHI"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Return a function that writes a small series into the test's folder."""
    return lambda *args, **kwargs: write_series(tmp_path, *axial(), *args, **kwargs)


def test_a_series_is_described_by_the_distinct_values_of_its_headers(write: Any) -> None:
    """Numbers are numbers, text is text, several values are one set."""

    def edit(ds: Dataset, k: int) -> None:
        ds.KVP = 120 - 20 * (k % 2)
        ds.SeriesDescription = "PHANTOM thin "
        ds.ProtocolName = "PHANTOM trunk"

    (series,) = read_series(write(edit=edit))
    assert (series.study_uid, series.series_uid, series.modality) == (
        "2.25.1001",
        "2.25.1002",
        "CT",
    )
    assert series.tags["KVP"] == (100.0, 120.0)
    assert series.tags["ImageType"] == ("AXIAL", "ORIGINAL", "PRIMARY")
    assert series.tags["SeriesDescription"] == ("PHANTOM thin",)
    assert series.tags["ProtocolName"] == ("PHANTOM trunk",)
    assert series.tags["Rows"] == (5,)
    assert [*series.sop_uids] == sorted(sop_uid(k) for k in range(4))


def test_the_order_of_arrival_changes_nothing(tmp_path: Path) -> None:
    """Series from paths given backwards are equal."""
    affine, voxels = axial()
    paths = write_series(tmp_path, affine, voxels)
    assert read_series(paths) == read_series(paths[::-1])


def test_every_series_of_every_study_is_found(tmp_path: Path) -> None:
    """They are told apart by UID and come sorted."""
    paths: list[Path] = []
    for number in (3, 1, 2):

        def edit(ds: Dataset, k: int, number: int = number) -> None:
            ds.StudyInstanceUID = f"2.25.{number // 2}"
            ds.SeriesInstanceUID = f"2.25.10{number}"
            ds.SOPInstanceUID = f"2.25.{number}.{k}"

        (tmp_path / str(number)).mkdir()
        paths += write_series(tmp_path / str(number), *axial(), edit=edit)
    found = [(series.study_uid, series.series_uid) for series in read_series(paths)]
    assert found == [("2.25.0", "2.25.101"), ("2.25.1", "2.25.102"), ("2.25.1", "2.25.103")]


def test_json_gives_the_same_series_back(write: Any) -> None:
    """Tuples, numbers and text survive the way through JSON."""
    (series,) = read_series(write())
    assert Series.from_json(json.loads(json.dumps(series.to_json()))) == series


def test_at_most_16_values_are_kept_and_always_the_same(tmp_path: Path) -> None:
    """The smallest ones, so that order never decides."""
    affine, voxels = axial((20, 2, 2))
    paths = write_series(tmp_path, affine, voxels)
    (series,) = read_series(paths)
    assert series.tags["SOPInstanceUID"] == tuple(sorted(sop_uid(k) for k in range(20))[:16])


@pytest.mark.parametrize(
    ("keyword", "value", "kept"),
    [
        ("SeriesNumber", b"two ", ("two",)),
        ("SeriesNumber", b"2.5 ", (2.5,)),
        ("KVP", b"120,5 ", ("120,5",)),
        ("KVP", b"NaN ", ("NaN",)),
        ("KVP", b"1e999 ", ("1e999",)),
        ("KVP", b"80\\high", ("80", "high")),
        ("Rows", b"\x01\x00\x02\x00", (1, 2)),
        ("Rows", b"\x01\x00\x02", ("\ufffd\ufffd\ufffd",)),
        ("SeriesDescription", b"a\x1b[31m\nb", ("a\ufffd[31m\ufffdb",)),
        ("SeriesDescription", b"\x81\xff", ("\ufffd\xff",)),
        ("SeriesDescription", b"x" * 300, None),
        ("SeriesDescription", b"  ", None),
        ("StudyDate", b"yesterday ", ("yesterday",)),
        ("SoftwareVersions", b"", None),
    ],
)
def test_a_value_that_breaks_its_vr_is_text_and_breaks_nothing(
    write: Any, keyword: str, value: bytes, kept: tuple[Any, ...] | None
) -> None:
    """Numbers that are none, NUL and escape bytes, wrong lengths, too much text."""
    (series,) = read_series(write(edit=lambda ds, _: spoil(ds, keyword, value)))
    assert series.tags.get(keyword) == kept


def test_nothing_that_identifies_a_person_is_kept(write: Any) -> None:
    """A canary in every such element of the dictionary is found nowhere."""

    def edit(ds: Dataset, k: int) -> None:
        for tag, (vr, *_, keyword) in pydicom.datadict.DicomDictionary.items():
            identifying = tag >> 16 == 0x0010 or vr == "PN" or "Physician" in keyword
            identifying |= "Comment" in keyword or "Address" in keyword or "Accession" in keyword
            if (
                identifying
                and tag > 0x00080000
                and vr in ("LO", "LT", "PN", "SH", "ST", "UC", "UT")
            ):
                setattr(ds, keyword, CANARY)
        ds.PatientAge, ds.PatientWeight = "055Y", 70
        ds.OperatorsName = ds.CurrentPatientLocation = ds.InstitutionName = CANARY
        ds.RequestAttributesSequence = [Dataset()]
        ds.RequestAttributesSequence[0].RequestedProcedureID = CANARY

    (series,) = read_series(write(edit=edit))
    assert CANARY not in json.dumps(series.to_json())
    assert series.tags["PatientAge"] == ("055Y",)
    assert series.tags["PatientSex"] == ("O",)
    assert series.tags["PatientWeight"] == (70.0,)


def test_long_values_stay_in_the_file(write: Any) -> None:
    """Bulk is left unread, whatever its VR says."""

    def edit(ds: Dataset, k: int) -> None:
        ds.TextValue = "x" * 200_000

    paths = write(edit=edit)
    assert "TextValue" not in read_series(paths)[0].tags
    element = read_header(paths[0]).get_item("TextValue", keep_deferred=True)
    assert element.value is None


def test_pixels_are_not_read(write: Any) -> None:
    """A file cut off inside its pixels still has its header."""
    paths = write()
    for path in paths:
        path.write_bytes(path.read_bytes()[:-40])
    assert len(read_series(paths)[0].sop_uids) == 4


def test_a_file_that_is_there_twice_counts_once(write: Any, tmp_path: Path) -> None:
    """The digest of a job must not depend on copies."""
    paths = write()
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(paths[0].read_bytes())
    assert len(read_series([*paths, copy])[0].sop_uids) == 4


def test_two_objects_with_one_uid_are_refused(write: Any, tmp_path: Path) -> None:
    """Otherwise one of the two would silently be lost."""
    paths = write()
    other = tmp_path / "other.dcm"
    other.write_bytes(paths[0].read_bytes()[:-2] + b"\x07\x07")
    with pytest.raises(StudyError, match=r"000\.dcm and other\.dcm: different objects"):
        read_series([*paths, other])


def test_endless_nesting_is_unreadable_and_no_crash(write: Any) -> None:
    """Python's recursion limit ends it; the file is built by hand, pydicom cannot write it."""
    (path, *_) = write()
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    sequence = b"\x40\x00\x75\x02SQ\x00\x00\xff\xff\xff\xff"
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\xe0\x7f\x10\x00")] + (sequence + item) * 3000)
    with pytest.raises(UnreadableDicom, match=r"000\.dcm: is not readable DICOM"):
        read_series([path])


@pytest.mark.parametrize(
    "content",
    [b"", b"ZZPHI is no DICOM", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 300],
)
def test_a_file_that_is_no_dicom_is_refused_by_its_name(tmp_path: Path, content: bytes) -> None:
    """The sentence names the file and quotes nothing of it."""
    path = tmp_path / "odd.dcm"
    path.write_bytes(content)
    with pytest.raises(UnreadableDicom, match=r"^odd\.dcm: ") as caught:
        read_series([path])
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None, "a cause would quote the value"


def test_a_missing_file_is_refused_by_its_name(tmp_path: Path) -> None:
    """The reason of the operating system is given."""
    with pytest.raises(UnreadableDicom, match=r"^gone\.dcm: cannot be opened \(No such file"):
        read_series([tmp_path / "gone.dcm"])


@pytest.mark.parametrize(
    "keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
)
def test_an_object_without_its_uids_is_refused(write: Any, keyword: str) -> None:
    """The sentence names what is missing."""
    (path, *_) = write()
    ds = pydicom.dcmread(path)
    delattr(ds, keyword)
    ds.save_as(path)
    with pytest.raises(UnreadableDicom, match=f"has no {keyword}"):
        read_series([path])


def test_a_value_that_pydicom_cannot_convert_is_still_there(write: Any) -> None:
    """It comes as text; an absent element is no value."""
    (path, *_) = write(edit=lambda ds, _: spoil(ds, "KVP", b"1\\2\\x "))
    assert scalars(read_header(path), "KVP") == ("1", "2", "x")
    assert scalars(read_header(path), "Exposure") == ()


def test_every_file_that_pydicom_ships_is_read_or_refused_by_name() -> None:
    """The corpus holds truncated, mislabelled and foreign objects."""
    paths = [path for path in sorted(SHIPPED.rglob("*")) if path.suffix in (".dcm", "")]
    read = 0
    for path in filter(Path.is_file, paths):
        try:
            (series,) = read_series([path])
        except UnreadableDicom as error:
            refusal = str(error)
        else:
            read, refusal = read + 1, path.name
            assert Series.from_json(json.loads(json.dumps(series.to_json()))) == series
        assert refusal.startswith(path.name)
    assert read > 100, "most of them are sound"
