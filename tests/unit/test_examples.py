"""The files in deploy/examples: they load, and their routes take what they are for and no more.

Covered: each rule of the collection of CTs broken in turn, pairs of PET and CT, four sequences of a
brain. Not covered: models that are not shipped; that the node says so is.
"""

from pathlib import Path
from typing import Any

import pytest

from app.config import DEFAULT_PATH, Config, load_config
from app.dicom.series import Series
from app.errors import ConfigError
from app.installed import install
from app.pipeline.route import Verdict, route
from tests.unit.built import series

EXAMPLES = DEFAULT_PATH.parent / "deploy" / "examples"


def example(name: str) -> Config:
    """Load one of them."""
    return load_config(EXAMPLES / f"{name}.yaml")


def verdict(name: str, *study: Series) -> Verdict:
    """Return what the only route of an example says."""
    (only,) = route(study, example(name).routes)
    return only


def ct(uid: str = "ct", slices: int = 160, **changes: Any) -> Series:
    """Return a series that the collection takes, but for the changes."""
    return series(uid, "CT", slices, **{"spacing_mm": 2.0, **changes})


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_loads(path: Path) -> None:
    """And has one route."""
    assert len(load_config(path).routes) == 1


def test_the_collection_runs_with_the_shipped_model() -> None:
    """Its roles are those of the phantom's card."""
    assert [*install(example("ct-collection"))] == ["phantom"]


@pytest.mark.parametrize("name", ["pet-ct", "brain-mr"])
def test_an_example_whose_model_is_not_shipped_says_so(name: str) -> None:
    """Nobody takes it for a model of ours."""
    with pytest.raises(ConfigError, match=r"no card\.yaml in any of"):
        install(example(name))


def test_the_collection_takes_a_series_that_keeps_every_rule() -> None:
    """And tells that it is the only one."""
    taken = verdict("ct-collection", ct())
    assert taken.taken
    assert taken.reason == "CT: series …ct, the only one that fits"


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        (series("mr", "MR", 160), "Modality equals CT, found MR"),
        (ct(orientation=["axial", "oblique"], orientations=2), "orientation: slices of several"),
        (ct(sizes=2), "sizes: images of 2 sizes"),
        (ct(placed="no"), "placed: images lack"),
        (ct(per_position=[1, 2], duplicates=1), "per_position equals 1, found 1, 2"),
        (ct(spacing_deviation=0.05), "spacing: slices lie up to 0.10 mm"),
        (ct(missing_slices=1), "missing_slice: 1 slice(s) missing"),
        (ct(kind=["localizer", "original"]), "localizer: a localizer"),
        (ct(slices=100), "slices above 100, found 100"),
        (ct(tags={"SliceThickness": 1.5}), "SliceThickness between 1.5 and 3, both excluded"),
        (ct(tags={"SliceThickness": 3}), "found 3"),
        (ct(tags={"SliceThickness": None}), "found nothing"),
        (ct(tags={"SliceThickness": [2, 5]}), "found 2, 5"),
        (ct(tilt_deg=12.0), "tilt: the slices are sheared by 12.0°"),
        (ct(own="yes"), "made by this program"),
    ],
)
def test_the_collection_refuses_a_series_that_breaks_one_rule(odd: Series, told: str) -> None:
    """With the rule in the reason, and with a good series beside it the good one is taken."""
    refused = verdict("ct-collection", odd)
    assert not refused.taken
    assert told in refused.reason
    beside = verdict("ct-collection", odd, ct("good", 120))
    assert [dict(pick.inputs) for pick in beside.picks] == [{"CT": "good"}]


def test_the_collection_takes_one_series_of_a_study() -> None:
    """That with most slices."""
    taken = verdict("ct-collection", ct("a", 120), ct("b", 300), ct("c", 200))
    assert taken.reason == "CT: series …b, most slices of 3 that fit (300 slices)"
    assert len(taken.picks) == 1


AT = "2030-01-01T10:00:00"
PAIR = {
    "CT": series("lowdose", "CT", 300, spacing_mm=3.0, kernel="soft", acquired_at=AT),
    "PET": series("ac", "PT", 300, attenuation_corrected="yes", acquired_at=AT, kind="derived"),
}
BRAIN = {
    role: series(role.lower(), "MR", 150, weighting=weighting, contrast=contrast)
    for role, weighting, contrast in (
        ("T1", "t1", "no"),
        ("T1CE", "t1", "yes"),
        ("T2", "t2", "no"),
        ("FLAIR", "flair", "yes"),
    )
}


@pytest.mark.parametrize(("name", "study"), [("pet-ct", PAIR), ("brain-mr", BRAIN)])
def test_each_role_gets_its_series(name: str, study: dict[str, Series]) -> None:
    """Beside others that look alike."""
    others = [
        series("scout", "CT", 2, kind="localizer"),
        series("nac", "PT", 400, attenuation_corrected="no", acquired_at=AT),
        series("thick", "MR", 20, spacing_mm=5.0, weighting="t1", contrast="no"),
        series("adc", "MR", 30, weighting="adc", kind="derived"),
    ]
    (pick,) = verdict(name, *others, *study.values()).picks
    assert pick.inputs == {role: each.series_uid for role, each in study.items()}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"frame": "2.25.1"}, "FrameOfReferenceUID same as CT, found 2.25.1 in series …ac"),
        ({"acquired_at": "2030-01-01T12:00:00"}, "acquired within 60 minutes of CT"),
        ({"attenuation_corrected": None}, "attenuation_corrected equals yes, found nothing"),
    ],
)
def test_a_pet_that_does_not_belong_to_the_ct_is_refused(change: Any, told: str) -> None:
    """With what was found in both."""
    given = {"attenuation_corrected": "yes", "acquired_at": AT} | change
    refused = verdict("pet-ct", PAIR["CT"], series("ac", "PT", 300, **given))
    assert not refused.taken
    assert told in refused.reason


@pytest.mark.parametrize("role", BRAIN)
def test_a_brain_without_one_sequence_is_refused_by_its_role(role: str) -> None:
    """The others are told to fit."""
    refused = verdict("brain-mr", *(each for name, each in BRAIN.items() if name != role))
    assert refused.reason.startswith(f"{role}: no series fits")
    assert {told for name, told in refused.roles.items() if name != role} == {"1 series fits"}
