"""Images that lie at one position: points in time, echoes and the like, or nothing tells why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.dicom.image import TELL_APART, TELL_APART_IN_STEP, Image
from app.dicom.series import Scalar
from app.dicom.tags import order

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
    time_told_by: str | None = None
    """The attribute that tells the points in time apart, where there are several."""


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
    for keyword in _IN_TIME:
        counts = {len({images[uid].get(keyword) for uid in place}) for place in at_place}
        if keyword in told_by and counts != {1}:
            return Together(
                time_points=tuple(sorted(counts)), duplicates=duplicates, time_told_by=keyword
            )
    return Together(time_points=(1,), duplicates=duplicates)


def by_time(images: Mapping[str, Image], at_place: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the images of each point in time, in order; nothing unless every position has all.

    The times of one point may differ from slice to slice, as one is acquired after the other: what
    counts is whether an image is the first, the second … at its position.
    """
    found = together(images, at_place)
    if found.time_told_by is None or len(found.time_points) > 1:
        return []
    points: list[list[str]] = [[] for _ in range(found.time_points[0])]
    for place in at_place:
        times = {uid: images[uid].get(found.time_told_by, ()) for uid in place}
        in_order = sorted({*times.values()}, key=lambda values: [order(each) for each in values])
        for uid, values in times.items():
            points[in_order.index(values)].append(uid)
    return points


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
