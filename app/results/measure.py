"""What is measured of each segment."""

from dataclasses import dataclass

from app.models.card import Code, Label


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One kind of measurement, as a report codes it."""

    name: str
    """Its key in tables, such as `MeshVolume`."""
    concept: Code
    unit: Code
    """In UCUM."""
    derivation: Code | None = None
    """How one number was made of many, such as their mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of one segment."""

    label: Label
    voxels: int
    """0: looked for and not found."""
    values: tuple[tuple[Quantity, float], ...]
    """Finite numbers; none where nothing was found."""
