"""Headers that are collected a few at a time, from files and from metadata.

Covered: later slices, copies that must be compared with files read long ago, the stage worker's
function, metadata against files, JSON and its size, patients. Not covered: that order never
matters (properties/test_headers.py) and what a header holds (test_series.py, test_facts.py).
"""

import json
import time
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit

from app.dicom import headers as headers_module
from app.dicom.headers import SeriesHeaders, compared, headers_of, merge, read_headers
from app.dicom.series import Series
from app.errors import StudyError, UnreadableDicom
from app.pipeline.assemble import read_series
from tests.properties.strategies import axial, sop_uid, write_series
from tests.unit.metadata import header, headers

TWICE = (30, 32, 32, 34)


def at_one_place(ds: Dataset, k: int) -> None:
    """Put slices 1 and 2 at one place."""
    ds.ImagePositionPatient = [-10, -20, TWICE[k]]


def write_twice(folder: Path, *, same: bool) -> list[Path]:
    """Write a series with two slices at one place, with the same pixels or others."""
    affine, voxels = axial()
    if same:
        voxels[2] = voxels[1]
    return write_series(folder, affine, voxels, edit=at_one_place)


def test_a_late_slice_is_merged_into_what_was_read(tmp_path: Path) -> None:
    """The result is that of reading everything at once."""
    paths = write_series(tmp_path, *axial())
    (all_at_once,) = read_headers(paths)
    (early,) = read_headers(paths[:2])
    (late,) = read_headers(paths[2:])
    assert early.merged(late) == late.merged(early) == all_at_once
    assert early.series().facts["slices"] == (2,)
    assert all_at_once.series().facts["slices"] == (4,)


def test_headers_of_two_series_are_never_one() -> None:
    """Merging by hand what is not of one series is a fault of ours."""
    (one,) = headers_of(headers())
    (other,) = headers_of(headers(SeriesInstanceUID="2.25.9"))
    assert len(merge([one, other])) == 2
    with pytest.raises(ValueError, match="too many values"):
        one.merged(other)


@pytest.mark.parametrize("same", [True, False])
def test_the_pixels_of_duplicates_are_compared(tmp_path: Path, same: bool) -> None:
    """Nothing but the pixels tells whether a second slice is a copy."""
    (found,) = read_headers(write_twice(tmp_path, same=same))
    facts = found.series().facts
    assert facts["duplicates"] == (1,)
    assert facts["duplicates_differ"] == ("no" if same else "yes",)


@pytest.mark.parametrize("same", [True, False])
def test_a_late_duplicate_is_compared_with_the_file_that_came_before(
    tmp_path: Path, same: bool
) -> None:
    """The earlier file is read for it, and only then."""
    paths = write_twice(tmp_path, same=same)
    files = {sop_uid(k): path for k, path in enumerate(paths)}
    (early,) = read_headers(paths[:2])
    (late,) = read_headers(paths[2:])
    merged = early.merged(late)
    assert "duplicates_differ" not in merged.series().facts, "nobody has looked"
    found = compared(merged, files)
    assert found.series().facts["duplicates_differ"] == ("no" if same else "yes",)
    assert found == read_headers(paths)[0]


def test_pixels_are_read_once_and_only_of_duplicates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study of 5,000 images must not be read again for one late slice."""
    read: list[str] = []
    digest = headers_module.digest_of_values
    monkeypatch.setattr(
        headers_module,
        "digest_of_values",
        lambda path, frame: (read.append(Path(path).name), digest(path, frame))[1],
    )
    paths = write_twice(tmp_path, same=True)
    (found,) = read_headers(paths)
    assert sorted(read) == ["001.dcm", "002.dcm"]
    assert compared(found, {sop_uid(k): path for k, path in enumerate(paths)}) is found
    assert len(read) == 2


def test_pixels_that_cannot_be_decoded_leave_it_open(tmp_path: Path) -> None:
    """The fact is unknown; whoever builds the volume says why."""
    paths = write_twice(tmp_path, same=True)
    paths[1].write_bytes(paths[1].read_bytes()[:-20])
    assert "duplicates_differ" not in read_headers(paths)[0].series().facts


def test_the_stage_worker_reads_only_what_is_new(tmp_path: Path) -> None:
    """What was read before comes as JSON; the file of an old image need not even be there."""
    paths = write_series(tmp_path, *axial())
    files = {sop_uid(k): str(path) for k, path in enumerate(paths)}
    uids = list(files)
    first = read_series({"files": files, "new": uids[:3], "before": []})
    for path in paths[:3]:
        path.unlink()
    second = read_series({"files": files, "new": uids[3:], "before": first["headers"]})
    assert [Series.from_json(each).facts["slices"] for each in second["series"]] == [(4,)]
    assert json.loads(json.dumps(second)) == second
    assert read_series({"files": {}, "new": [], "before": second["headers"]}) == second


def test_metadata_tell_what_files_tell(tmp_path: Path) -> None:
    """Routes decide the same before a series is fetched and after."""
    paths = write_series(tmp_path, *axial())
    (from_files,) = read_headers(paths)
    answer = [json.loads(pydicom.dcmread(path).to_json()) for path in paths]
    for each in answer:
        del each["7FE00010"]
    (from_metadata,) = headers_of(Dataset.from_json(each) for each in answer)
    assert from_metadata.series() == from_files.series()
    assert from_metadata == from_files


def test_metadata_that_come_twice_count_once() -> None:
    """Pages of an answer overlap when the archive changes meanwhile."""
    (once,) = headers_of(headers())
    assert headers_of([*headers(), *headers()]) == [once]


def test_metadata_without_uids_are_unreadable() -> None:
    """The sentence names what is missing."""
    with pytest.raises(UnreadableDicom, match="metadata: has no SOPClassUID"):
        headers_of([header(SOPClassUID=None)])


def test_sources_that_disagree_give_one_result_whoever_comes_first() -> None:
    """An archive's metadata may not be what its files say."""
    (one,) = headers_of([header(Rows=400)])
    (other,) = headers_of([header(Rows=512, AcquisitionNumber=3)])
    assert one.merged(other) == other.merged(one)
    assert one.merged(other).images["2.25.3.1"]["Rows"] == (400,)
    assert one.merged(other).images["2.25.3.1"]["AcquisitionNumber"] == (3,)


@pytest.mark.parametrize(
    ("values", "patients"),
    [
        ({"PatientName": "PHANTOM^A"}, 2),
        ({"PatientID": "PHANTOM-2"}, 2),
        ({"PatientID": ""}, 2),
        ({"PatientID": None}, 2),
        ({"PatientBirthDate": "19700101"}, 2),
        ({"PatientID": "phantom-1 "}, 1),
        ({"PatientSex": "O"}, 1),
    ],
)
def test_patients_are_told_apart_and_never_named(values: dict[str, Any], patients: int) -> None:
    """Fingerprints only; a missing patient is another patient, as for volumes."""
    (found,) = headers_of([header(0), header(1, **values)])
    series = found.series()
    assert len(series.patients) == patients
    assert "PHANTOM" not in json.dumps([found.to_json(), series.to_json()]).upper()


def test_one_patient_has_one_fingerprint_in_all_series() -> None:
    """So that a study of two patients is seen, whichever series tells."""
    one, other = headers_of([header(0), header(1, SeriesInstanceUID="2.25.9")])
    assert one.patients == other.patients


def test_json_gives_the_same_headers_back(tmp_path: Path) -> None:
    """Also with digests, and what is the same in all images stands once."""
    (found,) = read_headers(write_twice(tmp_path, same=True))
    written = json.dumps(found.to_json())
    assert SeriesHeaders.from_json(json.loads(written)) == found
    assert written.count("ImageOrientationPatient") == 2, "in the tags and once for all images"


def test_an_image_takes_less_than_300_bytes_in_the_log() -> None:
    """1,000,000 images are 300 MB of rows and no more."""

    def edit(ds: Dataset, k: int) -> None:
        ds.SOPInstanceUID = f"2.25.{10**38 + k}"
        ds.AcquisitionTime = f"1015{k // 10:02}.{k:06}"
        ds.AcquisitionDate, ds.AcquisitionNumber, ds.SliceThickness = "20240102", 1, 1.5

    (found,) = headers_of(headers(300, edit, KVP=120, ConvolutionKernel="STANDARD"))
    assert len(json.dumps(found.to_json())) / 300 < 300


def test_a_lossy_encoding_is_told_though_the_header_is_silent(tmp_path: Path) -> None:
    """JPEG Baseline always loses something; the pixels are not looked at."""
    paths = write_series(tmp_path, *axial())
    ds = pydicom.dcmread(paths[0])
    ds.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.save_as(paths[0])
    assert read_headers(paths[1:])[0].series().facts["lossy"] == ("no",)
    assert read_headers(paths)[0].series().facts["lossy"] == ("yes",)


def test_one_uid_for_different_files_is_refused(tmp_path: Path) -> None:
    """As it is for whole series; merging could not tell them apart later."""
    paths = write_series(tmp_path, *axial())
    other = tmp_path / "other.dcm"
    other.write_bytes(paths[0].read_bytes()[:-2] + b"\x07\x07")
    with pytest.raises(StudyError, match="different objects carry"):
        read_headers([*paths, other])


def test_facts_of_10_000_images_take_a_moment() -> None:
    """A study of 20 series × 500 images: the bounds are for a busy machine."""

    def series(number: int) -> SeriesHeaders:
        def edit(ds: Dataset, k: int) -> None:
            ds.SOPInstanceUID = f"2.25.{10**38 + 1000 * number + k}"
            ds.AcquisitionTime = f"1015{k // 10:02}.{k:06}"

        (found,) = headers_of(headers(500, edit, SeriesInstanceUID=f"2.25.8.{number}"))
        return found

    study = [series(number) for number in range(20)]
    known = [SeriesHeaders.from_json(each.to_json()) for each in study]
    started = time.perf_counter()
    merged = merge([*study, *known])
    merged_s = time.perf_counter() - started
    facts = [each.series().facts for each in merged]
    facts_s = time.perf_counter() - started - merged_s
    size = sum(len(json.dumps(each.to_json())) for each in merged)
    told = (f"merged in {merged_s:.3f} s", f"facts in {facts_s:.3f} s", f"{size} bytes of JSON")
    print(*told)  # noqa: T201  # pytest shows it when asked
    assert all(each["positions"] == (500,) for each in facts)
    assert merged_s + facts_s < 3
    assert size < 300 * 10_000
