"""Give each role of a route a series of its own, so that what is asked between roles holds.

The search is depth first over the roles in the order of the route and over their series from the
best to the worst: what it finds first is the answer, whatever the order of arrival.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from app.config_routes import Relation
from app.dicom.series import Series
from app.pipeline.conditions import Check, agree, found_between, short, words

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
    search = _Search(options)
    first, *_ = options
    if not each_of_first:
        found = search.best(options[first])
        return Filled(fillings=(found,) if found else (), exhausted=search.exhausted)
    each = [(option.series, search.best([option])) for option in options[first]]
    return Filled(
        fillings=tuple(found for _, found in each if found),
        left=tuple(series for series, found in each if not found),
        exhausted=search.exhausted,
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
        found = self._extend({}, first)
        return {name: option.series for name, option in found.items()} if found else None

    def _extend(
        self, chosen: dict[str, Option], candidates: Sequence[Option]
    ) -> dict[str, Option] | None:
        name = self._names[len(chosen)]
        taken = {option.series.series_uid for option in chosen.values()}
        for option in candidates:
            if self.exhausted:
                return None
            self._steps += 1
            extended = {**chosen, name: option}
            if option.series.series_uid in taken or not _agrees(extended):
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


def relations_checked(options: Options, filling: Filling | None = None) -> list[tuple[str, Check]]:
    """Hold every pair of fitting series, or those of one filling, against what is asked of it."""
    pairs = (
        (role, option, relation, other)
        for role, option, relation, other in _pairs(options)
        if filling is None or (_in(filling, role, option) and _in(filling, relation.role, other))
    )
    return [
        (
            role,
            Check(
                condition=words(relation),
                found=found_between(relation, option.series, other.series),
                holds=agree(relation, option.series, other.series),
            ),
        )
        for role, option, relation, other in islice(pairs, _SHOWN)
    ]


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
    return reasons or _crowded(options) or _together(options)


def _in(filling: Filling, role: str, option: Option) -> bool:
    return filling[role].series_uid == option.series.series_uid


def _pairs(options: Options) -> Iterator[tuple[str, Option, Relation, Option]]:
    for role, several in options.items():
        for option in several:
            for relation in dict.fromkeys(each for ands in option.relations for each in ands):
                for other in options[relation.role]:
                    if other.series.series_uid != option.series.series_uid:
                        yield role, option, relation, other


def _crowded(options: Options) -> dict[str, str]:
    taken: set[str] = set()
    reasons = {}
    for role, several in options.items():
        free = [o.series for o in several if o.series.series_uid not in taken]
        if free:
            taken.add(free[0].series_uid)
        else:
            reasons[role] = "its only series already fills another input"
    return reasons


def _together(options: Options) -> dict[str, str]:
    told = "no combination of the series that fit fills all inputs"
    return {
        role: f"{told} ({', '.join(short(o.series) for o in options[role])})" for role in options
    }
