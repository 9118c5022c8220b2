"""Images that lie at one position: points in time, echoes and the like, or nothing tells why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.dicom.image import TELL_APART, TELL_APART_IN_STEP, Image
from app.dicom.series import Scalar

_IN_TIME = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "TriggerTime",
    "NominalPercentageOfCardiacPhase",
    *TELL_APART_IN_STEP,
)

Key = tuple[tuple[Scalar, ...] | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """What is told of the images that lie at one position."""

    time_points: tuple[int, ...]
    """Numbers of different points in time at the positions, distinct and sorted."""
    duplicates: list[list[str]]
    """Images at one position that nothing tells apart."""


def together(images: Mapping[str, Image], at_place: Sequence[Sequence[str]]) -> Together:
    """Tell the images at each place apart; those are given by their UIDs."""
    if all(len(place) == 1 for place in at_place):
        return Together(time_points=(1,), duplicates=[])
    told_by = list(TELL_APART)
    duplicates = _alike(images, at_place, told_by)
    for keyword in TELL_APART_IN_STEP:
        if duplicates and _in_step(images, at_place, keyword):
            told_by.append(keyword)
            duplicates = _alike(images, at_place, told_by)
    time_points = {1}
    for keyword in _IN_TIME:
        counts = {len({images[uid].get(keyword) for uid in place}) for place in at_place}
        if keyword in told_by and counts != {1}:
            time_points = counts
            break
    return Together(time_points=tuple(sorted(time_points)), duplicates=duplicates)


def _alike(
    images: Mapping[str, Image], at_place: Sequence[Sequence[str]], told_by: Sequence[str]
) -> list[list[str]]:
    found = []
    for place in at_place:
        groups: dict[Key, list[str]] = {}
        for uid in place:
            key = tuple(images[uid].get(keyword) for keyword in told_by)
            groups.setdefault(key, []).append(uid)
        found += [group for group in groups.values() if len(group) > 1]
    return found


def _in_step(images: Mapping[str, Image], at_place: Sequence[Sequence[str]], keyword: str) -> bool:
    """Say whether every position has as many values as every other one, and several."""
    counts = {len({images[uid].get(keyword) for uid in place}) for place in at_place}
    return len(counts) == 1 and counts != {1}
