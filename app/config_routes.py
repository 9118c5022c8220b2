"""The `routes:` part of the configuration: which series go to which model, in a closed language.

Conditions are typed by `op`. There is no expression to evaluate and no code to run: a rule is data,
so that every verdict can be told in words.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

import re2
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from app.config_door import Strict
from app.dicom.facts import FACTS
from app.dicom.keywords import fault_of

ROLE = r"^[A-Z][A-Z0-9_]{0,15}$"
NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
SLICES = "slices"
STUDY_FACTS: Mapping[str, str] = {
    "series": "number of series of the study",
    "objects": "number of objects of the study",
}
"""What can be asked of a study alone; name → meaning."""
MAX_PATTERN = 256
_MAX_PATTERN_BYTES = 1 << 20


def _as_written(value: Any) -> Any:
    """Undo YAML's reading of a bare yes or no: facts hold these words."""
    return ("yes" if value else "no") if isinstance(value, bool) else value


Value = Annotated[str | int | float, BeforeValidator(_as_written)]
RoleName = Annotated[str, Field(pattern=ROLE)]


class _Condition(Strict):
    model_config = ConfigDict(serialize_by_alias=True)

    negated: bool = Field(False, alias="not", description="true: met when it is otherwise not met")


class _Asking(_Condition):
    """A condition on one attribute or one fact."""

    tag: str | None = Field(None, description="DICOM keyword")
    fact: str | None = Field(None, description="name of a fact")

    @field_validator("tag")
    @classmethod
    def _is_an_attribute(cls, tag: str | None) -> str | None:
        if tag not in (None, SLICES) and (fault := fault_of(tag)):
            raise ValueError(fault)
        return tag

    @field_validator("fact")
    @classmethod
    def _is_a_fact(cls, fact: str | None) -> str | None:
        known = [*FACTS, *STUDY_FACTS]
        if fact is not None and fact not in known:
            close = get_close_matches(fact, known, n=3) or known
            raise ValueError(f"{fact!r} is no fact; there is {', '.join(close)}")
        return fact

    @model_validator(mode="after")
    def _asks_for_one_thing(self) -> Self:
        if (self.tag is None) == (self.fact is None):
            raise ValueError("give exactly one of tag and fact")
        return self

    @property
    def subject(self) -> str:
        """What is asked for."""
        return self.fact or self.tag or ""

    @property
    def asks_a_fact(self) -> bool:
        """Whether that is a fact; `tag: slices` is one too."""
        return self.fact is not None or self.tag == SLICES


class Equals(_Asking):
    """Every value equals the given one."""

    op: Literal["equals"]
    value: Value


class OneOf(_Asking):
    """Every value is one of the given ones."""

    op: Literal["one_of"]
    values: tuple[Value, ...] = Field(min_length=1)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.case_sensitive = False
    options.max_mem = _MAX_PATTERN_BYTES
    options.log_errors = False
    return re2.compile(pattern, options)


class Matches(_Asking):
    """Some value holds what the pattern describes, anywhere in it and without regard to case."""

    op: Literal["matches"]
    pattern: str = Field(min_length=1, max_length=MAX_PATTERN)

    @field_validator("pattern")
    @classmethod
    def _can_be_used(cls, pattern: str) -> str:
        try:
            _compiled(pattern)
        except re2.error as error:
            reason = error.args[0] if error.args else error
            told = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason
            raise ValueError(f"is no RE2 pattern that can be used: {told}") from None
        return pattern

    def found_in(self, text: str) -> bool:
        """Say whether the text holds the pattern; takes time linear in the text's length."""
        return _compiled(self.pattern).search(text) is not None


class Between(_Asking):
    """Every value is a number between the bounds."""

    op: Literal["between"]
    low: float | None = Field(None, allow_inf_nan=False)
    high: float | None = Field(None, allow_inf_nan=False)
    exclusive: bool = Field(False, description="true: the bounds themselves do not count")

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("give low, high or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("low is above high, so nothing is between them")
        return self


class ContainsAll(_Asking):
    """The values contain all of the given ones."""

    op: Literal["contains_all"]
    values: tuple[Value, ...] = Field(min_length=1)


class ContainsNone(_Asking):
    """The values contain none of the given ones."""

    op: Literal["contains_none"]
    values: tuple[Value, ...] = Field(min_length=1)


class Present(_Asking):
    """There is a value."""

    op: Literal["present"]


class SameAs(_Asking):
    """The values are the same, and some, in the series that fills another role."""

    op: Literal["same_as"]
    role: RoleName


class AcquiredWithin(_Condition):
    """Its acquisition and that of another role's series began at most so many minutes apart."""

    op: Literal["acquired_within"]
    minutes: float = Field(gt=0, le=525_600)
    role: RoleName


Asking = Equals | OneOf | Matches | Between | ContainsAll | ContainsNone | Present
Relation = SameAs | AcquiredWithin
StudyCondition = Annotated[Asking, Field(discriminator="op")]
Condition = Annotated[Asking | Relation, Field(discriminator="op")]

_ALL_OF: TypeAdapter[tuple[Condition, ...]] = TypeAdapter(tuple[Condition, ...])


def _lists(value: Any) -> Any:
    """Return one list of conditions as the only one of several."""
    one = isinstance(value, list | tuple) and not (
        value and all(isinstance(each, list | tuple) for each in value)
    )
    return (_ALL_OF.validate_python(value),) if one else value


Where = Annotated[tuple[tuple[Condition, ...], ...], BeforeValidator(_lists)]
_WHERE: TypeAdapter[Where] = TypeAdapter(Where)


class Preference(StrEnum):
    """What makes one fitting series better than another."""

    THINNEST = "thinnest"
    THICKEST = "thickest"
    MOST_SLICES = "most_slices"
    FEWEST_SLICES = "fewest_slices"
    LARGEST_EXTENT = "largest_extent"
    SOFT_KERNEL = "soft_kernel"
    BONE_KERNEL = "bone_kernel"
    LUNG_KERNEL = "lung_kernel"
    ORIGINAL = "original"
    WITH_CONTRAST = "with_contrast"
    WITHOUT_CONTRAST = "without_contrast"
    EARLIEST = "earliest"
    LATEST = "latest"
    ATTENUATION_CORRECTED = "attenuation_corrected"


Answer = Literal["refuse", "allow"]


class Gates(Strict):
    """What a series must not be, although it meets the conditions."""

    min_slices: int = Field(2, ge=1, description="fewer slices than this")
    max_slices: int | None = Field(None, ge=1, description="more slices than this; none: no limit")
    min_extent_mm: float | None = Field(None, gt=0, description="a shorter stack than this")
    max_extent_mm: float | None = Field(None, gt=0, description="a longer stack than this")
    missing_slice: Answer = Field("refuse", description="gaps where slices should lie")
    duplicate: Answer = Field(
        "refuse",
        description="several images at a place that nothing but, perhaps, their pixels tells apart;"
        " copies with the same pixels pass, the volume drops them",
    )
    spacing: Answer = Field("refuse", description="slices at uneven distances")
    orientation: Answer = Field("refuse", description="slices of several orientations")
    tilt: Answer = Field("refuse", description="a stack that is sheared, as a tilted gantry does")
    several_per_position: Answer = Field(
        "refuse", description="several points in time, b-values or echoes at each position"
    )
    localizer: Answer = Field("refuse", description="localizers among the images")
    derived: Answer = Field(
        "refuse", description="derived, reformatted, projected or secondary images"
    )
    placed: Answer = Field(
        "refuse", description="images without position, orientation or pixel spacing"
    )
    sizes: Answer = Field("refuse", description="images of several sizes")
    frame_of_reference: Answer = Field("refuse", description="no frame of reference, or several")
    multi_frame: Answer = Field(
        "refuse", description="frames that do not say where they lie, or a mosaic, in one image"
    )
    colour: Answer = Field("refuse", description="pixels that are no grey values")
    monochrome1: Answer = Field("refuse", description="grey values of which the largest is black")
    lossy: Answer = Field("allow", description="images that were compressed with loss")

    @model_validator(mode="after")
    def _limits_hold_something(self) -> Self:
        for what in ("slices", "extent_mm"):
            low, high = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{what} is above max_{what}, so nothing passes")
        return self


class Role(Strict):
    """Which series may fill an input of the model."""

    where: Where = Field(
        description="one list of conditions that must all hold, or several lists of which one must",
        min_length=1,
    )
    prefer: tuple[Preference, ...] = Field(
        (Preference.MOST_SLICES,), description="which of several fitting series is taken"
    )
    gates: Gates = Field(default_factory=Gates, description="what a fitting series must not be")
    split: Literal["time"] | None = Field(
        None, description="`time`: each point in time of a series is a candidate of its own"
    )

    @model_validator(mode="before")
    @classmethod
    def _long_form(cls, value: Any) -> Any:
        return (
            {"where": _WHERE.validate_python(value)} if isinstance(value, list | tuple) else value
        )


def _not_a_boolean(value: Any) -> Any:
    """Undo YAML's reading of a bare off."""
    return "off" if value is False else value


Mode = Annotated[Literal["live", "shadow", "off"], BeforeValidator(_not_a_boolean)]


class Destination(Strict):
    """One archive that gets the results of a route."""

    archive: str = Field(description="name of the archive; `sender`: the peer that sent the study")
    hold: bool = Field(False, description="true: results wait until a person releases them")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"archive": value} if isinstance(value, str) else value


class Route(Strict):
    """Which series of a study a model reads and where its results go."""

    name: str = Field(pattern=NAME, description="name of the route")
    model: str = Field(description="name of the model that runs")
    mode: Mode = Field(
        "live", description="`shadow`: everything runs, nothing is sent; `off`: takes no study"
    )
    study: tuple[StudyCondition, ...] = Field(
        (), description="conditions that the study must meet, all of them"
    )
    inputs: dict[RoleName, Role] = Field(
        min_length=1, description="per role of the model the conditions its series must meet"
    )
    take: Literal["one", "all"] = Field(
        "one", description="`all`: a job for each series that fits the first role"
    )
    deliver_to: tuple[Destination, ...] = Field(
        min_length=1, description="archives that get the results, by name"
    )
    priority: int = Field(0, ge=-100, le=100, description="higher runs first")

    @model_validator(mode="after")
    def _refers_to_what_is_there(self) -> Self:
        if faults := [*self._faults()]:
            raise ValidationError.from_exception_data("Route", faults)
        return self

    def _faults(self) -> Iterator[InitErrorDetails]:
        names = [each.archive for each in self.deliver_to]
        for n, name in enumerate(names):
            if name in names[:n]:
                yield _fault(("deliver_to", n), f"{name} stands there twice")
        for name, condition, place in self._conditions():
            if isinstance(condition, SameAs | AcquiredWithin):
                others = [each for each in self.inputs if each != name]
                if condition.role not in others:
                    there = ", ".join(others) or "none"
                    told = f"{condition.role} is no other role of this route; there is {there}"
                    yield _fault((*place, "role"), told)
            if not isinstance(condition, AcquiredWithin) and condition.fact in STUDY_FACTS:
                told = f"{condition.fact} is a fact of the study, not of a series; ask for it there"
                yield _fault((*place, "fact"), told)

    def _conditions(self) -> Iterator[tuple[str, Condition, tuple[str | int, ...]]]:
        for name, role in self.inputs.items():
            for n, together in enumerate(role.where):
                for k, condition in enumerate(together):
                    yield name, condition, ("inputs", name, "where", n, k)


def _fault(place: tuple[str | int, ...], sentence: str) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("route", sentence), loc=place, input=None)
