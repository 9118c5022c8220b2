"""How long it takes to measure segments, on one core and as the node does it.

`python -m tests.bench_shape`. A phantom's liver on 512×512×300 by itself, then 104 segments of a
whole trunk through `measure`, then, where the environment has it, pyradiomics on the same liver.
Memory is what the process held at most, above what it held before. Exit
status 1 when the liver takes longer than two seconds.
"""

import re
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from app.dicom.volume import Volume
from app.results.measure import measure
from app.results.result import Result
from app.results.shape import shape_features
from tests.masks import LIVER_SHAPE, LIVER_SPACING, liver
from tests.phantoms.body import LABELS
from tests.properties.strategies import tiny_card

SEGMENTS = 104
MAY_TAKE_S = 2.0
KIB_IN_MIB = 1024


def main() -> int:
    """Print the table."""
    labels = liver()
    mask = labels == LABELS["liver"]
    size = f"{'×'.join(map(str, LIVER_SHAPE[::-1]))}, liver of {mask.sum() / 1e6:.1f} M voxels"
    say(f"{size}, {mask.sum() * np.prod(LIVER_SPACING) / 1e6:.2f} l")
    shape_features(np.ones((2, 2, 2), np.bool_), LIVER_SPACING)  # the table of cubes is made once
    taken = timed("liver, 14 features, one core", lambda: shape_features(mask, LIVER_SPACING))
    del mask
    labels = segments(labels)
    result = result_of(labels)
    timed(f"{SEGMENTS} segments, all that is measured", lambda: measure(result))
    if find_spec("radiomics"):
        mask = liver() == LABELS["liver"]
        timed("liver, pyradiomics", lambda: by_pyradiomics(mask))
    return int(taken > MAY_TAKE_S)


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def timed(what: str, action: Callable[[], object]) -> float:
    """Print seconds and memory of one action; return the seconds of processor time."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    held = memory_kib("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    grown = (memory_kib("VmHWM") - held) / KIB_IN_MIB
    say(f"{what:40} {wall:6.2f} s, {cpu:6.2f} s of processor, {grown:+.0f} MiB")
    return cpu


def memory_kib(name: str) -> int:
    """Return one of the kernel's figures of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)[1])


def segments(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut organs and body into pieces along their axes: 104 values, some large and most small."""
    k, j, i = (
        np.arange(n) // -(-n // parts) for n, parts in zip(labels.shape, (5, 2, 2), strict=True)
    )
    piece = (k[:, None, None] * 4 + j[:, None] * 2 + i).astype(np.uint8)
    cut = np.where(labels, (labels - 1) * 20 + piece + 1, 0).astype(np.uint8)
    values = np.flatnonzero(np.bincount(cut.ravel(), minlength=256)[1:]) + 1
    table = np.zeros(256, np.uint8)
    table[values[:SEGMENTS]] = np.arange(1, len(values[:SEGMENTS]) + 1)
    return table[cut]


def result_of(labels: NDArray[np.uint8]) -> Result:
    """Return what `measure` needs of a result; there are no files of 300 slices behind it."""
    affine = np.diag([*LIVER_SPACING[::-1], 1.0])[:, [2, 1, 0, 3]]
    volume = Volume(
        voxels_kji=np.zeros(labels.shape, np.float32) + 40,
        affine_lps=affine,
        sop_uids=(),
        frame_of_reference_uid="",
        series_uid="",
    )
    card = tiny_card((1,))
    every = [card.labels[0].model_copy(update={"value": n}) for n in range(1, SEGMENTS + 1)]
    card = card.model_copy(update={"labels": tuple(every)})
    source: Any = SimpleNamespace(headers=[{"Modality": "CT"}])
    made = SimpleNamespace(labels_kji=labels, volume=volume, card=card, sources=source)
    return cast("Result", made)


def by_pyradiomics(mask: NDArray[np.bool_]) -> None:
    """Let the original measure what `shape_features` measures."""
    sitk, shape = import_module("SimpleITK"), import_module("radiomics.shape")
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(LIVER_SPACING[::-1])
    shape.RadiomicsShape(image, image, label=1).execute()


if __name__ == "__main__":
    sys.exit(main())
