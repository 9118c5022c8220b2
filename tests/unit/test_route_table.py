"""Studies × routes → verdicts, as a table that a radiographer could read.

Covered: CT of many kinds, PET/CT, brain MR, breast DCE, documents and our own results; each against
routes with short and long rules, gates, preferences, roles, modes. A row's verdict is either what
is picked (`CT=thin`, several jobs apart by `/`) or words that the reason must hold (`! …`). Not
covered: how facts are found in headers.
"""

from collections.abc import Sequence

import pytest

from app.dicom.series import Series
from app.pipeline.route import Verdict, route
from tests.unit.built import routes, series

ROUTES = routes("""
- name: any
  inputs: {IN: []}
- name: ct
  inputs: {CT: [{op: equals, tag: Modality, value: CT}]}
- name: thin-soft
  inputs:
    CT:
      where:
        - {op: equals, tag: Modality, value: CT}
        - {op: equals, fact: orientation, value: axial}
        - {op: between, fact: spacing_mm, high: 3}
      prefer: [soft_kernel, thinnest, most_slices]
      gates: {min_slices: 50}
- name: bone
  inputs:
    CT: {where: [{op: equals, fact: kernel, value: bone}], prefer: [thinnest]}
- name: thick
  inputs:
    CT: {where: [{op: equals, tag: Modality, value: CT}], prefer: [thickest]}
- name: reformatted
  inputs:
    CT:
      where: [{op: equals, fact: kind, value: reformatted}]
      gates: {derived: allow}
- name: tilted
  inputs: {CT: {where: [{op: equals, tag: Modality, value: CT}], gates: {tilt: allow}}}
- name: uneven
  inputs:
    CT:
      where: [{op: equals, tag: Modality, value: CT}]
      gates: {tilt: allow, spacing: allow, missing_slice: allow}
- name: one-series
  study: [{op: equals, fact: series, value: 1}]
  inputs: {CT: [{op: equals, tag: Modality, value: CT}]}
- name: large-study
  study: [{op: between, fact: objects, low: 500}, {op: contains_all, tag: Modality, values: [CT]}]
  inputs: {CT: [{op: equals, tag: Modality, value: CT}]}
- name: all-ct
  take: all
  inputs: {CT: [{op: equals, tag: Modality, value: CT}]}
- name: shadow
  mode: shadow
  inputs: {CT: [{op: equals, tag: Modality, value: CT}]}
- name: "off"
  mode: off
  inputs: {CT: [{op: equals, tag: Modality, value: CT}]}
- name: named
  inputs: {CT: [{op: matches, tag: SeriesDescription, pattern: "^thx.*(lung|lunge)"}]}
- name: not-named
  inputs:
    CT: [{op: matches, tag: SeriesDescription, pattern: lung, not: true}]
- name: short-or-long
  inputs:
    CT:
      where:
        - [{op: between, fact: slices, high: 50, exclusive: true}]
        - [{op: between, fact: slices, low: 300}, {op: present, fact: kernel}]
- name: lossless
  inputs: {CT: {where: [{op: equals, tag: Modality, value: CT}], gates: {lossy: refuse}}}
- name: sized
  inputs:
    CT:
      where: [{op: equals, tag: Modality, value: CT}]
      gates: {max_slices: 150, min_extent_mm: 100, max_extent_mm: 500}
- name: pet-ct
  inputs:
    CT: {where: [{op: equals, tag: Modality, value: CT}], prefer: [soft_kernel, thickest]}
    PET:
      - {op: equals, tag: Modality, value: PT}
      - {op: equals, fact: attenuation_corrected, value: yes}
      - {op: same_as, tag: FrameOfReferenceUID, role: CT}
- name: pet-soon
  inputs:
    CT: [{op: equals, tag: Modality, value: CT}]
    PET:
      - {op: equals, tag: Modality, value: PT}
      - {op: acquired_within, minutes: 30, role: CT}
- name: each-pet
  take: all
  inputs:
    PET: [{op: equals, tag: Modality, value: PT}]
    CT:
      - {op: equals, tag: Modality, value: CT}
      - {op: same_as, tag: FrameOfReferenceUID, role: PET}
- name: brain
  inputs:
    T1: [{op: equals, fact: weighting, value: t1}, {op: equals, fact: contrast, value: no}]
    T1CE: [{op: equals, fact: weighting, value: t1}, {op: equals, fact: contrast, value: yes}]
    T2: [{op: equals, fact: weighting, value: t2}]
    FLAIR: [{op: equals, fact: weighting, value: flair}]
- name: dce
  inputs:
    DCE:
      where: [{op: equals, tag: Modality, value: MR}, {op: between, fact: time_points, low: 4}]
      gates: {several_per_position: allow}
- name: mr
  inputs: {MR: [{op: equals, tag: Modality, value: MR}]}
- name: earliest
  inputs: {MR: {where: [{op: equals, tag: Modality, value: MR}], prefer: [earliest]}}
- name: latest
  inputs: {MR: {where: [{op: equals, tag: Modality, value: MR}], prefer: [latest]}}
- name: before-after
  inputs:
    PRE: {where: [{op: equals, fact: contrast, value: no}], prefer: [earliest]}
    POST:
      where: [{op: equals, fact: contrast, value: yes}, {op: same_as, tag: Rows, role: PRE}]
      prefer: [with_contrast, latest]
""")

LOCALIZER = series("scout", slices=2, kind="localizer", orientation=["coronal", "sagittal"])
THICK = series("thick", slices=60, spacing_mm=5.0, kernel="soft")
THIN = series("thin", slices=300, spacing_mm=1.0, kernel="soft")
SHARP = series("sharp", slices=300, spacing_mm=1.0, kernel="bone")
MPR = series("mpr", slices=400, kind="reformatted", orientation="coronal", spacing_mm=0.8)
DOSE = series("dose", "SR", slices=1, kind="not_image", placed=None, frame=None)
SCREEN = series(
    "screen",
    "CT",
    slices=1,
    kind="secondary",
    placed="no",
    frame=None,
    frames_of_reference=0,
    tags={"PhotometricInterpretation": "RGB"},
)
OURS = series("ours", slices=300, own="yes")
CT_LUNG = series("lung", tags={"SeriesDescription": "THX 1.0 Lung"}, kernel="lung")
HEAD = series("head", slices=30, tilt_deg=12.5, spacing_deviation=0.31, missing_slices=2)
PET_CT = series("ac-ct", slices=300, acquired_at="2030-01-01T10:00:00", kernel="soft")
PET = series("pet", "PT", attenuation_corrected="yes", acquired_at="2030-01-01T10:20:00")
NAC = series("nac", "PT", 300, attenuation_corrected="no", acquired_at="2030-01-01T10:20:00")
OTHER_PET = series("pet2", "PT", frame="2.25.9999", attenuation_corrected="yes")
T1, T1CE, T2, FLAIR = (
    series(uid, "MR", 160, weighting=weighting, contrast=contrast, acquired_at=at)
    for uid, weighting, contrast, at in (
        ("t1", "t1", "no", "2030-01-01T10:00:00"),
        ("t1ce", "t1", "yes", "2030-01-01T10:20:00"),
        ("t2", "t2", "no", "2030-01-01T10:05:00"),
        ("flair", "flair", "no", "2030-01-01T10:10:00"),
    )
)
DCE = series("dce", "MR", 600, positions=100, per_position=6, time_points=6, contrast="yes")

STUDIES: dict[str, Sequence[Series]] = {
    "nothing": [],
    "ct": [LOCALIZER, THICK, THIN, SHARP, MPR, DOSE, SCREEN],
    "thin": [THIN],
    "thick": [THICK, LOCALIZER],
    "sharp": [SHARP],
    "mpr": [MPR],
    "papers": [DOSE, series("seg", "SEG", 1, kind="not_image"), series("rt", "RTSTRUCT", 1)],
    "ours": [OURS],
    "ours too": [OURS, THICK],
    "screen": [SCREEN],
    "lung": [CT_LUNG, THICK],
    "head": [HEAD],
    "tilt": [series("tilt", tilt_deg=7.0)],
    "gap": [series("gap", missing_slices=3)],
    "uneven": [series("uneven", spacing_deviation=0.2)],
    "copies": [series("copies", duplicates=4, duplicates_differ="no", per_position=[1, 2])],
    "differ": [series("differ", duplicates=4, duplicates_differ="yes", per_position=[1, 2])],
    "unsure": [series("unsure", duplicates=4, per_position=[1, 2])],
    "mixed": [series("mixed", orientations=2, orientation=["axial", "coronal"])],
    "sizes": [series("sizes", sizes=2)],
    "frames": [series("frames", frames_of_reference=2, frame=None)],
    "no frame": [series("noframe", frames_of_reference=0, frame=None)],
    "multi-frame": [series("frames", slices=60, multi_frame="yes", positions=None)],
    "enhanced": [series("enhanced", slices=60, multi_frame="enhanced")],
    "white": [series("white", tags={"PhotometricInterpretation": "MONOCHROME1"})],
    "lossy": [series("lossy", lossy="yes")],
    "single": [series("single", slices=1)],
    "long": [series("long", slices=140, spacing_mm=5.0)],
    "projected": [series("mip", kind="projection")],
    "bare": [series("bare", placed="no")],
    "petct": [PET_CT, PET, NAC],
    "apart": [PET_CT, OTHER_PET],
    "two pets": [PET_CT, PET, OTHER_PET],
    "no ac": [PET_CT, NAC],
    "brain": [T1, T1CE, T2, FLAIR],
    "no flair": [T1, T1CE, T2],
    "no ce": [T1, T2, FLAIR],
    "dce": [DCE],
    "dwi": [series("dwi", "MR", 200, b_values=[0, 1000], weighting="dwi")],
    "echoes": [series("echoes", "MR", 200, positions=100, per_position=2)],
}

ROWS = [
    ("nothing", "any", "! IN: the study holds no image series"),
    ("nothing", "all-ct", "! the study holds no image series"),
    ("nothing", "one-series", "! study: series equals 1, found 0"),
    ("ct", "thin-soft", "CT=thin"),
    ("ct", "bone", "CT=sharp"),
    ("ct", "thick", "CT=thick"),
    ("ct", "reformatted", "CT=mpr"),
    ("ct", "ct", "CT=sharp"),
    ("ct", "all-ct", "CT=sharp / CT=thin / CT=thick"),
    ("ct", "one-series", "! study: series equals 1, found 7"),
    ("ct", "large-study", "CT=sharp"),
    ("ct", "pet-ct", "! PET: no series fits"),
    ("ct", "brain", "! T1, T1CE: no series fits"),
    ("ct", "short-or-long", "CT=sharp"),
    ("ct", "off", "! the route is off"),
    ("ct", "shadow", "CT=sharp"),
    ("thin", "large-study", "! study: objects at least 500, found 300"),
    ("thin", "one-series", "CT=thin"),
    ("thin", "bone", "! kernel equals bone, found soft"),
    ("thin", "mr", "! Modality equals MR, found CT"),
    ("thick", "thin-soft", "! spacing_mm at most 3, found 5"),
    ("thick", "short-or-long", "! slices below 50, found 60"),
    ("sharp", "thin-soft", "CT=sharp"),
    ("mpr", "ct", "! derived: its images are reformatted"),
    ("papers", "any", "! holds objects that are no images (SEG)"),
    ("papers", "any", "! holds objects that are no images (RTSTRUCT)"),
    ("ours", "any", "! series …ours: made by this program"),
    ("ours too", "any", "IN=thick"),
    ("screen", "any", "! colour: its pixels are RGB"),
    ("screen", "any", "! placed: images lack ImagePositionPatient"),
    ("screen", "any", "! min_slices: 1 slice"),
    ("lung", "named", "CT=lung"),
    ("lung", "not-named", "CT=thick"),
    ("thin", "named", "! SeriesDescription matches ^thx.*(lung|lunge), found nothing"),
    ("head", "ct", "! tilt: the slices are sheared by 12.5°"),
    ("head", "ct", "! spacing: slices lie up to 0.46 mm"),
    ("head", "ct", "! missing_slice: 2 slice(s) missing"),
    ("head", "tilted", "! spacing: slices lie up to 0.46 mm"),
    ("head", "uneven", "CT=head"),
    ("tilt", "ct", "! meets the conditions but tilt"),
    ("tilt", "tilted", "CT=tilt"),
    ("gap", "ct", "! send the whole series"),
    ("gap", "uneven", "CT=gap"),
    ("uneven", "ct", "! send evenly spaced slices"),
    ("copies", "ct", "CT=copies"),
    ("differ", "ct", "! duplicate: 4 image(s) at a position that is taken, with other pixels"),
    ("unsure", "ct", "! duplicate: 4 image(s) at a position that is taken, whose pixels are not"),
    ("mixed", "ct", "! orientation: slices of several orientations (axial, coronal)"),
    ("sizes", "ct", "! sizes: images of 2 sizes"),
    ("frames", "ct", "! frame_of_reference: 2 frames of reference"),
    ("no frame", "ct", "! frame_of_reference: no frame of reference"),
    ("multi-frame", "ct", "! multi_frame: multi-frame images that do not say where"),
    ("enhanced", "ct", "CT=enhanced"),
    ("white", "ct", "! monochrome1: its pixels are MONOCHROME1"),
    ("lossy", "ct", "CT=lossy"),
    ("lossy", "lossless", "! lossy: compressed with loss"),
    ("single", "ct", "! min_slices: 1 slice position(s), fewer than 2"),
    ("thin", "sized", "! max_slices: 300 slice position(s), more than 150"),
    ("thick", "sized", "CT=thick"),
    ("long", "sized", "! max_extent_mm: 700.0 mm from end to end, more than 500 mm"),
    ("head", "sized", "! min_extent_mm: 45.0 mm from end to end, less than 100 mm"),
    ("projected", "ct", "! derived: its images are projection"),
    ("bare", "ct", "! placed: images lack"),
    ("petct", "pet-ct", "CT=ac-ct PET=pet"),
    ("petct", "pet-soon", "CT=ac-ct PET=nac"),
    ("petct", "each-pet", "PET=nac CT=ac-ct / PET=pet CT=ac-ct"),
    ("apart", "pet-ct", "! FrameOfReferenceUID same as CT, found 2.25.9999 in series …pet2"),
    ("apart", "pet-ct", "! and 2.25.9000 in series …ac-ct"),
    ("apart", "pet-soon", "! acquired within 30 minutes of CT, found nothing in series …pet2"),
    ("two pets", "pet-ct", "CT=ac-ct PET=pet"),
    ("two pets", "each-pet", "PET=pet CT=ac-ct"),
    ("no ac", "pet-ct", "! attenuation_corrected equals yes, found no"),
    ("brain", "brain", "T1=t1 T1CE=t1ce T2=t2 FLAIR=flair"),
    ("brain", "earliest", "MR=t1"),
    ("brain", "latest", "MR=t1ce"),
    ("brain", "before-after", "! Rows same as PRE, found nothing in series …t1ce"),
    ("no flair", "brain", "! FLAIR: no series fits"),
    ("no ce", "brain", "! T1CE: no series fits"),
    ("dce", "dce", "DCE=dce"),
    ("dce", "mr", "! several_per_position: 6 points in time at a position"),
    ("dwi", "mr", "! several_per_position: b-values 0, 1000 at a position"),
    ("echoes", "mr", "! several_per_position: 2 images at a position"),
]


def told(verdict: Verdict) -> str:
    """Return what is picked, as the table has it."""
    return " / ".join(
        " ".join(f"{role}={uid}" for role, uid in pick.inputs.items()) for pick in verdict.picks
    )


@pytest.mark.parametrize(("study", "name", "expected"), ROWS)
def test_the_table_of_studies_and_routes(study: str, name: str, expected: str) -> None:
    """What is picked, or why nothing is."""
    (verdict,) = route(STUDIES[study], [ROUTES[name]])
    if expected.startswith("! "):
        assert not verdict.taken
        assert expected.removeprefix("! ") in verdict.reason
    else:
        assert verdict.taken, verdict.reason
    assert told(verdict) == ("" if expected.startswith("! ") else expected)


def test_the_table_is_as_large_as_was_promised() -> None:
    """At least 60 different rows, with every route and every study in one of them."""
    assert len({*ROWS}) == len(ROWS) >= 60
    assert {row[0] for row in ROWS} == {*STUDIES}
    assert {row[1] for row in ROWS} == {*ROUTES}
