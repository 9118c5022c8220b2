"""Headers merge in any order, hostile ones are refused by name, and facts agree with volumes.

Covered: merging is commutative, associative and idempotent, also of JSON; facts do not depend on
the order of arrival; raw bytes in any attribute that facts read; a series whose facts are clean
can be built and no other. Not covered: whether each fact is right (unit/test_facts.py).
"""

import json
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from app.dicom.facts import FACTS
from app.dicom.headers import SeriesHeaders, headers_of, read_headers
from app.dicom.stack import is_regular
from app.dicom.volume import build_volume
from app.errors import StudyError, UnreadableDicom
from tests.properties.strategies import axial, grids, spoil, write_series
from tests.unit.metadata import header
from tests.unit.test_odd_series import REFUSED, SOUND

AT_WILL = {
    "ImagePositionPatient": st.sampled_from([[0, 0, 0], [0, 0, 2], [0, 0, 5], [9, 0, 2]]),
    "ImageOrientationPatient": st.sampled_from([[1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1]]),
    "PixelSpacing": st.sampled_from([[0.5, 0.5], [0.5, 0.7], None]),
    "AcquisitionTime": st.sampled_from(["101500", "101501", "late", None]),
    "AcquisitionDate": st.sampled_from(["20240102", None]),
    "TemporalPositionIdentifier": st.sampled_from([1, 2, None]),
    "EchoTime": st.sampled_from([10, 90, None]),
    "RepetitionTime": st.sampled_from([500, 4000, None]),
    "ScanningSequence": st.sampled_from(["SE", "GR", None]),
    "DiffusionBValue": st.sampled_from([0.0, 1000.0, None]),
    "ImageType": st.sampled_from([["ORIGINAL", "PRIMARY"], ["DERIVED", "PRIMARY", "MPR"], None]),
    "SeriesDescription": st.sampled_from(["t1 post", "flair", "localizer", None]),
    "ContrastBolusAgent": st.sampled_from(["none", "Gadovist", None]),
    "Modality": st.sampled_from(["CT", "MR", "PT"]),
    "ConvolutionKernel": st.sampled_from(["B30f", "B70f", None]),
    "InstanceNumber": st.integers(0, 40),
    "PatientID": st.sampled_from(["PHANTOM-1", "PHANTOM-2", None]),
    "NumberOfFrames": st.sampled_from([1, 7, None]),
}
images = st.builds(
    lambda k, values: header(k, **values), st.integers(0, 30), st.fixed_dictionaries(AT_WILL)
)
several = st.lists(images, min_size=1, max_size=6)


def one(datasets: list[Dataset]) -> SeriesHeaders:
    """Return the headers of one series."""
    (found,) = headers_of(datasets)
    return found


def again(headers: SeriesHeaders) -> SeriesHeaders:
    """Return the headers after their way through JSON."""
    return SeriesHeaders.from_json(json.loads(json.dumps(headers.to_json())))


@given(several, several, several)
def test_merging_obeys_its_laws(a: Any, b: Any, c: Any) -> None:
    """Whoever comes first or twice, and however often the log was written in between."""
    x, y, z = one(a), one(b), one(c)
    assert x.merged(y) == y.merged(x)
    assert x.merged(y).merged(z) == x.merged(y.merged(z))
    assert x.merged(x) == x
    assert x.merged(y).merged(x) == x.merged(y)
    assert again(x).merged(again(y)) == again(x.merged(y)) == x.merged(y)


@given(several, st.randoms(use_true_random=False))
def test_the_order_of_arrival_never_changes_a_fact(datasets: Any, random: Any) -> None:
    """One by one in any order, or all at once."""
    shuffled = random.sample(datasets, len(datasets))
    by_one = reduce(SeriesHeaders.merged, [one([each]) for each in shuffled])
    series = one(datasets).series()
    assert by_one.series() == series
    assert json.dumps(by_one.series().to_json()) == json.dumps(series.to_json())
    assert series.facts.keys() <= FACTS.keys()


READ = (
    *AT_WILL,
    *("AcquisitionDateTime", "AttenuationCorrectionMethod", "Columns", "CorrectedImage"),
    *("DiffusionGradientOrientation", "EchoNumbers", "FrameOfReferenceUID", "InversionTime"),
    *("FlipAngle", "LossyImageCompression", "Manufacturer", "ManufacturerModelName", "Rows"),
    *("ProtocolName", "SequenceVariant", "SeriesDate", "SeriesTime", "SOPClassUID", "TriggerTime"),
    *("MRDiffusionSequence", "PerFrameFunctionalGroupsSequence", "PatientName", "SliceThickness"),
    *("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "TemporalPositionIndex", "KVP"),
)
odd_bytes = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"", b"\\", b"1\\2\\3", b"1e999", b"NaN\\NaN\\NaN", b"-1", b"0\\0\\0\\0\\0\\0", b"99" * 90]
    ),
    st.lists(st.sampled_from([b"0", b"1", b"-1e300", b"1e-320", b"x", b""]), max_size=8).map(
        b"\\".join
    ),
)


@settings(max_examples=300)
@given(st.sampled_from(["CT", "MR", "PT"]), st.dictionaries(st.sampled_from(READ), odd_bytes))
@example("MR", {"DiffusionBValue": b"1e310"})
def test_hostile_bytes_are_facts_or_a_refusal(modality: str, values: Mapping[str, bytes]) -> None:
    """Whatever pydicom makes of them."""
    datasets = [header(k, Modality=modality) for k in range(3)]
    for keyword, value in values.items():
        spoil(datasets[1], keyword, value)
    try:
        found = headers_of(datasets)
    except UnreadableDicom:
        return
    for each in found:
        assert again(each) == each
        json.dumps(each.series().to_json(), allow_nan=False)


odd_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(READ), st.lists(odd_values, max_size=7))
def test_odd_values_in_json_are_facts_or_a_refusal(keyword: str, values: list[Any]) -> None:
    """Numbers as text, text as numbers, nothing at all: as far as pydicom reads it."""
    ds = header(1, Modality="MR")
    setattr(ds, keyword, None)
    written = ds.to_json_dict()
    for element in written.values():
        element.setdefault("Value", values)
    try:
        read = Dataset.from_json(written)
    except Exception:  # noqa: BLE001  # is for who calls from_json
        return
    try:
        found = headers_of([header(0, Modality="MR"), read])
    except UnreadableDicom:
        return
    for each in found:
        json.dumps(each.series().to_json(), allow_nan=False)


def clean(series: Any) -> bool:
    """Say whether the facts promise a volume."""
    facts = series.facts
    return (
        facts["placed"] == ("yes",)
        and facts["multi_frame"] == ("no",)
        and "localizer" not in facts.get("kind", ())
        and facts["frames_of_reference"] == facts["sizes"] == facts["orientations"] == (1,)
        and facts.get("tilt_deg") == (0.0,)
        and facts.get("missing_slices") == (0,)
        and is_regular(facts["spacing_mm"][0], facts["spacing_deviation"][0])
        and (facts["per_position"] == (1,) or facts.get("duplicates_differ") == ("no",))
        and len(series.patients) == 1
        and len(series.tags["Modality"]) == 1
        and series.tags.get("PhotometricInterpretation") == ("MONOCHROME2",)
    )


def builds(paths: list[Path]) -> bool:
    """Say whether there is a volume."""
    try:
        build_volume(paths)
    except StudyError:
        return False
    return True


NOT_ABOUT_PLACES = {
    "two studies",
    "two series",
    "one UID for all",
    "no image",
    "three samples",
    "no intercept",
    "empty slope",
    "slope of zero",
    "slope of NaN",
    "huge intercept",
    "look-up table",
    "no pixels",
    "empty pixels",
    "short pixels",
    "no rows",
    "rows missing",
    "65535 rows and columns",
    "one bit",
}
"""Odd series that are refused for what facts do not tell: values, pixels, what belongs together."""


@pytest.mark.parametrize("name", sorted({*REFUSED, *SOUND} - NOT_ABOUT_PLACES))
def test_odd_series_are_clean_where_they_can_be_built(tmp_path: Path, name: str) -> None:
    """The table of odd series, each by its facts."""
    edit = SOUND[name] if name in SOUND else REFUSED[name][0]
    paths = write_series(tmp_path, *axial(), order=(2, 0, 3, 1), edit=edit)
    (headers,) = read_headers(paths)
    assert clean(headers.series()) == (name in SOUND)


@st.composite
def disturbed(draw: st.DrawFn) -> tuple[Any, ...]:
    """Draw a grid in any direction and how each slice of it is out of place, in mm."""
    affine, shape = draw(grids())
    along = st.sampled_from([0, 0, 0, 0.004, 0.015, 0.05, 0.3, -0.02, "next", "far"])
    offsets = [draw(along) for _ in range(shape[0])]
    tilt = draw(st.sampled_from([0, 0, 0, 0.001, 0.01, 0.3]))
    aside = draw(st.sampled_from([0, 0, 0, 0.01, 0.03, 2]))
    return affine, shape, offsets, tilt, aside, draw(st.booleans())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(disturbed())
@example((np.eye(4), (3, 3, 3), [0, -0.02, 0], 0, 0, False))  # off by as much as is allowed
def test_a_series_is_clean_where_it_can_be_built(case: tuple[Any, ...]) -> None:
    """Gaps, copies, tilt, jitter along and across, of grids in any direction."""
    affine, shape, offsets, tilt, aside, same = case
    step = affine[:3, 0]
    normal = step / np.linalg.norm(step)
    across = affine[:3, 1] / np.linalg.norm(affine[:3, 1])
    voxels = np.zeros(shape) if same else np.arange(np.prod(shape)).reshape(shape)

    def edit(ds: Dataset, k: int) -> None:
        off = {"next": np.linalg.norm(step), "far": 3 * np.linalg.norm(step)}
        along_mm = off.get(offsets[k], offsets[k])
        position = affine[:3, 3] + k * step + along_mm * normal
        position = position + across * (tilt * np.linalg.norm(step) * k + aside * (k == 1))
        ds.ImagePositionPatient = [f"{value:.9f}"[:16] for value in position]

    with TemporaryDirectory() as folder:
        paths = write_series(Path(folder), affine, voxels, edit=edit)
        (headers,) = read_headers(paths)
        assert clean(headers.series()) == builds(paths)
