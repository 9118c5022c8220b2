"""Which of several fitting series is the best, and the words that say why."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.config_routes import Preference
from app.dicom.series import Scalar, Series
from app.pipeline.conditions import acquired_at, fact, shown_values

HUGE = 1e300
"""Beyond every measure; larger whole numbers are no float."""
UNKNOWN = math.inf
"""A series of which it is not known comes after those of which it is."""


@dataclass(frozen=True, slots=True)
class _Measure:
    """How one preference orders series: the smallest rank is the best."""

    rank: Callable[[Series], tuple[float, ...]]
    told: Callable[[Series], str]


def ranked(fitting: Sequence[Series], prefer: Sequence[Preference]) -> list[Series]:
    """Return the series from the best to the worst; the UID decides at last."""
    return sorted(fitting, key=lambda series: (*_ranks(series, prefer), series.key))


def why_preferred(fitting: Sequence[Series], prefer: Sequence[Preference]) -> str:
    """Return what makes the first of the ranked series better than the rest."""
    if len(fitting) == 1:
        return "the only one that fits"
    left, told = list(fitting), []
    for each in prefer:
        measure = _MEASURES[each]
        best = measure.rank(left[0])
        equal = [series for series in left if measure.rank(series) == best]
        if len(equal) < len(left):
            told.append((each.replace("_", " "), measure.told(left[0])))
        left = equal
    if not told:
        return f"the first by its UID of {len(fitting)} that fit equally"
    found = ", ".join(value for _, value in told if value)
    words = ", ".join(word for word, _ in told)
    return f"{words} of {len(fitting)} that fit" + (f" ({found})" if found else "")


def _ranks(series: Series, prefer: Sequence[Preference]) -> tuple[tuple[float, ...], ...]:
    return tuple(_MEASURES[each].rank(series) for each in prefer)


def _of_number(
    value: Callable[[Series], float | None], unit: str, *, most: bool = False
) -> _Measure:
    def rank(series: Series) -> tuple[float, ...]:
        number = value(series)
        return (UNKNOWN if number is None else (-number if most else number),)

    def told(series: Series) -> str:
        number = value(series)
        return "" if number is None else f"{number:g} {unit}"

    return _Measure(rank, told)


def _of_time(*, latest: bool) -> _Measure:
    def rank(series: Series) -> tuple[float, ...]:
        part = -series.part if latest else series.part
        began = acquired_at(series)
        if began is None:
            return UNKNOWN, part
        seconds = 86400.0 * began.toordinal() + (
            3600 * began.hour + 60 * began.minute + began.second + began.microsecond / 1e6
        )
        return -seconds if latest else seconds, part

    return _Measure(rank, lambda series: shown_values(fact(series, "acquired_at")))


def _of_word(name: str, wanted: str) -> _Measure:
    """Return the measure that puts series with the word first, and those with another one last."""

    def rank(series: Series) -> tuple[float, ...]:
        words = fact(series, name)
        if wanted in words:
            return (0 if len(words) == 1 else 0.5,)
        return (2 if words else 1,)

    return _Measure(rank, lambda _: "")


def _number(series: Series, name: str) -> float | None:
    return _only_number(fact(series, name))


def _only_number(values: Sequence[Scalar]) -> float | None:
    number = values[0] if len(values) == 1 else None
    return float(number) if isinstance(number, int | float) and abs(number) < HUGE else None


def _thickness_mm(series: Series) -> float | None:
    """Return the distance of slices; only where that is unknown what the header calls thickness."""
    spacing_mm = _number(series, "spacing_mm")
    return _only_number(series.tags.get("SliceThickness", ())) if spacing_mm is None else spacing_mm


def _slices(series: Series) -> float | None:
    return _number(series, "slices")


def _extent_mm(series: Series) -> float | None:
    return _number(series, "extent_mm")


_MEASURES = {
    Preference.THINNEST: _of_number(_thickness_mm, "mm"),
    Preference.THICKEST: _of_number(_thickness_mm, "mm", most=True),
    Preference.MOST_SLICES: _of_number(_slices, "slices", most=True),
    Preference.FEWEST_SLICES: _of_number(_slices, "slices"),
    Preference.LARGEST_EXTENT: _of_number(_extent_mm, "mm", most=True),
    Preference.SOFT_KERNEL: _of_word("kernel", "soft"),
    Preference.BONE_KERNEL: _of_word("kernel", "bone"),
    Preference.LUNG_KERNEL: _of_word("kernel", "lung"),
    Preference.ORIGINAL: _of_word("kind", "original"),
    Preference.WITH_CONTRAST: _of_word("contrast", "yes"),
    Preference.WITHOUT_CONTRAST: _of_word("contrast", "no"),
    Preference.EARLIEST: _of_time(latest=False),
    Preference.LATEST: _of_time(latest=True),
    Preference.ATTENUATION_CORRECTED: _of_word("attenuation_corrected", "yes"),
}
