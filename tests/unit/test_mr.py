"""MR sequences by their physics, and contrast agents by what is written of them.

Covered: protocols of several vendors with helpful, misleading and empty descriptions, b-values of
each vendor's own. Not covered: perfusion maps and spectroscopy, which get no weighting.
"""

from typing import Any

import pytest
from pydicom.dataset import Dataset

from app.dicom.headers import headers_of
from tests.unit.metadata import headers

SE, TSE = {"ScanningSequence": "SE"}, {"ScanningSequence": "SE", "SequenceVariant": "SK"}
IR, GR = {"ScanningSequence": ["SE", "IR"]}, {"ScanningSequence": "GR"}
SPOILED = {"ScanningSequence": "GR", "SequenceVariant": ["SS", "SP"]}
BALANCED = {"ScanningSequence": "GR", "SequenceVariant": "SS"}
EPI = {"ScanningSequence": ["SE", "EP"]}


def facts(count: int = 2, edit: Any = None, **values: Any) -> Any:
    """Return the facts of an MR series."""
    (one,) = headers_of(headers(count, edit, **{"Modality": "MR", **values}))
    return one.series().facts


def timing(tr: float, te: float, ti: float = 0, flip: float = 90) -> dict[str, Any]:
    """Return the timing of a sequence in ms and degrees; no inversion is not written."""
    inversion = {"InversionTime": ti} if ti else {}
    return {"RepetitionTime": tr, "EchoTime": te, "FlipAngle": flip} | inversion


PHYSICS: list[tuple[str | None, dict[str, Any]]] = [
    ("t1", SE | timing(500, 12)),
    ("t1", TSE | timing(700, 9, flip=150)),
    ("t1", {"ScanningSequence": ["GR", "IR"]} | timing(2300, 2.98, ti=900, flip=9)),  # MPRAGE
    ("t1", GR | timing(8.2, 3.2, ti=450, flip=12)),  # BRAVO
    ("t1", SPOILED | timing(25, 4.6, flip=30)),
    ("t1", GR | timing(250, 2.5, flip=70)),  # 2-D gradient echo
    ("t1", GR | timing(4.1, 1.9, flip=12)),  # VIBE
    ("t1", IR | timing(2200, 9, ti=860)),  # T1 FLAIR
    ("t1", TSE | timing(700, 11, flip=120)),  # T1 SPACE
    ("t2", SE | timing(2800, 90)),
    ("t2", TSE | timing(5000, 100, flip=150)),
    ("t2", TSE | timing(3200, 408, flip=120)),  # T2 SPACE
    ("pd", TSE | timing(2800, 15)),
    ("pd", TSE | timing(3500, 42)),
    ("flair", IR | timing(9000, 120, ti=2500)),
    ("flair", IR | timing(5000, 388, ti=1800)),  # 3-D, SPACE
    ("flair", IR | timing(8000, 105, ti=2230, flip=160)),
    ("flair", IR | timing(9000, 120)),  # the inversion time is not written
    ("flair", TSE | timing(9000, 120, ti=2500)),  # the inversion is not written
    ("stir", IR | timing(4000, 60, ti=160)),
    ("t2star", GR | timing(700, 20, flip=20)),
    ("t2star", {"ScanningSequence": ["GR", "EP"]} | timing(2000, 30, flip=77)),
    ("swi", GR | timing(28, 20, flip=15) | {"ImageType": ["ORIGINAL", "PRIMARY", "M", "SWI"]}),
    ("dwi", EPI | timing(6000, 80) | {"DiffusionBValue": 1000.0}),
    ("dwi", EPI | timing(6000, 80) | {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]}),
    ("adc", EPI | timing(6000, 80) | {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}),
    (None, GR | timing(25, 4, flip=20) | {"AngioFlag": "Y"}),
    (None, BALANCED | timing(5, 2.2, flip=50)),
    (None, TSE | timing(2500, 55)),
    (None, timing(0, 0)),
    (None, {}),
]


@pytest.mark.parametrize("description", ["", "brain", "Serie 7", "sag"])
@pytest.mark.parametrize(("weighting", "values"), PHYSICS)
def test_the_physics_tell_the_weighting(
    weighting: str | None, values: dict[str, Any], description: str
) -> None:
    """Descriptions that say nothing change nothing."""
    found = facts(SeriesDescription=description, **values).get("weighting")
    assert found == ((weighting,) if weighting else None)


@pytest.mark.parametrize(("weighting", "values"), [each for each in PHYSICS if each[0]])
def test_the_physics_are_right_where_the_description_is_not(
    weighting: str, values: dict[str, Any]
) -> None:
    """Protocols are copied and edited, and their names stay behind."""
    for description in ("T1", "T2 tse", "FLAIR", "dwi b1000"):
        assert facts(SeriesDescription=description, **values)["weighting"] == (weighting,)


@pytest.mark.parametrize(
    ("description", "weighting"),
    [
        ("AX T1 SE", "t1"),
        ("t1_mprage_sag_p2_iso", "t1"),
        ("Sag MP-RAGE", "t1"),
        ("Ax T1 FLAIR", "t1"),
        ("3D BRAVO +C", "t1"),
        ("t1w", "t1"),
        ("AX T2 FRFSE", "t2"),
        ("T2W_TSE", "t2"),
        ("AX T2 FLAIR", "flair"),
        ("t2_space_dark-fluid_FLAIR", "flair"),
        ("CUBE FLAIR", "flair"),
        ("3D_FLAIR_Sag", "flair"),
        ("COR STIR", "stir"),
        ("AX PD FS", "pd"),
        ("ep2d_diff_3scan_trace", "dwi"),
        ("DWI b1000", "dwi"),
        ("Apparent Diffusion Coefficient (mm2/s)", "adc"),
        ("ADC map", "adc"),
        ("SWI_Images", "swi"),
        ("AX T2* GRE", "t2star"),
        ("Brain", None),
        ("PDQ", None),
        ("AT1 TAT2", None),
        ("Spine T10 to T12", None),
    ],
)
def test_the_description_tells_where_the_physics_are_silent(
    description: str, weighting: str | None
) -> None:
    """A derived series or an anonymised one may have no timing left."""
    found = facts(SeriesDescription=description).get("weighting")
    assert found == ((weighting,) if weighting else None)


def test_a_double_echo_has_two_weightings() -> None:
    """Proton density and T2 in one series."""

    def edit(ds: Dataset, k: int) -> None:
        ds.EchoTime = (15, 95)[k % 2]

    assert facts(4, edit, **TSE, RepetitionTime=3000)["weighting"] == ("pd", "t2")


def test_a_diffusion_series_with_its_reference_is_one_of_diffusion() -> None:
    """The images with b = 0 belong to the others."""

    def edit(ds: Dataset, k: int) -> None:
        ds.DiffusionBValue = (0.0, 1000.0)[k % 2]

    found = facts(4, edit, **EPI, **timing(6000, 80))
    assert found["weighting"] == ("dwi",)
    assert found["b_values"] == (0.0, 1000.0)


@pytest.mark.parametrize(
    "descriptions",
    [
        ("t1_se_tra", "t1_se_tra_KM", "t2_tse_tra", "flair_tra"),
        ("", "", "", ""),
        ("Series 2", "Series 3", "Series 4", "Series 5"),
    ],
)
def test_a_brain_study_tells_its_four_channels(descriptions: tuple[str, ...]) -> None:
    """T1, T1 with contrast, T2 and FLAIR, with helpful descriptions and without."""
    agent = {"ContrastBolusAgent": "Gadovist"}
    study = (SE | timing(500, 12), SE | timing(500, 12) | agent, TSE | timing(5000, 100))
    found = [
        facts(SeriesDescription=description, **values)
        for values, description in zip(
            (*study, IR | timing(9000, 120, ti=2500)), descriptions, strict=True
        )
    ]
    assert [each["weighting"] for each in found] == [("t1",), ("t1",), ("t2",), ("flair",)]
    assert [each.get("contrast") for each in found] == [None, ("yes",), None, None]


SIEMENS, GE = (0x0019, "SIEMENS MR HEADER", 0x0C), (0x0043, "GEMS_PARM_01", 0x39)
PHILIPS, ANOTHER = (0x2001, "Philips Imaging DD 001", 0x03), (0x0019, "GEMS_ACQU_01", 0x0C)


def private(ds: Dataset, where: tuple[int, str, int], vr: str, value: Any) -> None:
    """Put a private element where its vendor puts it."""
    group, creator, element = where
    ds.private_block(group, creator, create=True).add_new(element, vr, value)


def nested(ds: Dataset) -> None:
    """Put the b-value where enhanced images have it."""
    ds.MRDiffusionSequence = [Dataset()]
    ds.MRDiffusionSequence[0].DiffusionBValue = 800.0


@pytest.mark.parametrize(
    ("edit", "b_values"),
    [
        (lambda ds: setattr(ds, "DiffusionBValue", 1000.0), (1000.0,)),
        (nested, (800.0,)),
        (lambda ds: private(ds, SIEMENS, "IS", 1000), (1000.0,)),
        (lambda ds: private(ds, SIEMENS, "UN", b"1000"), (1000.0,)),
        (lambda ds: private(ds, GE, "IS", [800, 8, 0, 0]), (800.0,)),
        (
            lambda ds: private(ds, GE, "IS", [1000000800, 8, 0, 0]),
            (800.0,),
        ),
        (lambda ds: private(ds, GE, "UN", b"600\\8\\0\\0 "), (600.0,)),
        (lambda ds: private(ds, PHILIPS, "FL", 500.0), (500.0,)),
        (lambda ds: private(ds, ANOTHER, "IS", 7), None),
        (lambda ds: private(ds, SIEMENS, "UN", b"\xff\x01"), None),
        (lambda ds: private(ds, SIEMENS, "IS", -5), None),
        (lambda _: None, None),
    ],
)
def test_b_values_of_each_vendor(edit: Any, b_values: tuple[float, ...] | None) -> None:
    """The standard's attribute, the sequence of enhanced images, Siemens, GE and Philips."""
    assert facts(edit=lambda ds, _: edit(ds)).get("b_values") == b_values


@pytest.mark.parametrize(
    ("values", "contrast"),
    [
        ({"ContrastBolusAgent": "OMNIPAQUE 350"}, "yes"),
        ({"ContrastBolusAgent": "IV"}, "yes"),
        ({"ContrastBolusAgent": "Oral & IV"}, "yes"),
        ({"ContrastBolusAgent": "Gadovist", "SeriesDescription": "T1 pre"}, "yes"),
        ({"ContrastBolusAgent": "NONE"}, "no"),
        ({"ContrastBolusAgent": "no contrast"}, "no"),
        ({"ContrastBolusAgent": "without", "SeriesDescription": "T1 post"}, "no"),
        ({"ContrastBolusAgent": "ORAL CONTRAST"}, None),
        ({"ContrastBolusAgent": "ORAL", "SeriesDescription": "portal venous"}, "yes"),
        ({"ContrastBolusAgent": ""}, None),
        ({"SeriesDescription": "T1 +C"}, "yes"),
        ({"SeriesDescription": "Ax T1 C+"}, "yes"),
        ({"SeriesDescription": "T1 post"}, "yes"),
        ({"SeriesDescription": "t1_se_tra_KM"}, "yes"),
        ({"SeriesDescription": "Thorax mit KM 1.0"}, "yes"),
        ({"SeriesDescription": "AX T1 GD"}, "yes"),
        ({"SeriesDescription": "Abdomen portal venous 3.0"}, "yes"),
        ({"SeriesDescription": "CT chest with contrast"}, "yes"),
        ({"SeriesDescription": "T1 FS GADO"}, "yes"),
        ({"SeriesDescription": "CT abdomen w/o contrast"}, "no"),
        ({"SeriesDescription": "CT abdomen without IV contrast"}, "no"),
        ({"SeriesDescription": "AX T1 W/O"}, "no"),
        ({"SeriesDescription": "Abdomen nativ 5.0"}, "no"),
        ({"SeriesDescription": "Schaedel ohne KM"}, "no"),
        ({"SeriesDescription": "TORAX SIN CONTRASTE"}, "no"),
        ({"SeriesDescription": "T1 pre"}, "no"),
        ({"SeriesDescription": "5/5mm Plain"}, "no"),
        ({"SeriesDescription": "NON-CONTRAST"}, "no"),
        ({"SeriesDescription": "no contrast"}, "no"),
        ({"SeriesDescription": "T1 pre and post gd"}, None),
        ({"SeriesDescription": "PD w/o FS"}, None),
        ({"SeriesDescription": "T1 presurgical"}, None),
        ({"SeriesDescription": "Thorax 1.0"}, None),
        ({"SeriesDescription": "brain", "ProtocolName": "Head w/o contrast"}, "no"),
        ({"SeriesDescription": "T1 post", "ProtocolName": "Head w/o contrast"}, "yes"),
        ({}, None),
    ],
)
def test_contrast_is_told_by_the_agent_or_the_description(
    values: dict[str, Any], contrast: str | None
) -> None:
    """Negations count, in several languages; unknown is neither yes nor no."""
    assert facts(**values).get("contrast") == ((contrast,) if contrast else None)
