"""What is measured of the segments of a result, and under which codes.

Covered: one entry for each label in the order of the card, overlapping and missing labels, lesions,
the intensity of CT, MR and PET and when there is none, codes against pydicom's dictionary, numbers
that are not finite, odd boxes. Not covered: the values of shapes (test_shape.py) and how a report
states them.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr._concepts_dict import concepts

from app.models.card import Code, ModelCard
from app.results.intensity import mean_and_deviation, scale_of
from app.results.measure import Measured, measure
from app.results.shape import shape_features
from tests.properties.strategies import tiny_card
from tests.unit.encoding import Case

FOURTEEN = {
    *("Elongation", "Flatness", "LeastAxisLength", "MajorAxisLength", "Maximum3DDiameter"),
    *("MeshVolume", "MinorAxisLength", "Sphericity", "SurfaceArea", "SurfaceVolumeRatio"),
    *("VoxelVolume", "Compactness1", "Compactness2", "SphericalDisproportion"),
}
INTENSITY = {"IntensityMean", "IntensityStandardDeviation"}
NOT_IN_PYDICOM = {("UCUM", "/mm"), ("UCUM", "g/ml")}
MILLIMETER = ("UCUM", "mm")


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Return a small CT series; its voxels are 2 × 1 × 1 mm."""
    return Case(tmp_path)


def labels() -> NDArray[np.uint8]:
    """Return 24 voxels of value 1 beside 6 of value 2."""
    array = np.zeros((4, 5, 6), np.uint8)
    array[:, 1:3, 1:4] = 1
    array[1:4, 3, 2:4] = 2
    return array


def card(**changed: Any) -> ModelCard:
    """Return the tiny card, its second label changed."""
    content = tiny_card().model_dump()
    first, second = content["labels"]
    content["labels"] = [first, second | changed]
    return ModelCard.model_validate(content)


def by_name(measured: Measured) -> dict[str, float]:
    """Return the values by their names; none may stand twice."""
    values = {quantity.name: value for quantity, value in measured.values}
    assert len(values) == len(measured.values)
    return values


def test_each_label_has_its_shape_and_its_intensity_in_the_order_of_the_card(case: Case) -> None:
    """The values are those of the mask on the source's grid, and of the source inside it."""
    result = case.result(labels())
    measured = measure(result)
    assert [each.label for each in measured] == [*result.card.labels]
    assert [each.voxels for each in measured] == [24, 6]
    for each, value in zip(measured, (1, 2), strict=True):
        values, mask = by_name(each), labels() == value
        assert {*values} == FOURTEEN | INTENSITY
        assert shape_features(mask, (2.0, 1.0, 1.0)).items() <= values.items()
        inside = result.volume.voxels_kji[mask].astype(float)
        assert values["IntensityMean"] == pytest.approx(inside.mean())
        assert values["IntensityStandardDeviation"] == pytest.approx(inside.std())


def test_a_segment_that_includes_others_is_measured_with_them(case: Case) -> None:
    """The organ is measured with its lesion; its box spans both."""
    measured = measure(case.result(labels(), card=card(includes=(1,))))
    assert [each.voxels for each in measured] == [24, 30]
    assert by_name(measured[1])["VoxelVolume"] == 60
    alone = shape_features(labels() > 0, (2.0, 1.0, 1.0))
    assert alone.items() <= by_name(measured[1]).items()


def test_a_label_that_was_not_found_has_no_values(case: Case) -> None:
    """It is named all the same: it was looked for."""
    measured = measure(case.result(np.zeros((4, 5, 6), np.uint8)))
    assert [(each.voxels, each.values) for each in measured] == [(0, ()), (0, ())]


def test_only_lesions_have_axes_in_the_slices(case: Case) -> None:
    """Two pixels in a row: 2 mm long, 1 mm across."""
    organ, lesion = measure(case.result(labels(), card=card(lesion=True)))
    assert not {"LongAxis", "ShortAxis"} & {*by_name(organ)}
    assert by_name(lesion)["LongAxis"] == pytest.approx(2.0)
    assert by_name(lesion)["ShortAxis"] == pytest.approx(1.0)


def test_one_volume_is_stated_under_one_name(case: Case) -> None:
    """The voxels' volume is the volume that readers look for; no concept stands twice."""
    values = measure(case.result(labels()))[0].values
    stated = [(quantity.concept, quantity.derivation) for quantity, _ in values]
    assert len({*stated}) == len(stated)
    volume = next(quantity for quantity, value in values if value == 48)
    assert volume.concept == Code(scheme="SCT", value="118565006", meaning="Volume")
    assert volume.unit.value == "mm3"


def test_codes_are_those_of_the_dictionary(case: Case) -> None:
    """The dictionary of pydicom comes from the standard: each code has the meaning it has there."""
    codes = {
        code
        for each in measure(case.result(labels(), card=card(lesion=True)))
        for quantity, _ in each.values
        for code in (quantity.concept, quantity.unit, quantity.derivation)
        if code
    }
    for header in HEADERS:
        if scale := scale_of(dataset(*header)):
            codes |= {*scale}
    known = meanings()
    known[MILLIMETER] |= {"millimeter"}  # the dictionary says mm, but mm2 in words
    assert len(codes) > 30
    for code in codes:
        if (code.scheme, code.value) not in NOT_IN_PYDICOM:
            assert code.meaning in known[code.scheme, code.value]


def meanings() -> dict[tuple[str, str], set[str]]:
    """Return all meanings of each code in pydicom's dictionary."""
    found: dict[tuple[str, str], set[str]] = {}
    for scheme, words in concepts.items():
        for entry in words.values():
            for value, (meaning, _) in entry.items():
                found.setdefault((scheme, value), set()).add(meaning)
    return found


# -- intensity -----------------------------------------------------------------------------------

HEADERS = {
    # Modality, RescaleType, Units, SUVType → concept, unit
    ("CT", None, None, None): ("112031", "[hnsf'U]"),
    ("CT", "HU", None, None): ("112031", "[hnsf'U]"),
    ("CT", "US", None, None): None,
    ("CT", "Z_EFF", None, None): None,
    ("MR", None, None, None): ("110852", "[arb'U]"),
    ("PT", None, "BQML", None): ("110821", "Bq/ml"),
    ("PT", None, "CNTS", None): ("110821", "{counts}"),
    ("PT", None, "CPS", None): ("110821", "{counts}/s"),
    ("PT", None, "PROPCNTS", None): ("110821", "{propcounts}"),
    ("PT", None, "PROPCPS", None): ("110821", "{propcounts}/s"),
    ("PT", None, "GML", None): ("126401", "g/ml{SUVbw}"),
    ("PT", None, "GML", "BW"): ("126401", "g/ml{SUVbw}"),
    ("PT", None, "GML", "LBM"): ("126402", "g/ml{SUVlbm}"),
    ("PT", None, "GML", "LBMJAMES128"): ("126406", "g/ml"),
    ("PT", None, "GML", "LBMJANMA"): ("126405", "g/ml"),
    ("PT", None, "GML", "IBW"): ("126404", "g/ml{SUVibw}"),
    ("PT", None, "CM2ML", None): ("126403", "cm2/ml{SUVbsa}"),
    ("PT", None, "GML", "BSA"): None,
    ("PT", None, "PCNT", None): None,
    ("PT", None, None, None): None,
    ("OT", None, "BQML", None): None,
}


def dataset(modality: str, rescale: str | None, units: str | None, uptake: str | None) -> Dataset:
    """Return a header that says what is given."""
    ds = Dataset()
    ds.Modality = modality
    for keyword, value in (("RescaleType", rescale), ("Units", units), ("SUVType", uptake)):
        if value is not None:
            setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize("header", HEADERS)
def test_intensity_has_the_unit_that_the_source_states(header: Any) -> None:
    """What the source leaves open is not guessed: there is no scale then."""
    scale = scale_of(dataset(*header))
    assert (scale and (scale.concept.value, scale.unit.value)) == HEADERS[header]


@pytest.mark.parametrize(
    ("said", "unit"),
    [
        ({"Modality": "PT", "Units": "BQML"}, "Bq/ml"),
        ({"Modality": "PT", "Units": "GML", "SUVType": "LBM"}, "g/ml{SUVlbm}"),
        ({"Modality": "MR"}, "[arb'U]"),
        ({"RescaleType": "US"}, None),
        ({"Modality": "PT"}, None),
    ],
)
def test_the_unit_is_read_from_the_series(tmp_path: Path, said: Any, unit: str | None) -> None:
    """All the way from the file; without a unit there is no intensity, the shape stays."""

    def edit(ds: Dataset, _: int) -> None:
        for keyword, value in said.items():
            setattr(ds, keyword, value)

    for each in measure(Case(tmp_path, edit).result(labels())):
        units = {q.unit.value for q, _ in each.values if q.name in INTENSITY}
        assert units == ({unit} if unit else set())
        assert {*by_name(each)} >= FOURTEEN


def test_the_deviation_is_exact_far_from_zero() -> None:
    """Squares of large numbers would leave nothing of a small deviation."""
    rng = np.random.Generator(np.random.PCG64(1))
    values = (1e6 + rng.normal(0, 2, (6, 20, 20))).astype(np.float32)
    mask = rng.random(values.shape) < 0.4
    mask[2] = False
    inside = values[mask].astype(np.float64)
    assert mean_and_deviation(values, mask) == pytest.approx(
        (math.fsum(inside) / len(inside), inside.std()), rel=1e-9
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_never_leaves(case: Case, value: float) -> None:
    """The intensity of that segment is left out, all else stays."""
    result = case.result(labels())
    result.volume.voxels_kji[2, 1, 2] = value
    first, second = (by_name(each) for each in measure(result))
    assert {*first} == FOURTEEN
    assert {*second} == FOURTEEN | INTENSITY


def test_one_voxel_has_no_elongation(case: Case) -> None:
    """What is not defined is left out; what is, stays."""
    array = np.zeros((4, 5, 6), np.uint8)
    array[3, 4, 5] = 1
    first = by_name(measure(case.result(array))[0])
    assert {*first} == (FOURTEEN | INTENSITY) - {"Elongation", "Flatness"}
    assert first["IntensityStandardDeviation"] == 0
