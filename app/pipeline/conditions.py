"""Hold a series, a pair of series or a study against a condition, and say it in words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.config_routes import (
    SLICES,
    AcquiredWithin,
    Asking,
    Between,
    Condition,
    ContainsAll,
    ContainsNone,
    Equals,
    Matches,
    OneOf,
    Present,
    Relation,
    SameAs,
)
from app.dicom.series import PART_MARK, Scalar, Series

SHOWN = 4
"""How many values are told of an attribute that has more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One condition held against what was found."""

    condition: str
    found: str
    holds: bool
    alternative: int = 0
    """Which of the role's lists of conditions it stands in."""


def values_of(series: Series, condition: Asking | SameAs) -> tuple[Scalar, ...]:
    """Return the distinct values of what the condition asks for."""
    subject = condition.subject
    return fact(series, subject) if condition.asks_a_fact else series.tags.get(subject, ())


def fact(series: Series, name: str) -> tuple[Scalar, ...]:
    """Return the values of a fact; the number of slices is known of every series."""
    found = series.facts.get(name, ())
    return found or ((len(series.sop_uids),) if name == SLICES else ())


def values_of_study(study: Sequence[Series], condition: Asking) -> tuple[Scalar, ...]:
    """Return the distinct values of what the condition asks for, over all series of the study."""
    if condition.fact == "series":
        return (len(study),)
    if condition.fact == "objects":
        return (sum(len(series.sop_uids) for series in study),)
    found = (value for series in study for value in values_of(series, condition))
    return tuple(dict.fromkeys(found))


def checked(condition: Asking, values: Sequence[Scalar], alternative: int = 0) -> Check:
    """Hold the distinct values of an attribute or fact against the condition."""
    return Check(
        condition=words(condition),
        found=shown_values(values),
        holds=holds(condition, values),
        alternative=alternative,
    )


def holds(condition: Asking, values: Sequence[Scalar]) -> bool:
    """Say whether the distinct values of an attribute or fact meet the condition."""
    return _met(condition, values) is not condition.negated


def agree(relation: Relation, one: Series, other: Series) -> bool:
    """Say whether two series that fill two roles meet the condition between them."""
    if isinstance(relation, SameAs):
        values, others = values_of(one, relation), values_of(other, relation)
        met = bool(values) and set(map(_normal, values)) == set(map(_normal, others))
    else:
        began, other_began = acquired_at(one), acquired_at(other)
        met = (
            began is not None
            and other_began is not None
            and abs((began - other_began).total_seconds()) <= 60 * relation.minutes
        )
    return met is not relation.negated


def found_between(relation: Relation, one: Series, other: Series) -> str:
    """Say what was found in both series."""
    if isinstance(relation, SameAs):
        shown, others = shown_values(values_of(one, relation)), values_of(other, relation)
    else:
        shown, others = shown_values(fact(one, "acquired_at")), fact(other, "acquired_at")
    return f"{shown} in {short(one)} and {shown_values(others)} in {short(other)}"


def words(condition: Condition) -> str:
    """Return the condition as it is read aloud."""
    told = _words(condition)
    return f"not ({told})" if condition.negated else told


def shown_values(values: Sequence[Scalar]) -> str:
    """Return the first few values, or that there are none."""
    shown = ", ".join(_number(value) for value in values[:SHOWN])
    return (shown + (", …" if len(values) > SHOWN else "")) or "nothing"


def short(series: Series) -> str:
    """Return how a series is named in a sentence."""
    return named(series.key)


def named(key: str) -> str:
    """Return how the series of this key is named in a sentence."""
    return f"series {tail(key)}"


def tail(key: str) -> str:
    """Return the end of the key, by which people tell the series of a study apart."""
    uid, _, part = key.partition(PART_MARK)
    return f"…{uid[-8:]}" + (f" time {int(part)}" if part else "")


def acquired_at(series: Series) -> datetime | None:
    """Return when the acquisition began as far as the headers say, on the clock of the scanner."""
    try:
        (text,) = fact(series, "acquired_at")
        # Offsets are dropped: one of two series may lack its own.
        return datetime.fromisoformat(str(text)).replace(tzinfo=None)
    except ValueError:
        return None


def _met(condition: Asking, values: Sequence[Scalar]) -> bool:  # noqa: PLR0911  # one an operator
    match condition:
        case Equals():
            return bool(values) and all(_same(value, condition.value) for value in values)
        case OneOf():
            return bool(values) and all(_among(value, condition.values) for value in values)
        case Matches():
            return any(condition.found_in(str(value)) for value in values)
        case Between():
            return bool(values) and all(_is_between(value, condition) for value in values)
        case ContainsAll():
            return all(_among(wanted, values) for wanted in condition.values)
        case ContainsNone():
            return not any(_among(unwanted, values) for unwanted in condition.values)
        case Present():
            return bool(values)


def _is_between(value: Scalar, bounds: Between) -> bool:
    if not isinstance(value, int | float):
        return False
    low, high = bounds.low, bounds.high
    if bounds.exclusive and value in (low, high):
        return False
    return (low is None or low <= value) and (high is None or value <= high)


def _normal(value: Scalar) -> Scalar:
    """Return the value as DICOM means it: text without regard to case and padding."""
    return value.strip().casefold() if isinstance(value, str) else value


def _same(value: Scalar, wanted: Scalar) -> bool:
    return _normal(value) == _normal(wanted)


def _among(value: Scalar, several: Iterable[Scalar]) -> bool:
    return any(_same(value, each) for each in several)


def _words(condition: Condition) -> str:  # noqa: PLR0911  # one an operator
    match condition:
        case Equals():
            return f"{condition.subject} equals {_number(condition.value)}"
        case Matches():
            return f"{condition.subject} matches {condition.pattern}"
        case Between():
            return f"{condition.subject} {_bounds(condition)}"
        case Present():
            return f"{condition.subject} present"
        case SameAs():
            return f"{condition.subject} same as {condition.role}"
        case AcquiredWithin():
            return f"acquired within {condition.minutes:g} minutes of {condition.role}"
        case _:
            op = condition.op.replace("_", " ")
            return f"{condition.subject} {op} {', '.join(map(_number, condition.values))}"


def _bounds(between: Between) -> str:
    if between.high is None:
        return f"{'above' if between.exclusive else 'at least'} {_number(between.low)}"
    if between.low is None:
        return f"{'below' if between.exclusive else 'at most'} {_number(between.high)}"
    told = f"between {_number(between.low)} and {_number(between.high)}"
    return told + (", both excluded" if between.exclusive else "")


def _number(value: Scalar | None) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)
