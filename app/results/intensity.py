"""Measure the intensity inside a segment, and say in what it is measured.

A mean without its unit is no finding: what the source does not say is not guessed.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from app.models.card import Code

Mask = NDArray[np.bool_]


class Scale(NamedTuple):
    """What the values of an image mean."""

    concept: Code
    unit: Code


_ACTIVITY = Code(scheme="DCM", value="110821", meaning="Nuclear Medicine Tomographic Activity")
_HOUNSFIELD = Scale(
    Code(scheme="DCM", value="112031", meaning="Attenuation Coefficient"),
    Code(scheme="UCUM", value="[hnsf'U]", meaning="Hounsfield unit"),
)
_SIGNAL = Scale(
    Code(scheme="DCM", value="110852", meaning="MR signal intensity"),
    Code(scheme="UCUM", value="[arb'U]", meaning="arbitrary unit"),
)
_OF_PET = {
    units: Scale(_ACTIVITY, Code(scheme="UCUM", value=value, meaning=meaning))
    for units, value, meaning in (
        ("BQML", "Bq/ml", "Becquerels/milliliter"),
        ("CNTS", "{counts}", "Counts"),
        ("CPS", "{counts}/s", "Counts per second"),
        ("PROPCNTS", "{propcounts}", "Proportional to counts"),
        ("PROPCPS", "{propcounts}/s", "Proportional to counts per second"),
    )
}
"""By Units (PS3.3 C.8.9.1.1.3)."""
_OF_UPTAKE = {
    (units, kind): Scale(
        Code(scheme="DCM", value=value, meaning=meaning),
        Code(scheme="UCUM", value=unit, meaning=unit_meaning),
    )
    for units, kind, value, meaning, unit, unit_meaning in (
        (
            *("GML", "BW", "126401", "SUVbw"),
            *("g/ml{SUVbw}", "Standardized Uptake Value body weight"),
        ),
        (
            *("GML", "LBM", "126402", "SUVlbm"),
            *("g/ml{SUVlbm}", "Standardized Uptake Value lean body mass (James)"),
        ),
        # Codes that say the formula in the unit as well are longer than a code value may be.
        ("GML", "LBMJAMES128", "126406", "SUVlbm(James128)", "g/ml", "gram per milliliter"),
        ("GML", "LBMJANMA", "126405", "SUVlbm(Janma)", "g/ml", "gram per milliliter"),
        (
            *("GML", "IBW", "126404", "SUVibw"),
            *("g/ml{SUVibw}", "Standardized Uptake Value ideal body weight"),
        ),
        (
            *("CM2ML", "BSA", "126403", "SUVbsa"),
            *("cm2/ml{SUVbsa}", "Standardized Uptake Value body surface area"),
        ),
    )
}
"""By Units and SUVType (PS3.3 C.8.9.1)."""
_USUAL_UPTAKE = {"GML": "BW", "CM2ML": "BSA"}
"""What is meant where SUVType is missing."""


def scale_of(header: Dataset) -> Scale | None:
    """Return what the values of a source image mean; None where it does not say or is not known."""
    modality = header.get("Modality")
    if modality == "CT":
        # Required where it is not Hounsfield units (PS3.3 C.8.2.1): US is "unspecified".
        return _HOUNSFIELD if (header.get("RescaleType") or "HU") == "HU" else None
    if modality == "MR":
        return _SIGNAL
    if modality == "PT":
        units = header.get("Units") or ""
        kind = header.get("SUVType") or _USUAL_UPTAKE.get(units, "")
        return _OF_PET.get(units) or _OF_UPTAKE.get((units, kind))
    return None


def mean_and_deviation(values_kji: NDArray[np.float32], mask_kji: Mask) -> tuple[float, float]:
    """Return the mean and the population standard deviation inside; NaN where there are none."""
    count, mean, squares = 0, 0.0, 0.0
    with np.errstate(invalid="ignore", over="ignore"):  # a source may hold values without end
        for plane, inside in zip(values_kji, mask_kji, strict=True):
            values = plane[inside].astype(np.float64)
            if not (more := len(values)):
                continue
            away = values.mean() - mean
            of_plane = np.square(values - values.mean()).sum()
            # Two sets are put together without taking the difference of large numbers.
            squares += of_plane + away**2 * count * more / (count + more)
            count += more
            mean += away * more / count
        return (float(mean), float(np.sqrt(squares / count))) if count else (np.nan, np.nan)
