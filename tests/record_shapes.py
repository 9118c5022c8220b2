"""Record what pyradiomics 3.0.1 measures of the masks of tests/masks.py.

It needs an environment of its own, for pyradiomics is built against an older numpy than ours:

    python3.11 -m venv old
    old/bin/pip install 'numpy<2' 'setuptools<70' wheel cython versioneer \
        SimpleITK PyWavelets pykwalify six
    old/bin/pip install --no-build-isolation --no-deps pyradiomics==3.0.1
    old/bin/python -m tests.record_shapes

The last line, run in the project's folder, writes tests/unit/shapes.json anew. It was run with
numpy 1.26.4 and Python 3.11.
"""

import json
import logging
import math
from pathlib import Path

import numpy as np
import radiomics
import SimpleITK
from radiomics.shape import RadiomicsShape

from tests.masks import Mask, Spacing, digest, every_cube, masks

RECORDED = Path(__file__).parent / "unit/shapes.json"
FEATURES = (
    "Elongation",
    "Flatness",
    "LeastAxisLength",
    "MajorAxisLength",
    "Maximum3DDiameter",
    "MeshVolume",
    "MinorAxisLength",
    "Sphericity",
    "SurfaceArea",
    "SurfaceVolumeRatio",
    "VoxelVolume",
    "Compactness1",
    "Compactness2",
    "SphericalDisproportion",
    "Maximum2DDiameterSlice",
)
DIGITS = 9


def measured(mask: Mask, spacing: Spacing) -> list[float | None]:
    """Return the features in their order; None where pyradiomics gives no finite number."""
    image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing([float(step) for step in spacing[::-1]])
    shape = RadiomicsShape(image, image, label=1)
    values = [float(getattr(shape, f"get{name}FeatureValue")()) for name in FEATURES]
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in values]


def cropped(mask: Mask) -> Mask:
    """Return what is inside the smallest box, as pyradiomics' own extractor hands it on."""
    boxes = [slice(int(at.min()), int(at.max()) + 1) for at in np.nonzero(mask)]
    return mask[tuple(boxes)]


def main() -> None:
    """Write the file; a line for each mask."""
    assert radiomics.__version__.lstrip("v") == "3.0.1", radiomics.__version__
    logging.getLogger("radiomics").setLevel(logging.ERROR)
    lines = []
    for name, mask, spacing in (*every_cube(), *masks()):
        row = {"mask": name, "is": digest(mask), "values": measured(cropped(mask), spacing)}
        lines.append(json.dumps(row))
    text = f'{{"features": {json.dumps(FEATURES)},\n"masks": [\n' + ",\n".join(lines) + "\n]}\n"
    RECORDED.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    with np.errstate(invalid="ignore"):
        main()
