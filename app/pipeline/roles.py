"""Give each role of a route a series of its own, so that what is asked between roles holds.

The search is depth first over the roles in the order of the route and over their series from the
best to the worst: what it finds first is the answer, whatever the order of arrival.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from app.config_routes import Relation
from app.dicom.series import Series
from app.pipeline.conditions import Check, agree, found_between, words

MAX_STEPS = 20_000
"""How many combinations are tried for one route and study."""
_SHOWN, _TOLD = 100, 3
"""How many pairs of series are told of in a trace, and in a reason."""

Filling = Mapping[str, Series]
"""Role → the series that fills it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A series that fits a role by itself."""

    series: Series
    relations: tuple[tuple[Relation, ...], ...]
    """What is asked between roles, for each list of conditions that the series meets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What came of the search."""

    fillings: tuple[Filling, ...]
    left: tuple[Series, ...] = ()
    """Series of the first role for which nothing was found, where all were asked for."""
    exhausted: bool = False
    """Whether the search was cut short."""


Options = Mapping[str, Sequence[Option]]


def fill(options: Options, *, each_of_first: bool) -> Filled:
    """Return the best filling, or the best one for each series of the first role."""
    first, *_ = options
    partnered = _with_partners(options)
    search = _Search(partnered)
    if not each_of_first:
        found = search.best(partnered[first])
        return Filled(fillings=(found,) if found else (), exhausted=search.exhausted)
    each = [(option.series, search.best([option])) for option in options[first]]
    return Filled(
        fillings=tuple(found for _, found in each if found),
        left=tuple(series for series, found in each if not found),
        exhausted=search.exhausted,
    )


def _with_partners(options: Options) -> Options:
    """Leave out what no series of another role goes with, so that the search is short."""
    while True:
        left = {
            role: [each for each in several if _has_partners(each, options)]
            for role, several in options.items()
        }
        if sum(map(len, left.values())) == sum(map(len, options.values())):
            return left
        options = left


def _has_partners(option: Option, options: Options) -> bool:
    return any(
        all(
            any(
                agree(relation, option.series, other.series)
                for other in options[relation.role]
                if other.series.key != option.series.key
            )
            for relation in together
        )
        for together in option.relations
    )


class _Search:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._names = [*options]
        self._steps = 0

    @property
    def exhausted(self) -> bool:
        return self._steps >= MAX_STEPS

    def best(self, first: Sequence[Option]) -> Filling | None:
        found = self._extend({}, first) if all(self._options.values()) else None
        return {name: option.series for name, option in found.items()} if found else None

    def _extend(
        self, chosen: dict[str, Option], candidates: Sequence[Option]
    ) -> dict[str, Option] | None:
        name = self._names[len(chosen)]
        taken = {option.series.key for option in chosen.values()}
        for option in candidates:
            if self.exhausted:
                return None
            self._steps += 1
            extended = {**chosen, name: option}
            if option.series.key in taken or not _agrees(extended):
                continue
            if len(extended) == len(self._names):
                return extended
            if found := self._extend(extended, self._options[self._names[len(extended)]]):
                return found
        return None


def _agrees(chosen: Mapping[str, Option]) -> bool:
    """Say whether all that is asked between the roles filled so far holds."""
    return all(
        any(
            all(
                relation.role not in chosen
                or agree(relation, option.series, chosen[relation.role].series)
                for relation in together
            )
            for together in option.relations
        )
        for option in chosen.values()
    )


def relations_checked(options: Options, filling: Filling | None) -> list[tuple[str, Check]]:
    """Return what was asked between the series of a filling; without one, the pairs that failed."""
    held = {
        role: [each for each in several if filling is None or each.series is filling[role]]
        for role, several in options.items()
    }
    checked = (_between(*pair) for pair in islice(_pairs(held), MAX_STEPS))
    told = (each for each in checked if filling is not None or not each[1].holds)
    return list(islice(told, _SHOWN))


def _between(role: str, one: Series, relation: Relation, other: Series) -> tuple[str, Check]:
    return role, Check(
        condition=words(relation),
        found=found_between(relation, one, other),
        holds=agree(relation, one, other),
    )


def why_not_filled(
    options: Options, checked: Sequence[tuple[str, Check]], *, exhausted: bool
) -> dict[str, str]:
    """Return, for the roles that are at fault, why no series was found for all roles together."""
    if exhausted:
        told = f"gave up after {MAX_STEPS} combinations; make the conditions of its inputs narrower"
        return dict.fromkeys(options, told)
    reasons = {}
    for role in options:
        failed = [check for name, check in checked if name == role and not check.holds]
        pairs = [f"{check.condition}, found {check.found}" for check in failed[:_TOLD]]
        if len(failed) > _TOLD:
            pairs.append(f"and {len(failed) - _TOLD} more pairs")
        if pairs:
            reasons[role] = f"no series goes with the other inputs ({'; '.join(pairs)})"
    together = dict.fromkeys(options, "no combination of the series that fit fills all inputs")
    return reasons or _crowded(options) or together


def _pairs(options: Options) -> Iterator[tuple[str, Series, Relation, Series]]:
    """Yield every two series that something is asked between."""
    for role, several in options.items():
        for option in several:
            one = option.series
            for relation in dict.fromkeys(each for ands in option.relations for each in ands):
                for other in (each.series for each in options[relation.role]):
                    if other.key != one.key:
                        yield role, one, relation, other


def _crowded(options: Options) -> dict[str, str]:
    taken: set[str] = set()
    reasons = {}
    for role, several in options.items():
        free = [o.series for o in several if o.series.key not in taken]
        if free:
            taken.add(free[0].key)
        else:
            reasons[role] = "its only series already fills another input"
    return reasons
