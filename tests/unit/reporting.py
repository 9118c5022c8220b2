"""A card with organs on two sides and a lesion, and what might be measured of them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.models.card import Code, ModelCard
from app.results.measure import Measured, Quantity
from app.results.result import Result
from tests.properties.strategies import tiny_card


def code(scheme: str, value: str, meaning: str) -> Code:
    """Return a code."""
    return Code(scheme=scheme, value=value, meaning=meaning)


ANATOMY = code("SCT", "123037004", "Anatomical Structure")
ABNORMAL = code("SCT", "49755003", "Morphologically Altered Structure")
KIDNEY = code("SCT", "64033007", "Kidney")
LUNG = code("SCT", "39607008", "Lung")
RIGHT, LEFT = code("SCT", "24028007", "Right"), code("SCT", "7771000", "Left")
LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, LESION = 1, 2, 3, 4
"""Values of the labels, which are their places in the card as well."""

MM3, MM = code("UCUM", "mm3", "cubic millimeter"), code("UCUM", "mm", "millimeter")
HU = code("UCUM", "[hnsf'U]", "Hounsfield unit")
SUV = code("UCUM", "{SUVbw}g/ml", "Standardized Uptake Value body weight")
MEAN = code("SCT", "373098007", "Mean")
DEVIATION = code("SCT", "386136009", "Standard Deviation")
VOLUME = Quantity(
    name="VoxelVolume", concept=code("IBSI", "YEKZ", "Volume from Voxel Summation"), unit=MM3
)
SPHERICITY = Quantity(
    name="Sphericity",
    concept=code("IBSI", "QCFX", "Sphericity"),
    unit=code("UCUM", "1", "no units"),
)
LARGEST = Quantity(
    name="Maximum3DDiameter", concept=code("IBSI", "L0JK", "Maximum 3D Diameter of a Mesh"), unit=MM
)
LONG = Quantity(name="LongAxis", concept=code("SCT", "103339001", "Long Axis"), unit=MM)
SHORT = Quantity(name="ShortAxis", concept=code("SCT", "103340004", "Short Axis"), unit=MM)


def brightness(modality: str, derivation: Code) -> Quantity:
    """Return the quantity that the voxels of a modality are."""
    concept, unit = {
        "CT": (code("DCM", "112031", "Attenuation Coefficient"), HU),
        "PT": (code("DCM", "126401", "SUVbw"), SUV),
        "MR": (code("DCM", "110852", "MR signal intensity"), code("UCUM", "1", "no units")),
    }[modality]
    name = f"Intensity{derivation.meaning.replace(' ', '')}"
    return Quantity(name=name, concept=concept, unit=unit, derivation=derivation)


def card(modality: str = "CT", **outputs: Any) -> ModelCard:
    """Return the card of a model that looks for a liver, two kidneys and a lesion of the lung."""
    tiny = tiny_card().model_dump()
    common = {"colour": (1, 2, 3), "category": ANATOMY}
    tiny["labels"] = [
        {"name": "Liver", "type": code("SCT", "10200004", "Liver")},
        {"name": "Right kidney", "type": KIDNEY, "laterality": RIGHT},
        {"name": "Left kidney", "type": KIDNEY, "laterality": LEFT},
        {
            "name": "Läsion",
            "category": ABNORMAL,
            "type": code("SCT", "52988006", "Lesion"),
            "laterality": LEFT,
            "region": LUNG,
            "lesion": True,
        },
    ]
    tiny["labels"] = [
        common | each | {"value": value} for value, each in enumerate(tiny["labels"], 1)
    ]
    tiny["inputs"] = [{"role": modality, "modality": modality}]
    tiny["outputs"] |= outputs
    return ModelCard.model_validate(tiny)


def found(*values: int) -> NDArray[np.uint8]:
    """Return a label map of the small axial series with one voxel of each value."""
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 2, : len(values)] = values
    return labels


def measure(result: Result) -> list[Measured]:
    """Return what might be measured of what is in the label map."""
    modality = result.card.inputs[0].modality
    measured = []
    for label in result.card.labels:
        voxels = int(np.count_nonzero(result.mask(label)))
        values = [
            (VOLUME, 1_523_456.789012345),
            (SPHERICITY, 0.7251),
            (LARGEST, 31.25),
            (brightness(modality, MEAN), -12.5),
            (brightness(modality, DEVIATION), 0.25),
        ]
        if label.lesion:
            values += [(LONG, 12.34), (SHORT, 8.0)]
        measured.append(
            Measured(label=label, voxels=voxels, values=tuple(values) if voxels else ())
        )
    return measured
