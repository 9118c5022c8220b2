"""The pixels of one series as one regular volume; refuses what it cannot place.

Arrays are indexed [k, j, i]: slice, row, column. Affines map (k, j, i, 1) to LPS millimetres.
"""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.dicom.geometry import by_position, grid_of
from app.dicom.pixels import values_of, values_of_all
from app.dicom.slices import Slice, check_one_series, read_slices
from app.dicom.stack import TOLERANCE
from app.errors import StudyError, UnsupportedGeometry
from app.files import durable, read_json, write_json

log = logging.getLogger(__name__)

MAX_BYTES = 4 * 1024**3
"""Volumes that need more memory than this are refused before a pixel is decoded."""
_DIGEST = 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Volume:
    """The calibrated values of one series on its own grid."""

    voxels_kji: NDArray[np.float32]
    affine_lps: NDArray[np.float64]
    sop_uids: tuple[str, ...]
    """The instance of each slice, in the order of k."""
    frames: tuple[int, ...] | None = None
    """The frame of each slice in its instance, from 1, where instances have several frames."""
    frame_of_reference_uid: str
    series_uid: str

    @property
    def spacing_kji_mm(self) -> tuple[float, float, float]:
        """The distance between neighbouring voxels along each index."""
        k, j, i = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return float(k), float(j), float(i)


def build_volume(paths: Iterable[str | Path], *, tolerance: float = TOLERANCE) -> Volume:
    """Build the volume of one series, or raise the StudyError that says why there is none."""
    slices = [each for path in paths for each in read_slices(path)]
    check_one_series(slices)
    _check_memory(slices)
    groups = by_position(slices)
    _check_uids(groups)
    grid = grid_of(_one_each(groups), tolerance)
    first = grid.slices[0]
    voxels = np.empty((len(grid.slices), first.rows, first.columns), dtype=np.float32)
    for k, values in values_of_all(grid.slices):
        voxels[k] = values
    if any(each.lossy for each in grid.slices):
        log.info("series %s was compressed with loss", first.series_uid)
    return Volume(
        voxels_kji=voxels,
        affine_lps=grid.affine_lps,
        sop_uids=tuple(each.sop_uid for each in grid.slices),
        frames=_frames(grid.slices),
        frame_of_reference_uid=first.frame_of_reference_uid,
        series_uid=first.series_uid,
    )


def save(volume: Volume, folder: Path, role: str) -> None:
    """Write the volume durably; the JSON beside the array comes last and says that it is whole."""
    with durable(folder / f"{role}.npy") as file:
        np.save(file, volume.voxels_kji, allow_pickle=False)
    write_json(
        folder / f"{role}.json",
        {
            "affine_lps": volume.affine_lps.tolist(),
            "sop_uids": list(volume.sop_uids),
            "frames": None if volume.frames is None else list(volume.frames),
            "frame_of_reference_uid": volume.frame_of_reference_uid,
            "series_uid": volume.series_uid,
        },
    )


def load(folder: Path, role: str) -> Volume:
    """Return the volume that `save` wrote; its voxels are read from the file as they are used."""
    header = read_json(folder / f"{role}.json")
    return Volume(
        voxels_kji=np.load(folder / f"{role}.npy", mmap_mode="r", allow_pickle=False),
        affine_lps=np.array(header["affine_lps"], dtype=np.float64),
        sop_uids=tuple(header["sop_uids"]),
        frames=tuple(header["frames"]) if header.get("frames") else None,
        frame_of_reference_uid=header["frame_of_reference_uid"],
        series_uid=header["series_uid"],
    )


def digest_of_values(path: str | Path, frame: int | None = None) -> str | None:
    """Return a digest of the calibrated values of an image, or a frame; None where there are none.

    Images with one digest are copies for a volume, however their pixels are encoded.
    """
    try:
        slices = [each for each in read_slices(path) if each.frame == frame]
        _check_memory(slices)
        values = values_of(slices[0]) + 0.0  # no -0.0, which equals 0.0 in other bytes
    except StudyError:
        return None
    return hashlib.sha256(values.tobytes()).hexdigest()[:_DIGEST]


def _frames(slices: Sequence[Slice]) -> tuple[int, ...] | None:
    frames = tuple(each.frame for each in slices if each.frame is not None)
    return frames or None  # all or none, which `check_one_series` sees to


def _check_memory(slices: Sequence[Slice]) -> None:
    rows, columns = slices[0].rows, slices[0].columns
    needed = len(slices) * rows * columns * np.dtype(np.float32).itemsize
    if needed > MAX_BYTES:
        raise UnsupportedGeometry(
            f"{len(slices)} slices of {rows}×{columns} need {needed / 1024**3:.1f} GiB; the limit"
            f" is {MAX_BYTES / 1024**3:g} GiB, send a smaller reconstruction"
        )


def _check_uids(groups: Sequence[Sequence[Slice]]) -> None:
    """Refuse one SOP Instance UID at two places; at one place the pixels will be compared."""
    places = [{(each.sop_uid, each.frame) for each in group} for group in groups]
    if sum(map(len, places)) > len(set().union(*places)):
        raise StudyError(
            "one SOP Instance UID names slices at different positions; send the original images"
        )


def _one_each(groups: Sequence[Sequence[Slice]]) -> list[Slice]:
    """Return one slice for each place; copies are dropped, different pixels are refused."""
    for k, group in enumerate(groups):
        kept = values_of(group[0]) if len(group) > 1 else None
        for other in group[1:]:
            if not np.array_equal(values_of(other), kept):  # type: ignore[arg-type]
                raise UnsupportedGeometry(_several_at(groups, k))
            log.info("slice %d: %s is a copy of %s", k + 1, other.sop_uid, group[0].sop_uid)
    return [group[0] for group in groups]


def _several_at(groups: Sequence[Sequence[Slice]], k: int) -> str:
    counts = {len(group) for group in groups}
    if len(counts) == 1:
        return (
            f"every position holds {counts.pop()} different slices (time points, echoes or"
            " energies); send each as its own series"
        )
    return (
        f"slice {k + 1} of {len(groups)}: {len(groups[k])} different slices lie at one position;"
        " send the series without repetitions"
    )
