"""What encoding a segmentation takes, beside dcmqi's itkimage2segimage on the same masks.

`python -m tests.bench_seg [--rounds N]`. Series of 300 and 600 slices of 512×512, with 4
and with 104 segments. Ours is the whole stage: reading the sources' headers, encoding, writing and
reading back what was written. dcmqi's is its program, which reads sources, an NRRD and a JSON that
were made before, and checks nothing. Both run in turn, each time as a new process; the least of
the rounds counts. `warm` is the stage in a process that has encoded before, as in the node's
worker. Exit status 1 when a warm stage takes more than half of dcmqi's CPU time or a new process
more memory, or when 4 segments on 300 slices take more than a second of the worker.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from app.dicom.volume import Volume
from app.models.card import ModelCard
from app.results.check import check_seg
from app.results.labelmap import check_labelmap, write_labelmap
from app.results.result import Result, result_of
from app.results.segmentation import write_seg
from tests.properties.strategies import (
    FRAME_UID,
    SERIES_UID,
    axial,
    ct_slice,
    identity,
    sop_uid,
    tiny_card,
)
from tests.unit.encoding import NOW

SIDE = 512
CASES = ((4, 300), (4, 600), (104, 300), (104, 600))
_PACKAGE = importlib.util.find_spec("dcmqi")
DCMQI = Path(str(_PACKAGE and _PACKAGE.origin)).parent / "bin" / "itkimage2segimage"
FORMS = {"seg": (write_seg, check_seg), "labelmap": (write_labelmap, check_labelmap)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one run took."""

    cpu_s: float
    wall_s: float
    peak_mb: float = 0.0
    size_mb: float = 0.0


def affine() -> NDArray[np.float64]:
    """Return where the slices lie."""
    return np.asarray(axial(spacing=(1.5, 0.7, 0.7))[0])


def masks(segments: int, slices: int) -> NDArray[np.uint8]:
    """Return ellipsoids with ragged edges: few large ones, or many of a fifth of the slices."""
    rng = np.random.default_rng(segments)
    labels = np.zeros((slices, SIDE, SIDE), np.uint8)
    j, i = np.ogrid[:SIDE, :SIDE]
    half = slices * (0.45 if segments < 10 else 0.1)
    radius = 70 if segments < 10 else 25
    for value in range(1, segments + 1):
        y, x = rng.integers(100, SIDE - 100, 2)
        middle = slices / 2 if segments < 10 else rng.uniform(half, slices - half)
        for k in range(max(0, int(middle - half) + 1), min(slices, int(middle + half))):
            size = radius * (1 - ((k - middle) / half) ** 2) ** 0.5 + rng.uniform(0, 2)
            labels[k][((j - y) ** 2 + (i - x) ** 2) < size**2 + 20 * np.sin(j)] = value
    return labels


def card(segments: int) -> ModelCard:
    """Return a card with as many labels."""
    return tiny_card(range(1, segments + 1))


def prepare(folder: Path) -> None:
    """Write the sources, and for each case what dcmqi and the node's stage start from."""
    import SimpleITK as sitk  # noqa: N813, PLC0415  # no part of the stage that is measured

    (folder / "ct").mkdir()
    air = np.full((SIDE, SIDE), -1024)
    for k in range(max(slices for _, slices in CASES)):
        ds: Dataset = ct_slice(affine(), air, k)
        ds.save_as(folder / "ct" / f"{k:03}.dcm", enforce_file_format=True)
    for segments, slices in CASES:
        labels = masks(segments, slices)
        name = f"{segments}-{slices}"
        np.save(folder / f"{name}.npy", labels)
        image = sitk.GetImageFromArray(labels)
        image.SetSpacing((0.7, 0.7, 1.5))
        image.SetOrigin(affine()[:3, 3].tolist())
        sitk.WriteImage(image, str(folder / f"{name}.nrrd"))
        (folder / f"{name}.json").write_text(json.dumps(metadata(card(segments))))


def metadata(model: ModelCard) -> dict[str, object]:
    """Return what the card says in the words of dcmqi."""

    def code(of: object) -> dict[str, str]:
        return {
            "CodeValue": of.value,
            "CodingSchemeDesignator": of.scheme,
            "CodeMeaning": of.meaning,
        }

    attributes = [
        {
            "labelID": label.value,
            "SegmentDescription": label.name,
            "SegmentAlgorithmType": "AUTOMATIC",
            "SegmentAlgorithmName": model.name,
            "SegmentedPropertyCategoryCodeSequence": code(label.category),
            "SegmentedPropertyTypeCodeSequence": code(label.type),
            "recommendedDisplayRGBValue": [*label.colour],
        }
        for label in model.labels
    ]
    return {
        "ContentCreatorName": "phantom-organs",
        "SeriesDescription": model.outputs.series_description,
        "SeriesNumber": "302",
        "InstanceNumber": "1",
        "segmentAttributes": [attributes],
    }


def sources(folder: Path, slices: int) -> list[Path]:
    """Return the files of the first slices."""
    return sorted((folder / "ct").iterdir())[:slices]


def stage(folder: Path, segments: int, slices: int, form: str) -> None:
    """Do what the node does from the label map to a file that may leave."""
    write, check = FORMS[form]
    result: Result = result_of(
        np.load(folder / f"{segments}-{slices}.npy", allow_pickle=False),
        Volume(
            voxels_kji=np.zeros((slices, 1, 1), np.float32),  # encoding does not look at them
            affine_lps=affine(),
            sop_uids=tuple(sop_uid(k) for k in range(slices)),
            frame_of_reference_uid=FRAME_UID,
            series_uid=SERIES_UID,
        ),
        sources(folder, slices),
        card=card(segments),
        identity=identity(),
        node_version="0.1.0",
        now=NOW,
    )
    path = folder / f"{form}.dcm"
    with path.open("wb") as file:
        write(file, result)
    check(path, result)


def inside(times: int, action: Callable[[], None]) -> Cost:
    """Do it in this process; the cost is that of the last time."""
    for _ in range(times):
        cpu, wall = time.process_time(), time.perf_counter()
        action()
    return Cost(cpu_s=time.process_time() - cpu, wall_s=time.perf_counter() - wall)


def outside(call: Sequence[str | Path], written: Path) -> Cost:
    """Run a program to its end."""
    if written.is_file():
        written.unlink()
    started = time.perf_counter()
    null = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
    arguments = [str(each) for each in call]
    pid = os.posix_spawn(arguments[0], arguments, os.environ, file_actions=[null])
    _, status, used = os.wait4(pid, 0)
    wall_s = time.perf_counter() - started
    if status:
        raise SystemExit(f"{arguments[0]} ended with status {os.waitstatus_to_exitcode(status)}")
    return Cost(
        cpu_s=used.ru_utime + used.ru_stime,
        wall_s=wall_s,
        peak_mb=used.ru_maxrss * 1024 / 1e6,
        size_mb=written.stat().st_size / 1e6,
    )


def least(costs: Sequence[Cost]) -> Cost:
    """Return the least of each figure."""
    return Cost(
        cpu_s=min(each.cpu_s for each in costs),
        wall_s=min(each.wall_s for each in costs),
        peak_mb=min(each.peak_mb for each in costs),
        size_mb=costs[0].size_mb,
    )


def measure(folder: Path, segments: int, slices: int, rounds: int) -> dict[str, Cost]:
    """Measure one case, every program once a round."""
    name = f"{segments}-{slices}"
    ours = [sys.executable, "-m", "tests.bench_seg", "--folder", folder]
    case = ["--case", str(segments), str(slices)]
    theirs = folder / "dcmqi.dcm"
    dcmqi_call = [DCMQI, "--inputImageList", folder / f"{name}.nrrd", "--outputDICOM", theirs]
    dcmqi_call += ["--inputMetadata", folder / f"{name}.json", "--inputDICOMList"]
    dcmqi_call += [",".join(map(str, sources(folder, slices)))]
    costs: dict[str, list[Cost]] = {}
    for _ in range(rounds):
        costs.setdefault("dcmqi", []).append(outside(dcmqi_call, theirs))
        for form in FORMS:
            call = [*ours, *case, "--form", form]
            costs.setdefault(form, []).append(outside(call, folder / f"{form}.dcm"))
    for form in FORMS:
        warm = folder / "warm.json"
        outside([*ours, *case, "--form", form, "--warm", warm], warm)
        costs[f"{form} warm"] = [Cost(**json.loads(warm.read_text()))]
    return {what: least(each) for what, each in costs.items()}


def row(segments: int, slices: int, what: str, cost: Cost, theirs: Cost) -> str:
    """Return one line of the table."""
    new = f"{cost.peak_mb:.0f} | {cost.size_mb:.1f}" if cost.peak_mb else "– | –"
    ratio = f"{cost.cpu_s / theirs.cpu_s:.2f}"
    figures = f"{cost.cpu_s:.2f} | {ratio} | {cost.wall_s:.2f} | {new}"
    return f"| {segments} × {slices} | {what} | {figures} |"


def faults(segments: int, slices: int, costs: dict[str, Cost]) -> list[str]:
    """Return what takes more than it may."""
    ours, warm, theirs = costs["seg"], costs["seg warm"], costs["dcmqi"]
    case = f"{segments} segments on {slices} slices"
    found = []
    if warm.cpu_s > theirs.cpu_s / 2:
        found.append(f"{case}: more than half of dcmqi's CPU time")
    if ours.peak_mb > theirs.peak_mb:
        found.append(f"{case}: more memory than dcmqi")
    if (segments, slices) == CASES[0] and warm.wall_s > 1:
        found.append(f"{case}: more than a second")
    return found


def main() -> int:
    """Print the table as it is measured."""
    parser = argparse.ArgumentParser(description="Measure the encoding of segmentations.")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--case", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    parser.add_argument("--warm", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.prepare:
        prepare(given.prepare)
        return 0
    if given.case:
        cost = inside(3 if given.warm else 1, lambda: stage(given.folder, *given.case, given.form))
        if given.warm:
            given.warm.write_text(json.dumps({"cpu_s": cost.cpu_s, "wall_s": cost.wall_s}))
        return 0
    found = []
    sys.stdout.write("| segments × slices | | CPU s | of dcmqi's | wall s | peak MB | file MB |\n")
    sys.stdout.write("|---|---|---|---|---|---|---|\n")
    with tempfile.TemporaryDirectory(prefix="bench-seg-") as temporary:
        folder = Path(temporary)
        # In a process of its own: the peak of one that is started counts what its parent has.
        outside([sys.executable, "-m", "tests.bench_seg", "--prepare", folder], folder)
        for segments, slices in CASES:
            costs = measure(folder, segments, slices, given.rounds)
            for what, cost in costs.items():
                sys.stdout.write(row(segments, slices, what, cost, costs["dcmqi"]) + "\n")
                sys.stdout.flush()
            found += faults(segments, slices, costs)
    sys.stdout.writelines(f"{each}\n" for each in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
