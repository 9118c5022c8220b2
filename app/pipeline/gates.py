"""What a series must not be although it meets a role's conditions, each with code and sentence.

A gate judges by what is known: the headers may not have been read yet, or may not say it. What the
gates let through is judged again, pixel by pixel, when the volume is built (`app.dicom.volume`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.config_routes import Gates
from app.dicom.series import Scalar, Series
from app.dicom.stack import TOLERANCE, is_regular
from app.pipeline.conditions import fact, shown_values

_HUGE = 1e300
"""Beyond every measure; larger whole numbers are no float."""
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_NOT_ORIGINAL = frozenset({"derived", "reformatted", "projection", "secondary"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One gate that a series did not pass."""

    code: str
    reason: str
    """What was found and what to do."""


def refusals(series: Series, gates: Gates) -> tuple[Refusal, ...]:
    """Return every gate that the series does not pass."""
    found = [(code, judge(series, gates)) for code, judge in LIMITS.items()]
    found += [
        (code, judge(series)) for code, judge in KINDS.items() if getattr(gates, code) == "refuse"
    ]
    return tuple(Refusal(code=code, reason=reason) for code, reason in found if reason)


# -- limits: numbers of the route -----------------------------------------------------------------


def _too_few(series: Series, gates: Gates) -> str | None:
    count, what = _slices(series)
    if count < gates.min_slices:
        return f"{count:g} {what}, fewer than {gates.min_slices}; send the whole series"
    return None


def _too_many(series: Series, gates: Gates) -> str | None:
    count, what = _slices(series)
    if gates.max_slices is not None and count > gates.max_slices:
        return f"{count:g} {what}, more than {gates.max_slices}; send a smaller reconstruction"
    return None


def _too_short(series: Series, gates: Gates) -> str | None:
    extent_mm = _number(series, "extent_mm")
    if extent_mm is not None and gates.min_extent_mm and extent_mm < gates.min_extent_mm:
        return (
            f"{extent_mm:.1f} mm from end to end, less than {gates.min_extent_mm:g} mm;"
            " send a series that covers more"
        )
    return None


def _too_long(series: Series, gates: Gates) -> str | None:
    extent_mm = _number(series, "extent_mm")
    if extent_mm is not None and gates.max_extent_mm and extent_mm > gates.max_extent_mm:
        return (
            f"{extent_mm:.1f} mm from end to end, more than {gates.max_extent_mm:g} mm;"
            " send a series that covers less"
        )
    return None


# -- kinds: refused unless the route allows them --------------------------------------------------


def _missing_slice(series: Series) -> str | None:
    count = _number(series, "missing_slices")
    return f"{count:g} slice(s) missing; send the whole series" if count else None


def _duplicate(series: Series) -> str | None:
    count, differ = _number(series, "duplicates"), fact(series, "duplicates_differ")
    if not count or differ == ("no",):
        return None
    pixels = "with other pixels" if "yes" in differ else "whose pixels are not known"
    return (
        f"{count:g} image(s) at a position that is taken, {pixels};"
        " send the series without repetitions"
    )


def _spacing(series: Series) -> str | None:
    deviation, spacing_mm = _number(series, "spacing_deviation"), _number(series, "spacing_mm")
    if deviation is None:
        return None
    if is_regular(spacing_mm, deviation) if spacing_mm else deviation <= TOLERANCE:
        return None
    off = f"{deviation * spacing_mm:.2f} mm" if spacing_mm else f"{100 * deviation:.0f} % of a step"
    usual = f" of {spacing_mm:g} mm" if spacing_mm else ""
    place = f"their place on a regular grid{usual}"
    return f"slices lie up to {off} from {place}; send evenly spaced slices"


def _orientation(series: Series) -> str | None:
    names, count = fact(series, "orientation"), _number(series, "orientations")
    if len(names) < 2 and (count or 0) < 2:  # noqa: PLR2004  # one is what is wanted
        return None
    told = shown_values(names) if len(names) > 1 else f"{count:g}"
    return f"slices of several orientations ({told}); send each as its own series"


def _tilt(series: Series) -> str | None:
    tilt_deg = _number(series, "tilt_deg")
    if not tilt_deg:
        return None
    return (
        f"the slices are sheared by {tilt_deg:.1f}° (gantry tilt);"
        " send a reconstruction without tilt"
    )


def _several_per_position(series: Series) -> str | None:
    found = []
    if (times := _number(series, "time_points") or 1) > 1:
        found.append(f"{times:g} points in time")
    if len(values := fact(series, "b_values")) > 1:
        found.append(f"b-values {shown_values(values)}")
    counts = _numbers(fact(series, "per_position"))
    if not found and max(counts, default=1) > 1 and not _number(series, "duplicates"):
        found.append(f"{shown_values(counts)} images")
    if not found:
        return None
    return f"{' and '.join(found)} at a position; send each as its own series"


def _localizer(series: Series) -> str | None:
    kinds = {*_texts(fact(series, "kind")), *_texts(series.tags.get("ImageType", ()))}
    return (
        "a localizer, no stack of slices; send the series without" if "localizer" in kinds else None
    )


def _derived(series: Series) -> str | None:
    kinds = [kind for kind in _texts(fact(series, "kind")) if kind in _NOT_ORIGINAL]
    if not kinds:
        return None
    return f"its images are {shown_values(kinds)}; send the original images"


def _placed(series: Series) -> str | None:
    if "no" not in fact(series, "placed"):
        return None
    return (
        "images lack ImagePositionPatient, ImageOrientationPatient or PixelSpacing;"
        " send the original images"
    )


def _sizes(series: Series) -> str | None:
    count = _number(series, "sizes") or 1
    return f"images of {count:g} sizes; send each size on its own" if count > 1 else None


def _frame_of_reference(series: Series) -> str | None:
    count = _number(series, "frames_of_reference")
    if count is None:
        count = len(series.tags.get("FrameOfReferenceUID", ())) or 1
    if count == 1:
        return None
    if not count:
        return "no frame of reference, so no result could be placed on it; send the original images"
    return f"{count:g} frames of reference; send each as its own series"


def _multi_frame(series: Series) -> str | None:
    known = fact(series, "multi_frame")
    frames = _numbers(series.tags.get("NumberOfFrames", ()))
    if "yes" in known or (max(frames, default=1) > 1 and "enhanced" not in known):
        return "multi-frame images that do not say where each frame lies; send single frames"
    if len(known) > 1:
        return "single and multi-frame images; send each as its own series"
    if "mosaic" in _texts(series.tags.get("ImageType", ())):
        return "mosaics of slices; send single slices"
    return None


def _colour(series: Series) -> str | None:
    kinds = series.tags.get("PhotometricInterpretation", ())
    if _GREY.issuperset(kinds):
        return None
    return f"its pixels are {shown_values(kinds)}, no grey values; send the original images"


def _monochrome1(series: Series) -> str | None:
    if "MONOCHROME1" not in series.tags.get("PhotometricInterpretation", ()):
        return None
    return "its pixels are MONOCHROME1, the largest is black; send the original images"


def _lossy(series: Series) -> str | None:
    if "yes" not in fact(series, "lossy"):
        return None
    return "compressed with loss; send the original images"


LIMITS: dict[str, Callable[[Series, Gates], str | None]] = {
    "min_slices": _too_few,
    "max_slices": _too_many,
    "min_extent_mm": _too_short,
    "max_extent_mm": _too_long,
}
KINDS: dict[str, Callable[[Series], str | None]] = {
    "missing_slice": _missing_slice,
    "duplicate": _duplicate,
    "spacing": _spacing,
    "orientation": _orientation,
    "tilt": _tilt,
    "several_per_position": _several_per_position,
    "localizer": _localizer,
    "derived": _derived,
    "placed": _placed,
    "sizes": _sizes,
    "frame_of_reference": _frame_of_reference,
    "multi_frame": _multi_frame,
    "colour": _colour,
    "monochrome1": _monochrome1,
    "lossy": _lossy,
}


def _slices(series: Series) -> tuple[float, str]:
    """Return how many slices a volume of the series would have, as far as is known."""
    positions = _number(series, "positions")
    if positions is not None:
        return positions, "slice position(s)"
    return _number(series, "slices") or 0, "slice(s)"


def _number(series: Series, name: str) -> float | None:
    """Return the largest number that a fact holds; None when it is not known."""
    return max(_numbers(fact(series, name)), default=None)


def _numbers(values: Sequence[Scalar]) -> list[float]:
    return [float(each) for each in values if isinstance(each, int | float) and abs(each) < _HUGE]


def _texts(values: Sequence[Scalar]) -> list[str]:
    return [str(value).casefold() for value in values]
