"""Dice of the phantom model on patients it never saw, through the product's own runner.

The volumes are sampled where a series would have put them, in every orientation a scanner sends;
the truth is sampled on the same grid, so nothing is resampled on the way to the number.
"""

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.dicom.volume import Volume
from app.models import load_card, load_model
from tests.phantoms.body import LABELS, Affine, Phantom
from tests.phantoms.dicom import grid

BARS = {
    "body": 0.90,
    "lungs": 0.95,
    "liver": 0.95,
    "spleen": 0.90,
    "kidney_right": 0.90,
    "kidney_left": 0.90,
}

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]
CASES: tuple[tuple[int, str, Shape, Spacing], ...] = (
    # seed, orientation, shape and spacing [k, j, i]; training uses the seeds from 1000 on
    (9001, "axial", (100, 512, 512), (3.0, 0.78, 0.78)),
    (9002, "axial", (64, 200, 200), (5.0, 1.9, 1.9)),
    (9003, "axial", (160, 256, 256), (2.0, 1.5, 1.5)),
    (9004, "feet-first", (100, 256, 256), (3.0, 1.6, 1.6)),
    (9005, "feet-first", (70, 192, 192), (4.5, 2.1, 2.1)),
    (9006, "oblique", (100, 256, 256), (3.0, 1.6, 1.6)),
    (9007, "oblique", (80, 220, 220), (4.0, 1.8, 1.8)),
    (9008, "sagittal", (130, 200, 200), (3.0, 1.6, 2.0)),
    (9009, "sagittal", (100, 160, 200), (4.0, 2.0, 2.0)),
    (9010, "coronal", (100, 160, 200), (3.0, 2.0, 2.0)),
)


def evaluate(folder: Path, device: str) -> int:
    """Print a table of Dice; return 1 when an organ's mean is under its bar."""
    model = load_model(load_card(folder), device)
    names = [name for name in LABELS if name != "background"]
    print("| phantom | orientation | spacing mm | " + " | ".join(names) + " | s |")
    print("|---|---|---|" + "---|" * (len(names) + 1))
    table = []
    for seed, orientation, shape, spacing_mm in CASES:
        affine = grid(orientation, shape, spacing_mm)
        truth = Phantom(seed).truth(affine, shape)
        started = time.monotonic()
        labels = model.segment({"CT": volume_of(seed, affine, shape)})
        seconds = time.monotonic() - started
        scores = [dice(labels, truth, LABELS[name]) for name in names]
        table.append(scores)
        where = f"| {seed} | {orientation} | {'×'.join(map(str, spacing_mm))} | "
        print(where + " | ".join(f"{score:.3f}" for score in scores) + f" | {seconds:.1f} |")
    means = dict(zip(names, np.nanmean(table, axis=0), strict=True))
    print("| **mean** | | | " + " | ".join(f"**{means[name]:.3f}**" for name in names) + " | |")
    print("| bar | | | " + " | ".join(f"{BARS[name]:.2f}" for name in names) + " | |")
    under = [name for name in names if not means[name] >= BARS[name]]
    print(f"under the bar: {', '.join(under)}" if under else "every organ is above its bar")
    return 1 if under else 0


def volume_of(seed: int, affine: Affine, shape: Shape) -> Volume:
    """Return a phantom as the volume that its series would give."""
    return Volume(
        voxels_kji=Phantom(seed).hu(affine, shape).astype(np.float32),
        affine_lps=affine,
        sop_uids=tuple(f"2.25.{k + 1}" for k in range(shape[0])),
        frame_of_reference_uid="2.25.1",
        series_uid=f"2.25.{seed}",
    )


def dice(labels: NDArray[np.uint8], truth: NDArray[np.uint8], value: int) -> float:
    """Return twice the overlap over the sum; NaN where neither has the organ."""
    found, real = labels == value, truth == value
    total = int(found.sum()) + int(real.sum())
    return 2 * int((found & real).sum()) / total if total else float("nan")
