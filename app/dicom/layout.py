"""Where the images of a series lie, told as facts.

All is measured by `app.dicom.stack`, as it is for volumes: a series of one orientation that is
placed, of one size, without tilt, gaps, deviation or images that differ at one position can be
built, and no other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from app.dicom.apart import by_time, together
from app.dicom.columns import instance_of, unpacked
from app.dicom.image import FRAMES, PIXELS, Image
from app.dicom.series import Scalar
from app.dicom.slices import orientation_of, pixel_spacing_of, position_of
from app.dicom.stack import (
    Vector,
    alike,
    depths_mm,
    normal_of,
    other_spacing,
    places,
    steps_of,
    tilt_deg,
    turned,
)
from app.errors import UnsupportedGeometry

Facts = dict[str, tuple[Scalar, ...]]

_UPRIGHT = 0.8
"""Least cosine between the normal and an axis of the patient for a plane to be named by it."""
_PLANES = ("sagittal", "coronal", "axial")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stack:
    """Images of one orientation: in the order of k the images at each place."""

    orientation: Vector
    positions: Vector
    """Of the first image at each place."""
    at_place: list[list[str]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Lie:
    """How one image lies; what its header does not say, or says wrongly, is None."""

    uid: str
    position: Vector | None
    orientation: Vector | None
    pixel_spacing_mm: Vector | None


def layout_facts(images: Mapping[str, Image]) -> Facts:
    """Return what follows from the places of the images."""
    lies = _lies(images)
    facts = _sizes(images, lies)
    stacks = _stacks(lies)
    if not stacks:
        return facts
    at_place = [place for stack in stacks for place in stack.at_place]
    facts["positions"] = (len(at_place),)
    facts["per_position"] = tuple(sorted({len(place) for place in at_place}))
    facts["orientations"] = (len(stacks),)
    facts["orientation"] = tuple(sorted({_plane(stack.orientation) for stack in stacks}))
    facts |= _repetitions(images, at_place)
    if len(stacks) == 1:
        facts |= _steps(stacks[0])
    return facts


def points_in_time(images: Mapping[str, Image]) -> list[list[str]]:
    """Return the images of each point in time, where every position has one for each of them.

    An object whose frames are of several points in time belongs to none; then nothing is returned.
    """
    images = unpacked(images)
    at_place = [place for stack in _stacks(_lies(images)) for place in stack.at_place]
    points = [
        list(dict.fromkeys(instance_of(name)[0] for name in point))
        for point in by_time(images, at_place)
    ]
    whole = len({uid for point in points for uid in point}) == sum(map(len, points))
    return points if whole else []


def to_compare(images: Mapping[str, Image]) -> list[str]:
    """Return the images, unpacked, whose pixels must be read to know whether duplicates differ."""
    images = unpacked(images)
    at_place = [place for stack in _stacks(_lies(images)) for place in stack.at_place]
    if all(len(place) == 1 for place in at_place):
        return []
    alike_uids = together(images, at_place).duplicates
    return sorted(uid for each in alike_uids for uid in each if PIXELS not in images[uid])


def _lies(images: Mapping[str, Image]) -> list[_Lie]:
    """Read how the images lie; the UID decides between images at one place, as for volumes."""
    return [
        _Lie(
            uid=uid,
            position=_or_none(position_of, _one(images[uid], "ImagePositionPatient")),
            orientation=_or_none(orientation_of, _one(images[uid], "ImageOrientationPatient")),
            pixel_spacing_mm=_or_none(pixel_spacing_of, _one(images[uid], "PixelSpacing")),
        )
        for uid in sorted(images)
    ]


def _one(image: Image, keyword: str) -> tuple[Scalar, ...]:
    """Return an attribute of a single-frame image; the frames of others lie in several places."""
    return () if FRAMES in image else image.get(keyword, ())


@lru_cache(maxsize=2**14)  # the images of a series share most of them
def _or_none(
    read: Callable[[tuple[Scalar, ...], str], Vector], values: tuple[Scalar, ...]
) -> Vector | None:
    try:
        return read(values, "")
    except UnsupportedGeometry:
        return None


def _stacks(lies: Sequence[_Lie]) -> list[Stack]:
    lying = [each for each in lies if each.position is not None and each.orientation is not None]
    if not lying:
        return []
    positions = np.array([each.position for each in lying])
    orientations = np.array([each.orientation for each in lying])
    uids = [each.uid for each in lying]
    return [
        _stack(positions[group], orientations[group], [uids[n] for n in group])
        for group in alike(orientations, turned)
    ]


def _stack(positions: Vector, orientations: Vector, uids: Sequence[str]) -> Stack:
    levels = places(positions, normal_of(orientations[0]))
    groups = [place for level in levels for place in level]
    first = [int(place[0]) for place in groups]
    return Stack(
        orientation=orientations[first[0]],
        positions=positions[first],
        at_place=[[uids[n] for n in place] for place in groups],
    )


def _plane(orientation: Vector) -> str:
    cosines = np.abs(normal_of(orientation))
    axis = int(cosines.argmax())
    return _PLANES[axis] if cosines[axis] >= _UPRIGHT else "oblique"


def _steps(stack: Stack) -> Facts:
    normal = normal_of(stack.orientation)
    steps = steps_of(stack.positions, normal)
    if steps is None:
        return {}
    depths = depths_mm(stack.positions, normal)
    return {
        "spacing_mm": (steps.spacing_mm,),
        "spacing_deviation": (steps.deviation,),
        "missing_slices": (steps.missing,),
        "tilt_deg": (round(tilt_deg(stack.positions, normal), 3),),
        "extent_mm": (round(float(depths[-1] - depths[0]) + steps.usual_mm, 3),),
    }


def _repetitions(images: Mapping[str, Image], at_place: Sequence[Sequence[str]]) -> Facts:
    found = together(images, at_place)
    facts: Facts = {
        "time_points": found.time_points,
        "duplicates": (sum(len(each) - 1 for each in found.duplicates),),
    }
    digests = [[images[uid].get(PIXELS) for uid in each] for each in found.duplicates]
    if any(len({*each} - {None}) > 1 for each in digests):
        facts["duplicates_differ"] = ("yes",)
    elif digests and all(None not in each for each in digests):
        facts["duplicates_differ"] = ("no",)
    return facts


def _sizes(images: Mapping[str, Image], lies: Sequence[_Lie]) -> Facts:
    """Return whether the images are placed, and how large they are."""
    by_pixels: dict[tuple[Scalar, ...], list[_Lie]] = {}
    for each in lies:
        pixels = images[each.uid].get("Rows", ()) + images[each.uid].get("Columns", ())
        by_pixels.setdefault(pixels, []).append(each)
    sizes, sides = 0, []
    for pixels, same in by_pixels.items():
        spacings = [lie.pixel_spacing_mm for lie in same if lie.pixel_spacing_mm is not None]
        groups = alike(np.array(spacings), other_spacing) if spacings else []
        sizes += len(groups) + (len(spacings) < len(same))
        if len(numbers := [each for each in pixels if isinstance(each, int)]) == 2:  # noqa: PLR2004  # rows, columns
            sides += [float((np.array(numbers) * spacings[group[0]]).min()) for group in groups]
    placed = all(
        not (each.position is None or each.orientation is None or each.pixel_spacing_mm is None)
        for each in lies
    )
    facts: Facts = {"placed": ("yes" if placed else "no",), "sizes": (sizes,)}
    if sides:
        facts["field_mm"] = (round(min(sides), 3),)
    return facts
