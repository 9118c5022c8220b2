"""What no series can meet, and what follows from what, as far as conditions alone tell.

Nothing is said that is not certain. What a pattern matches is not looked into, nor are the words a
scanner may use; so a route of which nothing is said here may still never match.

The values of an attribute are a set. Some conditions hold of every value in it, some need a value
of a certain kind to be in it; both are decided by trying values. Between two numbers that stand in
the conditions all numbers are alike, so that one of them speaks for all, and so does one text that
stands in none.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import combinations, pairwise

from app.config_routes import (
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
    SameAs,
)
from app.dicom.series import Scalar
from app.pipeline.conditions import holds, words

Need = Callable[[Scalar], bool]


def impossible(together: Sequence[Condition], study: Sequence[Asking] = ()) -> str | None:
    """Return which conditions of a list cannot all be met, or nothing when they may be.

    `study` are the conditions on the study of which the list asks for one series.
    """
    for one, other in combinations(together, 2):
        if one.model_copy(update={"negated": not one.negated}) == other:
            return _told([one, other])
    for subject in dict.fromkeys(_subject(each) for each in together):
        own, around = _asking(subject, together), _asking(subject, study)
        if own and (found := _smallest_impossible(own, around)):
            return found
    return None


def follows(wanted: Condition, given: Sequence[Condition]) -> bool:
    """Say whether the condition holds wherever all the given ones do."""
    if wanted in given:
        return True
    if isinstance(wanted, SameAs | AcquiredWithin):
        return False
    turned = wanted.model_copy(update={"negated": not wanted.negated})
    return not _possible([*_asking(_subject(wanted), given), turned])


def _subject(condition: Condition) -> tuple[bool, str] | None:
    """Return what a condition asks of one series; nothing when it asks of two."""
    if isinstance(condition, SameAs | AcquiredWithin):
        return None
    return condition.asks_a_fact, condition.subject


def _asking(subject: tuple[bool, str] | None, several: Sequence[Condition]) -> list[Asking]:
    """Return the conditions that ask for the same thing."""
    return [
        each
        for each in several
        if not isinstance(each, SameAs | AcquiredWithin) and _subject(each) == subject
    ]


def _smallest_impossible(own: Sequence[Asking], study: Sequence[Asking]) -> str | None:
    """Look at one condition, at two, at all of them: the fewest are the easiest to mend."""
    both = [*((each, False) for each in own), *((each, True) for each in study)]
    for size in sorted({1, 2, len(both)}):
        for some in combinations(both, size):
            mine = [each for each, of_study in some if not of_study]
            around = [each for each, of_study in some if of_study]
            if mine and not _possible(mine, around):
                return _told(mine, around)
    return None


def _possible(own: Sequence[Asking], study: Sequence[Asking] = ()) -> bool:
    """Say whether some set of values meets all conditions; all ask for the same thing.

    Of the study's conditions only those count that hold of every value: the values of a series are
    among those of its study.
    """
    if all(holds(each, ()) for each in own):
        return True
    of_every = [each for each in (*own, *study) if _is_of_every_value(each)]
    left = [
        value
        for value in _samples([*own, *study])
        if all(holds(each, (value,)) for each in of_every)
    ]
    needs = [_anything, *(need for each in own for need in _needs(each))]
    absent = [each for each in own if isinstance(each, ContainsAll) and each.negated]
    return _all_met(needs, left) and all(
        any(
            _all_met(needs, [v for v in left if not _is(each, wanted)(v)]) for wanted in each.values
        )
        for each in absent
    )


def _is_of_every_value(condition: Asking) -> bool:
    if isinstance(condition, Present):
        return condition.negated  # of a value that is not there anything may be said
    kinds = Equals | OneOf | Between | ContainsNone
    return isinstance(condition, kinds) and not condition.negated


def _needs(condition: Asking) -> Iterator[Need]:
    """Yield what kinds of values must be there, if there are values at all."""
    if isinstance(condition, ContainsAll) and not condition.negated:
        yield from (_is(condition, wanted) for wanted in condition.values)
    elif condition.negated and not isinstance(condition, ContainsAll | Present | Matches):
        yield lambda value: holds(condition, (value,))


def _is(condition: ContainsAll, wanted: Scalar) -> Need:
    one = condition.model_copy(update={"values": (wanted,), "negated": False})
    return lambda value: holds(one, (value,))


def _anything(_: Scalar) -> bool:
    return True


def _all_met(needs: Iterable[Need], values: Sequence[Scalar]) -> bool:
    return all(any(need(value) for value in values) for need in needs)


def _samples(conditions: Iterable[Asking]) -> list[Scalar]:
    """Return a value of each kind that the conditions tell apart."""
    named = [value for each in conditions for value in _named(each)]
    numbers = sorted({v for v in named if isinstance(v, int | float) and math.isfinite(v)})
    texts = [value for value in named if isinstance(value, str)]
    other_text = "\U0010ffff" * (1 + max(map(len, texts), default=0))
    outside = [math.ceil(numbers[0]) - 1, math.floor(numbers[-1]) + 1] if numbers else [0]
    inside = [value for low, high in pairwise(numbers) for value in _between(low, high)]
    return [*named, *outside, *inside, other_text]


def _named(condition: Asking) -> Iterator[Scalar]:
    match condition:
        case Equals():
            yield condition.value
        case OneOf() | ContainsAll() | ContainsNone():
            yield from condition.values
        case Between():
            yield from (each for each in (condition.low, condition.high) if each is not None)
        case Matches() | Present():
            pass


def _between(low: float, high: float) -> Iterator[Scalar]:
    """Yield a whole number and a fraction between two numbers, as far as Python has them."""
    middle = (Fraction(low) + Fraction(high)) / 2
    found: list[Scalar] = [math.floor(middle)]
    if abs(middle) < 2**1000:  # larger ones are no float
        found.append(float(middle))
    yield from (each for each in found if isinstance(each, int | float) and low < each < high)


def _told(own: Sequence[Condition], study: Sequence[Condition] = ()) -> str:
    told = [
        *(f"`{words(each)}`" for each in own),
        *(f"`{words(each)}` of the study" for each in study),
    ]
    if len(told) == 1:
        return f"nothing meets {told[0]}"
    return f"nothing meets {', '.join(told[:-1])} and {told[-1]} together"
